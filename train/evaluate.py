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
from dataclasses import dataclass, replace
from math import comb, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rewardlib.text import Template

if TYPE_CHECKING:
    from train.data import Row
    from train.policy import Policy

Z = 1.96  # 95 % intervals


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """An evaluation."""

    data: str
    """a dataset built by Sightline, held out from training"""
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
    against: Path | None = None
    """the folder of another evaluation of the same rows"""
    device: str = "auto"


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate, write the files, and return the summary."""
    import polars
    from rich.progress import track

    from train.data import load_rows
    from train.policy import load_model

    rows = load_rows(settings.data, settings.template)
    policy = load_model(settings.model, settings.device)
    count = min(len(rows), settings.rows or len(rows))
    found = [examine(policy, rows[i], settings) for i in track(range(count), "evaluating")]
    summary = summarise(found)
    if settings.against is not None:
        summary["against"] = compare(found, polars.read_parquet(settings.against / "responses.parquet").to_dicts())
    settings.out.mkdir(parents=True, exist_ok=True)
    polars.DataFrame(found, infer_schema_length=None).write_parquet(settings.out / "responses.parquet")
    (settings.out / "evaluation.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def examine(policy: Policy, row: Row, settings: EvaluateSettings) -> dict[str, Any]:
    """One row's response, and what it shows; None where the row has no gold answer, region or counterfactual image."""
    import torch

    from rewardlib import Accuracy, AttentionContrast, Format
    from train.score import score

    prompt = policy.encode(row.messages, row.images, row.region, settings.max_prompt)
    text, tokens = _answer(policy, prompt, settings)
    with torch.no_grad():
        scored = score(policy, prompt, [tokens], needs={"attention", "maps"}, layers=settings.layers)
    sample = replace(row.sample, response=text, response_ids=tuple(tokens.tolist()), entropy=scored.entropy.cpu().numpy())
    sample = replace(sample, attention=None if scored.attention is None else scored.attention[0])
    found = {"id": row.id, "response": text, "length": len(tokens)}
    found |= {"correct": Accuracy()([sample])[0], "format": Format(settings.template)([sample])[0]}
    found["attention_contrast"] = AttentionContrast()([sample])[0]
    region = prompt.region[prompt.image]
    found["pointing"] = float(region[scored.maps[0].argmax()] > 0) if scored.maps and region.any() else None
    for role in ("evidence", "control"):
        image = getattr(row.sample, f"{role}_image")
        found[f"correct_without_{role}"] = None if image is None else _correct_on(policy, row, image, settings)
    return found


def _answer(policy: Policy, prompt: Any, settings: EvaluateSettings) -> tuple[str, Any]:
    import torch

    from train.rollout import Sampling, rollout, texts

    sampling = Sampling(settings.max_tokens, temperature=0)
    ((tokens,),) = rollout(policy, [prompt], 1, sampling, [torch.Generator(policy.device)])
    return texts(policy, [tokens])[0], tokens


def _correct_on(policy: Policy, row: Row, image: Any, settings: EvaluateSettings) -> float | None:
    """Whether the row is answered when its first image is another."""
    from rewardlib import Accuracy

    prompt = policy.encode(row.messages, (image, *row.images[1:]), limit=settings.max_prompt)
    return Accuracy()([replace(row.sample, response=_answer(policy, prompt, settings)[0])])[0]


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
    for role in ("evidence", "control"):
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
    figures = {name: figure for name, figure in summary.items() if name != "against"}
    lines = [[name.replace("_", " "), *_shown(figure)] for name, figure in figures.items()]
    console.print(table(settings.model, ["", "", "95 %", "rows"], lines))
    if "against" in summary:
        say("against {0}: {rows} rows, {gained} gained, {lost} lost, p = {p:.3g}".format(settings.against, **summary["against"]))


def _shown(figure: dict[str, float | None]) -> list[str]:
    value, low, high = ("-" if figure[name] is None else f"{figure[name]:.3f}" for name in ("value", "low", "high"))
    return [value, f"{low} to {high}", f"{figure['n']}"]


if __name__ == "__main__":
    main()
