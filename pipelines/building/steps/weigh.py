"""What each region weighs: how much the answerer's belief in the right answer falls when it is erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling import masks
from labeling.effect import Answerer, Effect, Weighed, weigh
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.payment import fail
from pipelines.dataset.schema import Item, Ledger
from rewardlib.judge import JudgeError

OF_GROUP = "effect_of_all_with_its_phrase"  # flag: it is all of its phrase together that were erased


@dataclass(frozen=True)
class Weigh(Step):
    """Without an answerer nothing is weighed. draws: erased images of a region, each with a fill and a seed of its own."""

    answerer: Answerer | None
    draws: int
    stage: ClassVar[str] = "weigh"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        for item in items:
            if self.answerer is not None and item.row["regions"]:
                self._weigh(self.answerer, item, ledger)
        return [None] * len(items)

    def _weigh(self, answerer: Answerer, item: Item, ledger: Ledger) -> None:
        row = item.row
        weighed = [Weighed(masks.decode(r["mask"]), r["bbox"], r["phrase"]) for r in row["regions"]]
        effects = weigh(answerer, item.image, row["question"], row["choices"], row["answer"], weighed, self.draws, row["id"])
        if isinstance(effects, JudgeError):
            fail("answerer", effects, ledger)
            return
        for region, effect in zip(row["regions"], effects, strict=True):
            if effect is not None:
                region |= {"effect": effect.fall, "effect_low": effect.low, "effect_high": effect.high}
                region["flags"] = [*region["flags"], *([OF_GROUP] if effect.of_group else [])]
        ledger.counts["regions_weighed"] += sum(effect is not None for effect in effects)
        _decide(row, effects)


def _decide(row: dict[str, Any], effects: Sequence[Effect | None]) -> None:
    """Where nobody else could tell: the answer rests on what it falls without. What it does not measurably fall without is beside
    it, if it does without something else."""
    rests_on = [effect is not None and effect.low > 0 for effect in effects]
    if not any(rests_on):
        return
    for region, effect, is_evidence in zip(row["regions"], effects, rests_on, strict=True):
        if region["role"] == "unknown" and effect is not None:
            region |= {"role": "evidence" if is_evidence else "context", "role_by": "effect"}
