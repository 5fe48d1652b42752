"""Times, dates, ranges, scores, ratios and sizes: answers that look like arithmetic and are none.

3-2 is a score or a range, not 1; 2:10 is a time, not 1:5; 1920x1080 is not 1080x1920. They are read
here and compared part by part, before anything could evaluate them:

- "h:mm" is a time of day; its half may be left out (3:30 is 3:30 PM), not replaced.
- A date may be written in figures or with the month's name. 1/2/2020 has two readings, and is equal
  only to a date that has the same two.
- Plain numbers joined by one sign are compared number by number: 10-20, 10 to 20; 2:1; 3x4; 1.2.3;
  so are two times.
  So 2:4 is not 1:2, as nobody can tell a ratio from a score. A ratio may also be written as the
  fraction of the same numbers: 1:2 is 1/2.

Sums, fractions, \\cdot and all that has letters, roots or powers stay arithmetic: 2+3 is 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rewardlib.quantities import NUMBER_WORDS, Quantity, parse_quantity
from rewardlib.units import CURRENCIES, same_unit


def same_literal(span: str, target: str) -> bool | None:
    """Whether two spans are one time, date or sequence of numbers; None where neither is any of these.

    same_literal("15:30", "3:30 PM") is True; same_literal("1", "3-2") is False; same_literal("1", "2") is None
    """
    one, other = parse_literal(span), parse_literal(target)
    if one is None and other is None:
        return None
    if isinstance(one, Time) and isinstance(other, Time):
        return _same_time(one, other)
    if isinstance(one, Chain) and isinstance(other, Chain):
        return _same_chain(one, other)
    if isinstance(one, Date) and isinstance(other, Date):
        return one == other
    if (one is None or other is None) and parse_quantity(span) and parse_quantity(target):
        return None  # "3 PM" is a number with a noun beside a plain 3
    return _is_ratio_of(one, other, target) or _is_ratio_of(other, one, span)


@dataclass(frozen=True)
class Time:
    """A time of day. `hour` counts to 12, or to 24 where it says so itself; `half` is "a", "p" or "" for not said."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True)
class Date:
    """The (year, month, day) that a date may mean, in the order of month first, day first."""

    readings: tuple[tuple[int | None, int, int | None], ...]


@dataclass(frozen=True)
class Chain:
    """Plain numbers, or times, and the signs that they may be joined by."""

    signs: frozenset[str]
    parts: tuple[Quantity | Time, ...]


Literal = Time | Date | Chain
_NAMED_TIMES = {
    "noon": Time(12, 0, 0, "p"),
    "midday": Time(12, 0, 0, "p"),
    "midnight": Time(12, 0, 0, "a"),
}


@lru_cache(maxsize=8192)
def parse_literal(span: str) -> Literal | None:
    """The time, date or sequence of numbers that a cleaned span is as a whole."""
    if span[:1] == "(" and span[-1:] == ")":
        span = span[1:-1].strip()
    if "\\frac" not in span and "^" not in span:
        span = _BRACED.sub(r"\1", span)
    return parse_time(span) or _parse_date(span) or _parse_chain(span)


# --- times ---

_HALF = r"(?:\s*(?:([ap])\.?\s?m\b\.?|in\s+the\s+(morning|afternoon|evening)))?"
_SMALL = "|".join([*NUMBER_WORDS, "twenty[- ]five"])
_CLOCK = re.compile(rf"(?i)(?:at\s+)?(\d{{1,2}})\s?:([0-5]\d)(?::([0-5]\d))?(?:\s+o'?clock)?{_HALF}")
_DOTTED = re.compile(r"(?i)(\d{1,2})\.([0-5]\d)\s*([ap])\.?\s?m\.?")
_HOUR = re.compile(rf"(?i)(?:at\s+)?(\d{{1,2}}|{_SMALL})(\s*o'?\s?clock)?{_HALF}")
_SPOKEN = re.compile(
    rf"(?i)(?:at\s+)?(?:an?\s+)?(?:(half|quarter)|(\d{{1,2}}|{_SMALL})(\s+min(?:ute)?s?)?)"
    rf"\s+(past|after|to|before|till|until)\s+(\d{{1,2}}|{_SMALL}){_HALF}"
)


def parse_time(span: str) -> Time | None:
    """A time of day in figures (3:30, 15:30:10, 3.30 pm, 3 PM) or in words (half past three)."""
    if clock := _CLOCK.fullmatch(span):
        hour, minute, second, letter, part = clock.groups(default="")
        return _time(int(hour), int(minute), int(second or 0), letter or part)
    if dotted := _DOTTED.fullmatch(span):
        return _time(int(dotted[1]), int(dotted[2]), 0, dotted[3])
    if (full := _HOUR.fullmatch(span)) and (full[2] or full[3] or full[4]):
        return _time(_small(full[1]), 0, 0, full[3] or full[4] or "")
    if spoken := _SPOKEN.fullmatch(span):
        return _spoken_time(spoken)
    name = span.lower().removeprefix("at ").removeprefix("12 ")
    return _NAMED_TIMES.get(name)


def _spoken_time(spoken: re.Match[str]) -> Time | None:
    """The time in "half past three" or "ten minutes to four"; "10 to 20" is a range."""
    fraction, count, minutes, side, hour, letter, part = spoken.groups(default="")
    after = side.lower() in ("past", "after")
    if fraction.lower() == "half" and side.lower() != "past":
        return None
    if not after and not minutes and (count.isdigit() or _small(count) % 5):
        return None  # "two to three" is a range as well
    if not 1 <= _small(hour) <= 12:
        return None
    number = {"half": 30, "quarter": 15}.get(fraction.lower()) or _small(count)
    if not 1 <= number <= 59:
        return None
    if after:
        return _time(_small(hour), number, 0, letter or part)
    before = (_small(hour) - 2) % 12 + 1
    return _time(before, 60 - number, 0, letter or part)


def _small(text: str) -> int:
    if text.isdigit():
        return int(text)
    return NUMBER_WORDS.get(text.lower(), 25)


def _time(hour: int, minute: int, second: int, half: str) -> Time | None:
    """A time that a clock can tell; one that is written in 24 hours knows its half."""
    letter = "a" if half.lower().startswith(("a", "m")) and half.lower() != "afternoon" else half[:1] and "p"
    if hour > 24 or (hour > 12 and letter == "a"):
        return None
    return Time(hour, minute, second, letter)


def _same_time(one: Time, other: Time) -> bool:
    """Equality of two times, where one may leave out its half; 15:30 leaves nothing out, so it is not 3:30."""
    if (one.minute, one.second) != (other.minute, other.second):
        return False
    if one.hour == other.hour and (not one.half or not other.half):
        return True
    halves = _half(one), _half(other)
    return one.hour % 12 == other.hour % 12 and halves[0] == halves[1] != ""


def _half(time: Time) -> str:
    if time.half:
        return time.half
    if time.hour in (0, 24):
        return "a"
    return "p" if time.hour > 12 else ""


# --- dates ---

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:on\s+)?(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?(?:the\s+)?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DAY_FIRST = re.compile(rf"(?i){_WEEKDAY}{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+(\d{{4}}))?")
_MONTH_FIRST = re.compile(rf"(?i){_WEEKDAY}{_MONTH}\s+(?:the\s+)?{_DAY}(?:,?\s+(\d{{4}}))?")
_MONTH_ONLY = re.compile(rf"(?i){_MONTH},?\s+(\d{{4}})")
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")


def _parse_date(span: str) -> Date | None:
    """A date with the month's name (5 January 2020, Jan 5th) or in figures (2020-01-05, 1/5/2020)."""
    if date := _DAY_FIRST.fullmatch(span):
        return _date(date[3], _month(date[2]), date[1])
    if date := _MONTH_FIRST.fullmatch(span):
        return _date(date[3], _month(date[1]), date[2])
    if date := _MONTH_ONLY.fullmatch(span):
        return _date(date[2], _month(date[1]), None)
    if date := _YEAR_FIRST.fullmatch(span):
        return _date(date[1], int(date[3]), date[4])
    if date := _YEAR_LAST.fullmatch(span):
        orders = [_date(date[4], int(date[1]), date[3]), _date(date[4], int(date[3]), date[1])]
        readings = dict.fromkeys(reading for order in orders if order for reading in order.readings)
        return Date(tuple(readings)) if readings else None
    return None


def _month(name: str) -> int:
    return _MONTHS.index(name[:3].lower()) + 1


def _date(year: str | None, month: int, day: str | None) -> Date | None:
    if not 1 <= month <= 12 or (day and not 1 <= int(day) <= 31):
        return None
    return Date(((int(year) if year else None, month, int(day) if day else None),))


# --- sequences of plain numbers ---

# A plain number with an optional unit: no fraction, no power, nothing that is to be computed.
_PLAIN = re.compile(rf"[-+]?[{CURRENCIES}]?\s?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?:\s*[A-Za-z%°{CURRENCIES}][^+=]*)?")
_BRACED = re.compile(r"\{([\d:.-]+)\}")
_RANGE_WORDS = re.compile(r"(?i)(?:from\s+)?(.+?)\s+(?:to|through|thru)\s+(.+)|between\s+(.+?)\s+and\s+(.+)")
_NUMBER_FOLLOWS = rf"(?=[-+]?[{CURRENCIES}]?\s?\d)"
_SIGNS = [
    ("x", re.compile(rf"(?<=[\w%°.)'\"])\s*(?:\\times|[xX*]|(?<=\s)by(?=\s))\s*(?=[{CURRENCIES}]?\d)"), 2),
    (":", re.compile(rf"\s*:\s*{_NUMBER_FOLLOWS}"), 2),
    ("-", re.compile(rf"(?<=[\w%°.){CURRENCIES}])\s*-{{1,3}}\s*{_NUMBER_FOLLOWS}"), 2),
    ("/", re.compile(r"\s*/\s*"), 3),
    (".", re.compile(r"\."), 3),
]  # fmt: skip
# "3m - 2" is algebra: a lone letter that is glued to its number is hardly a unit in a difference.
_GLUED_LETTER = re.compile(r"\d[A-Za-z](?![A-Za-z])")
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)|\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\\frac\s*(\d)\s*(\d)")


def _parse_chain(span: str) -> Chain | None:
    """Plain numbers joined by one sign throughout; a unit at the end is that of all."""
    if not any(character.isdigit() for character in span):
        return None
    if words := _RANGE_WORDS.fullmatch(span):
        parts = [part for part in words.groups() if part]
        signs = frozenset("-") if words[3] else frozenset("-:")
        return _chain(signs, parts)
    for sign, pattern, least in _SIGNS:
        parts = pattern.split(span)
        if len(parts) >= least and (chain := _chain(frozenset(sign), parts)):
            return chain
    return None


def _chain(signs: frozenset[str], parts: list[str]) -> Chain | None:
    times = [time for part in parts if ":" in part and (time := parse_time(part.strip()))]
    if len(times) == len(parts):
        return Chain(signs, tuple(times))
    if not all(_PLAIN.fullmatch(part.strip()) for part in parts):
        return None
    if "-" in signs and any(_GLUED_LETTER.search(part) for part in parts):
        return None
    quantities = [parse_quantity(part.strip()) for part in parts]
    numbers = [quantity for quantity in quantities if quantity is not None]
    if len(numbers) < len(parts):
        return None
    units = {unit for _, unit in numbers if unit}
    if len(units) == 1:
        (unit,) = units
        numbers = [(value, unit) for value, _ in numbers]
    return Chain(signs, tuple(numbers))


def _same_chain(one: Chain, other: Chain) -> bool:
    if not one.signs & other.signs or len(one.parts) != len(other.parts):
        return False
    return all(map(_same_part, one.parts, other.parts))


def _same_part(one: Quantity | Time, other: Quantity | Time) -> bool:
    if isinstance(one, Time) or isinstance(other, Time):
        return isinstance(one, Time) and isinstance(other, Time) and _same_time(one, other)
    return one[0] == other[0] and same_unit(one[1], other[1])


def _is_ratio_of(ratio: Literal | None, other: Literal | None, text: str) -> bool:
    """Whether a ratio is written as the fraction of its own numbers elsewhere: 7:36 and 7/36."""
    fraction = _FRACTION.fullmatch(text) if other is None else None
    if fraction is None:
        return False
    numbers = [int(number) for number in fraction.groups() if number]
    if isinstance(ratio, Time):  # 3:16 may be both
        return numbers == [ratio.hour, ratio.minute] and not ratio.second and not ratio.half
    if isinstance(ratio, Chain):
        return ":" in ratio.signs and numbers == [part[0] for part in ratio.parts if not isinstance(part, Time)]
    return False
