"""Candidates that are listed: boxes in one list, and the options of a question, which are no answer.

A list names several values and decides on none, also where it was cut off before it could. A value
that is corrected ("\\boxed{3}. Wait, that is wrong, so \\boxed{4}") is not one of a list.
"""

from __future__ import annotations

import re

from rewardlib.quantities import parse_quantity
from rewardlib.spans import clean

# --- boxes ---

_CONNECTIVES = r"\b(?:or|and|nor|also|maybe|perhaps|possibly|alternatively|else|otherwise|plus|vs|versus)\b"
_KINDS = r"\b(?:option|choice|case|candidate|answer|solution|possibility|part)"
# Signs between two values, with or without a connective. Possessive, as a gap may be very long.
_SIGNS = re.compile(r"(?i)[\s$,;/|]*+(?:or|and)?[\s$,;/|]*+")
# What a list has between two boxes, and nothing else: "\boxed{3}\n2. \boxed{4}", "Option 1: \boxed{3}; option 2: \boxed{4}".
_LIST_TOKEN = re.compile(
    rf"""(?ix) [\s$~,;:./|&*()\[\]{{}}•–—-]+ | \\(?:q?quad|text|textbf|mathrm|lor|l?dots|[\\,;:!()\[\]])(?![a-z])
    | {_CONNECTIVES} | \b(?:either|both)\b | \bas\ well\ as\b | {_KINDS}s?\b
    | (?<![a-z0-9])(?:\d{{1,2}}|[a-h])(?=\s*[.):]) | (?<=[a-z]\s)(?:\d|[a-z])(?![a-z0-9])
    | \b[a-z]_\{{?\w\}}?\s*="""
)
# What makes it one: a full stop or a blank line alone may stand before an answer that is repeated.
_LIST_SIGN = re.compile(
    rf"""(?ix) [,;/|&] | {_CONNECTIVES} | \bas\ well\b | \\(?:lor|q?quad|\\)
    | \n\s*(?:[-*•]\s|\(?[a-h]\)|\d{{1,2}}[.)]) | \(?\b[a-h]\) | {_KINDS}\s+\w\b"""
)
# Or a connective right before the second box, whatever else the sentence says between them.
_CONNECTED = re.compile(
    r"(?i)(?:\b(?:or|nor|another|alternatively)|,\s*and)\b(?:\s+(?:it|maybe|perhaps|could|might|may|be|is))*"
    r"[\s$*({}]*(?:[a-z](?:_\{?\w\}?)?\s*=\s*)?$"
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n\s*\n")
_MAX_GAP = 120


def joins_boxes(gap: str) -> bool:
    """Whether what stands between two boxes makes one list of them."""
    if _SIGNS.fullmatch(gap):
        return True
    if len(gap) > _MAX_GAP:
        return False
    if not _LIST_TOKEN.sub("", gap) and _LIST_SIGN.search(gap):
        return True
    return _CONNECTED.search(gap) is not None and not _SENTENCE_END.search(gap)


# --- options ---

# The label of an option: "(A) 3" anywhere; "A. 3", "option C is 5" at the start of a line or a clause.
_LABEL = re.compile(
    r"(?P<start>(?:^|(?<=[.;,:\n]))[\s>*•-]*+(?:and\s+)?(?P<word>(?i:option|choice)\s+)?\**)?"
    r"(?:\((?P<round>[A-Za-z])\)|(?(start)(?P<plain>[A-Z])\b(?=\**[.):]|(?(word)\s+is\b|(?!)))|(?!)))"
)
_BETWEEN_LABELS = re.compile(r"(?i)[\s,;/&$*]*+(?:or|and)?[\s,;/&$*]*+")
_CONCLUDES = re.compile(r"(?i)[.!?\n]|\b(?:is|are|be|so|as|since|because|thus|therefore|hence|not|than|but)\b")
# A line that announces or holds the options: "Options:", "The choices are A, B and C."
_OPTIONS = re.compile(
    r"(?i)[\s*#]*(?:the\s+)?(?:\w+\s+)?(?:options|choices|candidates|alternatives)\s*"
    r"(?::|\b(?:are|include)\b)(?:(?!\b(?:so|answer|thus|therefore)\b).)*"
)
_MARKED = re.compile(r"(?:[-*•]|\d{1,2}[.)])\s+\S.*")
# How much of a text's end is searched for the options before the last one.
_TAIL = 600


def starts_options(text: str) -> bool:
    """Whether a text begins with one option and has the next one in its next line."""
    lines = [line for line in text.split("\n") if line.strip()]
    labels = [label for line in lines[:2] if (label := _LABEL.match(line))]
    return len(labels) == 2 and _is_next(labels[0], labels[1])


def ends_options(text: str) -> bool:
    """Whether a text ends in a list of options or of numbers."""
    tail = text[-_TAIL:]
    lines = [line.strip() for line in tail.split("\n") if line.strip()]
    line = lines[-1] if lines else ""
    previous = lines[-2] if len(lines) > 1 else ""
    if _OPTIONS.fullmatch(line):
        return True
    number, number_before = parse_quantity(clean(line)), parse_quantity(clean(previous))
    if number:
        is_list = _MARKED.fullmatch(line) and _MARKED.fullmatch(previous)
        return bool(is_list) or (number_before is not None and number_before[0] != number[0])
    return _ends_labels(tail, headed=_OPTIONS.fullmatch(previous) is not None)


def _ends_labels(tail: str, headed: bool) -> bool:
    """Whether the last label of a text, with what stands behind it, is one more option of a list."""
    labels = list(_LABEL.finditer(tail))
    if not labels:
        return False
    last = labels[-1]
    behind = tail[last.end() :].strip(" .,:)*$")
    if "\n" in behind or re.search(r"[.!?]\s", behind):
        return False
    if headed and last["start"] is not None and behind:
        return True
    return len(labels) > 1 and _continues(labels[-2], last, tail, behind)


def _continues(before: re.Match[str], last: re.Match[str], tail: str, behind: str) -> bool:
    """Whether a label goes on with the list that the one before it is in.

    A label that has no text behind it, in a paragraph of its own or at the end of a sentence, is the
    answer after the options: "(A) 3\n(B) 4\n\n(C)".
    """
    between = tail[before.end() : last.start()] + (last["start"] or "")
    if _BETWEEN_LABELS.fullmatch(between):
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
