"""Rewards for verl's ``custom_reward_function``. Put this into a file of your own and name it in verl's configuration:

    from rewardlib import Accuracy, Format
    from rewardlib.adapters.verl import VerlScore

    compute_score = VerlScore([Accuracy(), Format("boxed")], weights=[0.9, 0.1])    # with a judge: VerlScore([...]).call_async

    reward.custom_reward_function.path=my_reward.py reward.custom_reward_function.name=compute_score

verl shows a reward one response at a time: text, gold answer and ``extra_info``, no image and no model. The columns of
``rewardlib.adapters.rows`` are looked for in ``ground_truth`` first, then in ``extra_info``. Its managers naive, dapo and gdpo await
``call_async``; remote takes plain calls alone. Where a reward could not be scored and no ``missing`` is given, verl's V1 trainer logs the
error and goes on without that response, and older trainers stop. Not so the managers rate_limited and prime, which make every error a 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlib.adapters.rows import to_sample
from rewardlib.adapters.weighted import WeightedScore
from rewardlib.sample import Sample


class VerlScore(WeightedScore):
    """verl's ``compute_score``: a dict with ``score``; the other keys become metrics."""

    total = "score"

    def __call__(
        self, data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, float]:
        return self.score([_sample(solution_str, ground_truth, extra_info)])[0]

    async def call_async(
        self, data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, float]:
        """The same for verl to await, which holds no thread while a judge thinks."""
        return (await self.score_async([_sample(solution_str, ground_truth, extra_info)]))[0]

    def batch(
        self, data_sources: Sequence[str], solution_strs: Sequence[str], ground_truths: Sequence[Any], extra_infos: Sequence[Any], **_: Any
    ) -> list[dict[str, float]]:
        """For the batch manager of older versions of verl: one call for all responses."""
        return self.score([_sample(*row) for row in zip(solution_strs, ground_truths, extra_infos, strict=True)])


def _sample(response: str, ground_truth: Any, extra_info: Mapping[str, Any] | None) -> Sample:
    """``ground_truth`` goes over ``extra_info``, where verl's own datasets keep a solution with its working as ``answer``."""
    return to_sample(response, {**(extra_info or {}), "reward_model": {"ground_truth": ground_truth}})
