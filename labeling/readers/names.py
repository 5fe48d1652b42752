"""Labels and figures that a trace calls by their letters: "point P", "∠ABC", "AB", "circle 5".

The phrase is what the picture would show: "angle ABC", "point P"; of other things that a letter or
a number stands beside ("shape A", "circle 5") it is that letter or number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from labeling.facts import Fact
from labeling.readers.spelling import Plain
from labeling.readers.vocabulary import CAPITALS, FIGURES, NAME

_POINTS = "point vertex corner midpoint center centre"
_LABELLED = (
    "shape circle object picture figure piece part wheel region area cell square triangle rectangle"
    " box house stop line path road route table graph net cube ball card item island town tile"
    " block diagram clock image face bridge door player curve arc side edge view pattern label"
)
# Things that are numbered in the writer's mind rather than in the picture.
_UNNUMBERED = "figure picture image diagram table part line side edge face square triangle area"
_OPTIONS = "option choice picture figure shape piece image net graph diagram in"
_END = r"(?![\w'′°%]|\.\d)"


def _any(words: str) -> str:
    return rf"\b(?i:{'|'.join(words.split())})(?:e?s)?"


_FIGURE = re.compile(
    rf"(?:(?P<word>\b(?i:{'|'.join(FIGURES)}))s?\s|(?P<sign>[∠△]))\s?"
    rf"(?P<it>(?:{NAME}){{2,8}}){_END}"
)
_POINT = re.compile(rf"(?P<word>{_any(_POINTS)})\s+(?P<it>{NAME}){_END}")
_VERTEX_ANGLE = re.compile(rf"∠\s?(?P<it>{NAME}){_END}")
_LETTERED = re.compile(rf"{_any(_LABELLED)}\s+(?P<it>{NAME}){_END}")
_NUMBERED = re.compile(
    rf"{_any(' '.join(w for w in _LABELLED.split() if w not in _UNNUMBERED.split()))}"
    rf"\s+(?P<it>\d{{1,2}}){_END}(?!\s*[-+−×·*/^=])"
)
_AXIS = re.compile(r"(?<![A-Za-z])(?P<it>[xy])(?=[\s-]*ax[ie]s\b)")
_BRACKETED = re.compile(
    rf"{_any(_OPTIONS)}\s+(?P<it>\([A-Z]\))|^\s*(?:[*•-]+\s*)?(?P<head>\([A-Z]\))(?=\s*[A-Za-z])"
)
_OPTION = re.compile(rf"\b(?i:option|choice)\s+(?P<it>[A-Z]){_END}")
_CORNERS = re.compile(rf"(?<![\w∠△'′])(?P<it>(?:{NAME}){{2,6}}){_END}")
_ALONE = re.compile(
    r"(?<![^\s,(])(?P<it>[B-HJ-Z])(?=\s+(?:is|are|has|have|and|or|to|at|on|in|lies|from|with)\b"
    r"|,|\s*[.;:]?\s*$)"
)
_MATH = re.compile(r"m+")
_SYMBOLS = re.compile(rf"\s*(?:{NAME}(?:\s*,\s*{NAME}){{0,11}}|[a-zα-ω])\s*[,.]?\s*")
_SYMBOL = re.compile(rf"(?P<it>{NAME}|[a-zα-ω])")
_INTRODUCED = re.compile(
    r"\b(?:[Ll]et|[Dd]enote|[Cc]all|[Ss]uppose|[Ww]here|[Ss]et)(?:'s\s+\w+)?(?:"
    r"\s+(?P<it>[A-Za-z])(?=\s*=|,|\s+(?:be|denote|represent|is|and)\b)"
    r"|\b[^.]{0,120}?\b(?:be|as|by|length)\s+\d*(?P<its>[A-Za-z])(?![A-Za-z]|\s+[a-z]{2}))"
)


def names_in(
    trace: str, spelled: Plain, start: int, end: int, invented: set[str]
) -> Iterator[Fact]:
    """The names in ``spelled.text[start:end]``; none of those that the writer has invented."""
    sentence = spelled.text[start:end]
    statement = " ".join(sentence.split()).rstrip(".,;: ") + "."
    for phrase, first, last in _found(sentence, spelled.math[start:end]):
        if phrase.split()[-1] not in invented:
            place = spelled.span(start + first, start + last)
            said = statement if len(statement) <= 160 else f"The picture has {phrase}."
            yield Fact("text", said, phrase, trace[slice(*place)], *place)


def invented_in(sentence: str) -> set[str]:
    """Letters that a sentence gives to something: x of "let x be the length"."""
    return {match["it"] or match["its"] for match in _INTRODUCED.finditer(sentence)}


def _found(sentence: str, math: str) -> Iterator[tuple[str, int, int]]:
    """Phrases and where they are named, the most telling first."""
    for match in _FIGURE.finditer(sentence):
        word = match["word"] or {"∠": "angle", "△": "triangle"}[match["sign"]]
        yield f"{word.lower()} {match['it']}", match.start(), match.end()
    for match in _POINT.finditer(sentence):
        yield f"point {match['it']}", match.start(), match.end()
    for match in _BRACKETED.finditer(sentence):
        group = "it" if match["it"] else "head"
        yield match[group], *match.span(group)
    for match in _OPTION.finditer(sentence):
        yield f"({match['it']})", *match.span("it")
    for pattern in (_VERTEX_ANGLE, _LETTERED, _NUMBERED, _AXIS):
        for match in pattern.finditer(sentence):
            yield match["it"], *match.span("it")
    for match in _CORNERS.finditer(sentence):
        in_math = math[match.start()] == "m"
        word = match["it"] in CAPITALS or len(set(match["it"])) < len(match["it"])
        if in_math or not word:
            yield match["it"], *match.span("it")
    for segment in _MATH.finditer(math):
        if _SYMBOLS.fullmatch(sentence, *segment.span()):
            for match in _SYMBOL.finditer(sentence, *segment.span()):
                yield match["it"], *match.span("it")
    for match in _ALONE.finditer(sentence):
        yield match["it"], *match.span("it")
