"""Does the model answer, does it look, and does it look because it must?

    python -m train.evaluate --data dataset --model runs/grpo/checkpoint-200 --out runs/grpo/evaluation
    python -m train.evaluate --data dataset --model BASE --out runs/base --against runs/grpo/evaluation

For every row, one greedy response, and from it: accuracy, format, length; SAYO's attention contrast; the pointing game (does the image
token that the response attends to most lie in the labelled region?); and how much accuracy falls when the evidence is erased from the
image, and when something else of the same shape is. ``--against`` compares with another evaluation of the same rows by McNemar's exact
test. Writes evaluation.json and responses.parquet, and prints a table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import comb, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rewardlib.text import Template

if TYPE_CHECKING:
    from torch import Tensor

    from train.data import Row, Rows
    from train.policy import Policy, Prompt

Z = 1.96  # 95 % intervals
ROLES = ("evidence", "control")  # what is erased from an image


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """An evaluation."""

    data: str
    """rows that were not trained on: a folder made by flows.build_dataset, Parquet or JSON files, or a Hub id"""
    split: str | None = None
    """which split of the data; if left out, the only one that there is, or train"""
    model: str
    """a Hub id, a folder or a checkpoint"""
    out: Path = Path("runs/evaluation")
    template: Template = "think-answer"
    """what the prompt asks for"""
    max_tokens: int = 512
    max_prompt: int = 4096
    layers: tuple[int, ...] = (-1,)
    """whose attention is measured"""
    rows: int | None = None
    """how many rows; all by default"""
    batch: int = 16
    """rows answered at once"""
    against: Path | None = None
    """the folder of another evaluation of the same rows"""
    device: str = "auto"


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate, write the files, and return the summary."""
    import polars
    from rich.progress import track

    from train.data import by_reason, load_rows
    from train.limits import COUNT, SOME, within
    from train.policy import load_model

    within(settings, max_tokens=COUNT, max_prompt=COUNT, rows=COUNT, batch=COUNT, layers=SOME)
    other = None if settings.against is None else read_responses(settings.against)
    rows = load_rows(settings.data, settings.template, settings.split)
    policy = load_model(settings.model, settings.device)
    count = min(len(rows), settings.rows or len(rows))
    found: list[dict[str, Any]] = []
    for start in track(range(0, count, settings.batch), "evaluating", transient=True):
        batch = [_encoded(policy, rows, i, settings) for i in range(start, min(start + settings.batch, count))]
        found += examine(policy, [asked for asked in batch if asked is not None], settings)
    if not found:
        raise ValueError(f"none of the {count} rows of {settings.data} can be used: {by_reason(rows)}")
    summary = summarise(found)
    summary["left_out"] = [asdict(left) for left in rows.left_out.values()]
    settings.out.mkdir(parents=True, exist_ok=True)
    polars.DataFrame(found, infer_schema_length=None).write_parquet(settings.out / "responses.parquet")
    _write(summary, settings.out)  # also if there is nothing to compare with
    if other is not None:
        summary["against"] = compare(found, other)
        _write(summary, settings.out)
    return summary


def _write(summary: dict[str, Any], out: Path) -> None:
    (out / "evaluation.json").write_text(json.dumps(summary, indent=1) + "\n")


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """The responses of another evaluation; ``ValueError`` where there are none."""
    import polars

    path = folder / "responses.parquet"
    try:
        found = polars.read_parquet(path, columns=["id", "correct"]).to_dicts()
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ValueError(f"--against {folder}: {path.name} cannot be read ({error}); name the --out of an evaluation") from error
    if not any(row["correct"] is not None for row in found):
        raise ValueError(f"--against {folder}: no row of it has a gold answer, so there is nothing to compare")
    return found


@dataclass(frozen=True)
class Asked:
    """A row with its prompts, by what they show: image, and as far as the row has them evidence and control (erased)."""

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
    """One of the rows, ready to be asked; None for one that cannot be, which is left out with a word."""
    return rows.use(index, lambda row: encode(policy, row, settings))


def examine(policy: Policy, asked: Sequence[Asked], settings: EvaluateSettings) -> list[dict[str, Any]]:
    """The rows' responses, and what they show; None where a row has no gold answer, region or counterfactual image."""
    if not asked:
        return []
    answers = iter(_answers(policy, [prompt for one in asked for prompt in one.prompts.values()], settings))
    told = [{role: (prompt, next(answers)) for role, prompt in one.prompts.items()} for one in asked]
    return [_shown_by(policy, one.row, each, settings) for one, each in zip(asked, told, strict=True)]


def _views(row: Row) -> dict[str, Any]:
    """The row's first image, and without its evidence or something else, by role."""
    found = {"image": row.images[0] if row.images else None}
    return found | {role: image for role in ROLES if (image := getattr(row.sample, f"{role}_image")) is not None}


def _answers(policy: Policy, prompts: Sequence[Prompt], settings: EvaluateSettings) -> list[Tensor]:
    """The most likely response to every prompt, as tokens."""
    import torch

    from train.rollout import Sampling, rollout

    found = rollout(policy, prompts, 1, Sampling(settings.max_tokens, temperature=0), [torch.Generator(policy.device)] * len(prompts))
    return [completions[0] for completions in found]


def _shown_by(policy: Policy, row: Row, answers: dict[str, tuple[Prompt, Tensor]], settings: EvaluateSettings) -> dict[str, Any]:
    """What a row's responses show. answers: by role, the prompt and the tokens of the response."""
    import torch

    from rewardlib import Accuracy, AttentionContrast, Format
    from train.rollout import texts
    from train.score import score

    prompt, tokens = answers["image"]
    said = dict(zip(answers, texts(policy, [ids for _, ids in answers.values()]), strict=True))
    with torch.no_grad():
        scored = score(policy, prompt, [tokens], needs={"attention", "maps"}, layers=settings.layers)
    sample = replace(row.sample, response=said["image"], opening=policy.opening, response_ids=tuple(tokens.tolist()))
    sample = replace(sample, entropy=scored.entropy.cpu().numpy())
    sample = replace(sample, attention=None if scored.attention is None else scored.attention[0])
    found: dict[str, Any] = {
        "id": row.id,
        "question": row.question,
        "answer": row.sample.answer,
        "response": said["image"],
        "length": len(tokens),
    }
    found |= {"correct": Accuracy()([sample])[0], "format": Format(settings.template)([sample])[0]}
    found["attention_contrast"] = AttentionContrast()([sample])[0]
    region = prompt.region[prompt.image]
    found["pointing"] = float(region[scored.maps[0].argmax()] > 0) if scored.maps and region.any() else None
    for role in ROLES:
        found[f"correct_without_{role}"] = Accuracy()([replace(sample, response=said[role])])[0] if role in said else None
    return found


# ---------------------------------------------------------------------------------------------------------------------------------------
# Statistics


def summarise(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every figure as {"value", "low", "high", "n"}: 95 % intervals, Wilson's for shares."""
    summary: dict[str, Any] = {
        "accuracy": share([f["correct"] for f in found]),
        "format": share([f["format"] for f in found]),
        "length": mean([f["length"] for f in found]),
        "attention_contrast": mean([f["attention_contrast"] for f in found]),
        "pointing_game": share([f["pointing"] for f in found]),
    }
    for role in ROLES:
        pairs = [(f["correct"], f[f"correct_without_{role}"]) for f in found]
        summary[f"drop_without_{role}"] = mean([a - b for a, b in pairs if a is not None and b is not None])
    return summary


def share(values: Sequence[float | None]) -> dict[str, float | None]:
    """The share of ones with Wilson's interval, over the values that are known."""
    known = [v for v in values if v is not None]
    n = len(known)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    p = fmean(known)
    centre, half = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return {"value": p, "low": (centre - half) / (1 + Z * Z / n), "high": (centre + half) / (1 + Z * Z / n), "n": n}


def mean(values: Sequence[float | None]) -> dict[str, float | None]:
    """The mean with its normal interval, over the values that are known."""
    known = [v for v in values if v is not None]
    if not known:
        return {"value": None, "low": None, "high": None, "n": 0}
    half = Z * stdev(known) / sqrt(len(known)) if len(known) > 1 else float("nan")
    return {"value": fmean(known), "low": fmean(known) - half, "high": fmean(known) + half, "n": len(known)}


def compare(found: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> dict[str, float]:
    """McNemar's exact test on rows that both answered: how many only one got right, and the two-sided p-value."""
    theirs = {o["id"]: o["correct"] for o in other if o["correct"] is not None}
    pairs = [(f["correct"], theirs[f["id"]]) for f in found if f["correct"] is not None and f["id"] in theirs]
    if not pairs:
        raise ValueError("the two evaluations have no row in common: evaluate both on the same data")
    gained, lost = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return {"rows": len(pairs), "gained": gained, "lost": lost, "p": mcnemar(gained, lost)}


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


def main() -> None:
    import tyro

    settings = tyro.cli(EvaluateSettings, description="Evaluate a model's answers, and where it looks for them.")
    from pipelines.console import console, failing_clearly, quiet_libraries, say, table

    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        summary = evaluate(settings)
    figures = {name: figure for name, figure in summary.items() if name not in ("against", "left_out")}
    lines = [[name.replace("_", " "), *_shown(figure)] for name, figure in figures.items()]
    console.print(table(settings.model, ["", "", "95 %", "rows"], lines))
    if summary["left_out"]:
        say(f"{len(summary['left_out'])} rows could not be used, and are named in evaluation.json")
    if "against" in summary:
        say("against {0}: {rows} rows, {gained} gained, {lost} lost, p = {p:.3g}".format(settings.against, **summary["against"]))


def _shown(figure: dict[str, float | None]) -> list[str]:
    value, low, high = ("-" if figure[name] is None else f"{figure[name]:.3f}" for name in ("value", "low", "high"))
    return [value, f"{low} to {high}", f"{figure['n']}"]


if __name__ == "__main__":
    main()
