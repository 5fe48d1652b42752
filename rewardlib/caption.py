"""Is the description good enough to answer from? Visionary-R1's caption reward (arXiv 2505.14677; maifoundations/Visionary-R1).

The policy is asked the row's question once more, with the description that it wrote inside ``<info> </info>`` in place of the image, and
earns 1 if the reply is right. Departures from the released code: a description may have several lines, and replies are compared as
``Accuracy`` compares answers, with choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rewardlib.answers import check_answer
from rewardlib.asking import Question, replies_of
from rewardlib.ink import has_ink
from rewardlib.sample import Sample, Score
from rewardlib.templates import find_blocks, without_instruction

SYSTEM = (
    "You get a description of an image, and a question about the image, which you cannot see. If the description holds an answer or "
    'reasoning, reply "Hacking Sample". Else answer the question from the description alone, in a word or a phrase.'
)
CHEATING = "hacking sample"


@dataclass(frozen=True)
class CaptionAnswer:
    """1 if the policy answers right from its own description alone, else 0; None without a gold answer.

    0 without a description, and where the policy says of it that it gives the answer away.
    """

    name: str = "caption"
    about: ClassVar[str] = "a description inside <info> that the question can be answered from without the image (Visionary-R1)"
    needs: ClassVar[frozenset[str]] = frozenset({"replies"})
    requires: ClassVar[frozenset[str]] = frozenset({"answer"})

    def questions(self, sample: Sample) -> list[Question]:
        """What the policy is asked about its response: nothing, where it has no description or the row no answer."""
        caption = caption_of(sample.response)
        if caption is None or not sample.answer:
            return []
        return [Question(f"Description: {caption}\nQuestion: {question_of(sample.prompt)}", SYSTEM)]

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        if not sample.answer:
            return None
        if caption_of(sample.response) is None:
            return 0.0
        (reply,) = replies_of(sample, self.name)
        if reply is None:
            return None
        if reply.strip().strip(".\"'").lower() == CHEATING:
            return 0.0
        golds = [sample.answer, *sample.alternatives]
        return float(check_answer(reply, golds, sample.choices, strict=False))


def caption_of(response: str) -> str | None:
    """The description of a response; None where it has none, or an empty one."""
    captions = find_blocks(response, "info")
    return captions[0].strip() if captions and has_ink(captions[0]) else None


def question_of(prompt: Any) -> str:
    """What was asked last, as text: without images, and without what the template asks for."""
    if isinstance(prompt, str):
        return without_instruction(prompt)
    content = next(message["content"] for message in reversed(prompt) if message["role"] == "user")
    if isinstance(content, str):
        return without_instruction(content)
    return without_instruction("".join(part.get("text", "") for part in content if part.get("type") == "text"))
