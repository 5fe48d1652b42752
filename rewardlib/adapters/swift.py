"""Rewards for ms-swift's GRPO. Put this into a plugin file: ``--external_plugins plugin.py --reward_funcs sightline_accuracy``

    from swift.rewards import orms
    from rewardlib import Accuracy
    from rewardlib.adapters.swift import swift_orm

    orms["sightline_accuracy"] = swift_orm(Accuracy())

Dataset columns are those of ``rewardlib.adapters.rows``. ms-swift leaves None out, and shows a reward no model: text rewards only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlib.adapters.rows import to_samples
from rewardlib.perception import Perception
from rewardlib.sample import Reward, Score


def swift_orm(reward: Reward) -> type:
    """An ORM class that scores with ``reward``; an AsyncORM, which ms-swift runs beside the others, for a judge's reward."""
    from swift.rewards import ORM, AsyncORM

    if reward.needs:
        raise ValueError(f"reward {reward.name!r} needs measurements of the model, which ms-swift does not let a reward make")

    class SightlineORM(ORM):
        def __call__(self, completions: Sequence[str], **columns: Any) -> list[Score]:
            return reward(to_samples(completions, columns, (), columns.get("response_token_ids") or ()))

    class SightlineAsyncORM(AsyncORM):
        async def __call__(self, completions: Sequence[str], **columns: Any) -> list[Score]:
            assert isinstance(reward, Perception)
            return await reward.score_async(to_samples(completions, columns, (), columns.get("response_token_ids") or ()))

    return SightlineAsyncORM if isinstance(reward, Perception) else SightlineORM
