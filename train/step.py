"""A step's completions, from rewards to gradient: measure, reward, turn into advantages, learn.

    plan = Plan(settings, rewards, methods, sums)
    signals, figures = step(policy, groups, plan, normalizer)               # the first update
    _, figures = step(policy, groups, plan, normalizer, signals)            # further ones on the same completions

On the policy that sampled, the forward that rewards need is the forward that the gradient needs. So a group is measured with its graph
where the whole of it fits in one pass, and learning only runs backward. Under ``micro_batch`` it is measured and learnt from in parts. A
method that wants all groups at once (``sees_batch``) costs one more forward: all are measured first, without a graph.

What papers change is in ``train.methods``; nothing here knows them by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardlib.advantages import group_advantages, to_tensor
from rewardlib.sample import Counterfactual, Reward, Sample, combine
from train.batch import Group, Normalizer, Signal
from train.losses import LOSSES, Loss, kl_to_reference
from train.methods.base import Method, Scores, Sums, Tokens
from train.order import seed_of
from train.policy import Policy, Prompt
from train.score import Scored, joined, score
from train.settings import Settings
from train.views import CONTROL, EVIDENCE, View


@dataclass
class Here:
    """The sums of a run of one process."""

    def __call__(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def lowest(self, values: Sequence[float]) -> float:
        return min(values, default=math.inf)

    def highest(self, values: Sequence[float]) -> float:
        return max(values, default=-math.inf)


@dataclass(frozen=True)
class Plan:
    """What a run does with completions."""

    settings: Settings
    rewards: Sequence[Reward]
    methods: Sequence[Method] = ()
    sums: Sums = field(default_factory=Here)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every reward, by name; rewards of one's own count once."""
        return {reward.name: float(getattr(self.settings, reward.name, 1.0)) for reward in self.rewards}

    @property
    def needs(self) -> set[str]:
        """What is wanted of the forward besides log-probabilities."""
        measured = {need for reward in self.rewards for need in reward.needs}
        return measured | {need for method in self.methods for need in method.needs}

    @property
    def loss(self) -> Loss:
        return LOSSES[self.settings.loss](self.settings.clip_low, self.settings.clip_high)

    @property
    def views(self) -> list[View]:
        """The further images that rewards and methods want."""
        wanted = [EVIDENCE, CONTROL] if "counterfactual" in self.needs else []
        views = {view.name: view for view in [*wanted, *(view for method in self.methods for view in method.views())]}
        return list(views.values())

    @property
    def sees_batch(self) -> bool:
        return any(method.sees_batch for method in self.methods)


@dataclass(frozen=True)
class Assessed:
    """A group's rewards, and what its forwards say; with the forward that can be learnt from, if there is one."""

    rewards: Tensor  # (G,)
    scores: Scores | None  # None where nothing was measured
    ref_logprobs: Tensor | None
    live: Scored | None


def step(
    policy: Policy, groups: Sequence[Group], plan: Plan, normalizer: Normalizer, signals: Sequence[Signal] | None = None
) -> tuple[list[Signal], list[dict[str, float]]]:
    """Add the groups' gradients to the model's; what their rewards say, and what happened to each.

    signals: those of the first update on these completions, for the others.
    """
    if signals is not None:
        return list(signals), [backward(policy, *each, plan, normalizer) for each in zip(groups, signals, strict=True)]
    if plan.sees_batch:
        assessed = [assess(policy, group, plan, live=False) for group in groups]
        signals = to_signals(groups, assessed, plan)
        return signals, [backward(policy, *each, plan, normalizer) for each in zip(groups, signals, strict=True)]
    made, figures = [], []
    for group in groups:  # one after the other, so that one group's graph exists at a time
        told = assess(policy, group, plan)
        (signal,) = to_signals([group], [told], plan)
        made.append(signal)
        figures.append(backward(policy, group, signal, plan, normalizer, told.live))
    return made, figures


def assess(policy: Policy, group: Group, plan: Plan, *, live: bool = True) -> Assessed:
    """Score a group: its samples' measurements and rewards are filled in."""
    settings = plan.settings
    whole = len(group.parts(settings.micro_batch)) == 1
    learnt_from = whole and live
    scored, views = None, {}
    if learnt_from or plan.needs or plan.views or plan.methods or settings.updates > 1:
        with torch.set_grad_enabled(learnt_from):
            prompt = group.prompt if learnt_from else group.prompt.again
            scored = _score(policy, group, settings, prompt, needs=plan.needs, layers=settings.layers)
        views = _score_views(policy, group, plan)
        if {"entropy", "attention", "counterfactual"} & plan.needs:
            group.samples = _measured(group, scored, views)
    group.scores |= {reward.name: reward(group.samples) for reward in plan.rewards if reward.name not in group.scores}
    rewards = to_tensor(combine(group.scores, plan.weights, [0] * len(group.samples))).to(policy.device)
    told = None if scored is None else _scores_of(group, scored, views)
    return Assessed(rewards, told, _reference(policy, group, settings) if settings.kl else None, scored if learnt_from else None)


def to_signals(groups: Sequence[Group], assessed: Sequence[Assessed], plan: Plan) -> list[Signal]:
    """Rewards as advantages of tokens, as the methods shape them."""
    advantages = [_advantages(group, told.rewards, plan.settings) for group, told in zip(groups, assessed, strict=True)]
    scores = [told.scores for told in assessed if told.scores is not None]
    for method in plan.methods:
        advantages = method.advantages(advantages, scores, plan.sums)
    has_penalty = any(type(method).penalty is not Method.penalty for method in plan.methods)
    return [
        Signal(
            told.rewards,
            own,
            None if told.scores is None else told.scores.logprobs,
            told.ref_logprobs,
            {} if told.scores is None else told.scores.views,
            has_penalty,
        )
        for told, own in zip(assessed, advantages, strict=True)
    ]


def backward(
    policy: Policy, group: Group, signal: Signal, plan: Plan, normalizer: Normalizer, live: Scored | None = None
) -> dict[str, float]:
    """Add a group's gradient to the model's, and say what happened. ``live``: a forward of the present weights with its graph."""
    settings = plan.settings
    parts: list[dict[str, Tensor]] = []
    for part in group.parts(settings.micro_batch):
        inside = (group.completion_index >= part.start) & (group.completion_index < part.stop)
        scored = live or score(policy, group.prompt.again, group.completions[part], temperature=settings.temperature)
        loss, figures = _loss(signal, scored, inside, plan, normalizer)
        if not signal.empty or settings.shard:  # sharded processes must make equally many backward passes
            torch.autograd.backward(loss)
        parts.append(figures | {"loss": loss.detach()[None]})
    joint = {name: torch.cat([figures[name].detach().float() for figures in parts]) for name in parts[0]}
    return {name: (values.sum() if name == "loss" else values.mean()).item() for name, values in joint.items()} | _about(signal)


def _loss(signal: Signal, scored: Scored, inside: Tensor, plan: Plan, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a part of a group, whose tokens are ``inside`` (N,), and per-token figures."""
    settings, loss, index, advantages = plan.settings, plan.loss, scored.packed.owner, signal.advantages[inside]
    old_logprobs = scored.logprobs.detach() if signal.old_logprobs is None else signal.old_logprobs[inside]
    objective = loss.objective(scored.logprobs, old_logprobs, advantages, index)
    low, high = loss.clipped(scored.logprobs.detach(), old_logprobs, advantages, index)
    figures = {"entropy": scored.entropy, "clip_ratio/low_mean": low, "clip_ratio/high_mean": high}
    if signal.ref_logprobs is not None:
        divergence = kl_to_reference(scored.logprobs, signal.ref_logprobs[inside])
        objective = objective + settings.kl * divergence
        figures["kl"] = divergence
    tokens = Tokens(scored.logprobs, index, {name: values[inside] for name, values in signal.views.items()})
    for method in plan.methods:
        penalty = method.penalty(tokens)
        if penalty is not None:
            objective = objective + penalty
            figures[f"methods/{method.name}/penalty"] = penalty
    weight = loss.weights(index.bincount(), normalizer.completions, normalizer.tokens, settings.max_tokens)
    return (weight[index] * objective).sum(), figures


def _about(signal: Signal) -> dict[str, float]:
    rewards = signal.rewards[~signal.rewards.isnan()]
    return {
        "reward": rewards.mean().item() if len(rewards) else math.nan,
        "reward_std": rewards.std().item() if len(rewards) > 1 else math.nan,
        "frac_reward_zero_std": float(not bool(signal.advantages.any())),
    }


def _score(policy: Policy, group: Group, settings: Settings, prompt: Prompt, **options: Any) -> Scored:
    """A forward of the group behind a prompt, in parts of ``micro_batch`` completions."""
    return joined(
        [
            score(policy, prompt, group.completions[part], temperature=settings.temperature, **options)
            for part in group.parts(settings.micro_batch)
        ]
    )


@torch.no_grad()
def _score_views(policy: Policy, group: Group, plan: Plan) -> dict[str, Tensor]:
    """Log-probabilities (N,) of the completions given each view's images; a row that has none such lacks the name."""
    settings, views = plan.settings, {}
    for view in plan.views:
        generator = np.random.default_rng(seed_of(settings.seed, group.number, view.name))
        images = view.images(group.row, generator)
        if images is not None:
            prompt = policy.encode(group.row.messages, images, limit=settings.max_prompt)
            views[view.name] = _score(policy, group, settings, prompt).logprobs
    return views


def _scores_of(group: Group, scored: Scored, views: Mapping[str, Tensor]) -> Scores:
    return Scores(group.completion_index, scored.logprobs.detach(), scored.entropy, views, scored.visual_focus)


def _measured(group: Group, scored: Scored, views: Mapping[str, Tensor]) -> list[Sample]:
    """The group's samples with what its forwards have shown."""
    inside = [(group.completion_index == i).cpu() for i in range(len(group.samples))]
    entropy, logprobs = scored.entropy.cpu(), scored.logprobs.detach().cpu()
    changed = {view.name: views[view.name].cpu() for view in (EVIDENCE, CONTROL) if view.name in views}
    return [
        replace(
            sample,
            entropy=entropy[mine].numpy(),
            attention=None if scored.attention is None else scored.attention[i],
            counterfactual=Counterfactual(logprobs[mine].numpy(), **{name: values[mine].numpy() for name, values in changed.items()}),
        )
        for i, (sample, mine) in enumerate(zip(group.samples, inside, strict=True))
    ]


@torch.no_grad()
def _reference(policy: Policy, group: Group, settings: Settings) -> Tensor:
    """Log-probabilities (N,) of the model at the start: the frozen copy, or the model without its adapter."""
    model: Any = policy.model
    with model.disable_adapter() if policy.reference is None else nullcontext():
        return _score(policy.reference or policy, group, settings, group.prompt.bare).logprobs


def _advantages(group: Group, rewards: Tensor, settings: Settings) -> Tensor:
    """Advantages (N,) of the tokens: those of their completions."""
    together = torch.zeros(len(rewards), dtype=torch.long, device=rewards.device)
    return group_advantages(rewards, together, settings.scale).float()[group.completion_index]
