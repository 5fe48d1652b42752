"""Noun phrases of plain English: "two small red circles", "the letter B", "no green cross"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labeling.facts import Fact, Kind
from labeling.readers.phrases import adjectives_of, pattern
from labeling.readers.spelling import Plain
from labeling.readers.vocabulary import COLORS, CONTAINERS, is_thing, singular

_PHRASE = pattern(letter="[A-Z]")
_NEGATION = re.compile(
    r"\b(?:no|without|neither|nor|(?:(?:can)?not|n't)\s+(?:see\s+)?(?:an?|any))\b[^,;]*$", re.I
)
_REACH = 200  # how far before a noun its negation may be


def objects_in(trace: str, spelled: Plain, start: int, end: int) -> Iterator[Fact]:
    """The things that ``spelled.text[start:end]`` says to be, or not to be, in the picture."""
    sentence = spelled.text[start:end]
    found = [(m, p) for m in _PHRASE.finditer(sentence) if (p := _phrase(m, sentence))]
    for match, phrase in found:
        head = sentence[: found[0][0].start()]
        before = match.end("article") if match["article"] else match.start()
        absent = _NEGATION.search(sentence[max(0, before - _REACH) : before])
        first = max(match.start(), match.end("article"))
        place = spelled.span(start + first, start + match.end())
        statement = " ".join(f"{head} {match.group()}".split()) + "."
        kind = "absence" if absent else _kind(match)
        yield Fact(kind, statement, "" if absent else phrase, trace[slice(*place)], *place)


def _kind(match: re.Match[str]) -> Kind:
    return "text" if match["label"] else "count" if match["count"] else "object"


def _phrase(match: re.Match[str], sentence: str) -> str:
    """What to look for, singular and in lower case; empty for what is nothing to be found."""
    if match["label"]:
        label = (match["labelled"].lower(), match["value"].lower())
        return " ".join([*adjectives_of(match), *label])
    noun = singular(match["noun"])
    if noun is None:
        return ""
    words = adjectives_of(match)
    bare = noun in CONTAINERS and not set(words) & set(COLORS)
    before, behind = sentence[: match.start("noun")], sentence[match.end() : match.end() + 60]
    return "" if bare or not is_thing(noun, before[-60:], behind) else " ".join([*words, noun])
