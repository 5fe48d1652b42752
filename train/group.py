"""One prompt's completions, from sampling to gradient: the unit that GRPO works on.

    groups = sample_groups(...)          # completions
    lesson, live = assess(...)           # measure, reward, turn rewards into advantages
    learn(..., group, lesson, live)      # add the group's gradient to the model's

On the policy that sampled, the forward that rewards need is the forward that the gradient needs. So ``assess`` makes it with its
graph where the whole group fits in one pass, and ``learn`` only runs backward. Under ``micro_batch`` the group is measured and learnt from
in parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rewardlib.advantages import group_advantages, to_tensor
from rewardlib.sample import Counterfactual, Reward, Sample, Score, combine
from rewardlib.vgpo import visual_advantages
from train.data import Row
from train.losses import clipped, kl_to_reference, policy_objective, token_weights
from train.packing import padded
from train.policy import Policy, Prompt
from train.rollout import Sampling, rollout, texts
from train.score import Scored, joined, score
from train.settings import Settings


@dataclass
class Group:
    """A row's completions, N tokens in all, and what is known of them so far."""

    number: int  # which of the run's prompts this is
    row: Row
    prompt: Prompt
    completions: list[Tensor]
    samples: list[Sample]
    owner: Tensor  # (N,) the completion of each token
    scores: dict[str, list[Score]] = field(default_factory=dict)  # by reward

    @property
    def tokens(self) -> int:
        return len(self.owner)

    def parts(self, size: int | None) -> list[slice]:
        """The completions in parts of at most ``size``."""
        count = len(self.completions)
        return [slice(start, start + (size or count)) for start in range(0, count, size or count)]


@dataclass(frozen=True)
class Lesson:
    """What a group's rewards say about its N tokens."""

    totals: Tensor  # (G,) combined rewards, NaN where there is none
    advantages: Tensor  # (N,)
    old: Tensor | None  # (N,) log-probabilities under the policy that sampled; None: those of the first forward that is learnt from
    reference: Tensor | None  # (N,) log-probabilities under the model at the start

    @property
    def empty(self) -> bool:
        """Equal rewards have nothing to teach, unless the policy drifts from its reference."""
        return not bool(self.advantages.any()) and self.reference is None


@dataclass(frozen=True)
class Whole:
    """What a step holds, over all groups and processes: the normaliser of its loss."""

    completions: int
    tokens: int


def sample_groups(policy: Policy, rows: Sequence[Row], settings: Settings, numbers: Sequence[int], seeds: Sequence[int]) -> list[Group]:
    """Sample a group for each row; its random numbers come from its seed alone. ``RowError`` for a row that cannot be asked."""
    prompts = [encode_row(policy, row, settings) for row in rows]
    return sample_prompts(policy, rows, prompts, settings, numbers, seeds)


def sample_prompts(
    policy: Policy, rows: Sequence[Row], prompts: Sequence[Prompt], settings: Settings, numbers: Sequence[int], seeds: Sequence[int]
) -> list[Group]:
    """The same for rows that are encoded already."""
    if not prompts:
        return []
    # Images are encoded once for sampling and learning, where that keeps no more than one prompt's activations meanwhile.
    if policy.tower_is_frozen or len(prompts) == 1:
        learnt_from = settings.micro_batch is None or settings.micro_batch >= settings.group  # else every part encodes them again
        with torch.set_grad_enabled(learnt_from):
            prompts = [policy.look(prompt) for prompt in prompts]
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
    generators = [torch.Generator(policy.device).manual_seed(seed) for seed in seeds]
    sampled = rollout(policy, prompts, settings.group, sampling, generators)
    return [_group(policy, *each) for each in zip(rows, prompts, sampled, numbers, strict=True)]


def encode_row(policy: Policy, row: Row, settings: Settings) -> Prompt:
    """A row's prompt; ``RowError`` if the policy cannot be asked it."""
    return policy.encode(row.messages, row.images, row.region, settings.max_prompt)


def _group(policy: Policy, row: Row, prompt: Prompt, completions: list[Tensor], number: int) -> Group:
    samples = [
        replace(row.sample, response=text, opening=policy.opening, response_ids=tuple(ids.tolist()), group=number)
        for text, ids in zip(texts(policy, completions), completions, strict=True)
    ]
    lengths = torch.tensor([len(c) for c in completions], device=policy.device)
    owner = torch.repeat_interleave(torch.arange(len(completions), device=policy.device), lengths)
    return Group(number, row, prompt, completions, samples, owner)


def assess(
    policy: Policy, group: Group, rewards: Sequence[Reward], weights: Mapping[str, float], settings: Settings
) -> tuple[Lesson, Scored | None]:
    """What a group's rewards say; its samples and scores are filled in. With it the forward that showed it, if it can be learnt from."""
    needs = {need for reward in rewards for need in reward.needs} | ({"focus"} if settings.visual_reweighting else set())
    whole = len(group.parts(settings.micro_batch)) == 1
    seen = None
    if whole or needs or settings.updates > 1:
        with torch.set_grad_enabled(whole):
            prompt = group.prompt if whole else group.prompt.again
            seen = _score(policy, group, settings, prompt, needs=needs, layers=settings.layers)
        if needs:
            group.samples = _measured(policy, group, seen, needs, settings)
    group.scores |= {reward.name: reward(group.samples) for reward in rewards if reward.name not in group.scores}
    totals = to_tensor(combine(group.scores, weights, [0] * len(group.samples))).to(policy.device)
    advantages = _by_token(group, totals, None if seen is None else seen.focus, settings)
    reference = _reference(policy, group, settings) if settings.kl else None
    return Lesson(totals, advantages, None if seen is None else seen.logprobs.detach(), reference), seen if whole else None


def learn(policy: Policy, group: Group, lesson: Lesson, settings: Settings, whole: Whole, live: Scored | None = None) -> dict[str, float]:
    """Add a group's gradient to the model's, and say what happened. ``live``: a forward of the present weights with its graph."""
    found: list[dict[str, Tensor]] = []
    for part in group.parts(settings.micro_batch):
        mine = (group.owner >= part.start) & (group.owner < part.stop)
        scored = live or score(policy, group.prompt.again, group.completions[part], temperature=settings.temperature)
        loss, shown = _loss(lesson, scored, mine, settings, whole)
        if not lesson.empty or settings.shard:  # sharded processes must make equally many backward passes
            torch.autograd.backward(loss)
        found.append(shown | {"loss": loss.detach()[None]})
    joint = {name: torch.cat([f[name].detach().float() for f in found]) for name in found[0]}
    return {name: (values.sum() if name == "loss" else values.mean()).item() for name, values in joint.items()} | _about(lesson)


def _loss(lesson: Lesson, scored: Scored, mine: Tensor, settings: Settings, whole: Whole) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a part of a group, whose tokens are ``mine`` (N,), and per-token figures."""
    owner, advantages = scored.packed.owner, lesson.advantages[mine]
    old = scored.logprobs.detach() if lesson.old is None else lesson.old[mine]
    objective = policy_objective(settings.loss, scored.logprobs, old, advantages, owner, settings.clip_low, settings.clip_high)
    low, high = clipped(settings.loss, scored.logprobs.detach(), old, advantages, owner, settings.clip_low, settings.clip_high)
    shown = {"entropy": scored.entropy, "clip_ratio/low_mean": low, "clip_ratio/high_mean": high}
    if lesson.reference is not None:
        divergence = kl_to_reference(scored.logprobs, lesson.reference[mine])
        objective = objective + settings.kl * divergence
        shown["kl"] = divergence
    weight = token_weights(settings.loss, owner.bincount(), whole.completions, whole.tokens, settings.max_tokens)
    return (weight[owner] * objective).sum(), shown


def _about(lesson: Lesson) -> dict[str, float]:
    known = lesson.totals[~lesson.totals.isnan()]
    return {
        "reward": known.mean().item() if len(known) else math.nan,
        "reward_std": known.std().item() if len(known) > 1 else math.nan,
        "frac_reward_zero_std": float(not bool(lesson.advantages.any())),
    }


def _score(policy: Policy, group: Group, settings: Settings, prompt: Prompt, **options: Any) -> Scored:
    """A forward of the group behind a prompt, in parts of ``micro_batch`` completions."""
    return joined(
        [
            score(policy, prompt, group.completions[part], temperature=settings.temperature, **options)
            for part in group.parts(settings.micro_batch)
        ]
    )


def _measured(policy: Policy, group: Group, scored: Scored, needs: set[str], settings: Settings) -> list[Sample]:
    """The group's samples with what its forward has shown."""
    own = [(group.owner == i).cpu() for i in range(len(group.samples))]
    entropy, logprobs = scored.entropy.cpu(), scored.logprobs.detach().cpu()
    changed = _counterfactuals(policy, group, settings) if "counterfactual" in needs else {}
    return [
        replace(
            sample,
            entropy=entropy[mine].numpy(),
            attention=None if scored.attention is None else scored.attention[i],
            counterfactual=Counterfactual(logprobs[mine].numpy(), **{role: values[mine].numpy() for role, values in changed.items()}),
        )
        for i, (sample, mine) in enumerate(zip(group.samples, own, strict=True))
    ]


@torch.no_grad()
def _counterfactuals(policy: Policy, group: Group, settings: Settings) -> dict[str, Tensor]:
    """Log-probabilities (N,) of the completions given the image without its evidence, and the control image."""
    found = {}
    for role in ("evidence", "control"):
        image = getattr(group.row.sample, f"{role}_image")
        if image is not None:
            prompt = policy.encode(group.row.messages, (image, *group.row.images[1:]), limit=settings.max_prompt)
            found[role] = _score(policy, group, settings, prompt).logprobs.cpu()
    return found


@torch.no_grad()
def _reference(policy: Policy, group: Group, settings: Settings) -> Tensor:
    """Log-probabilities (N,) of the model at the start: the frozen copy, or the model without its adapter."""
    model: Any = policy.model
    with model.disable_adapter() if policy.reference is None else nullcontext():
        return _score(policy.reference or policy, group, settings, group.prompt.bare).logprobs


def _by_token(group: Group, totals: Tensor, focus: Tensor | None, settings: Settings) -> Tensor:
    """Advantages (N,) of the tokens, re-weighted by VGPO where their visual focus (N,) is known."""
    together = torch.zeros(len(totals), dtype=torch.long, device=totals.device)
    advantages = group_advantages(totals, together, settings.scale).float()
    if focus is None:
        return advantages[group.owner]
    mask = padded(torch.ones_like(group.owner, dtype=torch.bool), group.owner, len(advantages))
    return visual_advantages(advantages, padded(focus, group.owner, len(advantages)), mask, together)[mask]
