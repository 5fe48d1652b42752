"""Which prompts a step works on, and their completions.

The run's prompts are numbered. A prompt's row and random numbers follow from the seed and its number, so neither the number of processes
nor a kill can change what is sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch

from rewardlib.rows import RowError
from rewardlib.sample import Reward
from train.data import DataError, Row, Rows
from train.group import Group, encode_row, sample_prompts
from train.parallel import World
from train.policy import Policy, Prompt
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
        found = _sampled(policy, rows, settings, numbers)
        score_texts(found, rewards)
        kept += [group for group in found if not settings.filter_groups or _varies(group)]
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
        if (row := rows.take(index)) is None:
            continue
        try:
            return row, encode_row(policy, row, settings)
        except RowError as error:
            rows.leave_out(index, error)
    return None


def score_texts(groups: Sequence[Group], rewards: Sequence[Reward]) -> None:
    """Rewards of the texts alone, for all groups at once, so that a judge is asked about many."""
    samples = [sample for group in groups for sample in group.samples]
    for reward in rewards if samples else ():
        column = iter(reward(samples))
        for group in groups:
            group.scores[reward.name] = [next(column) for _ in group.samples]


def _varies(group: Group) -> bool:
    return any(len({score for score in column if score is not None}) > 1 for column in group.scores.values())


def row_index(rows: int, number: int, seed: int) -> int:
    """The row of a run's prompt ``number``: every epoch visits all rows once, in an order of its own, which follows from the seed alone."""
    return _order(rows, seed_of(seed, "epoch", number // rows))[number % rows]


@lru_cache(maxsize=2)
def _order(rows: int, seed: int) -> list[int]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()


def seed_of(*parts: int | str) -> int:
    """One seed from several numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
