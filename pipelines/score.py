"""How good are the labels? Scores a dataset against a file that knows better.

    python -m pipelines.score DIR --gold ROWS.jsonl
    python -m pipelines.score DIR --gold instances.json          # COCO
    python -m pipelines.score DIR --gold OTHER_DIR               # another dataset, for instance one that somebody has corrected

Gold rows have an ``id`` and, where they know them, ``gold_regions`` or ``regions`` (``phrase``, ``bbox`` xyxy pixels, optional ``mask``
RLE and ``role``) and traces with ``reported_correct`` (``pipelines.gold``). Two questions are answered:

- *grounding*: are things where the dataset says? Regions match within a phrase, greedily by IoU, at IoU 0.5 or more.
- *evidence*: does the answer rest on what the dataset says? The regions whose role is evidence match the gold ones, whatever their
  phrase; as objects (IoU 0.5) and as area (pixels of their masks). Only where the gold has roles.

A row that the build rejected counts with all its gold regions missed: a labeller cannot gain by dropping hard rows. Prints a table, then
one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from labeling import masks
from labeling.boxes import iou_matrix
from labeling.facts import normalize_phrase
from pipelines.dataset import store
from pipelines.gold import GoldError, read_gold
from rewardlib.console import console, failing_clearly, say, table, tell
from rewardlib.program import program
from rewardlib.rows.regions import to_look_at

MATCH_IOU = 0.5


@dataclass
class Overlap:
    """How much of what was said is true, and how much of what is true was said: objects, or pixels."""

    common: int = 0
    said: int = 0
    true: int = 0

    @property
    def precision(self) -> float | None:
        """None where the gold says nothing, or the dataset does not."""
        return self.common / self.said if self.said and self.true else None

    @property
    def recall(self) -> float | None:
        return self.common / self.true if self.true else None


@dataclass
class Tally:
    """Running sums; ``disagreements`` are (row, trace, ours, reported)."""

    matched: int = 0
    predicted: int = 0
    gold: int = 0
    box_ious: list[float] = field(default_factory=list)
    mask_ious: list[float] = field(default_factory=list)
    evidence: Overlap = field(default_factory=lambda: Overlap())
    evidence_area: Overlap = field(default_factory=lambda: Overlap())
    traces: int = 0
    agreed: int = 0
    disagreements: list[tuple[str, str, bool, bool]] = field(default_factory=list)
    not_built: int = 0
    says_something: bool = False  # the gold

    def figures(self) -> dict[str, Any]:
        """The scores; null where the gold file has nothing to score against."""
        return {
            "recall": self.matched / self.gold if self.gold else None,
            "precision": self.matched / self.predicted if self.predicted and self.gold else None,
            "box_iou": float(np.mean(self.box_ious)) if self.box_ious else None,
            "mask_iou": float(np.mean(self.mask_ious)) if self.mask_ious else None,
            "evidence_precision": self.evidence.precision,
            "evidence_recall": self.evidence.recall,
            "evidence_area_precision": self.evidence_area.precision,
            "evidence_area_recall": self.evidence_area.recall,
            "answer_agreement": self.agreed / self.traces if self.traces else None,
            "gold_regions": self.gold,
            "predicted_regions": self.predicted,
            "traces": self.traces,
            "gold_rows_not_built": self.not_built,
        }


def score(out: Path, gold: Path) -> Tally:
    """Compare a dataset with a gold file; rows of the dataset that the gold file does not know are left out."""
    built = {row["id"]: row for row in store.read_rows(out, columns=["id", "width", "height", "traces", "regions"])}
    rejected = {r.id: json.loads(r.row) for r in store.read_rejects(out)}
    sizes = {key: (row["width"], row["height"]) for key, row in built.items()}
    tally = Tally()
    for truth in read_gold(gold, sizes, built.keys() | rejected.keys()):
        tally.says_something |= truth.says_something
        row = built.get(truth.id)
        if truth.regions is not None:
            tally.not_built += row is None
            found = row["regions"] if row else []
            match_regions(found, truth.regions, tally)
            if any(region.get("role") for region in truth.regions):
                match_evidence(_evidence(found), to_look_at(truth.regions), tally)
        labelled = row or rejected.get(truth.id, {})
        _compare_traces(truth.id, labelled.get("traces") or [], truth.traces, tally)
    return tally


def match_regions(predicted: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]], tally: Tally) -> None:
    """Greedy one-to-one matching by IoU between regions of the same phrase."""
    tally.predicted += len(predicted)
    tally.gold += len(gold)
    overlap = iou_matrix([p["bbox"] for p in predicted], [g["bbox"] for g in gold])
    same = np.array([[_same_name(p["phrase"], g["phrase"]) for g in gold] for p in predicted], bool)
    overlap = np.where(same.reshape(overlap.shape), overlap, 0)
    for i, j in _matched(overlap):
        tally.matched += 1
        tally.box_ious.append(float(overlap[i, j]))
        if gold[j].get("mask"):
            tally.mask_ious.append(masks.iou(masks.decode(predicted[i]["mask"]), masks.decode(gold[j]["mask"])))


def _same_name(ours: str, gold: str) -> bool:
    """Whether a region is called as the gold calls it; where that has no name for it, its place is enough."""
    return not gold or normalize_phrase(ours) == normalize_phrase(gold)


def _evidence(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [region for region in regions if region.get("role") == "evidence"]


def match_evidence(predicted: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]], tally: Tally) -> None:
    """Objects, one to one by IoU; and the pixels that their masks cover, where all of the gold has masks."""
    overlap = iou_matrix([p["bbox"] for p in predicted], [g["bbox"] for g in gold])
    tally.evidence.common += sum(1 for _ in _matched(overlap))
    tally.evidence.said += len(predicted)
    tally.evidence.true += len(gold)
    if gold and all(region.get("mask") for region in gold):
        true = np.logical_or.reduce([masks.decode(region["mask"]) for region in gold])
        said = np.logical_or.reduce([np.zeros_like(true), *(masks.decode(region["mask"]) for region in predicted)])
        tally.evidence_area.common += int((true & said).sum())
        tally.evidence_area.said += int(said.sum())
        tally.evidence_area.true += int(true.sum())


def _matched(overlap: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Pairs of (predicted, gold), the best first, each at most once."""
    left = overlap.copy()
    while left.size and left.max() >= MATCH_IOU:
        i, j = map(int, np.unravel_index(left.argmax(), left.shape))
        left[i, :], left[:, j] = 0, 0
        yield i, j


def _compare_traces(row_id: str, ours: Sequence[dict[str, Any]], reported: Sequence[dict[str, Any]], tally: Tally) -> None:
    # A row that ingest rejected still has its traces as they came, unjudged.
    verdicts = {t["trace_id"]: t.get("correct") for t in ours if isinstance(t, dict) and "trace_id" in t}
    for n, trace in enumerate(reported):
        if isinstance(trace, Mapping) and trace.get("reported_correct") is not None:
            verdict = bool(verdicts.get(f"t{n}"))  # a trace that was dropped has not been found correct
            tally.traces += 1
            tally.agreed += verdict == trace["reported_correct"]
            if verdict != trace["reported_correct"]:
                tally.disagreements.append((row_id, f"t{n} ({trace.get('model', '?')})", verdict, trace["reported_correct"]))


def main(dir: Annotated[Path, tyro.conf.Positional], gold: Path) -> None:
    """Score a dataset's regions, masks and answer checks against a gold file.

    Args:
        dir: A folder written by flows.build_dataset.
        gold: Rows as a build reads them, COCO, or another dataset; with gold_regions or regions, or traces with reported_correct.
    """
    with failing_clearly(store.StoreError, GoldError):
        tally = score(dir, gold)
        if not tally.says_something:
            raise GoldError(f"{gold} says nothing to score by: no row has gold_regions, regions, or a trace with reported_correct")
    figures = tally.figures()
    shown = {k: "-" if v is None else f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for k, v in figures.items()}
    console.print(table(f"{dir} against {gold.name}", ["", ""], [[name.replace("_", " "), value] for name, value in shown.items()]))
    for row_id, trace, ours, reported in tally.disagreements:
        say(f"  {row_id} {trace}: checked {'right' if ours else 'wrong'}, reported {'right' if reported else 'wrong'}")
    tell(figures, always=True)


if __name__ == "__main__":
    tyro.cli(main, prog=program())
