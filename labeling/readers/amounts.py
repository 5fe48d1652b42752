"""Numbers and words that a trace reads off a picture: marked lengths and angles, values, quotations.

The phrase is what the picture would show: "48°", "2 cm", "10:20". A number behind "=" is a result,
unless it is what a side or an angle is said to be; operands are read only where several are added
up, as the bars of a chart are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from labeling.facts import Fact, Kind
from labeling.readers.names import NAME
from labeling.readers.spelling import Plain
from labeling.readers.wanted import NUMBER, UNIT
from rewardlib.ink import has_ink

_GIVEN = (
    r"numbers?|digits?|labell?ed|labels?|marked|reads?|shows?|showed|says|written|values?|lengths?"
    r"|radius|radii|legs|sides|heights?|widths?|dimensions|hypotenuse|coordinates?|prices?|ticks?"
    r"|weigh(?:s|ing|ts?)?"
)
_WORKED_OUT = re.compile(
    r"\b(?:sums?|total|areas?|perimeter|product|average|mean|ratio|how|number\s+of|exactly)\b", re.I
)
_BEHIND_OPERATOR = re.compile(r"[=≈→⇒+−×÷·*/^<>≤≥-]\s*$")
_NO_MORE = r"(?![\w²³(]|\.\d)(?!\s*[-+−×÷·*/^=√])"
_OTHERS = rf"(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+){NUMBER}(?![\w²³(])){{0,11}}"

_QUOTED = re.compile(r"\"([^\"\n]{1,40})\"|“([^”\n]{1,40})”|``([^'`\n]{1,40})''")
_CLOCK = re.compile(r"(?<![\d:.])(?P<it>\d{1,2}:\d\d(?::\d\d)?)(?![\d:])")
_PAIR = re.compile(
    r"(?<!\w)(?P<it>\(\s?[-−]?\d{1,3}(?:\.\d+)?\s?[,;]\s?[-−]?\d{1,3}(?:\.\d+)?\s?\))"
)
_AMOUNT = re.compile(rf"(?<![\w.,/^²√])(?P<it>[-−]?{NUMBER}(?:\s\d/\d)?\s*{UNIT})")
_SYMBOL_UNIT = re.compile(r"\d[a-z]$")  # 5s is five times s
_NAMED = re.compile(
    rf"(?<![\w+\-−×·/*=²√])\s?(?:(?:m\s?)?∠?(?:{NAME}){{1,4}}\s*=\s*){{1,4}}"
    rf"(?P<it>{NUMBER}(?:\s*{UNIT})?+){_NO_MORE}"
    rf"|(?<!\w)(?:{NAME}){{1,4}}\s+(?:is|are|equals|measures|(?:has|have|of)(?: a| both)?"
    rf" (?:length|measure)(?: of)?)\s+(?P<its>{NUMBER}){_NO_MORE}"
)
_MARKED = re.compile(
    rf"\b(?i:{_GIVEN})\s+(?:(?:is|are|was|of|as|the|equal|to|with|[A-Z]{{1,3}}|=)\s+){{0,4}}?"
    rf"(?P<it>{NUMBER}(?![\w²³(]){_OTHERS}){_NO_MORE}"
)
_SUM = re.compile(
    rf"(?<![\w.=+−×·/*(-])\s?(?P<it>{NUMBER}(?:\s*\+\s*(?:{NUMBER}|[a-z?])){{2,11}})\s*="
)
_SAID = re.compile(
    r"\b(?i:prefer(?:red|s)?|chose|labell?ed|titled|marked|reads|spells?)\s+(?:as\s+)?"
    r"(?P<it>[A-Za-z]{3,20})\b"
)
_NUMBER = re.compile(rf"{NUMBER}(?:\s*{UNIT})?")
_NO_WORDS = frozenset(
    "the that this with and for from not are was were has have had its their them they which what"
    " one two three some any all each more than over only same other about".split()
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
    for match in _QUOTED.finditer(sentence):
        yield "text", *match.span(match.lastindex or 0)
    for pattern in (_CLOCK, _PAIR):
        for match in pattern.finditer(sentence):
            yield "text", *match.span("it")
    for match in _NAMED.finditer(sentence):
        yield "measure", *match.span("it" if match["it"] else "its")
    for match in _AMOUNT.finditer(sentence):
        symbol = _SYMBOL_UNIT.search(match["it"]) and math[match.end() - 1] == "m"
        before = sentence[max(0, match.start() - 3) : match.start()]
        if not symbol and not _BEHIND_OPERATOR.search(before):
            yield "measure", *match.span("it")
    for pattern in (_MARKED, _SUM):
        for match in pattern.finditer(sentence):
            around = sentence[max(0, match.start() - 40) : match.start("it")]
            if pattern is _SUM or not _WORKED_OUT.search(around):
                for number in _NUMBER.finditer(sentence, *match.span("it")):
                    yield "measure", *number.span()
    for match in _SAID.finditer(sentence):
        if match["it"].lower() not in _NO_WORDS:
            yield "text", *match.span("it")
