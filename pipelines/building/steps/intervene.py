"""Counterfactual images: without the evidence, without as much of something else, and without what is merely mentioned.

The locators verify them.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from labeling import masks
from labeling.boxes import Detection
from labeling.counterfactual import Case, Region, Removal, intervene, verify_removal
from labeling.facts import normalize_phrase
from labeling.intervention import Fill, Intervention, Shape
from labeling.locators.chain import LocatorChain
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.ground import sought_in
from pipelines.building.steps.payment import settle
from pipelines.config import CounterfactualConfig
from pipelines.dataset.schema import Item, Ledger
from rewardlib.rows.images import png

WORKERS = max(2, min(8, os.cpu_count() or 1))  # threads that make and store images
_NONE = Rejection(
    "no counterfactual",
    "the row has no region that is known to be evidence; --annotator.model names a judge that says what the answer rests on, "
    "and --answerer a policy that shows it",
)


@dataclass(frozen=True)
class Intervene(Step):
    """required: whether a row without a counterfactual goes no further. at_once: rows whose images the locators see at a time, while
    threads make those of the next and store those of the last; enough of them to fill the locators' batches."""

    config: CounterfactualConfig
    locators: LocatorChain
    required: bool = False
    at_once: int = 16
    stage: ClassVar[str] = "intervene"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        done: list[tuple[Item, Case, Future[list[dict[str, Any]]]]] = []
        pool = ThreadPoolExecutor(WORKERS)
        try:
            made = [pool.submit(_cases, item, self.config) for item in items]
            for first in range(0, len(items), self.at_once):
                some = slice(first, first + self.at_once)
                cases = [(item, case) for item, own in zip(items[some], made[some], strict=True) for case in own.result()]
                removals = verify_removal(self.locators, [case for _, case in cases])
                for asked in [removal.asked for own in removals for removal in own if removal.asked]:
                    settle(asked, ledger)
                done += [(item, case, pool.submit(_stored, item, case, own)) for (item, case), own in zip(cases, removals, strict=True)]
            for item, case, images in done:
                item.row["counterfactuals"] += images.result()
                for image in images.result():
                    ledger.counts[f"{image['role']}_images"] += 1
                    ledger.counts[f"{image['role']}_verified"] += image["verified"] is True
                ledger.counts["controls_without_room"] += all(made.role != "control" for made in case.made)
        finally:
            pool.shutdown(cancel_futures=True)
        return [_NONE if self.required and not item.row["counterfactuals"] else None for item in items]


def _stored(item: Item, case: Case, removals: Sequence[Removal]) -> list[dict[str, Any]]:
    return [stored(item.row, made, removal) for made, removal in zip(case.made, removals, strict=True)]


def _of_role(row: dict[str, Any], role: str) -> list[dict[str, Any]]:
    return [region for region in row["regions"] if region["role"] == role]


@dataclass(frozen=True)
class Draw:
    """How a pair of images is made; the same draw of the same row makes the same images."""

    fill: Fill
    shape: Shape
    seed: int


def draws_of(row_id: str, config: CounterfactualConfig) -> list[Draw]:
    """The draws of a row's pairs: they follow from its id."""
    draws = []
    for n in range(config.pairs):
        seed = int.from_bytes(hashlib.sha256(f"{config.seed}/{row_id}/{n}".encode()).digest()[:6], "big")
        rng = random.Random(seed)
        draws.append(Draw(rng.choice(config.fills), rng.choice(config.shapes), seed))
    return draws


def interventions(row: dict[str, Any], image: Image.Image, draws: Sequence[Draw]) -> list[list[Intervention]]:
    """What is made of a row: a pair a draw, each with what its context is without. Nothing where nobody could tell what its answer
    rests on."""
    evidence, context = (_silhouettes(_of_role(row, role)) for role in ("evidence", "context"))
    return [intervene(image, evidence, context, **vars(draw)) for draw in draws] if evidence else []


def _cases(item: Item, config: CounterfactualConfig) -> list[Case]:
    evidence, context = (_seen(_of_role(item.row, role)) for role in ("evidence", "context"))
    sought = sought_in(item.row)
    draws = draws_of(item.row["id"], config)
    return [Case(made, sought, evidence, context) for made in interventions(item.row, item.image, draws)]


def _silhouettes(regions: Sequence[dict[str, Any]]) -> list[Region]:
    return [(masks.decode(region["mask"]), region["bbox"]) for region in regions]


def _seen(regions: Sequence[dict[str, Any]]) -> list[Detection]:
    """The regions that a locator saw on the image as it is."""
    return [
        Detection(normalize_phrase(r["phrase"]), tuple(r["bbox"]), r["score"], locator=r["confirmed_by"] or r["locator"])
        for r in regions
        if r["score"] and r["phrase"]
    ]


def stored(row: dict[str, Any], made: Intervention, removal: Removal) -> dict[str, Any]:
    """A changed image as the dataset stores it."""
    role = "context" if made.role == "context" else "evidence"
    return {
        "role": made.role,
        "fill": made.fill,
        "shape": made.shape,
        "region_ids": [region["region_id"] for region in _of_role(row, role)],
        "image": {"bytes": png(made.image), "path": None},
        "mask": masks.encode(made.mask),
        "area_fraction": float(made.mask.mean()),
        "seed": made.seed,
        "verified": removal.verified,
        "score_before": removal.score_before,
        "score_after": removal.score_after,
    }
