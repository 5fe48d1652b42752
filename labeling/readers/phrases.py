"""Noun phrases of plain English: "two small red circles", "the letter A", "the purple object".

One grammar reads them in traces (``readers.objects``), in questions and in phrases.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from labeling.readers.vocabulary import (
    ADJECTIVES,
    COLORS,
    NO_NOUNS,
    NUMBERS,
    SIZES,
    is_thing,
    singular,
)

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
_SAID_OF = {
    **dict.fromkeys(COLORS, "color"),
    **dict.fromkeys(("dark", "light"), "shade"),
    **dict.fromkeys(SIZES, "size"),
    **dict.fromkeys(("tall", "short"), "height"),
    **dict.fromkeys(("wide", "narrow"), "width"),
    "long": "length",
}
OTHER_THAN = "non-"  # before an adjective


@dataclass(frozen=True)
class NounPhrase:
    """A thing as a text names it: ``noun`` in the singular, ``label`` of a letter or number, all in
    small letters."""

    text: str
    adjectives: tuple[str, ...]
    noun: str
    label: str = ""

    def attributes(self) -> dict[str, str]:
        """What the adjectives say, by what they say it of: {"color": "red", "size": "small"}, or
        {"color": "non-red"}."""
        said = {}
        for word in self.adjectives:
            bare = word.removeprefix(OTHER_THAN)
            sign = word[: len(word) - len(bare)]
            said[_SAID_OF.get(bare, bare)] = sign + _SAME_WORD.get(bare, bare)
        return said


def differ(said: str, other: str) -> bool:
    """Whether two attributes of one kind cannot both be a thing's."""
    if said.startswith(OTHER_THAN) and other.startswith(OTHER_THAN):
        return False
    if said.startswith(OTHER_THAN) or other.startswith(OTHER_THAN):
        return said.removeprefix(OTHER_THAN) == other.removeprefix(OTHER_THAN)
    return said != other


_ADJECTIVE = rf"(?:non-)?(?:{'|'.join(ADJECTIVES)})"
# "red, green and" of "red, green and blue stars": each group is said of a star.
_GROUP = rf"{_ADJECTIVE}(?:\s+{_ADJECTIVE}){{0,2}}"
_COORDINATED = re.compile(
    rf"(?<![\w-])(?P<groups>{_GROUP}(?:\s*,\s*{_GROUP}){{0,5}})\s*,?\s+(?:and|or|than|nor)\s+$",
    re.I,
)


def pattern(letter: str, pronouns: bool = False) -> re.Pattern[str]:
    """Noun phrases; any word but a number may be the noun.

    letter: how one looks behind its noun: in a trace a capital, since "the letter a child wrote"
        names none.
    pronouns: "the red one" is a noun phrase.
    """
    numbers = "|".join(number for number in NUMBERS if not (pronouns and number == "one"))
    return re.compile(
        r"\b(?P<article>(?:an?|the|another)\s+)?"
        rf"(?P<count>(?:{'|'.join(NUMBERS)}|(?<![\d.,:/$€£-])\d{{1,2}})\s+)?"
        rf"(?P<adjectives>(?:{_ADJECTIVE}(?:,?\s+|-)){{0,6}})"
        rf"(?:(?P<label>(?P<labelled>letter|number)\s+[\"'“]?(?P<value>(?-i:{letter}|\d+))\b)"
        rf"|(?:line\s+(?=segment))?(?P<noun>(?!(?:{numbers})\b)[a-z]+)\b)",
        re.I,
    )


_REACH = 120  # how far before its noun a coordination may begin
_ANYWHERE = pattern(letter="[A-Za-z]", pronouns=True)


def adjectives_of(match: re.Match[str]) -> tuple[str, ...]:
    return _words(match["adjectives"])


def _words(adjectives: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+|(?<!\bnon)-", adjectives.lower()) if word)


def noun_phrases(text: str, also: Collection[str] = ()) -> Iterator[NounPhrase]:
    """The noun phrases of a text in reading order; ``also`` are nouns beside those of the
    vocabulary. A square root is no square."""
    return (phrase for _, phrase in placed_noun_phrases(text, also))


def placed_noun_phrases(text: str, also: Collection[str] = ()) -> Iterator[tuple[int, NounPhrase]]:
    """``noun_phrases``, each with where it starts."""
    for match in _ANYWHERE.finditer(text):
        words = adjectives_of(match)
        if match["label"]:
            noun, label = match["labelled"].lower(), match["value"].lower()
        else:
            known = _singular(match["noun"].lower(), also)
            if known is None and (not words or match["noun"].lower() in NO_NOUNS):
                continue  # any word at all; behind an adjective it would be a thing
            noun, label = known or match["noun"].lower(), ""
            if not is_thing(noun, text[: match.start("noun")], text[match.end() :]):
                continue
        start = match.start("adjectives")
        if words and not match["label"]:
            for other in _coordinated(text[max(0, start - _REACH) : start], noun):
                yield start, other
        yield (
            start,
            NounPhrase(" ".join(text[start : match.end()].lower().split()), words, noun, label),
        )


def _coordinated(before: str, noun: str) -> Iterator[NounPhrase]:
    """What else is said to be such a thing: the red and the green stars of "red, green and blue
    stars"."""
    if found := _COORDINATED.search(before):
        for group in found["groups"].split(","):
            yield NounPhrase(f"{' '.join(group.lower().split())} {noun}", _words(group), noun)


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
    if any(differ(said[kind], also[kind]) for kind in {*_SAID_OF.values()} & {*said} & {*also}):
        return True
    if one.noun == two.noun:
        return bool(one.label and two.label and one.label != two.label)
    return are_disjoint(one.noun, two.noun)


def are_disjoint(noun: str, other: str) -> bool:
    """Whether no thing can be called by both nouns."""
    return noun != other and {noun, other} <= _SHAPES


@functools.lru_cache(maxsize=4096)
def _parsed(phrase: str) -> NounPhrase | None:
    """A phrase that is one noun phrase, whole; None for any other."""
    phrases = list(noun_phrases(phrase))
    return phrases[0] if len(phrases) == 1 and phrases[0].text == phrase else None
