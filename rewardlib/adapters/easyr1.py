"""Rewards for EasyR1. Put this into a file of your own and give it as ``worker.reward.reward_function=./my_reward.py:compute_score``:

    from rewardlib import Accuracy, Format
    from rewardlib.adapters.easyr1 import EasyR1Score

    REWARD_NAME, REWARD_TYPE = "sightline", "batch"
    compute_score = EasyR1Score([Accuracy(), Format("perception-r1")], weights=[0.9, 0.1]).batch     # or .sequential

EasyR1 shows a reward the response, its length and the answer column. To pass choices or annotations, make that column the JSON text of the
columns of ``rewardlib.adapters.rows``. A judge is asked about the whole batch at once under "batch", and in turn under "sequential".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlib.adapters.rows import to_sample
from rewardlib.adapters.weighted import WeightedScore


class EasyR1Score(WeightedScore):
    """EasyR1's ``compute_score``: dicts with ``overall``; the other keys become metrics."""

    total = "overall"

    def batch(self, reward_inputs: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, float]]:
        """For ``REWARD_TYPE = "batch"``."""
        return self.score([to_sample(r["response"], r["ground_truth"], length=r.get("response_length")) for r in reward_inputs])

    def sequential(self, reward_input: Mapping[str, Any], **_: Any) -> dict[str, float]:
        """For ``REWARD_TYPE = "sequential"``."""
        return self.batch([reward_input])[0]
