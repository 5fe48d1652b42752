"""Noun phrases of plain English: "two small red circles", "the letter A", "the purple object"."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from labeling.rules import COLORS, IRREGULAR, LOOKS, NOUNS, SIZES

_SAME_WORD = {"gray": "grey", "big": "large", "tiny": "small", "little": "small"}


@dataclass(frozen=True)
class NounPhrase:
    """A thing as a text names it: ``noun`` in the singular, ``label`` of a letter or number, all in small letters."""

    text: str
    adjectives: tuple[str, ...]
    noun: str
    label: str = ""

    def attributes(self) -> dict[str, str]:
        """What the adjectives say, by what they say it of: {"color": "red", "size": "small"}."""
        return {_said_of(word): _SAME_WORD.get(word, word) for word in self.adjectives}


def _said_of(adjective: str) -> str:
    if adjective in COLORS:
        return "color"
    return "size" if adjective in SIZES else adjective


def noun_phrases(text: str, also: Collection[str] = ()) -> Iterator[NounPhrase]:
    """The noun phrases of a text in reading order; ``also`` are nouns beside those of the vocabulary."""
    for match in _pattern(tuple(sorted(also))).finditer(text):
        words = tuple(word for word in re.split(r"[\s,-]+", match["adjectives"].lower()) if word)
        label = match["label"].lower() if match["label"] else ""
        noun = (match["labelled"] or _singular(match["noun"], also)).lower()
        yield NounPhrase(" ".join(match.group().lower().split()), words, noun, label)


@functools.lru_cache(maxsize=8)
def _pattern(also: tuple[str, ...]) -> re.Pattern[str]:
    adjective = "|".join([*COLORS, *SIZES, *LOOKS])
    noun = "|".join([*(f"{noun}(?:es|s)?" for noun in (*NOUNS, *also)), *IRREGULAR])
    label = r"(?P<labelled>letter|number)\s+[\"'“]?(?P<label>(?-i:[A-Za-z]|\d+))\b"
    return re.compile(rf"\b(?P<adjectives>(?:(?:{adjective})(?:,?\s+|-))*)(?:{label}|(?P<noun>{noun})\b)", re.I)


def _singular(noun: str, also: Collection[str]) -> str:
    noun = noun.lower()
    nouns = {*NOUNS, *also}
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    endings = [noun, noun.removesuffix("s"), noun.removesuffix("es")]
    return next((form for form in endings if form in nouns), noun)
