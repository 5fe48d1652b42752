"""Find the final answer in a model's response and decide whether it is correct.

One checker serves both the filtering of chain-of-thought traces and the RL accuracy reward, so what counts as "the answer" must be hard to
hack: several blocks, boxes that list candidates, options that are repeated and hedged conclusions are not answers. Whether a span that was found means the same as
the gold is decided in `rewardlib.equivalence`. No function here raises or hangs, whatever the response.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewardlib.equivalence import answers_match
from rewardlib.quantities import DEFAULT_TOLERANCE, parse_quantity
from rewardlib.spans import HEDGE, MAX_SPAN, bare, clean, find_boxes
from rewardlib.wording import polarity, stated, stated_number

__all__ = ["answers_match", "check_answer", "final_answer"]

# A whole response of so few words is an answer given without a sentence around it.
_MAX_SPACES = 5

_ANSWER_TAG = re.compile(r"(?i)<(/?)answer>")
_NEGATED_BOX = re.compile(r"(?i)(?:\b(?:not|never|nor)|n't|\\neq?)[\s$*:]*$")


# Nothing but signs, list markers and connectives between two boxes makes them a list of candidates, not
# a corrected answer: "\boxed{3}\n2. \boxed{4}", "Option 1: \boxed{3}; option 2: \boxed{4}".
_LIST_GAP = re.compile(r"(?i)[\s$,;/|]*+(?:or|and)?[\s$,;/|]*+")
_LIST_TOKEN = re.compile(
    r"""(?ix) [\s$,;:./|&*()\[\]•–—-]+ | \\(?:q?quad|text|textbf|mathrm|newline|[\\,;:!])(?![a-z]) | [{}]
    | \b(?:or|and|nor|also|either|both|maybe|perhaps|possibly|alternatively|else|otherwise|plus|vs|versus)\b
    | \bas\ well\ as\b | \b(?:option|choice|case|candidate|answer|solution|possibility|part)s?\b
    | (?<![a-z0-9])(?:\d{1,2}|[a-h])(?=\s*[.):]) | (?<=[a-z]\s)(?:\d|[a-z])(?![a-z0-9])
    | \b[a-z]_\{?\w\}?\s*="""
)
# Or a connective right before the second box, whatever else the sentence says between them.
_JOINED_GAP = re.compile(r"(?i)(?:\b(?:or|nor)|,\s*and)\b[\s$*({}]*(?:[a-z](?:_\{?\w\}?)?\s*=\s*)?$")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n\s*\n")
_MAX_GAP = 120
_MAX_LISTED = 30

# The label of an option: "(A) 3" anywhere; "A. 3", "option C is 5" at the start of a line or a clause.
_LABEL = re.compile(
    r"(?P<start>(?:^|(?<=[.;,:\n]))[\s>*•-]*+(?:and\s+)?(?:(?i:option|choice)\s+)?\**)?"
    r"(?:\((?P<round>[A-Za-z])\)|(?(start)(?P<plain>[A-Z])\b(?=\**(?:[.):]|\s+is\b))|(?!)))"
)
_CONNECTIVE = re.compile(r"(?i)[\s,;/&$*]*+(?:or|and)?[\s,;/&$*]*+")
_CONCLUDES = re.compile(r"(?i)[.!?\n]|\b(?:is|are|be|so|as|since|because|thus|therefore|hence|not|than|but)\b")
_OPTIONS = re.compile(
    r"(?i)[\s*#]*(?:the\s+)?(?:\w+\s+)?(?:options|choices|candidates|alternatives)\s*"
    r"(?::|\b(?:are|include)\b)(?:(?!\b(?:so|answer|thus|therefore)\b).)*"
)
_MARKED = re.compile(r"(?:[-*•]|\d{1,2}[.)])\s+\S.*")
_TAIL = 600

# How prose states an answer; the end cuts the next sentence or the clause that justifies it.
_PHRASE = re.compile(r"(?i)\b(?:answer|option|choice)\**(?:\s+(?:is|would be|should be|must be)\b|\s*:)\**\s*:?\s*")
_PHRASE_END = re.compile(r"\.(?:\s|$)|\n|\\\]|[,;]\s+(?:as|so|since|because|which|where)\b")
_LABELLED_LINE = re.compile(r"\$*(?:\([A-Za-z]\)(?:\s.*)?|[A-Za-z][.)]?|[A-Z]\)\s.*)")
# The last words of a response that gives its result without the word "answer": "... is shown in (C).", "... is 15."
_CLOSING = re.compile(r"(\([A-Z]\))\W*$|\b(?:is|are|equals|option|choice)\s+\W{0,3}((?:[A-Z]|-?\d[\d,]*(?:\.\d+)?)\b\W{0,3})$")


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
    for (_, before_start, before_end), (after, _, _) in zip(boxes[-2:-_MAX_LISTED:-1], boxes[:-_MAX_LISTED:-1], strict=False):
        if not _joins(text[before_end + 1 : after]):
            break
        if text[before_start:before_end].strip() != content:
            return None
    return bare(content)


def _joins(gap: str) -> bool:
    """Whether what stands between two boxes makes one list of them."""
    if _LIST_GAP.fullmatch(gap):
        return True
    if len(gap) > _MAX_GAP:
        return False
    if not _LIST_TOKEN.sub("", gap):
        return True
    return _JOINED_GAP.search(gap) is not None and not _SENTENCE_END.search(gap)


def _prose_answer(text: str) -> str | None:
    """Answer stated in prose: an explicit phrase, else a last line that is only an answer, else the closing words.

    A list of options is what a trace that was cut off ends in, and no answer.
    """
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        stated_after = text[phrases[-1].end() :][: 2 * MAX_SPAN]
        span = _PHRASE_END.split(stated_after[:MAX_SPAN], maxsplit=1)[0]
        return None if _starts_options(stated_after) else bare(span)
    before, _, line = (part.strip() for part in text.strip().rpartition("\n"))
    if _ends_options(text):
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


# --- lists of options ---


def _starts_options(text: str) -> bool:
    """Whether a text begins with one option and has the next one in its next line: "(A) 3\n(B) 4"."""
    lines = [line for line in text.split("\n") if line.strip()][:2]
    labels = [_LABEL.match(line) for line in lines]
    return len(labels) == 2 and labels[0] is not None and labels[1] is not None and _is_next(labels[0], labels[1])


def _ends_options(text: str) -> bool:
    """Whether a text ends in the middle of a list of options or numbers."""
    *_, previous, line = ["", "", *(line.strip() for line in text[-_TAIL:].split("\n") if line.strip())]
    if _OPTIONS.fullmatch(line):
        return True
    if parse_quantity(clean(line)) and line != previous:
        marked = _MARKED.fullmatch(line) and _MARKED.fullmatch(previous)
        return bool(marked or parse_quantity(clean(previous)))
    return _ends_labels(text[-_TAIL:], _OPTIONS.fullmatch(previous) is not None)


def _ends_labels(tail: str, headed: bool) -> bool:
    """Whether the last label of a text, and what stands behind it, is one more option of a list."""
    labels = list(_LABEL.finditer(tail))
    if not labels:
        return False
    last = labels[-1]
    behind = tail[last.end() :].strip(" .,:)*$")
    if "\n" in behind or re.search(r"[.!?]\s", behind):
        return False
    if headed and last["start"] is not None and behind:
        return True
    if len(labels) == 1:
        return False
    before = labels[-2]
    between = tail[before.end() : last.start()] + (last["start"] or "")
    if _CONNECTIVE.fullmatch(between):
        return _letter(before) != _letter(last) and (bool(behind) or "\n" not in between)
    if not _is_next(before, last):
        return False
    if before["start"] is not None and last["start"] is not None:
        return bool(behind) or "\n\n" not in between
    return bool(behind) and len(between) < _MAX_GAP and not _CONCLUDES.search(between)


def _is_next(label: re.Match[str], following: re.Match[str]) -> bool:
    return ord(_letter(following)) == ord(_letter(label)) + 1


def _letter(label: re.Match[str]) -> str:
    return (label["round"] or label["plain"]).upper()
