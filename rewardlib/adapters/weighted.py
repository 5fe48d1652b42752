"""Several text rewards as one number per sample, for hosts that want just that."""

from __future__ import annotations

from collections.abc import Sequence

from rewardlib.sample import Reward, Sample, Score


class WeightedScore:
    """The weighted sum of text rewards for hosts that want one number per sample and cannot leave one out.

    missing: what stands for a reward that could not be scored; None raises instead, which stops the run.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float] | None = None, missing: float | None = None) -> None:
        if unmet := [r.name for r in rewards if r.needs]:
            raise ValueError(f"rewards {', '.join(unmet)} need measurements of the model, which this host does not let a reward make")
        self.rewards, self.missing = list(rewards), missing
        self.weights = [1.0] * len(rewards) if weights is None else list(weights)
        if len(self.weights) != len(self.rewards):
            raise ValueError(f"{len(self.rewards)} rewards, but {len(self.weights)} weights")

    def score(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """For every sample the total as ``total``, each reward under its name, and how many could not be scored as ``missing``."""
        columns = [reward(samples) for reward in self.rewards]
        return [self._total([column[i] for column in columns]) for i in range(len(samples))]

    def _total(self, scores: list[Score]) -> dict[str, float]:
        names = [reward.name for reward in self.rewards]
        unknown = [name for name, score in zip(names, scores, strict=True) if score is None]
        if unknown and self.missing is None:
            raise RuntimeError(
                f"{', '.join(unknown)} could not be scored (no gold answer, or the judge failed), and this host cannot leave a sample out: "
                "give missing=VALUE to go on with that value, which is counted"
            )
        known = [self.missing if score is None else score for score in scores]
        total = sum(weight * value for weight, value in zip(self.weights, known, strict=True) if value is not None)
        return {"total": total, **{n: v for n, v in zip(names, known, strict=True) if v is not None}, "missing": float(len(unknown))}
