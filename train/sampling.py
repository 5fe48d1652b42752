"""Which prompts a step works on, and their completions.

The run's prompts are numbered. A prompt's row and random numbers follow from the seed and its number (``train.order``), so neither the
number of processes nor a kill can change what is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rewardlib.sample import Reward
from train.batch import Group
from train.data import DataError, Row, Rows
from train.order import row_index, seed_of
from train.parallel import World
from train.policy import Policy, Prompt
from train.rollout import Sampling, rollout, texts
from train.settings import Settings

ROUNDS = 8  # how often a step draws prompts before it goes on with fewer that have something to teach


def draw_groups(
    policy: Policy, rows: Rows, rewards: Sequence[Reward], settings: Settings, world: World, drawn: int
) -> tuple[list[Group], int]:
    """This process's groups of a step with their text rewards, and how many prompts have been drawn since the run began.

    drawn: the same before the step. Prompts of ``filter_groups`` are drawn until the step is full, at most ``ROUNDS`` times.
    """
    kept: list[Group] = []
    for _ in range(ROUNDS if settings.filter_groups else 1):
        numbers = world.share(range(drawn, drawn + settings.prompts))
        drawn += settings.prompts
        groups = _sampled(policy, rows, settings, numbers)
        score_texts(groups, rewards)
        kept += [group for group in groups if not settings.filter_groups or _varies(group)]
        if world.total(len(kept)) >= settings.prompts:
            break
    first = set(sorted(world.gather([group.number for group in kept]))[: settings.prompts])
    if not first and len(set(world.gather([*rows.left_out]))) == len(rows):
        last = next(reversed(rows.left_out.values()))
        raise DataError(f"none of the {len(rows)} rows of {rows.data} can be used; {last}")
    return [group for group in kept if group.number in first], drawn


def _sampled(policy: Policy, rows: Rows, settings: Settings, numbers: Sequence[int]) -> list[Group]:
    """The groups of these prompts of the run, without those whose rows cannot be used."""
    asked = {number: _usable(policy, rows, settings, number) for number in numbers}
    usable = {number: pair for number, pair in asked.items() if pair is not None}
    chosen = [row for row, _ in usable.values()]
    prompts = [prompt for _, prompt in usable.values()]
    return sample_prompts(policy, chosen, prompts, settings, list(usable), [seed_of(settings.seed, number) for number in usable])


def _usable(policy: Policy, rows: Rows, settings: Settings, number: int) -> tuple[Row, Prompt] | None:
    """The row of a run's prompt, encoded; None if it cannot be used.

    Sharded processes must make equally many passes: there the next row that can be used takes its place.
    """
    first = row_index(len(rows), number, settings.seed)
    for offset in range(len(rows) if settings.shard else 1):
        index = (first + offset) % len(rows)
        if (pair := rows.use(index, lambda row: (row, encode_row(policy, row, settings)))) is not None:
            return pair
    return None


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
    index = torch.repeat_interleave(torch.arange(len(completions), device=policy.device), lengths)
    return Group(number, row, prompt, completions, samples, index)


def score_texts(groups: Sequence[Group], rewards: Sequence[Reward]) -> None:
    """Rewards of the texts alone, for all groups at once, so that a judge is asked about many."""
    samples = [sample for group in groups for sample in group.samples]
    for reward in rewards if samples else ():
        column = iter(reward(samples))
        for group in groups:
            group.scores[reward.name] = [next(column) for _ in group.samples]


def _varies(group: Group) -> bool:
    return any(len({score for score in column if score is not None}) > 1 for column in group.scores.values())
