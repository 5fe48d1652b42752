"""Noun phrases of plain English: "two small red circles", "the letter A", "the purple object"."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from labeling.readers.vocabulary import ADJECTIVES, COLORS, NOUNS, SIZES, is_thing, singular

# Shapes of which one thing has no more than one.
_SHAPES = frozenset(
    [
        "circle",
        "square",
        "triangle",
        "diamond",
        "star",
        "cross",
        "pentagon",
        "hexagon",
        "octagon",
        "heart",
    ]
)
_SAME_WORD = {"gray": "grey", "big": "large", "tiny": "small", "little": "small"}


@dataclass(frozen=True)
class NounPhrase:
    """A thing as a text names it: ``noun`` in the singular, ``label`` of a letter or number, all in
    small letters."""

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
    """The noun phrases of a text in reading order; ``also`` are nouns beside those of the
    vocabulary. A square root is no square."""
    for match in _pattern(tuple(sorted(also))).finditer(text):
        words = tuple(word for word in re.split(r"[\s,-]+", match["adjectives"].lower()) if word)
        if match["labelled"]:
            noun = match["labelled"].lower()
        else:
            known = _singular(match["noun"].lower(), also)
            if known is None and not words:
                continue  # any word at all; behind an adjective it would be a thing
            noun = known or match["noun"].lower()
            if not is_thing(noun, text[: match.start("noun")], text[match.end() :]):
                continue
        label = match["label"].lower() if match["label"] else ""
        yield NounPhrase(" ".join(match.group().lower().split()), words, noun, label)


@functools.lru_cache(maxsize=8)
def _pattern(also: tuple[str, ...]) -> re.Pattern[str]:
    adjective = "|".join(ADJECTIVES)
    nouns = "|".join(sorted({*NOUNS, *also}, key=lambda noun: (-len(noun), noun)))
    label = r"(?P<labelled>letter|number)\s+[\"'“]?(?P<label>(?-i:[A-Za-z]|\d+))\b"
    noun = rf"(?P<noun>(?:{nouns})(?:es|s)?|[a-z]+)"
    return re.compile(
        rf"\b(?P<adjectives>(?:(?:{adjective})(?:,?\s+|-))*)(?:{label}|{noun})\b", re.I
    )


def _singular(noun: str, also: Collection[str]) -> str | None:
    known = singular(noun)
    if known is not None:
        return known
    endings = (noun, noun.removesuffix("s"), noun.removesuffix("es"))
    return next((form for form in endings if form in also), None)


def contradict(phrase: str, other: str) -> bool:
    """Whether no thing can be called by both phrases: they say different colours or sizes of it,
    different shapes, or different letters."""
    one, two = _parsed(phrase), _parsed(other)
    if one is None or two is None:
        return False
    said, also = one.attributes(), two.attributes()
    if any(said[kind] != also[kind] for kind in ("color", "size") if kind in said and kind in also):
        return True
    if one.noun == two.noun:
        return bool(one.label and two.label and one.label != two.label)
    return {one.noun, two.noun} <= _SHAPES


@functools.lru_cache(maxsize=4096)
def _parsed(phrase: str) -> NounPhrase | None:
    """A phrase that is one noun phrase, whole; None for any other."""
    phrases = list(noun_phrases(phrase))
    return phrases[0] if len(phrases) == 1 and phrases[0].text == phrase else None
