"""What ``train.evaluate`` runs: answers, what they rest on, and the figures about them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars
import torch
from rich.progress import track
from torch import Tensor

from rewardlib import Accuracy, AttentionContrast, Format
from rewardlib.console import console, failing_clearly, quiet_libraries, say, table, tell
from rewardlib.sample import VisualAttention
from train.data import Row, Rows, load_rows
from train.distributed import World
from train.engines import Engine
from train.engines.local import greedy
from train.evaluate import EvaluateSettings
from train.evaluation_page import SHOWN, looked_at, write_page
from train.forward import forward
from train.intervals import mcnemar, mean, share
from train.limits import COUNT, SHARE, SOME, within
from train.loading import load_model, load_servers
from train.measures import ImageAttention, RegionAttention
from train.policy import Policy, Prompt
from train.record import paint, png
from train.sampling import texts

ROLES = ("evidence", "control")  # what is erased from an image
FREE = {"out", "against", "device", "engine_url"}  # settings that change no outcome


def command(settings: EvaluateSettings) -> None:
    """``evaluate``, as a command: with a table."""
    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        summary = evaluate(settings)
    figures = {
        name: figure for name, figure in summary.items() if name not in ("against", "left_out")
    }
    lines = [[name.replace("_", " "), *_cells(figure)] for name, figure in figures.items()]
    console.print(table(settings.model, ["", "", "95 %", "rows"], lines))
    if summary["left_out"]:
        say(f"{len(summary['left_out'])} rows could not be used, and are named in evaluation.json")
    say(f"page     {settings.out / 'evaluation.html'}")
    if "against" in summary:
        say(
            "against {0}: {rows} rows, {gained} gained, {lost} lost, p = {p:.3g}".format(
                settings.against, **summary["against"]
            )
        )
    tell(summary)


def _cells(figure: dict[str, float | None]) -> list[str]:
    value, low, high = (
        "-" if figure[name] is None else f"{figure[name]:.3f}" for name in ("value", "low", "high")
    )
    return [value, f"{low} to {high}", f"{figure['n']}"]


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate, write the files, and return the summary."""
    within(settings, max_tokens=COUNT, max_prompt=COUNT, rows=COUNT, batch=COUNT, layers=SOME)
    within(settings, share=SHARE)
    other = None if settings.against is None else read_responses(settings.against)
    world = World(settings.device)
    rows = load_rows(settings.data, settings.template, settings.split)
    policy = load_model(settings.model, world.device)
    count = min(len(rows), settings.rows or len(rows))
    engine = load_servers(settings.engine_url, policy, world, settings.out)
    parts = Parts(settings, world)
    missing = parts.missing(count)
    world.wait()  # until everybody knows: from here on there are fewer
    starts = world.share(missing)
    for start in track(starts, "evaluating", transient=True, disable=not world.main):
        numbers = range(start, min(start + settings.batch, count))
        batch = [_encoded(policy, rows, i, settings) for i in numbers]
        asked = [each for each in batch if each is not None]
        outcomes = examine(policy, asked, settings, engine, shown=start < SHOWN)
        left = [asdict(rows.left_out[i]) for i in numbers if i in rows.left_out]
        parts.write(start, {"outcomes": outcomes, "left_out": left})
    world.wait()
    outcomes, left_out = parts.read(count)
    world.wait()
    if world.main:  # once everybody has read them, and whatever becomes of them
        parts.remove()
    if not outcomes:
        reasons = Counter(left["reason"] for left in left_out)
        told = ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common())
        raise ValueError(f"none of the {count} rows of {settings.data} can be used: {told}")
    shown = [outcome.pop("shown", None) for outcome in outcomes]
    summary = summarise(outcomes) | {"left_out": left_out}
    if not world.main:
        world.close()
        return summary
    polars.DataFrame(outcomes, infer_schema_length=None).write_parquet(
        settings.out / "responses.parquet"
    )
    _write(summary, settings.out)  # also if there is nothing to compare with
    if other is not None:
        summary["against"] = compare(outcomes, other)
        _write(summary, settings.out)
    write_page(settings.out, settings.model, summary, outcomes, shown, other, settings.against)
    # The weights, as servers were given them.
    shutil.rmtree(settings.out / "engine", ignore_errors=True)
    world.close()
    return summary


class Parts:
    """What is known so far, a file for each batch of rows: what a stopped evaluation goes on from,
    and where processes put together what each has found.
    """

    def __init__(self, settings: EvaluateSettings, world: World) -> None:
        self.folder, self.batch = settings.out / "parts", settings.batch
        asked = {name: str(v) for name, v in asdict(settings).items() if name not in FREE}
        told = self.folder / "settings.json"
        if world.main and (not told.exists() or json.loads(told.read_text()) != asked):
            shutil.rmtree(self.folder, ignore_errors=True)  # of another evaluation
            self.folder.mkdir(parents=True)
            told.write_text(json.dumps(asked) + "\n")
        world.wait()

    def missing(self, count: int) -> list[int]:
        """The first rows of the batches that are not there yet."""
        return [n for n in range(0, count, self.batch) if not self._path(n).exists()]

    def write(self, start: int, found: dict[str, Any]) -> None:
        """A batch's outcomes, whole or not there."""
        aside = self._path(start).with_suffix(".tmp")
        aside.write_text(json.dumps(found))
        aside.replace(self._path(start))

    def read(self, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """All outcomes in the order of their rows, and what was left out."""
        found = [json.loads(self._path(start).read_text()) for start in range(0, count, self.batch)]
        outcomes = [outcome for part in found for outcome in part["outcomes"]]
        return outcomes, [left for part in found for left in part["left_out"]]

    def remove(self) -> None:
        """Once they are read."""
        shutil.rmtree(self.folder)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:08d}.json"


def _write(summary: dict[str, Any], out: Path) -> None:
    (out / "evaluation.json").write_text(json.dumps(summary, indent=1) + "\n")


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """The responses of another evaluation; ``ValueError`` where there are none."""
    path = folder / "responses.parquet"
    try:
        outcomes = polars.read_parquet(path).select("id", "correct", "response").to_dicts()
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ValueError(
            f"--against {folder}: {path.name} cannot be read ({error}); name the --out of an "
            "evaluation"
        ) from error
    if not any(row["correct"] is not None for row in outcomes):
        raise ValueError(
            f"--against {folder}: no row of it has a gold answer, so there is nothing to compare"
        )
    return outcomes


@dataclass(frozen=True)
class Asked:
    """A row with its prompts, by what they show: image, and as far as the row has them evidence and
    control (erased).
    """

    row: Row
    prompts: dict[str, Prompt]


def encode(policy: Policy, row: Row, settings: EvaluateSettings) -> Asked:
    """A row, ready to be asked; ``RowError`` for one that cannot be."""
    prompts = {}
    for role, image in _views(row).items():
        images = () if image is None else (image, *row.images[1:])
        prompts[role] = policy.encode(row.messages, images, row.region, settings.max_prompt)
    return Asked(row, prompts)


def _encoded(policy: Policy, rows: Rows, index: int, settings: EvaluateSettings) -> Asked | None:
    """One of the rows, ready to be asked; None for one that cannot be, which is left out with a
    word.
    """
    return rows.use(index, lambda row: encode(policy, row, settings))


def examine(
    policy: Policy,
    asked: Sequence[Asked],
    settings: EvaluateSettings,
    engine: Engine | None = None,
    shown: bool = False,
) -> list[dict[str, Any]]:
    """The rows' responses, and what they say of the model; None where a row has no gold answer,
    region or counterfactual image.

    engine: what answers; the policy's own decoder by default. shown: whether the page is going to
        show them, and ``shown`` of each holds what it needs.
    """
    if not asked:
        return []
    prompts = [prompt for one in asked for prompt in one.prompts.values()]
    answers = iter(greedy(policy, prompts, settings.max_tokens, engine))
    told = [
        {role: (prompt, next(answers)) for role, prompt in one.prompts.items()} for one in asked
    ]
    return [
        _outcome(policy, one.row, each, settings, shown)
        for one, each in zip(asked, told, strict=True)
    ]


def _views(row: Row) -> dict[str, Any]:
    """The row's first image, and without its evidence or something else, by role."""
    views = {"image": row.images[0] if row.images else None}
    for role in ROLES:
        erased = getattr(row.sample, f"{role}_image")
        if erased is not None:
            views[role] = erased
    return views


def _outcome(
    policy: Policy,
    row: Row,
    answers: dict[str, tuple[Prompt, Tensor]],
    settings: EvaluateSettings,
    shown: bool,
) -> dict[str, Any]:
    """What a row's responses say of the model. answers: by role, the prompt and the tokens of the
    response.
    """
    prompt, tokens = answers["image"]
    said = dict(zip(answers, texts(policy, [ids for _, ids in answers.values()]), strict=True))
    layers = settings.layers
    with torch.no_grad():
        output = forward(
            policy, prompt, [tokens], measures=[RegionAttention(layers), ImageAttention(layers)]
        )
    on_region, on_image = output.measured["attention"].cpu().unbind(dim=1)
    sizes = float(prompt.region.sum()), float(prompt.image.sum())
    sample = replace(
        row.sample,
        response=said["image"],
        opening=policy.opening,
        response_ids=tuple(tokens.tolist()),
        entropy=output.entropy.cpu().numpy(),
        attention=VisualAttention(on_region.numpy(), on_image.numpy(), *sizes),
        box_space=policy.family.box_space(prompt.images, row.images) if row.images else None,
    )
    outcome: dict[str, Any] = {
        "id": row.id,
        "question": row.question,
        "answer": row.sample.answer,
        "response": said["image"],
        "length": len(tokens),
        "correct": Accuracy()([sample])[0],
        "format": Format(settings.template)([sample])[0],
        "attention_contrast": AttentionContrast(settings.share)([sample])[0],
    }
    region = prompt.region[prompt.image]
    most = output.measured["image_attention"].mean(dim=0)
    outcome["pointing"] = float(region[most.argmax()] > 0) if region.any() else None
    for role in ROLES:
        erased = replace(sample, response=said[role]) if role in said else None
        outcome[f"correct_without_{role}"] = None if erased is None else Accuracy()([erased])[0]
    outcome["shown"] = None
    if shown and row.images:
        attention = paint(prompt, most).tolist()
        outcome["shown"] = looked_at(png(row.images[0]), row.boxes, attention)
    return outcome


def summarise(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every figure as {"value", "low", "high", "n"}: 95 % intervals, Wilson's for shares."""
    summary: dict[str, Any] = {
        "accuracy": share([f["correct"] for f in outcomes]),
        "format": share([f["format"] for f in outcomes]),
        "length": mean([f["length"] for f in outcomes]),
        "attention_contrast": mean([f["attention_contrast"] for f in outcomes]),
        "pointing_game": share([f["pointing"] for f in outcomes]),
    }
    for role in ROLES:
        pairs = [(f["correct"], f[f"correct_without_{role}"]) for f in outcomes]
        summary[f"drop_without_{role}"] = mean(
            [a - b for a, b in pairs if a is not None and b is not None]
        )
    return summary


def compare(
    outcomes: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """McNemar's exact test on rows that both answered: how many only one got right, and the
    two-sided p-value.
    """
    theirs = {o["id"]: o["correct"] for o in other if o["correct"] is not None}
    pairs = [
        (f["correct"], theirs[f["id"]])
        for f in outcomes
        if f["correct"] is not None and f["id"] in theirs
    ]
    if not pairs:
        raise ValueError(
            "the two evaluations have no row in common: evaluate both on the same data"
        )
    gained, lost = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return {"rows": len(pairs), "gained": gained, "lost": lost, "p": mcnemar(gained, lost)}
