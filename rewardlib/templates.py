"""Templates: how a response is to be laid out. A template is what the prompt asks for, and the blocks that the response then has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Template = Literal["think-answer", "perception-r1", "boxed", "answer", "caption", "reflection", "box"]


@dataclass(frozen=True)
class Layout:
    """What a template asks for."""

    instruction: str
    """what is asked of the model, behind the question"""
    blocks: tuple[str, ...]
    """the names of its tagged blocks, in order; a template without any wants a ``\\boxed{}``"""

    @property
    def tags(self) -> list[str]:
        """The tags of a response, in order."""
        return [tag for block in self.blocks for tag in (f"<{block}>", f"</{block}>")]

    @property
    def tag(self) -> re.Pattern[str]:
        """Whatever looks like a tag of these blocks, so that <ANSWER> or </answer > cannot hide a second one."""
        names = "|".join(sorted({*self.blocks, "think", "answer"}))
        return re.compile(rf"(?i)<\s*(?:/\s*)?(?:{names})\b[^<>]*>")


LAYOUTS: dict[Template, Layout] = {
    "think-answer": Layout(
        "First think inside <think> </think>, then give the final answer inside <answer> </answer>.",
        ("think", "answer"),
    ),
    "perception-r1": Layout(
        "First describe what you see and think inside <think> </think>, then give the final answer inside <answer> </answer> as "
        "\\boxed{...}, each tag on a line of its own.",
        ("think", "answer"),
    ),
    "boxed": Layout(
        "First think inside <think> </think>, then give the final answer inside \\boxed{}.",
        (),
    ),
    "answer": Layout(
        "Look at the part of the image that matters, reason briefly, then give the final answer inside <answer> </answer>.",
        ("answer",),
    ),
    "caption": Layout(
        "First describe inside <info> </info> all of the image that the question is about, so that it can be answered without the "
        "image. Then think inside <think> </think>, then give the final answer inside <answer> </answer>.",
        ("info", "think", "answer"),
    ),
    "reflection": Layout(
        "First think inside <think> </think> and give an answer inside <answer> </answer>. Then check it inside <reflection> "
        "</reflection>, think again inside <think> </think>, and give the final answer inside <answer> </answer>.",
        ("think", "answer", "reflection", "think", "answer"),
    ),
    "box": Layout(
        'First think inside <think> </think>, then give the bounding box as JSON inside <answer> </answer>: {"bbox_2d": [x1, y1, x2, y2]}.',
        ("think", "answer"),
    ),
}


def find_blocks(text: str, name: str) -> list[str]:
    """The contents of a response's closed blocks of a name, in order; one pass, whatever is left open."""
    opening, closing = f"<{name}>", f"</{name}>"
    blocks: list[str] = []
    start = text.find(opening)
    while start >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        blocks.append(text[start:end])
        start = text.find(opening, end)
    return blocks


def without_instruction(question: str) -> str:
    """A question without what a template asks for behind it."""
    for layout in LAYOUTS.values():
        question = question.removesuffix(layout.instruction)
    return question.rstrip()


assert {*LAYOUTS} == {*get_args(Template)}
