"""Numbers with a unit: reading one from a span, and comparing two.

Most golds that are not a choice are plain numbers. Exact fractions settle them without loading sympy,
and know that 25% is 0.25, that 1,000 is 1000 and 1.5e3 is 1500, and that "cm" may be left out but not
replaced by "m" (`rewardlib.units`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from rewardlib.units import CURRENCIES, measure, same_unit, unit_of

# Published golds are often rounded. Two integers are exact, unless the caller asks for a wider tolerance than this.
DEFAULT_TOLERANCE = 1e-4

_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
NUMBER_WORDS = {word: number for number, word in enumerate(_WORDS)}

# A power of ten is computed exactly; larger ones than any physical constant needs are not read.
_MAX_POWER_OF_TEN = 400

_FRACTION = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")
_LEADING_WORD = re.compile(rf"(?i)({'|'.join(NUMBER_WORDS)})(?=\s+[a-z])")
_POWER_OF_TEN = re.compile(r"([-+]?)\s*(10\s*\^)")
_NUMBER = re.compile(
    rf"""([-+]?)\s*([{CURRENCIES}]|USD|EUR|GBP)?\s*
    (?:(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)                                          # 1/2, 5 1/2
      |((?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?:[ ']\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)  # 1,000.5
       (?:[eE]([-+]?\d+)
         |\s*(?:\\times|\\cdot|[*xX])\s*10\s*\^\s*(?:\{{\s*([-+]?\d+)\s*\}}|([-+]?\d+)))?)
    (\D.*)?""",
    re.VERBOSE,
)

# The value of a number and the one spelling of its unit, "" when it has none.
Quantity = tuple[Fraction, str]

_PERCENT = measure("%")


@lru_cache(maxsize=8192)
def parse_quantity(span: str) -> Quantity | None:
    """A whole span that is one number, plain, decimal, fraction, mixed or scientific, with an optional unit."""
    if word := _LEADING_WORD.match(span):
        span = f"{NUMBER_WORDS[word[0].lower()]}{span[word.end() :]}"
    span = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", span).strip()
    if power_of_ten := _POWER_OF_TEN.match(span):
        span = rf"{power_of_ten[1]}1\times {span[power_of_ten.start(2) :]}"
    number = _NUMBER.fullmatch(span)
    if number is None:
        return None
    sign, currency, whole, numerator, denominator, decimal, *powers, behind = number.groups(default="")
    unit = unit_of(behind)
    if unit is None or (currency and behind) or (denominator and int(denominator) == 0):
        return None
    power = int("".join(powers) or 0)
    if abs(power) > _MAX_POWER_OF_TEN:
        return None
    if decimal:
        value = Fraction(re.sub("[, ']", "", decimal)) * Fraction(10) ** power
    else:
        value = int(whole or 0) + Fraction(int(numerator), int(denominator))
    return -value if sign == "-" else value, (measure(currency) or "") if currency else unit


def same_quantity(answer: Quantity, gold: Quantity, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Equality of two quantities within a relative tolerance, which holds for two integers only where it is wider than the default."""
    (value, unit), (gold_value, gold_unit) = answer, gold
    if not same_unit(unit, gold_unit):
        return False
    pairs = [(value, gold_value)]
    if (unit == _PERCENT) != (gold_unit == _PERCENT):  # 25% is 0.25, and 25 where the question asks for a percentage
        pairs.append((value / (100 if unit else 1), gold_value / (100 if gold_unit else 1)))
    exact = tolerance <= DEFAULT_TOLERANCE and value.denominator == gold_value.denominator == 1
    return any(a == b or (not exact and _is_near(a, b, tolerance)) for a, b in pairs)


def _is_near(a: Fraction, b: Fraction, tolerance: float) -> bool:
    """Like math.isclose, for numbers that are too large for a float."""
    return abs(a - b) <= Fraction(tolerance) * max(abs(a), abs(b))
