"""Do labels mark what the answer rests on? And does erasing what they mark cost the demo's policy the answer?

On rows of the shapes world that nothing was taught on, labelled by the embedded models:

- ``evidence_precision``, ``evidence_recall``, and the figures of grounding: ``pipelines.score`` against the scenes' truth;
- ``auc``: the probability that a region of evidence has a larger effect on the demo's policy than a region of context, with a 95 %
bootstrap interval over rows. At 0.5 the policy's belief in the answer does not depend on what the answer rests on: it does not look.
``auc_seeing`` is the same for an answerer that does look: it knows the answer as far as the question's objects are left in the image.

    python -m bench.evidence [--rows 100] [--label-rows 200]

Prints a table, writes bench/results/evidence.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.questions import write_rows
from labeling import masks
from labeling.effect import Answerer, Weighed, weigh
from labeling.info import ModelInfo
from pipelines.build import build
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.score import score
from rewardlib.console import console, table

RESULTS = Path(__file__).parent / "results" / "evidence.json"
POLICY = "demo/checkpoints/policy"
SCORES = (
    "evidence_precision",
    "evidence_recall",
    "evidence_area_precision",
    "evidence_area_recall",
    "recall",
    "precision",
    "mask_iou",
)
Pair = tuple[str, float]  # a region's role and its effect


class Seeing:
    """Knows the answer as far as the gold evidence is left as it was: an answerer that looks, to measure the measure with."""

    name = "seeing"

    def __init__(self, original: Image.Image, evidence: masks.Mask) -> None:
        self.original, self.evidence = np.asarray(original, int), evidence

    def log_probabilities(self, images: Sequence[Image.Image], question: str, choices: Sequence[str], answer: str) -> list[float]:
        changed = [np.abs(np.asarray(image, int) - self.original).max(-1) > 8 for image in images]
        return [-float((where & self.evidence).sum() / max(1, self.evidence.sum())) for where in changed]

    def info(self) -> ModelInfo:
        return ModelInfo(self.name)


def labelled(folder: Path, rows: int, seed: int, **options: Any) -> tuple[Path, Path]:
    """A dataset of new rows, and the file that knows better."""
    source = write_rows(folder / "scenes", rows, seed)
    build(BuildConfig(source=str(source), out=folder / "out", license="cc0-1.0", **options))
    return folder / "out", source


def effects_of(out: Path) -> dict[str, list[Pair]]:
    """Role and effect of every weighed region, by row."""
    rows = store.read_rows(out, columns=["id", "regions"])
    return {row["id"]: [(r["role"], r["effect"]) for r in row["regions"] if r["effect"] is not None] for row in rows}


def effects_on_seeing(out: Path, gold: Path, draws: int) -> dict[str, list[Pair]]:
    """The same for an answerer that looks."""
    truth = {row["id"]: row["gold_regions"] for row in map(json.loads, gold.read_text().splitlines())}
    effects = {}
    for row, image in _with_images(out):
        gold_masks = [masks.decode(g["mask"]) for g in truth[row["id"]] if g["role"] == "evidence"]
        if gold_masks:
            answerer = Seeing(image, np.logical_or.reduce(gold_masks))
            effects[row["id"]] = list(_weighed(answerer, row, image, draws))
    return effects


def _weighed(answerer: Answerer, row: dict[str, Any], image: Image.Image, draws: int) -> Iterator[Pair]:
    regions = [Weighed(masks.decode(r["mask"]), r["bbox"], r["phrase"]) for r in row["regions"]]
    effects = weigh(answerer, image, row["question"], row["choices"], row["answer"], regions, draws, row["id"])
    assert isinstance(effects, list)
    yield from ((r["role"], e.fall) for r, e in zip(row["regions"], effects, strict=True) if e is not None)


def _with_images(out: Path) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    for row in store.read_rows(out, columns=["id", "image", "question", "choices", "answer", "regions"]):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            yield row, image.convert("RGB")


def auc(effects: dict[str, list[Pair]], draws: int = 1000) -> dict[str, float]:
    """The share of pairs of an evidence and a context region in which evidence has the larger effect, ties half, with its interval."""
    rows = [(_of(pairs, "evidence"), _of(pairs, "context")) for pairs in effects.values()]
    rng = np.random.default_rng(0)
    samples = [_auc([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return {"auc": _auc(rows), "low": float(low), "high": float(high), "regions": sum(len(e) + len(c) for e, c in rows)}


def _of(pairs: Sequence[Pair], role: str) -> list[float]:
    return [effect for kind, effect in pairs if kind == role]


def _auc(rows: Sequence[tuple[list[float], list[float]]]) -> float:
    evidence, context = (np.array([v for row in rows for v in row[part]]) for part in (0, 1))
    return float(_wins(evidence, context).mean()) if len(evidence) and len(context) else float("nan")


def _wins(evidence: NDArray[np.float64], context: NDArray[np.float64]) -> NDArray[np.float64]:
    larger = evidence[:, None] > context[None, :]
    equal = evidence[:, None] == context[None, :]
    return larger + 0.5 * equal


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100, help="rows whose regions are weighed")
    parser.add_argument("--label-rows", type=int, default=200, help="rows that are scored against their truth")
    parser.add_argument("--draws", type=int, default=4, help="erased images of a region")
    parser.add_argument("--seed", type=int, default=2026)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, gold = labelled(Path(folder) / "labels", a.label_rows, a.seed)
        scores = score(out, gold).figures()
        out, gold = labelled(Path(folder) / "effects", a.rows, a.seed + 1, answerer=POLICY, answerer_draws=a.draws)
        policy, seeing = auc(effects_of(out)), auc(effects_on_seeing(out, gold, a.draws))
    result = {
        **{name: scores[name] for name in SCORES},
        "label_rows": a.label_rows,
        "auc": policy["auc"],
        "auc_low": policy["low"],
        "auc_high": policy["high"],
        "auc_seeing": seeing["auc"],
        "auc_seeing_low": seeing["low"],
        "regions_weighed": policy["regions"],
        "rows": a.rows,
        "draws": a.draws,
    }
    shown = [[name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value)] for name, value in result.items()]
    console.print(table("Evidence", ["", ""], shown))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
