"""A step's completions, from rewards to gradient: score, reward, turn into advantages, learn.

    signals, figures = step(policy, groups, plan, normalizer)       # the first update, and
    _, figures = step(policy, groups, plan, normalizer, signals)    # further ones on the same

On the policy that sampled, the forward that rewards need is the forward that the gradient needs. So
a group is scored with its graph where the whole of it fits in one pass, and learning only runs
backward. Under ``micro_batch`` it is scored and learnt from in parts, under ``tokens_per_forward``
together with others (``in_batches``). A method that wants all groups at once (``sees_batch``) costs
one more forward: all are scored first, without a graph.

What papers change is in ``train.methods``; nothing here knows them by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardlib.advantages import group_advantages, to_tensor
from rewardlib.sample import Counterfactual, Sample, VisualAttention, combine
from train.batch import Group, Normalizer, Signal
from train.correction import importance_weights
from train.divergence import kl_to_reference
from train.forward import ForwardOutput, forward, forward_all, joined
from train.measures import Measure
from train.methods.base import Scores, Tokens
from train.order import seed_of
from train.plan import MEASURED, Plan
from train.policy import Policy, Prompt
from train.settings import Settings
from train.shown import Shown
from train.views import CONTROL, EVIDENCE, View


@dataclass(frozen=True)
class Assessed:
    """A group's rewards, and what its forwards say."""

    rewards: Tensor  # (G,) combined
    scores: Scores | None  # None where nothing had to be scored
    ref_logprobs: Tensor | None
    # the forward of the whole group with its graph, where it can be learnt from
    live: ForwardOutput | None


def step(
    policy: Policy,
    groups: Sequence[Group],
    plan: Plan,
    normalizer: Normalizer,
    signals: Sequence[Signal] | None = None,
) -> tuple[list[Signal], list[dict[str, float]]]:
    """Add the groups' gradients to the model's; what their rewards say, and what happened to each.

    signals: those of the first update on these completions, for the others.
    """
    batches = in_batches(groups, plan.settings.tokens_per_forward)
    if signals is None and plan.sees_batch:
        assessed = [each for batch in batches for each in assess(policy, batch, plan)]
        signals = to_signals(groups, assessed, plan)
    made = list(signals or ())
    figures: list[dict[str, float]] = []
    for batch in batches:  # one after the other, so that one batch's graph exists at a time
        live: list[ForwardOutput] | None = None
        if signals is None:
            assessed = assess(policy, batch, plan)
            pairs = zip(batch, assessed, strict=True)
            made += [to_signals([group], [each], plan)[0] for group, each in pairs]
            outputs = [each.live for each in assessed if each.live is not None]
            live = outputs or None
        own = made[len(figures) : len(figures) + len(batch)]
        figures += backward(policy, batch, own, plan, normalizer, live)
    return made, figures


def in_batches(groups: Sequence[Group], tokens: int | None) -> list[list[Group]]:
    """The groups that are given to a forward together, in their order: as many as have at most that
    many tokens with their prompts, and one at least.
    """
    batches: list[list[Group]] = []
    room = 0
    for group in groups:
        length = len(group.prompt.ids) + group.tokens
        if tokens is None or length > room:
            batches.append([])
            room = tokens or 0
        batches[-1].append(group)
        room -= length
    return batches


# ---------------------------------------------------------------------- from completions to signals


def assess(policy: Policy, batch: Sequence[Group], plan: Plan) -> list[Assessed]:
    """Score the groups of a batch: their samples' measurements and rewards are filled in."""
    settings = plan.settings
    live = plan.learns_from_scoring and _is_one_pass(batch, settings)
    outputs: list[ForwardOutput] | None = None
    views: list[dict[View, Tensor]] = [{} for _ in batch]
    if live or plan.wants_scores:
        prompts = [group.prompt for group in batch]
        with torch.set_grad_enabled(live):
            outputs = _score(policy, batch, settings, prompts, plan.measures)
        views = _score_views(policy, batch, plan)
        if plan.needs & MEASURED:
            for group, output, own in zip(batch, outputs, views, strict=True):
                group.samples = _measured(group, output, own)
    references = _references(policy, batch, settings) if settings.has_reference else None
    return [
        Assessed(
            _rewards(policy, group, plan),
            None if outputs is None else _scores_of(group, outputs[n], views[n], plan),
            None if references is None else references[n],
            outputs[n] if live and outputs is not None else None,
        )
        for n, group in enumerate(batch)
    ]


def _is_one_pass(batch: Sequence[Group], settings: Settings) -> bool:
    """Whether one forward takes the whole of a batch."""
    return len(batch) > 1 or len(batch[0].parts(settings.micro_batch)) == 1


def _rewards(policy: Policy, group: Group, plan: Plan) -> Tensor:
    """The group's combined rewards (G,); those that are known of its texts are not asked again."""
    for reward in plan.rewards:
        if reward.name not in group.scores:
            group.scores[reward.name] = reward(group.samples)
    one_group = [0] * len(group.samples)
    return to_tensor(combine(group.scores, plan.weights, one_group)).to(policy.device)


def to_signals(groups: Sequence[Group], assessed: Sequence[Assessed], plan: Plan) -> list[Signal]:
    """Rewards as advantages of tokens, as the methods shape them."""
    pairs = zip(groups, assessed, strict=True)
    advantages = [_advantages(group, each.rewards, plan.settings) for group, each in pairs]
    scores = [each.scores for each in assessed if each.scores is not None]
    for method in plan.methods:
        advantages = method.advantages(advantages, scores, plan.across)
    return [
        Signal(
            each.rewards,
            shaped,
            None if each.scores is None else each.scores.logprobs,
            each.ref_logprobs,
            {} if each.scores is None else each.scores.views,
            group.sampled_logprobs,
            plan.has_penalty,
        )
        for group, each, shaped in zip(groups, assessed, advantages, strict=True)
    ]


def _score(
    policy: Policy,
    batch: Sequence[Group],
    settings: Settings,
    prompts: Sequence[Prompt],
    measures: Sequence[Measure] = (),
) -> list[ForwardOutput]:
    """A forward of the batch's completions behind prompts; of a single group in parts of
    ``micro_batch`` completions.
    """
    told: dict[str, Any] = {"measures": measures, "temperature": settings.temperature}
    if len(batch) > 1:
        pairs = zip(prompts, batch, strict=True)
        rows = [(prompt, group.completions) for prompt, group in pairs]
        return forward_all(policy, rows, **told)
    (group,), (prompt,) = batch, prompts
    parts = group.parts(settings.micro_batch)
    outputs = [forward(policy, prompt, group.completions[part], **told) for part in parts]
    return [joined(outputs, group.completion_index)]


@torch.no_grad()
def _score_views(policy: Policy, batch: Sequence[Group], plan: Plan) -> list[dict[View, Tensor]]:
    """Log-probabilities (N,) of each group under each view; a row that has none such lacks it."""
    settings = plan.settings
    views: list[dict[View, Tensor]] = [{} for _ in batch]
    for view in plan.views:
        prompts = {}
        for n, group in enumerate(batch):
            shown = Shown(policy, group.row, group.prompt, settings.max_prompt)
            generator = np.random.default_rng(seed_of(settings.seed, group.number, view.name))
            prompt = shown.under(view, generator)
            if prompt is not None:
                prompts[n] = prompt
        if prompts:
            some = [batch[n] for n in prompts]
            outputs = _score(policy, some, settings, list(prompts.values()))
            for n, output in zip(prompts, outputs, strict=True):
                views[n][view] = output.logprobs
    return views


@torch.no_grad()
def _references(policy: Policy, batch: Sequence[Group], settings: Settings) -> list[Tensor]:
    """Log-probabilities (N,) of each group under the model at the start: the frozen copy, or the
    model without its adapter.
    """
    model: Any = policy.model
    prompts = [group.prompt.without_features() for group in batch]
    if policy.reference is not None:
        return [o.logprobs for o in _score(policy.reference, batch, settings, prompts)]
    with model.disable_adapter():
        return [o.logprobs for o in _score(policy, batch, settings, prompts)]


def _scores_of(
    group: Group, output: ForwardOutput, views: Mapping[View, Tensor], plan: Plan
) -> Scores:
    device = output.logprobs.device
    return Scores(
        group.completion_index,
        output.logprobs.detach(),
        output.entropy.detach(),
        views,
        {name: values.detach() for name, values in output.measured.items()},
        {name: to_tensor(column).to(device) for name, column in group.scores.items()},
        plan.weights,
    )


def _measured(group: Group, output: ForwardOutput, views: Mapping[View, Tensor]) -> list[Sample]:
    """The group's samples with what its forwards say of them."""
    entropy, logprobs = output.entropy.detach().cpu(), output.logprobs.detach().cpu()
    attention = output.measured["attention"].cpu() if "attention" in output.measured else None
    sizes = float(group.prompt.region.sum()), float(group.prompt.image.sum())
    erased = {view.name: views[view].cpu() for view in (EVIDENCE, CONTROL) if view in views}
    measured = []
    for i, sample in enumerate(group.samples):
        own = (group.completion_index == i).cpu()
        changed = {name: values[own].numpy() for name, values in erased.items()}
        on_image = None
        if attention is not None:
            region, image = attention[own].unbind(dim=1)
            on_image = VisualAttention(region.numpy(), image.numpy(), *sizes)
        measured.append(
            replace(
                sample,
                entropy=entropy[own].numpy(),
                attention=on_image,
                counterfactual=Counterfactual(logprobs[own].numpy(), **changed),
            )
        )
    return measured


def _advantages(group: Group, rewards: Tensor, settings: Settings) -> Tensor:
    """Advantages (N,) of the tokens: those of their completions."""
    one_group = torch.zeros(len(rewards), dtype=torch.long, device=rewards.device)
    advantages = group_advantages(rewards, one_group, settings.scale)
    return advantages.float()[group.completion_index]


# ------------------------------------------------------------------------ from signals to gradients


def backward(
    policy: Policy,
    batch: Sequence[Group],
    signals: Sequence[Signal],
    plan: Plan,
    normalizer: Normalizer,
    live: Sequence[ForwardOutput] | None = None,
) -> list[dict[str, float]]:
    """Add the gradient of a batch's groups to the model's, and say what happened to each. ``live``:
    a forward of the present weights with its graph, of each group.
    """
    settings = plan.settings
    figures: list[dict[str, list[Tensor]]] = [{} for _ in batch]
    for part in batch[0].parts(settings.micro_batch) if len(batch) == 1 else [slice(0, None)]:
        with ExitStack() as watched:
            outputs = live or forward_all(
                policy,
                [(policy.for_another_forward(g.prompt), g.completions[part]) for g in batch],
                measures=plan.live_measures,
                temperature=settings.temperature,
                entropy_gradient=plan.entropy_gradient,
                watched=watched,
            )
            losses = []
            for group, signal, output, told in zip(batch, signals, outputs, figures, strict=True):
                inside = group.tokens_of(part)
                loss, values = _loss(signal, output, part, inside, plan, normalizer)
                losses.append(loss)
                for name, value in (values | {"loss": loss[None]}).items():
                    told.setdefault(name, []).append(value.detach().float())
            # sharded processes must make equally many backward passes
            if settings.shard or not all(signal.empty for signal in signals):
                torch.autograd.backward(sum(losses[1:], losses[0]))
    return [_told(parts, signal) for parts, signal in zip(figures, signals, strict=True)]


def _told(figures: Mapping[str, Sequence[Tensor]], signal: Signal) -> dict[str, float]:
    """A group's figures, from those of its parts' tokens."""
    joint = {name: torch.cat(list(parts)) for name, parts in figures.items()}
    means = {name: values.mean().item() for name, values in joint.items() if name != "loss"}
    return means | {"loss": joint["loss"].sum().item()} | _about(signal)


def stand_in(policy: Policy, group: Group | None, plan: Plan) -> None:
    """Backward passes as many as a group has, which add nothing: of a sharded process that has
    fewer groups than another, since all must make equally many.
    """
    if group is None:  # of a process that has drawn none, as sharded ones always do
        return
    prompt, temperature = policy.for_another_forward(group.prompt), plan.settings.temperature
    for part in group.parts(plan.settings.micro_batch):
        output = forward(policy, prompt, group.completions[part], temperature=temperature)
        torch.autograd.backward(0.0 * output.logprobs.sum())


@torch.no_grad()
def gather_weights(policy: Policy, group: Group | None) -> None:
    """A forward of a sharded model, which all processes make together. Behind it each may make
    others by itself, as many as it likes, until the next update.
    """
    if group is not None:
        forward(policy, group.prompt.without_features(), group.completions[:1])


def _loss(
    signal: Signal,
    output: ForwardOutput,
    part: slice,
    inside: Tensor,
    plan: Plan,
    normalizer: Normalizer,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a part of a group, whose tokens are ``inside`` (N,), and per-token figures."""
    settings, loss, index = plan.settings, plan.loss, output.completion_index
    logprobs, advantages = output.logprobs, signal.advantages[inside]
    old_logprobs = logprobs.detach() if signal.old_logprobs is None else signal.old_logprobs[inside]
    ref_logprobs = None if signal.ref_logprobs is None else signal.ref_logprobs[inside]
    objective = loss.objective(logprobs, old_logprobs, advantages, index)
    low, high = loss.clipped(logprobs.detach(), old_logprobs, advantages, index)
    figures = {"entropy": output.entropy, "clip_ratio/low_mean": low, "clip_ratio/high_mean": high}
    if signal.sampled_logprobs is not None:
        sampled = signal.sampled_logprobs[inside]
        correction = settings.correction, settings.correction_cap
        ratio = importance_weights(old_logprobs, sampled, index, *correction)
        objective = objective * ratio
        figures["sampling/importance_ratio"] = ratio
        figures["sampling/logp_difference"] = (old_logprobs - sampled).detach().abs()
    if ref_logprobs is not None:
        figures["kl"] = kl_to_reference(logprobs, ref_logprobs)
        if settings.kl:
            objective = objective + settings.kl * figures["kl"]
    views = {view: values[inside] for view, values in signal.views.items()}
    tokens = Tokens(
        index,
        logprobs,
        output.entropy,
        views,
        {measure.name: output.measured[measure.name] for measure in plan.live_measures},
        signal.rewards[part],
        ref_logprobs,
    )
    for method in plan.methods:
        penalty = method.penalty(tokens)
        if penalty is not None:
            objective = objective + penalty
            figures[f"methods/{method.name}/penalty"] = penalty
    lengths = index.bincount()
    weight = loss.weights(lengths, normalizer.completions, normalizer.tokens, settings.max_tokens)
    return (weight[index] * objective).sum(), figures


def _about(signal: Signal) -> dict[str, float]:
    rewards = signal.rewards[~signal.rewards.isnan()]
    return {
        "reward": rewards.mean().item() if len(rewards) else math.nan,
        "reward_std": rewards.std().item() if len(rewards) > 1 else math.nan,
        "frac_reward_zero_std": float(len(rewards) < 2 or bool(rewards.min() == rewards.max())),
    }
