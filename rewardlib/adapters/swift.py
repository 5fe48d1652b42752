"""Rewards for ms-swift's GRPO. Put this into a plugin file: ``--external_plugins plugin.py --reward_funcs sightline_accuracy``

    from swift.rewards import orms
    from rewardlib import Accuracy
    from rewardlib.adapters.swift import swift_orm

    orms["sightline_accuracy"] = swift_orm(Accuracy())

Dataset columns are those of ``rewardlib.adapters.rows``; without a ``messages`` column ms-swift makes ``answer`` the response and takes it
away, so name the gold answer ``solution`` there (``--columns '{"answer": "solution"}'``). ms-swift logs None as missing and sums without
it, so beside scored siblings it weighs like 0. It shows a reward no model: text rewards only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlib.adapters.rows import to_samples
from rewardlib.perception import Perception
from rewardlib.sample import Reward, Sample, Score, as_floats


def swift_orm(reward: Reward) -> type:
    """An ORM class that scores with ``reward``; an AsyncORM, which ms-swift runs beside the others, for a judge's reward."""
    from swift.rewards import ORM, AsyncORM

    if reward.needs:
        raise ValueError(f"reward {reward.name!r} needs measurements of the model, which ms-swift does not let a reward make")

    class SightlineORM(ORM):
        def __call__(self, completions: Sequence[str], **columns: Any) -> list[Score]:
            return as_floats(reward(_samples(completions, columns)))

    class SightlineAsyncORM(AsyncORM):
        async def __call__(self, completions: Sequence[str], **columns: Any) -> list[Score]:
            assert isinstance(reward, Perception)
            return as_floats(await reward.score_async(_samples(completions, columns)))

    orm = SightlineAsyncORM if isinstance(reward, Perception) else SightlineORM
    orm.__name__ = orm.__qualname__ = reward.name  # ms-swift logs a reward under the name of its class
    return orm


def _samples(completions: Sequence[str], columns: Mapping[str, Any]) -> list[Sample]:
    """ms-swift's lists as samples; a response of one turn comes as its tokens, one of several as a list of tokens for each turn.

    Its chats end with the response, which must not be read as the row's gold answer.
    """
    turns = columns.get("response_token_ids") or ()
    ids = [[id for turn in row for id in (turn if isinstance(turn, list) else [turn])] for row in turns]
    prompts = [messages[:-1] for messages in columns.get("messages") or ()]
    return to_samples(completions, {**columns, "messages": prompts}, prompts, ids)
