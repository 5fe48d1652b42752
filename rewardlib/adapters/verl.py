"""Rewards for verl's ``custom_reward_function``. Put this into a file of your own and name it in verl's configuration:

    from rewardlib import Accuracy, Format
    from rewardlib.adapters.verl import VerlScore

    compute_score = VerlScore([Accuracy(), Format("boxed")], weights=[0.9, 0.1])

    reward.custom_reward_function.path=my_reward.py reward.custom_reward_function.name=compute_score

verl shows a reward one response at a time: text, gold answer and ``extra_info``, no image and no model. The columns of
``rewardlib.adapters.rows`` are looked for in ``extra_info`` and in ``ground_truth``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlib.adapters.rows import to_sample
from rewardlib.adapters.weighted import WeightedScore


class VerlScore(WeightedScore):
    """verl's ``compute_score``: a dict with ``score``; the other keys become metrics."""

    def __call__(
        self, data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, float]:
        gold = to_sample(solution_str, ground_truth)
        row = {"answer": gold.answer, "choices": gold.choices, "annotations": gold.annotations, **(extra_info or {})}
        (found,) = self.score([to_sample(solution_str, row)])
        return {"score": found.pop("total"), **found}
