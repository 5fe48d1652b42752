"""Find the final answer in a model's response and decide whether it is correct.

One checker serves both the filtering of chain-of-thought traces and the RL accuracy reward, so what counts as "the answer" must be hard to
hack: several blocks, boxes or options that list candidates (`rewardlib.candidates`) and hedged conclusions are not answers. Whether a span
that was found means the same as the gold is decided in `rewardlib.equivalence`. No function here raises or hangs, whatever the response.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewardlib.candidates import ends_options, joins_boxes, starts_options
from rewardlib.equivalence import answers_match
from rewardlib.quantities import DEFAULT_TOLERANCE, parse_quantity
from rewardlib.spans import HEDGE, MAX_SPAN, bare, clean, find_boxes
from rewardlib.wording import polarity, stated, stated_number

__all__ = ["answers_match", "check_answer", "final_answer"]

# A whole response of so few words is an answer given without a sentence around it.
_MAX_SPACES = 5

# How many boxes back a list of candidates is followed.
_MAX_LISTED = 30

_ANSWER_TAG = re.compile(r"(?i)<(/?)answer>")
_NEGATED_BOX = re.compile(r"(?i)(?:\b(?:not|never|nor)|n't|\\neq?)[\s$*:]*$")

# How prose states an answer; the end cuts the next sentence or the clause that justifies it.
_PHRASE = re.compile(r"(?i)\b(?:answer|option|choice)\**(?:\s+(?:is|would be|should be|must be)\b|\s*:)\**\s*:?\s*")
_PHRASE_END = re.compile(r"\.(?:\s|$)|\n|\\\]|[,;]\s+(?:as|so|since|because|which|where)\b|\s+because\b")
_LABELLED_LINE = re.compile(r"\$*(?:\([A-Za-z]\)(?:\s.*)?|[A-Za-z][.)]?|[A-Z]\)\s.*)")
# The last words of a response that gives its result without the word "answer": "... is shown in (C).", "... is 15."
_CLOSING = re.compile(
    r"(\([A-Z]\))\W*$|\b(?:is|are|equals|option|choice)\s+[^\w$€£¥₹−-]{0,3}"
    r"(\$?(?:[A-Z]|[-−]?[€£¥₹]?\d[\d,]*(?:\.\d+)?)\b\W{0,3})$"
)


def final_answer(text: str) -> str | None:
    """Return the response's final answer span without its wrappers, or None if the response has none."""
    return _extract(text, strict=False)


def check_answer(
    text: str,
    gold: str | Sequence[str],
    choices: Sequence[str] = (),
    *,
    strict: bool = False,
    tolerance: float = DEFAULT_TOLERANCE,
) -> bool:
    """Whether the final answer of `text` is correct; `strict` accepts only one closed <answer> block or a \\boxed{}.

    Several golds are of equal standing: one of them has to be met. Outside strict mode the answer may also be a sentence that states one
    number, "There are 3 red mugs"; as a reward that would pay for any number in a sentence.

    `tolerance` is how far a number may be from the gold, relative to the larger of the two, 1e-4 by default. Two integers must be equal
    unless it is wider than that, and neither text nor choices gain from a wider one.
    """
    span = _extract(text, strict)
    if span is None:
        return False
    if answers_match(span, gold, choices, tolerance=tolerance):
        return True
    number = None if strict or len(span) > MAX_SPAN else stated_number(clean(span))
    return number is not None and answers_match(number, gold, choices, tolerance=tolerance)


def _extract(text: str, strict: bool) -> str | None:
    visible = without_reasoning(text)
    tags = list(_ANSWER_TAG.finditer(visible))
    if tags:
        return _block_answer(visible, tags, strict)
    if boxes := find_boxes(visible):
        return _last_box(visible, boxes)
    return None if strict else _prose_answer(visible)


def without_reasoning(text: str) -> str:
    """Drop <think> sections, also those opened by the prompt or cut off before their end."""
    *closed, tail = text.split("</think>")
    kept = [part.partition("<think>")[0] if "<think>" in part else "" for part in closed]
    return " ".join([*kept, tail.partition("<think>")[0]])


def _block_answer(text: str, tags: list[re.Match[str]], strict: bool) -> str | None:
    """Content of the last <answer> block; unclosed, nested or doubled tags leave the response without an answer."""
    blocks = len(tags) // 2
    if [tag[1] for tag in tags] != ["", "/"] * blocks:
        return None
    if strict and [tag[0] for tag in tags] != ["<answer>", "</answer>"]:
        return None
    content = text[tags[-2].end() : tags[-1].start()]
    boxes = find_boxes(content)
    if not boxes:
        return bare(content)
    # Prose may lead up to the box, but a word such as "maybe" beside it, or anything of the kind after it, takes it back.
    beside = content[max(0, boxes[0][0] - 10) : boxes[0][0]] + content[boxes[-1][2] + 1 :]
    if len({content[start:end].strip() for _, start, end in boxes}) > 1 or HEDGE.search(beside):
        return None
    return _last_box(content, boxes)


def _last_box(text: str, boxes: list[tuple[int, int, int]]) -> str | None:
    """Content of the last box, None where the text negates it or lists it beside a different one."""
    command, start, end = boxes[-1]
    if _NEGATED_BOX.search(text[max(0, command - 20) : command]):
        return None
    content = text[start:end].strip()
    following = command
    for earlier_command, earlier_start, earlier_end in boxes[-2:-_MAX_LISTED:-1]:
        if not joins_boxes(text[earlier_end + 1 : following]):
            break
        earlier = text[earlier_start:earlier_end].strip()
        if earlier != content and not answers_match(earlier, content):
            return None
        following = earlier_command
    return bare(content)


def _prose_answer(text: str) -> str | None:
    """Answer stated in prose: an explicit phrase, else a last line that is only an answer, else the closing words.

    A list of options is what a trace that was cut off ends in, and no answer.
    """
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        start = phrases[-1].end()
        if starts_options(text[start : start + 2 * MAX_SPAN]):
            return None
        return bare(_PHRASE_END.split(text[start : start + MAX_SPAN], maxsplit=1)[0])
    before, _, line = (part.strip() for part in text.strip().rpartition("\n"))
    if ends_options(text):
        return None
    if len(line) <= MAX_SPAN and (_LABELLED_LINE.fullmatch(line) or parse_quantity(clean(line))):
        return bare(line)
    sentence = re.split(r"[.!?]\s", line)[-1][-MAX_SPAN:]
    if closing := _CLOSING.search(sentence):
        return None if HEDGE.search(sentence) else bare(closing[1] or closing[2])
    if number := stated_number(clean(sentence)):
        return number
    return bare(line) if not before and _is_whole_answer(line) else None


def _is_whole_answer(line: str) -> bool:
    """Whether a response of one line is its answer: few words, a short statement, or yes or no with a reason."""
    if line.count(" ") < _MAX_SPACES:
        return True
    span = clean(line) if len(line) <= MAX_SPAN else ""
    return polarity(span) is not None or (stated(span) is not None and not HEDGE.search(span))
