"""Units: one spelling for each, and whether two answers name the same one.

A unit may be left out, but not replaced: 12 is 12 cm, and 12 m is not. A measure is spelled by the
powers of its parts, so that "km/h", "km h^{-1}" and "kilometres per hour" are one, and "cm" is not
"cm^2". A noun that is counted ("3 red mugs") is spelled by its words.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from rewardlib.spans import DOLLAR, HEDGE

CURRENCIES = DOLLAR + "€£¥₹¢"

_PREFIXES = {
    "nano": "n", "micro": "µ", "milli": "m", "centi": "c", "deci": "d", "hecto": "h", "kilo": "k",
    "mega": "M", "giga": "G", "tera": "T",
}  # fmt: skip
_METRIC = {
    "meter": "m", "gram": "g", "liter": "l", "second": "s", "watt": "W", "volt": "V", "newton": "N",
    "joule": "J", "hertz": "Hz", "pascal": "Pa", "byte": "B", "calorie": "cal",
}  # fmt: skip
_OTHER = {
    "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "acre": "acre",
    "ounce": "oz", "pound": "pound", "lb": "lb", "gallon": "gal", "hour": "h", "hr": "h",
    "minute": "min", "sec": "s", "celsius": "°C", "fahrenheit": "°F", "°": "°", "%": "%",
    "pixel": "px", "decibel": "dB", "radian": "rad", "kWh": "kWh", "L": "l", "mL": "ml",
    "hundred_km": "100km", "dollar": DOLLAR, "usd": DOLLAR, "euro": "€", "eur": "€", "gbp": "£",
    "yen": "yen", "jpy": "yen", "yuan": "yuan", "cny": "yuan", "rmb": "yuan", "rupee": "₹",
    "inr": "₹", "cent": "¢", "unit": "", **{sign: sign for sign in CURRENCIES},
}  # fmt: skip
# What a name may stand for, where it has several meanings.
_MEANINGS = {
    "pound^1": {"lb^1", "£^1"}, "¥^1": {"yen^1", "yuan^1"}, "°^1": {"°C^1", "°F^1"},
}  # fmt: skip

_PREFIXED = {prefix + name: short + symbol for name, symbol in _METRIC.items() for prefix, short in _PREFIXES.items()}
_NAMES = _METRIC | _PREFIXED | _OTHER
_SPELLINGS = {symbol: symbol for symbol in _NAMES.values() if symbol} | _NAMES
# Case decides between mW and MW, and only where it must: "KM" and "Kg" are read as well.
_ANY_CASE = {name.lower(): symbol for name, symbol in reversed(_SPELLINGS.items())}

# Ways to write a unit, turned into symbols with powers, "/" and spaces.
_REWRITES = [
    (re.compile(r"\\frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}"), r"\1/\2"),
    (re.compile(r"\\cdot(?![A-Za-z])|[*·⋅]"), " "),
    (re.compile(r"(?i)°\s*C(?:elsius)?\b|°\s*centigrade\b"), " celsius"),
    (re.compile(r"(?i)°\s*F(?:ahrenheit)?\b"), " fahrenheit"),
    (re.compile(rf"(?i)\bUS\s*(?=dollar|{DOLLAR})"), ""),
    (re.compile(r"(?i)\bsq(?:uare)?\.?\s+([A-Za-z]+)|\b([A-Za-z]+)\s+squared\b"), r"\1\2^2"),
    (re.compile(r"(?i)\bcu(?:bic)?\.?\s+([A-Za-z]+)|\b([A-Za-z]+)\s+cubed\b"), r"\1\2^3"),
    (re.compile(r"(?<![A-Za-z])100\s*k(?:m|ilomet(?:er|re)s?)\b"), "hundred_km"),
    (re.compile(r"(?i)\bmph\b"), "mi/h"),
    (re.compile(r"(?i)\b(?:kph|kmh|kmph)\b"), "km/h"),
    (re.compile(r"(?i)\bsqft\b"), "ft^2"),
    (re.compile(r"(?i)\bsqm\b"), "m^2"),
    (re.compile(r"\bcc\b"), "cm^3"),
    (re.compile(r"\s*/\s*|\s+per\s+|\s+an?\s+(?=\w+$)"), "/"),
]
_FACTOR = re.compile(r"([^\d^{}/\s]+)(?:\^?([23])|\^\{?([-+]?\d)\}?)?")

_LETTERS = re.compile(r"[A-Za-z]+")
# Letters that are units by themselves. Not A to F: "7 C" names a choice beside a number.
_LONE_LETTERS = "mgshlLWVN"
_UNIT_BORDER = re.compile(r"\s+|(?<=[})])(?=[A-Za-z]{2}|%)|(?=°)")
_LONGEST_UNIT = 40
_VALUE_END = re.compile(r"(?:[\d})\]]|\\pi|(?<![A-Za-z])[A-Za-z])$")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")

_NOUNS = re.compile(r"[A-Za-z][A-Za-z.'-]+(?:\s+[A-Za-z'-]+){0,3}")
_NO_NOUNS = re.compile(
    r"(?i)\b(?:and|plus|minus|times|over|squared|cubed|factorial|half|halves|thirds?|quarters?|fifths?"
    r"|tenths?|pi|root|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|by|past|is|are|was|were|if|but|than|zero|one"
    r"|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
)
_FILLERS = frozenset(["in", "total", "of", "the", "a", "an", "on", "at", "all", "altogether"])
_DIMENSIONS = r"(?:long|wide|tall|high|deep|thick|old|away|apart|each|in\s+\w+|of\s+\w+|per\s+\w+)"
_SPOKEN_MEASURE = re.compile(rf"(.+?)\s+{_DIMENSIONS}(?:\s+[A-Za-z]+)?")


@lru_cache(maxsize=4096)
def measure(text: str) -> str | None:
    """The one spelling of a unit of measure, None for anything else.

    measure("km per hour") == measure("kph") == "h^-1 km^1"; measure("units") == ""; measure("mugs") is None
    """
    for pattern, rewritten in _REWRITES:
        text = pattern.sub(rewritten, text.strip())
    powers: Counter[str] = Counter()
    for place, product in enumerate(text.split("/")):
        if not product.strip():
            return None
        for factor in product.split():
            parts = _FACTOR.fullmatch(factor)
            symbol = _symbol(parts[1]) if parts else None
            if parts is None or symbol is None:
                return None
            power = int(parts[2] or parts[3] or 1)
            powers[symbol] += power if place == 0 else -power
    return " ".join(f"{symbol}^{power}" for symbol, power in sorted(powers.items()) if symbol and power)


def _symbol(name: str) -> str | None:
    """Symbol of a unit by its symbol or its name, in British or American spelling, single or plural."""
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    word = re.sub(r"(?<=[mt])re(?=s?$)", "er", name.lower().rstrip("."))
    if word in _ANY_CASE and name != "M":  # M is mega, or a million
        return _ANY_CASE[word]
    return _ANY_CASE.get(word.removesuffix("s")) if len(word) > 2 else None


@lru_cache(maxsize=8192)
def unit_of(text: str) -> str | None:
    """The unit in what follows a number, "" where nothing does, None where it is no unit.

    A unit glued to its number must be a measure of several letters ("10h" and "13s" are algebra), but
    for m and g; after a space any noun will do.
    """
    stripped = text.strip()
    if not stripped:
        return ""
    if stripped[0] + stripped[-1] in ("()", "[]"):
        return measure(stripped[1:-1])
    named = measure(stripped)
    if text[0].isspace():
        lone_letter = len(stripped) == 1 and stripped.isalpha() and stripped not in _LONE_LETTERS
        return _counted(stripped) if named is None or lone_letter else named
    letters = _LETTERS.match(stripped)
    symbol = letters[0] if letters else ""
    may_be_glued = symbol in ("", "m", "g") or (len(symbol) > 1 and symbol in _SPELLINGS)
    return named if may_be_glued else None


def split_unit(span: str) -> tuple[str, str]:
    """An expression and the unit of measure behind it: "6\\pi cm^2" is ("6\\pi", "cm^2").

    A lone letter is a unit only behind numbers: the m of "3x m" is one more variable.
    """
    if span and span[0] in CURRENCIES:
        return span[1:], f"{span[0]}^1"
    for border in _UNIT_BORDER.finditer(span, max(0, len(span) - _LONGEST_UNIT)):
        rest, unit = span[: border.start()].rstrip(), span[border.end() :]
        named = measure(unit)
        if named is None or not _VALUE_END.search(rest):
            continue
        symbol = _LETTERS.match(unit)
        lone = symbol is not None and len(symbol[0]) == 1
        if not lone or (unit[0] in _LONE_LETTERS and not _VARIABLE.search(rest)):
            return rest, named
    return span, ""


def _counted(text: str) -> str | None:
    """The words of a noun that is counted, without fillers and plural: "red mugs on the table"."""
    spoken = _SPOKEN_MEASURE.fullmatch(text)
    if spoken and (named := measure(spoken[1])) is not None and not HEDGE.search(text):
        return named
    power = re.search(r"\^[23]$", text)
    words = text.removesuffix(power[0] if power else "")
    if not _NOUNS.fullmatch(words) or _NO_NOUNS.search(words) or HEDGE.search(words):
        return None
    kept = [word.strip(".").removesuffix("s") for word in words.lower().split() if word not in _FILLERS]
    return " ".join(kept) + (power[0] if power else "")


def same_unit(unit: str, other: str) -> bool:
    """Whether two units agree: equal, left out, or one with fewer words ("mugs" and "red mugs")."""
    if not unit or not other or unit == other:
        return True
    meanings, other_meanings = ({u} | _MEANINGS.get(u, set()) for u in (unit, other))
    if meanings & other_meanings:
        return True
    words, other_words = set(unit.split()), set(other.split())
    nouns = "^" not in unit + other
    return nouns and (words <= other_words or other_words <= words)
