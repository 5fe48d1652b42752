r"""What a phrase asks a picture to show: a number, the letter of a point, a figure by its letters,
or words.

Phrases are lower-case, and ``$B$`` is another point than ``$b$``: the case comes from the words
that the trace wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from labeling.locators.base import Sought
from labeling.readers.spelling import plain
from labeling.readers.vocabulary import FIGURES, NUMBER, UNIT

_SAME_UNIT = {
    "degrees": "°", "degree": "°", "percent": "%", "inches": "in", "inch": "in", "feet": "ft",
    "foot": "ft", "yards": "yd", "yard": "yd", "miles": "mi", "mile": "mi", "hours": "h",
    "hour": "h", "hrs": "h", "hr": "h", "litres": "l", "liters": "l", "litre": "l", "liter": "l",
    "minutes": "min", "minute": "min", "seconds": "s", "second": "s", "sec": "s",
    **{f"{long}{me}{s}": f"{short}m" for long, short in (
        ("", ""), ("centi", "c"), ("kilo", "k"), ("milli", "m"),
    ) for me in ("meter", "metre") for s in ("", "s")},
    "grams": "g", "gram": "g", "kilograms": "kg", "kilogram": "kg", "pounds": "lb", "pound": "lb",
    "milliliters": "ml", "milliliter": "ml", "millilitres": "ml", "millilitre": "ml", "kgs": "kg",
    "lbs": "lb", "ounces": "oz", "ounce": "oz", "secs": "s", "mins": "min", "°c": "°", "°f": "°",
    # Currencies stand before a number as often as behind it.
    "dollars": "", "dollar": "", "cents": "", "cent": "", "euros": "", "euro": "",
}  # fmt: skip

_RAISED = str.maketrans("23", "²³")

_NAME = r"[A-Za-z](?:\d{1,2}|['′]{1,2})?"  # a corner's, in any case

_FIGURE = re.compile(rf"(?:(?:{'|'.join(FIGURES)})s?\s|[∠△])\s*((?:{_NAME}\s?){{2,8}})", re.I)
_NAMES = re.compile(rf"(?:{_NAME}){{2,6}}")
_LABEL = re.compile(rf"(?:∠|[a-z]{{3,}}\s)?\s*({_NAME})", re.I)
_BRACKETED = re.compile(r"\(([A-Za-z]|\d{1,2})\)")
_NUMBER = re.compile(
    rf"(?:(?:number|numeral|digit|label|value|point|vertex)\s)?([-−]?{NUMBER})\s*({UNIT})?", re.I
)
_ANY_NUMBER = re.compile(rf"(?<![\w.])([-−]?{NUMBER})(?![\w.]*\d)\s*({UNIT})?", re.I)
# "5 apples", "5 km/h": 5 of what it says, and of nothing else.
_COUNTED = re.compile(rf"{NUMBER}\s*(?:(?!{UNIT})[^\W\d_]+|[^\W\d_]+/[^\W\d_]+)$", re.I)
# What a phrase may say of a text before the text itself.
_LEAD = re.compile(r"^(?:the\s+)?(?:(?:text|words?|label|inscription)\s+(?=\S))?", re.I)


@dataclass(frozen=True)
class Wanted:
    """``text`` in its own case, without spaces at its ends; ``names`` are the letters of a figure;
    ``literal``: a figure that may as well be written as it stands, before ("AB") it is looked for
    by its corners, or after ("angle ABC")."""

    sort: Literal["number", "label", "bracketed", "figure", "words"]
    text: str
    unit: str = ""
    names: tuple[str, ...] = ()
    literal: str = ""


def wanted(sought: Sought) -> Wanted | None:
    """What to look for; None for what is no writing, such as things that are counted."""
    text = _LEAD.sub("", " ".join(plain(sought.phrase).text.split()))
    quote = " ".join(plain(sought.quote).text.split())
    if match := _BRACKETED.fullmatch(text):
        return Wanted("bracketed", in_case(match[1], quote))
    if match := _NUMBER.fullmatch(text):
        return Wanted("number", match[1].replace("−", "-"), same_unit(match[2] or ""))
    if match := _FIGURE.fullmatch(text):
        return _figure(in_case(match[1].replace(" ", ""), quote), literal="after")
    if match := _LABEL.fullmatch(text):
        return Wanted("label", in_case(match[1], quote))
    if _NAMES.fullmatch(text) and (names := in_case(text, quote)).upper() == names:
        return _figure(names, literal="before")
    if not text or sought.kind == "count":
        return None
    numbers = _ANY_NUMBER.findall(text) if sought.kind == "measure" else []
    if len(numbers) == 1 and not _COUNTED.search(text):  # "an angle of 48°"
        return Wanted("number", numbers[0][0].replace("−", "-"), same_unit(numbers[0][1]))
    return Wanted("words", in_case(text, quote))


def _figure(names: str, literal: str) -> Wanted:
    return Wanted("figure", names, "", tuple(re.findall(_NAME, names)), literal)


def in_case(text: str, quote: str) -> str:
    """``text`` as the quote writes it, in capitals if it does both; where the quote does not have
    it, in capitals if it is a name of corners."""
    for source, target in ((quote, text), (quote.replace(" ", ""), text.replace(" ", ""))):
        apart = re.compile(rf"(?<![^\W_]){re.escape(target)}(?![^\W_])", re.I)
        found = apart.findall(source) or re.findall(re.escape(target), source, re.I)
        if found:
            return next((one for one in found if one != one.lower()), found[0])
    return text.upper() if re.fullmatch(rf"(?:{_NAME}){{1,4}}", text) else text


def same_unit(unit: str) -> str:
    """One spelling of a unit."""
    name = unit.lower().rstrip("²³23")
    power = unit[len(name) :].translate(_RAISED)
    return _SAME_UNIT.get(name, name) + power
