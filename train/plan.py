"""What a run does with completions: its rewards and methods, and what they want of forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rewardlib.sample import Reward
from train.losses import LOSSES, Loss
from train.measures import Measure, RegionAttention
from train.methods.base import Across, Method, overrides
from train.settings import Settings
from train.views import CONTROL, EVIDENCE, View

# What samples hold before any forward scores them.
HELD_BEFORE = frozenset({"replies", "token_ends", "foreign"})
# What forwards fill in.
MEASURED = frozenset({"entropy", "attention", "counterfactual"})


class OneProcess:
    """The values of a run of one process."""

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([*parts]) if parts else torch.empty(0)


@dataclass(frozen=True)
class Plan:
    """Settings, rewards and methods, as the step asks for them."""

    settings: Settings
    rewards: Sequence[Reward]
    methods: Sequence[Method] = ()
    across: Across = field(default_factory=OneProcess)

    def at(self, progress: float) -> Plan:
        """The plan at a share of the run."""
        return replace(
            self, methods=[replace(method, progress=progress) for method in self.methods]
        )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every reward, by name; rewards of one's own count once."""
        return {
            reward.name: float(getattr(self.settings, reward.name, 1.0)) for reward in self.rewards
        }

    @property
    def loss(self) -> Loss:
        return LOSSES[self.settings.loss](self.settings.clip_low, self.settings.clip_high)

    @property
    def needs(self) -> set[str]:
        """What rewards want of samples; ``ValueError`` for something that nobody measures."""
        for reward in self.rewards:
            if unknown := set(reward.needs) - HELD_BEFORE - MEASURED:
                raise ValueError(
                    f"the reward {reward.name} needs {min(unknown)!r}, which nobody measures; "
                    f"there are {', '.join(sorted(HELD_BEFORE | MEASURED))}"
                )
        return {need for reward in self.rewards for need in reward.needs}

    @property
    def views(self) -> list[View]:
        """The other views that completions are scored under, each once."""
        views: list[View] = [EVIDENCE, CONTROL] if "counterfactual" in self.needs else []
        for method in self.methods:
            views += method.views()
        return list(dict.fromkeys(views))

    @property
    def measures(self) -> list[Measure]:
        """What forwards without gradient are to tell, each once."""
        measures: list[Measure] = []
        if "attention" in self.needs:
            measures.append(RegionAttention(self.settings.layers))
        for method in self.methods:
            measures += method.measures()
        return _each_once(measures)

    @property
    def live_measures(self) -> list[Measure]:
        """What the forward that is learnt from is to tell, with gradient."""
        return _each_once([m for method in self.methods for m in method.live_measures()])

    @property
    def entropy_gradient(self) -> bool:
        return any(method.entropy_gradient for method in self.methods)

    @property
    def sees_batch(self) -> bool:
        return any(method.sees_batch for method in self.methods)

    @property
    def has_penalty(self) -> bool:
        """Whether something else than advantages is in the loss."""
        return bool(self.settings.kl) or any(
            overrides(method, "penalty") for method in self.methods
        )

    @property
    def wants_scores(self) -> bool:
        """Whether completions have to be scored before they can be learnt from."""
        shaped = any(overrides(method, "advantages") for method in self.methods)
        later = self.settings.num_iterations > 1  # whose ratios are to the policy that sampled
        measured = self.needs - HELD_BEFORE
        return bool(measured or self.views or self.measures) or shaped or later

    @property
    def learns_from_scoring(self) -> bool:
        """Whether the forward that scores a whole group can be the one that is learnt from."""
        return not (self.sees_batch or self.live_measures or self.entropy_gradient)


def _each_once(measures: Sequence[Measure]) -> list[Measure]:
    """``ValueError`` for two measures that differ under one name."""
    by_name: dict[str, Measure] = {}
    for measure in measures:
        if by_name.setdefault(measure.name, measure) != measure:
            raise ValueError(
                f"two methods want {measure.name} measured differently: {by_name[measure.name]} "
                f"and {measure}; leave one out"
            )
    return list(by_name.values())
