"""How far can the judge be trusted? Its verdicts against another judge's, against its own with other seeds, and against a person's.

    python -m pipelines.agreement DIR --judge.model A --judge.base-url URL --seeds 0 1            # itself, twice
    python -m pipelines.agreement DIR --judge.model A ... --other.model B --other.base-url URL    # another model
    python -m pipelines.agreement DIR --sheet sheet.jsonl                                         # for a person, with a page to answer on
    python -m pipelines.agreement DIR --judge.model A ... --gold sheet.jsonl                      # against them
    python -m pipelines.agreement DIR --about roles --judge.model A ...                           # the dataset's roles against a judge

The judge is asked what the perception reward asks: which facts does this trace state? For every trace they are the
annotations that were mined from it, and as many of another row, so that both verdicts occur. Or, about roles: does the answer
rest on this fact? The dataset's own roles are then one of the raters. Reports Cohen's kappa with a bootstrap interval over
rows, and how often the judge finds a trace's own facts in it and rejects foreign ones. Writes ``agreement.json`` into the
dataset; the card shows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from labeling.needs import needs_request
from pipelines.building.asked import asked_of
from pipelines.building.endpoints import endpoint_of
from pipelines.config import EndpointConfig
from pipelines.dataset import store
from pipelines.dataset.kappa import agreement
from pipelines.sheet import write_page, write_sheet
from rewardlib.cache import ReplyCache
from rewardlib.console import console, failing_clearly, say, table, tell
from rewardlib.judge import JudgeClient, JudgeEndpoint, JudgeError, JudgeRequest
from rewardlib.perception import verdict_request
from rewardlib.program import program

Unit = tuple[str, str, str]  # row, trace, fact
About = Literal["facts", "roles"]
OWN_ROLES = "the dataset"  # the rater that a dataset's roles are


class AgreementError(ValueError):
    """Nothing can be compared; the message says why and what to do."""


class JudgeConfig(EndpointConfig):
    """A judge whose verdicts are compared."""

    model: str | None = None
    """The model's name at the endpoint."""


@dataclass(frozen=True)
class Asked:
    """A trace, and the facts that it is asked about: its own ones first."""

    row: str
    trace: str
    text: str
    own: tuple[str, ...]
    foreign: tuple[str, ...]

    def units(self) -> list[Unit]:
        return [(self.row, self.trace, fact) for fact in (*self.own, *self.foreign)]

    def request(self) -> JudgeRequest:
        return verdict_request(self.text, (*self.own, *self.foreign))

    def verdict(self, reply: dict[str, bool], fact: str) -> bool | None:
        return reply[fact]

    def shown(self) -> dict[str, str]:
        """What a person has to know to answer."""
        return {"trace": self.text}


@dataclass(frozen=True)
class AskedRole:
    """A row, and the facts of which it is asked whether the answer rests on them."""

    row: str
    question: str
    answer: str
    facts: tuple[str, ...]

    def units(self) -> list[Unit]:
        return [(self.row, "", fact) for fact in self.facts]

    def request(self) -> JudgeRequest:
        return needs_request(self.question, self.answer, self.facts)

    def verdict(self, reply: dict[str, str], fact: str) -> bool | None:
        return {"yes": True, "no": False}.get(reply[fact])

    def shown(self) -> dict[str, str]:
        return {"question": self.question, "answer": self.answer}


def questions(rows: Sequence[dict[str, Any]]) -> list[Asked]:
    """What the judges are asked: every trace that was read, its own facts, and as many of the next row that it shares no statement with."""
    stated = [list(dict.fromkeys(a["statement"] for a in row["annotations"])) for row in rows]
    found = []
    for n, row in enumerate(rows):
        others = [fact for fact in stated[(n + 1) % len(rows)] if fact not in stated[n]]
        for trace in row["traces"]:
            own = dict.fromkeys(a["statement"] for a in row["annotations"] if a["trace_id"] == trace["trace_id"])
            if own:
                found.append(Asked(row["id"], trace["trace_id"], trace["text"], tuple(own), tuple(others[: len(own)])))
    return found


def role_questions(rows: Sequence[dict[str, Any]]) -> tuple[list[AskedRole], dict[Unit, bool]]:
    """What the judges are asked about roles, and what the dataset says."""
    asked: list[AskedRole] = []
    own: dict[Unit, bool] = {}
    for row in rows:
        roles = {a["statement"]: a["role"] for a in row["annotations"]}
        if roles:
            asked.append(AskedRole(row["id"], row["question"], asked_of(row, "").answer_in_words(), tuple(roles)))
        own |= {(row["id"], "", fact): role == "evidence" for fact, role in roles.items() if role != "unknown"}
    return asked, own


def verdicts(endpoint: JudgeEndpoint, asked: Sequence[Asked | AskedRole], cache: ReplyCache) -> tuple[dict[Unit, bool], int]:
    """A judge's verdicts, and how many questions it failed on. What it is unsure of is left out."""
    replies = JudgeClient(endpoint, cache).ask_all([a.request() for a in asked])
    found: dict[Unit, bool] = {}
    for a, reply in zip(asked, replies, strict=True):
        if not isinstance(reply, JudgeError):
            told = {unit: a.verdict(reply.value, f"f{n}") for n, unit in enumerate(a.units(), start=1)}
            found.update({unit: verdict for unit, verdict in told.items() if verdict is not None})
    return found, sum(isinstance(reply, JudgeError) for reply in replies)


def read_gold(path: Path) -> dict[Unit, bool]:
    """A person's verdicts from a filled-in sheet; lines without one are left out."""
    found: dict[Unit, bool] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            if line["present"] is not None:
                found[line["id"], line["trace_id"], line["fact"]] = bool(line["present"])
        except (ValueError, KeyError, TypeError) as error:
            raise AgreementError(f"{path}, line {number}: {error!r}; expected an object with id, trace_id, fact and present") from error
    return found


def sheet_lines(asked: Sequence[Asked | AskedRole]) -> list[dict[str, Any]]:
    """The questions for a person: ``present`` is to become true or false (about roles: whether the answer rests on the fact)."""
    return [
        {"id": row, "trace_id": trace, "fact": fact, "present": None, **a.shown()} for a in asked for row, trace, fact in sorted(a.units())
    ]


def compare(raters: dict[str, dict[Unit, bool]], asked: Sequence[Asked], judge: str) -> dict[str, Any]:
    """Every pair of raters, and how ``judge`` did on the facts whose verdict is known from where they were mined."""
    judged = [(unit[2] in a.own, raters[judge][unit]) for a in asked for unit in a.units() if unit in raters[judge]]
    own, foreign = ([present for is_own, present in judged if is_own is wanted] for wanted in (True, False))
    return {
        "rows": len({a.row for a in asked}),
        "units": sum(len(a.units()) for a in asked),
        "own_found": round(sum(own) / len(own), 4) if own else None,
        "foreign_rejected": round(1 - sum(foreign) / len(foreign), 4) if foreign else None,
        "pairs": pairs_of(raters),
    }


def pairs_of(raters: dict[str, dict[Unit, bool]]) -> list[dict[str, Any]]:
    """Every pair of raters: kappa with its interval, raw agreement, and how many units both have judged."""
    row_of = {unit: unit[0] for rater in raters.values() for unit in rater}
    return [{"a": a, "b": b, **agreement(raters[a], raters[b], row_of)} for a, b in combinations(raters, 2)]


def rate(
    judges: Sequence[JudgeConfig], seeds: Sequence[int], asked: Sequence[Asked | AskedRole], cache: ReplyCache
) -> dict[str, dict[Unit, bool]]:
    """The verdicts of every judge with every seed."""
    raters: dict[str, dict[Unit, bool]] = {}
    for config in judges:
        for seed in seeds:
            endpoint = endpoint_of(config.model_copy(update={"seed": seed}))
            name = f"{config.model}, seed {seed}" if len(seeds) > 1 else str(config.model)
            name += " (other)" if name in raters else ""  # the same model at another endpoint
            raters[name], failed = verdicts(endpoint, asked, cache)
            if failed:
                say(f"{name} failed on {failed} of {len(asked)} questions; they are left out of its comparisons")
    return raters


def main(
    dir: Annotated[Path, tyro.conf.Positional],
    judge: JudgeConfig = JudgeConfig(),
    other: JudgeConfig = JudgeConfig(),
    seeds: tuple[int, ...] = (0,),
    gold: Path | None = None,
    sheet: Path | None = None,
    rows: int = 200,
    about: About = "facts",
) -> None:
    """Compare a judge's verdicts with another's, with its own under other seeds, or with a person's.

    Args:
        dir: A folder written by flows.build_dataset.
        judge: The judge in question.
        other: A second judge; of another family it shares fewer blind spots.
        seeds: Sampling seeds; with several, and a temperature above 0, a judge is compared with itself.
        gold: A sheet that a person has filled in.
        sheet: Write the questions there for a person, and stop.
        rows: The dataset's first rows to use.
        about: What is judged: which facts a trace states, or which facts the answer rests on.
    """
    with failing_clearly(store.StoreError, AgreementError, OSError):
        columns = ["id", "question", "choices", "answer", "traces", "annotations"]
        told = list(islice(store.read_rows(dir, columns=columns), rows))
        asked, own = (questions(told), {}) if about == "facts" else role_questions(told)
        if not asked:
            raise AgreementError(f"no trace of the first {rows} rows of {dir} has an annotation, so there is nothing to ask a judge about")
        if sheet is not None:
            page, lines = sheet.with_suffix(".html"), sheet_lines(asked)
            write_sheet(sheet, lines)
            pictured = store.read_rows(dir, columns=["id", "image", "question", "choices", "answer"])
            write_page(page, lines, list(islice(pictured, rows)), about)
            say(f"wrote {len(lines)} questions to {sheet}, and {page} to answer them on: save there, and give what it saves as --gold")
            tell({"questions": len(lines), "sheet": sheet, "page": page})
            return
        person = {"a person": read_gold(gold)} if gold else {}
        if judge.model is None and not (about == "roles" and person):
            raise AgreementError("no judge is named; give --judge.model, or --sheet FILE to ask a person")
        judges = [config for config in (judge, other) if config.model is not None]
        raters = rate(judges, seeds, asked, ReplyCache(dir / ".work" / "replies.sqlite"))
        result = _measured(dir, about, raters | person, asked, own)
        (dir / "agreement.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report(result if about == "facts" else result["roles"], next(iter(raters), ""))


def _measured(dir: Path, about: About, raters: dict[str, dict[Unit, bool]], asked: Sequence[Any], own: dict[Unit, bool]) -> dict[str, Any]:
    """The contents of agreement.json, of which the part about the other subject stays."""
    path = dir / "agreement.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if about == "facts":
        kept = {"roles": before["roles"]} if "roles" in before else {}
        return compare(raters, asked, next(iter(raters))) | kept
    units = sum(len(a.units()) for a in asked)
    return before | {"roles": {"rows": len(asked), "units": units, "pairs": pairs_of({OWN_ROLES: own} | raters)}}


def report(result: dict[str, Any], judge: str) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [
        [p["a"], p["b"], str(p["units"]), shown(p["agreement"]), f"{shown(p['kappa'])} ({shown(p['low'])} to {shown(p['high'])})"]
        for p in result["pairs"]
    ]
    if lines:
        console.print(table("Agreement", ["rater", "other", "verdicts", "agree", "kappa (95 %)"], lines))
    if "own_found" in result:
        say(f"{judge} finds {shown(result['own_found'])} of the facts in the trace that they were mined from,")
        say(f"and rejects {shown(result['foreign_rejected'])} of another row's")
    tell(result, always=True)


if __name__ == "__main__":
    tyro.cli(main, prog=program())
