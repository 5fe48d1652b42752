"""Counterfactual images: without the evidence, without as much of something else, and without what is merely mentioned.

The locators verify them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling import masks
from labeling.boxes import Detection
from labeling.counterfactual import Case, Intervention, Region, Removal, intervene, verify_removal
from labeling.facts import normalize_phrase
from labeling.locators.chain import LocatorChain
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.ground import sought_in
from pipelines.config import CounterfactualConfig
from pipelines.dataset.schema import Item, Ledger
from rewardlib.rows.images import png

_NONE = Rejection(
    "no counterfactual",
    "the row has no region that is known to be evidence; --annotator.model names a judge that says what the answer rests on, "
    "and --answerer a policy that shows it",
)


@dataclass(frozen=True)
class Intervene(Step):
    """required: whether a row without a counterfactual goes no further."""

    config: CounterfactualConfig
    locators: LocatorChain
    required: bool = False
    stage: ClassVar[str] = "intervene"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        cases = [(item, case) for item in items for case in _cases(item, self.config)]
        removals = verify_removal(self.locators, [case for _, case in cases])
        for (item, case), verdicts in zip(cases, removals, strict=True):
            for made, removal in zip(case.made, verdicts, strict=True):
                item.row["counterfactuals"].append(_counterfactual(made, removal, _ids(item.row, made)))
                ledger.counts[f"{made.role}_images"] += 1
                ledger.counts[f"{made.role}_verified"] += removal.verified is True
            ledger.counts["controls_without_room"] += all(made.role != "control" for made in case.made)
        return [_NONE if self.required and not item.row["counterfactuals"] else None for item in items]


def _of_role(row: dict[str, Any], role: str) -> list[dict[str, Any]]:
    return [region for region in row["regions"] if region["role"] == role]


def _cases(item: Item, config: CounterfactualConfig) -> list[Case]:
    """What is made of a row; nothing where nobody could tell what its answer rests on."""
    evidence, context = (_of_role(item.row, role) for role in ("evidence", "context"))
    if not evidence:
        return []
    sought = sought_in(item.row)
    cases = []
    for n in range(config.pairs):
        seed = int.from_bytes(hashlib.sha256(f"{config.seed}/{item.row['id']}/{n}".encode()).digest()[:6], "big")
        rng = random.Random(seed)
        fill, shape = rng.choice(config.fills), rng.choice(config.shapes)
        made = intervene(item.image, _silhouettes(evidence), _silhouettes(context), fill=fill, shape=shape, seed=seed)
        cases.append(Case(made, sought, _seen(evidence), _seen(context)))
    return cases


def _silhouettes(regions: Sequence[dict[str, Any]]) -> list[Region]:
    return [(masks.decode(region["mask"]), region["bbox"]) for region in regions]


def _seen(regions: Sequence[dict[str, Any]]) -> list[Detection]:
    """The regions that a locator saw on the image as it is."""
    return [
        Detection(normalize_phrase(r["phrase"]), tuple(r["bbox"]), r["score"], locator=r["confirmed_by"] or r["locator"])
        for r in regions
        if r["score"] and r["phrase"]
    ]


def _ids(row: dict[str, Any], made: Intervention) -> list[str]:
    role = "context" if made.role == "context" else "evidence"
    return [region["region_id"] for region in _of_role(row, role)]


def _counterfactual(made: Intervention, removal: Removal, regions: list[str]) -> dict[str, Any]:
    return {
        "role": made.role,
        "fill": made.fill,
        "shape": made.shape,
        "region_ids": regions,
        "image": {"bytes": png(made.image), "path": None},
        "mask": masks.encode(made.mask),
        "area_fraction": float(made.mask.mean()),
        "seed": made.seed,
        "verified": removal.verified,
        "score_before": removal.score_before,
        "score_after": removal.score_after,
    }
