"""What a trace reads off a picture: marked lengths and angles, values, quotations.

The phrase is what the picture would show: "48°", "2 cm", "10:20". A number behind "=" is a result,
unless it is what a side or an angle is said to be; operands are read only where several are added
up, as the bars of a chart are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from labeling.facts import Fact, Kind
from labeling.readers.spelling import Plain
from labeling.readers.vocabulary import NAME, NUMBER, UNIT, words
from rewardlib.ink import has_ink

_GIVEN = (
    r"numbers?|digits?|labell?ed|labels?|marked|reads?|shows?|showed|says|written|values?|lengths?"
    r"|radius|radii|legs|sides|heights?|widths?|dimensions|hypotenuse|coordinates?|prices?|ticks?"
    r"|weigh(?:s|ing|ts?)?"
)
_WORKED_OUT = re.compile(
    r"\b(?:sums?\s+of\s+\d|totals?|areas?|volume|perimeter|product|average|mean|ratio|how|exactly"
    r"|percent\w*|probability|number\s+of|difference|answer|result|value\s+of|there)\b",
    re.I,
)
_BEHIND_OPERATOR = re.compile(r"(?:[=≈→⇒+−×÷·*/^<>≤≥-]|\bnot)\s*$")
_NO_MORE = r"(?![\w²³(]|\.\d)(?!\s*[-+−×÷·*/^=√])"
_OTHERS = rf"(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+){NUMBER}(?![\w²³(])){{0,11}}"

_FIRST = r"(?<![\w.,=+−×·/*^√(-])(?<![=+−×·/*^√(-]\s)"  # what no expression leads up to

_QUOTED = re.compile(r"\"([^\"\n]{1,40})\"|“([^”\n]{1,40})”|``([^'`\n]{1,40})''")
_IN_CODE = re.compile(r"\s*[:\]}]")  # "id": a name in a program's text, not in a picture
_CLOCK = re.compile(r"(?<![\d:.])(?P<it>\d{1,2}:\d\d(?::\d\d)?)(?![\d:])")
_PAIR = re.compile(
    r"(?<!\w)(?P<it>\(\s?[-−]?\d{1,3}(?:\.\d+)?\s?[,;]\s?[-−]?\d{1,3}(?:\.\d+)?\s?\))"
)
_AMOUNT = re.compile(rf"(?<![\w.,/^²√°)])(?P<it>[-−]?{NUMBER}(?:\s\d/\d)?\s*{UNIT})")
_SYMBOL_UNIT = re.compile(r"\d[a-z]$")  # 5s is five times s
_NAMED = re.compile(
    rf"{_FIRST}(?:(?:m\s?)?(?:∠\s?{NAME}|(?:∠\s?)?{NAME}{NAME})(?:{NAME}){{0,3}}\s*=\s*){{1,4}}"
    rf"(?P<it>{NUMBER}(?:\s*{UNIT})?+){_NO_MORE}"
    rf"|(?<!\w)(?:{NAME}){{2,4}}\s+(?:is|are|equals|measures|(?:has|have|of)(?: a| both)?"
    rf" (?:length|measure)(?: of)?)\s+(?P<its>{NUMBER}(?:\s*{UNIT})?+){_NO_MORE}"
)
_MARKED = re.compile(
    rf"\b(?i:{_GIVEN})\s+(?:of\s+the\s+\w+\s+)?"
    rf"(?:(?:is|are|was|of|as|the|equal|to|with|[A-Z]{{1,3}}|=)\s+){{0,4}}?"
    rf"(?P<it>{NUMBER}(?![\w²³(]){_OTHERS}){_NO_MORE}"
)
_VALUE = re.compile(
    rf"\b(?:is|are|between)\s+(?P<it>{NUMBER}(?![\w²³(]){_OTHERS})(?=\s*(?:[,.;]|$))"
)
_SUM = re.compile(rf"{_FIRST}(?P<it>{NUMBER}(?:\s*\+\s*(?:{NUMBER}|[a-z?])){{2,11}})\s*=")
_SAID = re.compile(
    r"\b(?i:prefer(?:red|s)?|chose|labell?ed|titled|reads|spells?)\s+(?:as\s+)?"
    r"(?P<it>[A-Za-z]{3,20})\b"
)
_NUMBER = re.compile(rf"{NUMBER}(?:\s*{UNIT})?")
_NO_WORDS = frozenset(
    words(
        "the that this with and for from not are was were has have had its their them they which"
        " what one two three some any all each more than over only same other about"
    )
)


def amounts_in(trace: str, spelled: Plain, start: int, end: int) -> Iterator[Fact]:
    """What ``spelled.text[start:end]``, which says what is seen, reads off the picture."""
    sentence = spelled.text[start:end]
    statement = " ".join(sentence.split()).rstrip(".,;: ") + "."
    for kind, first, last in _found(sentence, spelled.math[start:end]):
        phrase = " ".join(sentence[first:last].split())
        if has_ink(phrase):
            place = spelled.span(start + first, start + last)
            said = statement if len(statement) <= 160 else f"The picture shows {phrase}."
            yield Fact(kind, said, phrase, trace[slice(*place)], *place)


def _found(sentence: str, math: str) -> Iterator[tuple[Kind, int, int]]:
    """Kinds and places, the most telling first."""
    for start, end in _texts(sentence):
        yield "text", start, end
    for start, end in _measures(sentence):
        symbol = _SYMBOL_UNIT.search(sentence[start:end]) and math[end - 1] == "m"
        if not symbol:
            yield "measure", start, end


def _texts(sentence: str) -> Iterator[tuple[int, int]]:
    for match in _QUOTED.finditer(sentence):
        if not _IN_CODE.match(sentence, match.end()):
            yield match.span(match.lastindex or 0)
    for pattern in (_CLOCK, _PAIR):
        for match in pattern.finditer(sentence):
            yield match.span("it")
    for match in _SAID.finditer(sentence):
        if match["it"].lower() not in _NO_WORDS:
            yield match.span("it")


def _measures(sentence: str) -> Iterator[tuple[int, int]]:
    for match in _NAMED.finditer(sentence):
        yield match.span("it" if match["it"] else "its")
    for match in _AMOUNT.finditer(sentence):
        if not _BEHIND_OPERATOR.search(sentence[max(0, match.start() - 6) : match.start()]):
            yield match.span("it")
    for pattern in (_MARKED, _VALUE):
        for match in pattern.finditer(sentence):
            if not _WORKED_OUT.search(sentence[max(0, match.start() - 60) : match.start("it")]):
                yield from _numbers(match)
    for match in _SUM.finditer(sentence):
        yield from _numbers(match)


def _numbers(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    for number in _NUMBER.finditer(match.string, *match.span("it")):
        yield number.span()
