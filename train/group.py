"""One prompt's completions, from sampling to gradient: the unit that GRPO works on.

On the policy that sampled, the forward that rewards need is the forward that the gradient needs: a group is scored once, with gradient,
rewarded from what that pass has shown, and learnt from by its backward. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rewardlib.advantages import group_advantages, to_tensor
from rewardlib.sample import Counterfactual, Reward, Sample, Score, combine
from rewardlib.vgpo import visual_advantages
from train.data import Row
from train.losses import kl_to_reference, policy_objective, token_weights
from train.packing import padded
from train.policy import Policy, Prompt
from train.rollout import Sampling, rollout, texts
from train.score import Scored, score
from train.settings import Settings


@dataclass
class Group:
    """A row's completions, and their scores by reward as far as they are known."""

    row: Row
    prompt: Prompt
    completions: list[Tensor]
    samples: list[Sample]
    scores: dict[str, list[Score]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.completions))


def sample_group(policy: Policy, row: Row, settings: Settings, seed: int) -> Group:
    """Sample a group; its random numbers come from ``seed`` alone."""
    prompt = policy.encode(row.messages, row.images, row.region, settings.max_prompt)
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
    generator = torch.Generator(policy.device).manual_seed(seed)
    completions = rollout(policy, prompt, settings.group, sampling, generator)
    samples = [
        replace(row.sample, response=text, response_ids=tuple(ids.tolist()), group=row.id)
        for text, ids in zip(texts(policy, completions), completions, strict=True)
    ]
    return Group(row, prompt, completions, samples, {})


def learn(
    policy: Policy,
    group: Group,
    rewards: Sequence[Reward],
    weights: Mapping[str, float],
    settings: Settings,
    *,
    completions: int,
    tokens: int,
) -> dict[str, float]:
    """Add a group's gradient to the model's, and say what happened.

    completions, tokens: of the whole step, over all groups and ranks: the loss's normaliser.
    """
    needs = {need for reward in rewards for need in reward.needs} | ({"focus"} if settings.visual_reweighting else set())
    scored = score(policy, group.prompt, group.completions, needs=needs, layers=settings.layers, temperature=settings.temperature)
    group.samples = _measured(policy, group, scored, needs, settings)
    group.scores |= {reward.name: reward(group.samples) for reward in rewards if reward.name not in group.scores}
    totals = to_tensor(combine(group.scores, weights, [0] * len(group.samples))).to(policy.device)
    advantages = group_advantages(totals, torch.zeros(len(totals), device=policy.device), settings.scale).float()
    by_token = _by_token(advantages, scored, settings)
    owner = scored.packed.owner
    old = scored.logprobs.detach()
    objective = policy_objective(settings.loss, scored.logprobs, old, by_token, owner, settings.clip_low, settings.clip_high)
    found = {"reward": totals.nanmean().item(), "reward_std": _std(totals), "entropy": scored.entropy.mean().item()}
    if settings.kl:
        divergence = kl_to_reference(scored.logprobs, _reference(policy, group, settings))
        objective = objective + settings.kl * divergence
        found["kl"] = divergence.mean().item()
    weight = token_weights(settings.loss, owner.bincount(), completions, tokens, settings.max_tokens)
    loss = (weight[owner] * objective).sum()
    # A group of equal rewards has nothing to teach, unless it drifts from the reference.
    if bool(by_token.any()) or settings.kl:
        torch.autograd.backward(loss)
    return found | {"loss": loss.item(), "frac_reward_zero_std": float(not bool(by_token.any()))}


def _measured(policy: Policy, group: Group, scored: Scored, needs: set[str], settings: Settings) -> list[Sample]:
    """The group's samples with what its forward has shown."""
    own = [(scored.packed.owner == i).cpu() for i in range(len(group.samples))]
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
            found[role] = score(policy, prompt, group.completions, temperature=settings.temperature).logprobs.cpu()
    return found


@torch.no_grad()
def _reference(policy: Policy, group: Group, settings: Settings) -> Tensor:
    """Log-probabilities (N,) of the model at the start: the frozen copy, or the model without its adapter."""
    model: Any = policy.model
    with model.disable_adapter() if policy.reference is None else nullcontext():
        return score(policy.reference or policy, group.prompt, group.completions, temperature=settings.temperature).logprobs


def _by_token(advantages: Tensor, scored: Scored, settings: Settings) -> Tensor:
    """Advantages (N,) of the tokens, re-weighted by VGPO where it is on."""
    owner = scored.packed.owner
    if not settings.visual_reweighting or scored.focus is None:
        return advantages[owner]
    count = len(advantages)
    mask = padded(torch.ones_like(owner, dtype=torch.bool), owner, count)
    together = torch.zeros(count, dtype=torch.long, device=owner.device)
    return visual_advantages(advantages, padded(scored.focus, owner, count), mask, together)[mask]


def _std(values: Tensor) -> float:
    known = values[~values.isnan()]
    return known.std().item() if len(known) > 1 else 0.0
