"""Rewards for TRL's GRPOTrainer.

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[
            trl_reward(Accuracy()),
            trl_reward(AttentionContrast(), Measurer(model, processor)),   # makes its own pass through the probe
            trl_reward(Perception(JudgeEndpoint(...))),                     # asynchronous: TRL gathers such rewards
        ],
        args=GRPOConfig(reward_weights=[0.9, 0.5, 0.7], ...), train_dataset=dataset, processing_class=processor)

Dataset columns are those of ``rewardlib.adapters.rows``. TRL leaves None out of a sample's weighted sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rewardlib.adapters.rows import to_samples
from rewardlib.perception import Perception
from rewardlib.sample import Reward, Sample, Score, as_floats

if TYPE_CHECKING:
    from rewardlib.measure import Measurer


def trl_reward(reward: Reward, measurer: Measurer | None = None) -> TRLReward | AsyncTRLReward:
    """``reward`` as a TRL reward function; ``measurer`` must hold the model in training if the reward needs measurements."""
    return AsyncTRLReward(reward) if isinstance(reward, Perception) else TRLReward(reward, measurer)


class _Named:
    """A reward under the name that TRL logs it by."""

    def __init__(self, reward: Reward) -> None:
        self.__name__ = reward.name

    def _logged(self, scores: list[Score], columns: Mapping[str, Any]) -> list[Score]:
        """The scores as floats; how many are missing goes to TRL's metrics."""
        scores = as_floats(scores)
        if (log_metric := columns.get("log_metric")) is not None:
            log_metric(f"rewards/{self.__name__}/missing", sum(score is None for score in scores) / max(1, len(scores)))
        return scores


class TRLReward(_Named):
    """A reward function with TRL's signature."""

    def __init__(self, reward: Reward, measurer: Measurer | None = None) -> None:
        super().__init__(reward)
        if reward.needs and measurer is None:
            raise ValueError(f"reward {reward.name!r} needs {', '.join(sorted(reward.needs))}: pass Measurer(model, processor) as well")
        self.reward, self.measurer = reward, measurer

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] = (), **columns: Any
    ) -> list[Score]:
        samples = _samples(prompts, completions, completion_ids, columns)
        if self.measurer is not None:
            samples = self.measurer(samples, self.reward.needs)
        return self._logged(self.reward(samples), columns)


class AsyncTRLReward(_Named):
    """A judge's reward, which TRL awaits beside the others."""

    def __init__(self, reward: Perception) -> None:
        super().__init__(reward)
        self.reward = reward

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] = (), **columns: Any
    ) -> list[Score]:
        scores = await self.reward.score_async(_samples(prompts, completions, completion_ids, columns))
        return self._logged(scores, columns)


def _samples(prompts: Sequence[Any], completions: Sequence[Any], ids: Sequence[Sequence[int]], columns: Mapping[str, Any]) -> list[Sample]:
    """TRL's lists as samples; a completion is a text or a list of chat messages."""
    return to_samples([c if isinstance(c, str) else c[-1]["content"] for c in completions], columns, prompts, ids)
