"""One more question to the policy about its own response, for rewards that rest on what it replies.

A reward with ``needs = {"replies"}`` has a method ``questions(sample)``; the trainer asks the policy and puts the replies into
``Sample.replies`` under the reward's name, in the order of the questions, None for one that could not be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rewardlib.sample import Sample


@dataclass(frozen=True)
class Question:
    """A chat of its own, without images, that the policy replies to as it replies to the rows: sampled alike, at most as long."""

    text: str
    system: str = ""


@dataclass(frozen=True)
class Continuation:
    """The row's own chat, with its images, and the beginning of a response; the policy says which of ``words`` most likely comes next."""

    text: str
    words: tuple[str, ...]


class Asking(Protocol):
    """A reward that asks."""

    def questions(self, sample: Sample) -> Sequence[Question | Continuation]: ...


def replies_of(sample: Sample, reward: str) -> Sequence[str | None]:
    """The replies to a reward's questions, or ``ValueError`` naming who has to ask them."""
    if reward not in sample.replies:
        raise ValueError(
            f"reward {reward!r} needs the policy's replies to its questions(sample), in Sample.replies[{reward!r}]; train.grpo puts them "
            'to it for rewards whose needs hold "replies"'
        )
    return sample.replies[reward]
