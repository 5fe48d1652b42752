"""Noun phrases of plain English: "two small red circles", "the letter A", "the purple object".

One grammar reads them in traces (``readers.objects``), in questions and in phrases.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from labeling.readers.vocabulary import ADJECTIVES, COLORS, NUMBERS, SIZES, is_thing, singular

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


def pattern(letter: str, pronouns: bool = False) -> re.Pattern[str]:
    """Noun phrases; any word but a number may be the noun.

    letter: how one looks behind its noun: in a trace a capital, since "the letter a child wrote"
        names none.
    pronouns: "the red one" is a noun phrase.
    """
    numbers = "|".join(number for number in NUMBERS if not (pronouns and number == "one"))
    return re.compile(
        rf"\b(?P<article>(?:an?|the|another)\s+)?(?P<count>(?:{'|'.join(NUMBERS)}|\d{{1,2}})\s+)?"
        rf"(?P<adjectives>(?:(?:{'|'.join(ADJECTIVES)})(?:,?\s+|-)){{0,6}})"
        rf"(?:(?P<label>(?P<labelled>letter|number)\s+[\"'“]?(?P<value>(?-i:{letter}|\d+))\b)"
        rf"|(?:line\s+(?=segment))?(?P<noun>(?!(?:{numbers})\b)[a-z]+)\b)",
        re.I,
    )


_ANYWHERE = pattern(letter="[A-Za-z]", pronouns=True)


def adjectives_of(match: re.Match[str]) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,-]+", match["adjectives"].lower()) if word)


def noun_phrases(text: str, also: Collection[str] = ()) -> Iterator[NounPhrase]:
    """The noun phrases of a text in reading order; ``also`` are nouns beside those of the
    vocabulary. A square root is no square."""
    for match in _ANYWHERE.finditer(text):
        words = adjectives_of(match)
        if match["label"]:
            noun, label = match["labelled"].lower(), match["value"].lower()
        else:
            known = _singular(match["noun"].lower(), also)
            if known is None and not words:
                continue  # any word at all; behind an adjective it would be a thing
            noun, label = known or match["noun"].lower(), ""
            if not is_thing(noun, text[: match.start("noun")], text[match.end() :]):
                continue
        start = match.start("adjectives")
        yield NounPhrase(" ".join(text[start : match.end()].lower().split()), words, noun, label)


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
