"""Ask the policy what rewards want to know of it, about its own completions (``rewardlib.asking``).

Replies follow from the run's seed and the prompt's number, as completions do, whatever else is
asked in the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rewardlib.asking import Continuation, Question
from rewardlib.measure import evaluating
from rewardlib.rows import RowError
from train.batch import Group
from train.engines.base import Engine, Sampling
from train.forward import last_hidden
from train.order import seed_of
from train.packing import pack
from train.policy import Policy, Prompt
from train.settings import Settings

BROKEN = "\ufffd"  # what a part of a character decodes to


@dataclass
class Asked:
    """A question about a completion, and its reply; None where it could not be asked."""

    group: Group
    completion: int
    place: int  # among the questions about this completion
    question: Question | Continuation
    reply: str | None = None


def answer_questions(
    policy: Policy,
    engine: Engine,
    groups: Sequence[Group],
    rewards: Sequence[Any],
    settings: Settings,
) -> None:
    """Fill in ``replies`` and ``token_ends`` of the groups' samples, for the rewards that need
    them.
    """
    if any("token_ends" in reward.needs for reward in rewards):
        for group in groups:
            group.samples = [
                replace(sample, token_ends=token_ends(policy, sample.response_ids))
                for sample in group.samples
            ]
    for reward in rewards:
        if "replies" in reward.needs:
            _ask(policy, engine, groups, reward, settings)


def token_ends(policy: Policy, ids: Sequence[int]) -> tuple[int, ...]:
    """Where in its text each token of a response ends; of a character's tokens the last ends it."""
    decode = policy.processor.tokenizer.decode
    ends: list[int] = []
    start = 0  # of the tokens that make no whole character yet
    length = 0  # of the text before them
    for n in range(len(ids)):
        text = decode(list(ids[start : n + 1]), skip_special_tokens=True)
        if not text.endswith(BROKEN):
            start, length = n + 1, length + len(text)
        ends.append(length)
    return tuple(ends)


def _ask(
    policy: Policy, engine: Engine, groups: Sequence[Group], reward: Any, settings: Settings
) -> None:
    asked = [
        Asked(group, completion, place, question)
        for group in groups
        for completion, sample in enumerate(group.samples)
        for place, question in enumerate(reward.questions(sample))
    ]
    _reply(policy, engine, asked, reward.name, settings)
    for group in groups:
        own = [each for each in asked if each.group is group]
        _choose_words(policy, group, own, settings)
        for completion, sample in enumerate(group.samples):
            told = [each.reply for each in own if each.completion == completion]
            replies = {**sample.replies, reward.name: told}
            group.samples[completion] = replace(sample, replies=replies)


def _reply(
    policy: Policy, engine: Engine, asked: Sequence[Asked], reward: str, settings: Settings
) -> None:
    """Fill in what the policy replies to questions."""
    encoded: list[tuple[Asked, Prompt]] = []
    for each in asked:
        if isinstance(each.question, Question):
            with suppress(RowError):  # too long, say
                chat = _chat(each.question)
                encoded.append((each, policy.encode(chat, (), limit=settings.max_prompt)))
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
    size = settings.num_generations  # at a time, which bounds memory
    for start in range(0, len(encoded), size):
        part = encoded[start : start + size]
        seeds = [
            seed_of(settings.seed, each.group.number, reward, each.completion, each.place)
            for each, _ in part
        ]
        completions = engine.generate([prompt for _, prompt in part], 1, sampling, seeds)
        for (each, _), (reply,) in zip(part, completions, strict=True):
            each.reply = policy.processor.tokenizer.decode(reply.ids, skip_special_tokens=True)


def _chat(question: Question) -> list[dict[str, Any]]:
    turns = [("system", question.system), ("user", question.text)]
    return [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns if text
    ]


@torch.no_grad()
def _choose_words(policy: Policy, group: Group, asked: Sequence[Asked], settings: Settings) -> None:
    """Fill in the word that most likely goes on each continuation, a few at a time behind the
    group's one prompt.
    """
    open_ended = [each for each in asked if isinstance(each.question, Continuation)]
    size = settings.micro_batch or settings.num_generations
    for start in range(0, len(open_ended), size):
        part = open_ended[start : start + size]
        begun = [_tokens(policy, each.question.text) for each in part]
        last = _last_hidden(policy, group.prompt, begun)
        with policy.precision():
            logits = policy.model.get_output_embeddings()(last)
        for each, scores in zip(part, logits, strict=True):
            assert isinstance(each.question, Continuation)
            first = [int(_tokens(policy, word)[0]) for word in each.question.words]
            each.reply = each.question.words[int(scores[first].argmax())]


def _tokens(policy: Policy, text: str) -> Tensor:
    ids = policy.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor(ids, device=policy.device)


def _last_hidden(policy: Policy, prompt: Prompt, continuations: Sequence[Tensor]) -> Tensor:
    """Hidden states (B, D) of the last tokens of several continuations of one prompt."""
    packed = pack(prompt.ids, prompt.positions, continuations)
    with evaluating(policy.model), policy.precision():
        hidden = last_hidden(policy, [prompt], packed)
    ends = torch.tensor([len(ids) for ids in continuations], device=hidden.device).cumsum(0) - 1
    return hidden[packed.tokens[ends]]
