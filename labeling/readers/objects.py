"""Noun phrases of plain English: "two small red circles", "the letter B", "no green cross"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labeling.facts import Fact, Kind
from labeling.readers.phrases import OTHER_THAN, adjectives_of, pattern
from labeling.readers.spelling import Plain
from labeling.readers.vocabulary import COLORS, CONTAINERS, is_thing, singular

_PHRASE = pattern(letter="[A-Z]")
_NEGATION = re.compile(
    r"\b(?:no|without|neither|nor|zero|lacks?|lacking|rather\s+than|instead\s+of"
    r"|(?:\w*n['’]t|(?:can)?not)\s+(?=\w)(?:actually\s+)?"
    r"(?:(?:see|sees|find|spot|have|contain|show|include|depict)\b|(?=(?:an?|any)\b))"
    r"(?:\s*\b(?:an?|any|the)\b)?(?:\s+of\s+(?:the|these|those))?)(?!\w)",
    re.I,
)
# What ends a negation before the noun: "no square but a blue circle", "without text it shows".
_ENDS_IT = re.compile(
    r"\b(?:but|only|just|except|besides|that|which|it|is|are|was|were|has|have|shows?|contains?"
    r"|there|doubt|of|at|to|than|in|on|under|above|below|near|next|inside|outside|between|left|right)\b"
    r"|(?:counting|using|looking|adding|measuring|considering|knowing)\b"
    r"|;|(?:,|\band\b|\bor\b)\s*(?:(?:and|or)\s+)?(?:an?|the|one|two|three|four|five|\d+)\b",
    re.I,
)
_ABSENT = re.compile(
    r"\s*(?:(?:is|are)\s+(?:(?:missing|absent)\b(?!\s+(?:an?|the|its|his|her|one)\b)|nowhere"
    r"|not\s+(?:there|present|visible|shown|in\s+(?:the|this)\s+(?:image|picture|figure|photo)))"
    r"|:\s*(?:0(?![.,]?\d)|zero\b|none\b))",
    re.I,
)
_REACH = 200  # how far before a noun its negation may be


def objects_in(trace: str, spelled: Plain, start: int, end: int) -> Iterator[Fact]:
    """The things that ``spelled.text[start:end]`` says to be, or not to be, in the picture."""
    sentence = spelled.text[start:end]
    found = [(m, p) for m in _PHRASE.finditer(sentence) if (p := _phrase(m, sentence))]
    for match, phrase in found:
        head = sentence[: found[0][0].start()]
        before = match.start("adjectives")
        absent = (match["count"] or "").strip() == "0" or _is_denied(sentence, before, match.end())
        first = max(match.start(), match.end("article"))
        place = spelled.span(start + first, start + match.end())
        statement = " ".join(f"{head} {match.group()}".split()) + "."
        kind = "absence" if absent else _kind(match)
        yield Fact(kind, statement, "" if absent else phrase, trace[slice(*place)], *place)


def _is_denied(sentence: str, start: int, end: int) -> bool:
    """Whether it says of the noun phrase between ``start`` and ``end`` that there is no such."""
    before = sentence[max(0, start - _REACH) : start]
    negations = _NEGATION.finditer(before)
    if any(not _ENDS_IT.search(before[negation.end() :]) for negation in negations):
        return True
    return bool(_ABSENT.match(sentence, end))


def _kind(match: re.Match[str]) -> Kind:
    return "text" if match["label"] else "count" if match["count"] else "object"


def _phrase(match: re.Match[str], sentence: str) -> str:
    """What to look for, singular and in lower case; empty for what is nothing to be found."""
    if match["label"]:
        label = (match["labelled"].lower(), match["value"].lower())
        return " ".join([*adjectives_of(match), *label])
    noun = singular(match["noun"])
    words = adjectives_of(match)
    if noun is None or any(word.startswith(OTHER_THAN) for word in words):
        return ""
    bare = noun in CONTAINERS and not set(words) & set(COLORS)
    before, behind = sentence[: match.start("noun")], sentence[match.end() : match.end() + 60]
    return "" if bare or not is_thing(noun, before[-60:], behind) else " ".join([*words, noun])
