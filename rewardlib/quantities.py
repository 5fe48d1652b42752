"""Numbers with a unit: reading one from a span, and comparing two.

Most golds that are not a choice are plain numbers. Exact fractions settle them without loading sympy, and know that 25% is 0.25, that
1,000 is 1000 and that "cm" may be left out but not replaced by "m".
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import isclose

from rewardlib.spans import HEDGE

# Published golds are often rounded. Two integers are exact, unless the caller asks for a wider tolerance than this.
DEFAULT_TOLERANCE = 1e-4

_FRACTION = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")
_NUMBER = re.compile(r"([-+]?)\s*(?:(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)|((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+))(\D.*)?")
# A unit glued to its number must be an abbreviation ("10h" and "13s" are algebra); after a space any noun will do.
ABBREVIATION = r"(?:[mcdk]?m|[mk]?g|ml|cl|sec|min|hr|in|ft|°\s?[CF]?|%)"
_UNIT = re.compile(rf"\s*(?:{ABBREVIATION}|(?<=\s)(?:[shgl]|[A-Za-z.]{{2,}}(?:\s+[A-Za-z]+){{0,3}}))(?:\^[23])?")
_NOT_A_UNIT = re.compile(
    r"\b(?:and|plus|minus|times|over|squared|cubed|factorial|half|halves|thirds?|quarters?|fifths?|tenths?|pi|root"
    r"|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|zero|one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
_SQUARE_UNIT = re.compile(r"(?:square|sq\.?)\s+(\w+).*")
_UNIT_NAMES = {
    "centimeter": "cm", "millimeter": "mm", "kilometer": "km", "meter": "m", "gram": "g", "kilogram": "kg", "hr": "h", "hour": "h",
    "minute": "min", "second": "s", "sec": "s", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "unit": "",
}  # fmt: skip

# The value of a number and the short name of its unit, "" when it has none.
Quantity = tuple[Fraction, str]


@lru_cache(maxsize=8192)
def parse_quantity(span: str) -> Quantity | None:
    """A whole span that is one number, plain, decimal, fraction or mixed, with an optional unit."""
    number = _NUMBER.fullmatch(_FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", span).strip())
    if number is None:
        return None
    sign, whole, numerator, denominator, decimal, unit = number.groups(default="")
    if unit and (not _UNIT.fullmatch(unit) or _NOT_A_UNIT.search(unit) or HEDGE.search(unit)):
        return None
    if denominator and int(denominator) == 0:
        return None
    value = Fraction(decimal.replace(",", "")) if decimal else int(whole or 0) + Fraction(int(numerator), int(denominator))
    return -value if sign == "-" else value, _unit_name(unit)


def same_quantity(answer: Quantity, gold: Quantity, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Equality of two quantities within a relative tolerance, which holds for two integers only where it is wider than the default."""
    (value, unit), (gold_value, gold_unit) = answer, gold
    if unit and gold_unit and unit != gold_unit:
        return False
    pairs = [(value, gold_value)]
    if (unit == "%") != (gold_unit == "%"):  # 25% is 0.25, and 25 where the question asks for a percentage
        pairs.append((value / (100 if unit else 1), gold_value / (100 if gold_unit else 1)))
    exact = tolerance <= DEFAULT_TOLERANCE and value.denominator == gold_value.denominator == 1
    return any(a == b or (not exact and isclose(a, b, rel_tol=tolerance)) for a, b in pairs)


def _unit_name(unit: str) -> str:
    """Short name of a unit: "square centimetres" and "cm^2" are the same, "units" is none."""
    name, caret, power = _SQUARE_UNIT.sub(r"\1^2", unit.strip().lower().replace("metre", "meter")).partition("^")
    word = name.split(" ")[0]
    short = _UNIT_NAMES.get(word.removesuffix("s"), word)
    return short + caret + power if short else ""
