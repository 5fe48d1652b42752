"""Several text rewards as one number per sample, for hosts that want just that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from rewardlib.perception import Perception
from rewardlib.sample import Reward, Sample, Score, as_floats


class WeightedScore:
    """The weighted sum of text rewards for hosts that want one number per sample and cannot leave one out.

    missing: what stands for a reward that could not be scored; None raises instead.
    """

    total: ClassVar[str] = "total"  # the host's word for the sum

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float] | None = None, missing: float | None = None) -> None:
        if unmet := [r.name for r in rewards if r.needs]:
            raise ValueError(f"rewards {', '.join(unmet)} need measurements of the model, which this host does not let a reward make")
        self.rewards, self.missing = list(rewards), None if missing is None else float(missing)
        self.weights = [1.0] * len(rewards) if weights is None else list(weights)
        if len(self.weights) != len(self.rewards):
            raise ValueError(f"{len(self.rewards)} rewards, but {len(self.weights)} weights")
        names = [r.name for r in rewards]
        if len({*names, self.total, "missing"}) < len(names) + 2:
            raise ValueError(f"rewards need names of their own, other than {self.total!r} and 'missing', not {', '.join(names)}")

    def score(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """For every sample the total under the host's word, each reward under its name, and how many could not be scored as ``missing``."""
        return self._totals([reward(samples) for reward in self.rewards], len(samples))

    async def score_async(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """The same inside a running event loop: judges are awaited, the other rewards run in threads beside them."""
        scores = (r.score_async(samples) if isinstance(r, Perception) else asyncio.to_thread(r, samples) for r in self.rewards)
        return self._totals(list(await asyncio.gather(*scores)), len(samples))

    def _totals(self, columns: Sequence[Sequence[Score]], count: int) -> list[dict[str, float]]:
        return [self._total([column[i] for column in columns]) for i in range(count)]

    def _total(self, given: list[Score]) -> dict[str, float]:
        scores = as_floats(given)
        names = [reward.name for reward in self.rewards]
        unknown = [name for name, score in zip(names, scores, strict=True) if score is None]
        if unknown and self.missing is None:
            raise RuntimeError(
                f"{', '.join(unknown)} could not be scored (no gold answer, no annotations, or the judge failed), and this host wants a "
                "number for every sample: give missing=VALUE to go on with that value, which is counted"
            )
        known = [self.missing if score is None else score for score in scores]
        total = sum(weight * value for weight, value in zip(self.weights, known, strict=True) if value is not None)
        return {
            self.total: float(total),
            **{n: v for n, v in zip(names, known, strict=True) if v is not None},
            "missing": float(len(unknown)),
        }
