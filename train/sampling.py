"""Which prompts a step works on, and their completions.

The run's prompts are numbered. A prompt's row and random numbers follow from the seed and its
number (``train.order``), so neither the number of processes nor a kill can change what is sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardlib.sample import Reward
from train.asking import answer_questions
from train.batch import Group
from train.data import DataError, Row, Rows
from train.distributed import World
from train.engines.ahead import Ahead
from train.engines.base import Completion, Engine, Sampling
from train.order import row_index, seed_of
from train.plan import HELD_BEFORE, Plan
from train.policy import Policy, Prompt
from train.settings import Settings
from train.shown import Shown
from train.views import View

# how often a step draws prompts before it goes on with fewer that have something to teach
ROUNDS = 8
ENCODED = 32  # of a step's prompts, whose images stay encoded until they are learnt from


Chosen = tuple[list[Row], list[Prompt], list[int], list[int]]  # with their numbers and seeds


class Drawn(NamedTuple):
    """A process's groups of a step."""

    groups: list[Group]
    drawn: int  # prompts that have been drawn since the run began
    spare: Group | None  # one that may have been filtered out (``train.step.stand_in``)


@dataclass(frozen=True)
class Request:
    """Prompts that are shown under one view."""

    prompts: Sequence[Prompt]
    places: Sequence[int]  # of their completions in each prompt's group
    seeds: Sequence[int]


@dataclass(frozen=True)
class Sampler:
    """Draws completions of a run's prompts, and rewards their texts."""

    policy: Policy
    engine: Engine
    plan: Plan

    @property
    def text_rewards(self) -> list[Reward]:
        """The rewards that need nothing but the completions' texts, and what the policy replies to
        further questions.
        """
        return [reward for reward in self.plan.rewards if not {*reward.needs} - HELD_BEFORE]

    def draw_groups(self, rows: Rows, world: World, drawn: int) -> Drawn:
        """This process's groups of a step with their text rewards.

        drawn: prompts that have been drawn before the step. Prompts of ``filter_groups`` are drawn
            until the step is full, at most ``ROUNDS`` times.
        """
        settings = self.plan.settings
        kept: list[Group] = []
        for _ in range(ROUNDS if settings.filter_groups else 1):
            numbers = world.share(range(drawn, drawn + settings.prompts))
            drawn += settings.prompts
            groups = self._sampled(rows, numbers)
            self.score_texts(groups)
            kept += [group for group in groups if not settings.filter_groups or _varies(group)]
            if world.total(len(kept)) >= settings.prompts:
                break
        first = set(
            sorted(world.gather_objects([group.number for group in kept]))[: settings.prompts]
        )
        if not first and len(set(world.gather_objects([*rows.left_out]))) == len(rows):
            last = next(reversed(rows.left_out.values()))
            raise DataError(f"none of the {len(rows)} rows of {rows.data} can be used; {last}")
        chosen = [group for group in kept if group.number in first]
        return Drawn(chosen, drawn, groups[-1] if groups else None)

    def sample(
        self, rows: Sequence[Row], numbers: Sequence[int], seeds: Sequence[int]
    ) -> list[Group]:
        """Sample a group for each row; its random numbers come from its seed alone. ``RowError``
        for a row that cannot be asked.
        """
        prompts = [encode_row(self.policy, row, self.plan.settings) for row in rows]
        return self._sample_prompts(rows, self._with_features(prompts), numbers, seeds)

    def begin(self, rows: Rows, world: World, drawn: int) -> None:
        """Have the first prompts of the next step sampled while this one is learnt from.

        drawn: as ``draw_groups`` has returned it.
        """
        assert isinstance(self.engine, Ahead)
        numbers = world.share(range(drawn, drawn + self.plan.settings.prompts))
        for request in self._requests(*self._chosen(rows, numbers)):
            self.engine.begin(request.prompts, len(request.places), self._sampling, request.seeds)

    def score_texts(self, groups: Sequence[Group]) -> None:
        """Rewards of the texts, for all groups at once, so that a judge is asked about many."""
        answer_questions(self.policy, self.engine, groups, self.plan.rewards, self.plan.settings)
        samples = [sample for group in groups for sample in group.samples]
        for reward in self.text_rewards if samples else ():
            column = iter(reward(samples))
            for group in groups:
                group.scores[reward.name] = [next(column) for _ in group.samples]

    def _sampled(self, rows: Rows, numbers: Sequence[int]) -> list[Group]:
        """The groups of these prompts of the run, without those whose rows cannot be used."""
        chosen, prompts, usable, seeds = self._chosen(rows, numbers)
        return self._sample_prompts(chosen, self._with_features(prompts), usable, seeds)

    def _chosen(self, rows: Rows, numbers: Sequence[int]) -> Chosen:
        """Of these prompts of the run those whose rows can be used."""
        asked = {number: self._usable(rows, number) for number in numbers}
        usable = {number: pair for number, pair in asked.items() if pair is not None}
        seeds = [seed_of(self.plan.settings.seed, number) for number in usable]
        pairs = usable.values()
        return [row for row, _ in pairs], [prompt for _, prompt in pairs], list(usable), seeds

    def _usable(self, rows: Rows, number: int) -> tuple[Row, Prompt] | None:
        """The row of a run's prompt, encoded; None if it cannot be used.

        Sharded processes must make equally many passes: there the next row that can be used takes
        its place.
        """
        settings = self.plan.settings
        first = row_index(len(rows), number, settings.seed)
        for offset in range(len(rows) if settings.shard else 1):
            index = (first + offset) % len(rows)
            pair = rows.use(index, lambda row: (row, encode_row(self.policy, row, settings)))
            if pair is not None:
                return pair
        return None

    def _sample_prompts(
        self,
        rows: Sequence[Row],
        prompts: Sequence[Prompt],
        numbers: Sequence[int],
        seeds: Sequence[int],
    ) -> list[Group]:
        completions: list[dict[int, Completion]] = [{} for _ in prompts]
        for request in self._requests(rows, prompts, numbers, seeds):
            places = request.places
            sampled = self.engine.generate(
                request.prompts, len(places), self._sampling, request.seeds
            )
            for own, more in zip(completions, sampled, strict=True):
                own.update(zip(places, more, strict=True))
        ordered = [[own[n] for n in sorted(own)] for own in completions]
        return [self._group(*each) for each in zip(rows, prompts, ordered, numbers, strict=True)]

    def _requests(
        self,
        rows: Sequence[Row],
        prompts: Sequence[Prompt],
        numbers: Sequence[int],
        seeds: Sequence[int],
    ) -> Iterator[Request]:
        """What the engine is asked for: once for every view that completions are sampled under."""
        views = self._views()
        for view in dict.fromkeys(views) if prompts else ():
            places = [n for n, other in enumerate(views) if other == view]
            asked = [self._shown(view, *each) for each in zip(rows, prompts, numbers, strict=True)]
            own_seeds = seeds if view is None else [seed_of(seed, view.name) for seed in seeds]
            yield Request(asked, places, own_seeds)

    @property
    def _sampling(self) -> Sampling:
        settings = self.plan.settings
        return Sampling(settings.max_tokens, settings.temperature, settings.top_p)

    def _with_features(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """Images are encoded once for sampling and learning, where that keeps no more than one
        prompt's activations, or a few prompts' features, meanwhile.
        """
        settings = self.plan.settings
        if len(prompts) > 1 and not self.policy.tower_is_frozen:
            return prompts
        few, others = prompts[:ENCODED], prompts[ENCODED:]
        whole = settings.micro_batch is None or settings.micro_batch >= settings.num_generations
        # What is not learnt from needs no graph; nor do parts of a group, which encode them again.
        with torch.set_grad_enabled(whole and self.plan.learns_from_scoring):
            return [*(self.policy.encode_images(prompt) for prompt in few), *others]

    def _views(self) -> list[View | None]:
        """The view under which each of a prompt's completions is sampled."""
        views: list[View | None] = [None] * self.plan.settings.num_generations
        for method in self.plan.methods:
            own = method.sampled_under(len(views))
            views = [view or before for view, before in zip(own, views, strict=True)]
        return views

    def _shown(self, view: View | None, row: Row, prompt: Prompt, number: int) -> Prompt:
        """The prompt that a view shows; the row's own where there is no view, or the row has none
        such.
        """
        if view is None:
            return prompt
        settings = self.plan.settings
        generator = np.random.default_rng(seed_of(settings.seed, number, view.name))
        shown = Shown(self.policy, row, prompt, settings.max_prompt)
        return shown.under(view, generator) or prompt

    def _group(self, row: Row, prompt: Prompt, drawn: list[Completion], number: int) -> Group:
        policy = self.policy
        completions = [completion.ids for completion in drawn]
        told = [each.logprobs for each in drawn if each.logprobs is not None]
        samples = []
        for ids, text in zip(completions, texts(policy, completions), strict=True):
            samples.append(
                replace(
                    row.sample,
                    response=text,
                    opening=policy.opening,
                    response_ids=tuple(ids.tolist()),
                    group=number,
                    box_space=policy.family.box_space(prompt.images, row.images)
                    if row.images
                    else None,
                )
            )
        lengths = torch.tensor([len(ids) for ids in completions], device=policy.device)
        which = torch.arange(len(completions), device=policy.device)
        index = which.repeat_interleave(lengths)
        sampled_logprobs = torch.cat(told) if told else None
        return Group(number, row, prompt, completions, samples, index, sampled_logprobs)


def encode_row(policy: Policy, row: Row, settings: Settings) -> Prompt:
    """A row's prompt; ``RowError`` if the policy cannot be asked it."""
    prompt = policy.encode(row.messages, row.images, row.region, settings.max_prompt)
    return replace(prompt, boxes=row.boxes)


def texts(policy: Policy, completions: Iterable[Tensor]) -> list[str]:
    """Completions as text, without special tokens."""
    return [policy.processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in completions]


def _varies(group: Group) -> bool:
    return any(
        len({score for score in column if score is not None}) > 1
        for column in group.scores.values()
    )
