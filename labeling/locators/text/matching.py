"""Which part of what a picture shows in writing is what a phrase asks for, and how sure that is.

A reading is never quite the text: signs are taken for other signs ("48°" for "486"), spaces are
lost. A short text has to be there as it stands, since "2" is in every other number; a long one may
have its mistakes. Places are polygons, and a match of a part of a line has the place of that part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from labeling.locators.text.wanted import Wanted, same_unit
from labeling.readers.vocabulary import CAPITALS, NUMBER, UNIT

Polygon = NDArray[np.float64]  # (corners, 2), xy in pixels

# How alike a wanted text and a reading are, by what is between them. Below the usual threshold are
# those that are right only where nothing better is to be had.
NO_UNIT = 0.85  # the picture has the number alone: "5" for "5 cm"
ALWAYS_WRITTEN = {"%", "€", "£", "h", "hours", "min", "sec", "s"}  # units that no figure leaves out
DEGREE_AS_DIGIT = 0.7  # "480", "486" for "48°"
LOOKALIKE = 0.75  # O for 0 among other digits, X for x
LONE_LOOKALIKE = 0.45  # S for 5, I for 1, on their own
NOT_ALONE = 0.6  # A in "AB": two things that touch, each with its letter
SURE = 0.9  # of a reading whose look-alikes are considered
LEAST_ALIKE = 0.8  # of longer words
_FUZZY_FROM = 5  # signs; shorter words have to be there as they stand
_MOST_SIGNS = 60
_SHARED = 0.6  # of the taller one's height: what two lines of a row have in common at least

_SAME = str.maketrans(
    {
        **dict.fromkeys("º˚∘", "°"), **dict.fromkeys("−–—一ー", "-"), **dict.fromkeys("′’‘`´", "'"),
        **dict.fromkeys("“”″", '"'), "十": "+", "∕": "/", "⁄": "/", "：": ":", "。": ".",
    }
)  # fmt: skip
_DIGITS = str.maketrans("OoQDIl|SsZzB", "000011155228")
_TWINS = {a: b for x in "coksuvwxz" for a, b in ((x, x.upper()), (x.upper(), x))}
_TOKEN = re.compile(rf"(?<![\w.]){NUMBER}(?![\d])")
_MIXED = re.compile(r"(?<![\w.])(?=[A-Za-z|]*\d)(?!\d+[sD](?!\w))[\dOoQDIl|SsZzB]{2,8}(?![\w])")
_NAME = re.compile(r"(?<![A-Za-z0-9])[A-Za-zα-ω](?:\d{1,2}|'{1,2})?(?![A-Za-z0-9])")
_TOGETHER = re.compile(r"[A-Z]{2,3}")
_UNIT = re.compile(rf"\s*({UNIT.replace('²³', '²³23')}|℃|°C?)", re.I)  # cm² is read as cm2
_WORD = re.compile(r"[^\W\d_]{3}")
_GOES_ON = re.compile(
    r"\s0\d\d(?!\d)|\s/\s\d|\s\d/\d(?!\s+\d)"
    r"|\s?(?:million|billion|trillion|thousand|bn|(?-i:[KMB]))\b",
    re.I,
)
_PER = re.compile(r"\s?/\s?[A-Za-z]")  # 5 m/s
_MINUS, _WHOLE = re.compile(r"\s*-\s"), re.compile(r"\s*[1-9]\d*\s")  # what a line begins with
_AN_AMOUNT = re.compile(rf"\s*{NUMBER}\s?[A-Za-z]\s*")  # 5 A: no point is called so
_NEGATIVE = re.compile(r"(?<![^\W_])-(?=\d)")
_DIGIT = 9.0  # the cost of any mistake about a digit: another number is another text


@dataclass(frozen=True)
class Line:
    """A line of a reading: ``places[i]`` is where ``text[i]`` is; ``score`` in [0, 1]."""

    text: str
    score: float
    places: tuple[Polygon, ...]


@dataclass(frozen=True)
class Match:
    """``text`` as it was read; ``exact`` is False for look-alikes; ``inferred`` where the place
    is between what was read and not at it."""

    text: str
    score: float
    polygon: Polygon
    exact: bool = True
    inferred: bool = False


def clean(text: str) -> str:
    """A reading with one sign for signs that look the same, as long as it was."""
    signs = (unicodedata.normalize("NFKC", c) for c in text)
    return "".join(s if len(s) == 1 else c for s, c in zip(signs, text, strict=True)).translate(
        _SAME
    )


def find(want: Wanted, lines: Sequence[Line]) -> list[Match]:
    """Where the lines say what is wanted, best first."""
    finders: dict[str, Callable[[Wanted, Sequence[Line]], Iterator[Match]]] = {
        "number": _numbers, "label": _labels, "bracketed": _bracketed, "figure": _figures,
        "words": _words,
    }  # fmt: skip
    found = sorted(finders[want.sort](want, lines), key=lambda m: (-m.score, *m.polygon.min(0)))
    return [m for m in found if m.exact] or found


def _match(line: Line, start: int, end: int, alike: float, *, exact: bool) -> Match:
    places = [line.places[i] for i in range(start, end) if not line.text[i].isspace()]
    polygon = _around(places) if len(places) > 1 else places[0]
    return Match(line.text[start:end], line.score * alike, polygon, exact)


def _around(places: Sequence[Polygon]) -> Polygon:
    points = np.concatenate(list(places)).astype(np.float32)
    return cv2.convexHull(points)[:, 0].astype(np.float64)


# ------------------------------------------------------------------------------------------ numbers


def _numbers(want: Wanted, lines: Sequence[Line]) -> Iterator[Match]:
    value = _value(want.text)
    for line in lines:
        for token in _TOKEN.finditer(line.text):
            if found := _number(want, value, line, *token.span()):
                yield found
        yield from _mistaken(want, value, line)


def _number(want: Wanted, value: str, line: Line, start: int, end: int) -> Match | None:
    """A number of the line, if it is the one wanted and what follows does not contradict."""
    negative = value.startswith("-")
    if _is_part(line.text, start, end):
        return None
    if start and line.text[start - 1] == "-" and not line.text[: start - 1].strip()[-1:].isalnum():
        start -= 1
    elif negative:
        return None
    token, rest = line.text[start:end], line.text[end:]
    unit = _UNIT.match(rest)
    read = same_unit(unit[1].replace("℃", "°").replace("°C", "°")) if unit else ""
    if _value(token) == value:
        if not unit and re.match(r"[^\W\d_]", rest):  # 2a, 3x
            return None
        if want.unit and unit and read != want.unit:
            return None
        if unit and _PER.match(rest, unit.end()):
            return None
        alone = bool(want.unit and not unit)
        if alone and (want.unit in ALWAYS_WRITTEN or _WORD.search(line.text)):  # Table 3
            return None
        stop = end + unit.end() if unit and (want.unit or read in "°%") else end
        return _match(line, start, stop, NO_UNIT if alone else 1.0, exact=not alone)
    if want.unit == "°" and not unit and len(value) > 1 and token in (value + "0", value + "6"):
        return _match(line, start, end, DEGREE_AS_DIGIT, exact=False)
    return None


def _is_part(text: str, start: int, end: int) -> bool:
    """Whether a number is a part of a longer one: 3 of "3 000", 7 of "7 1/2" and "7 million", the
    size of "- 3"."""
    token = text[start:end]
    if (token != "0" and _GOES_ON.match(text, end)) or _MINUS.fullmatch(text, 0, start):
        return True
    return "/" in token and bool(_WHOLE.fullmatch(text, 0, start))


def _mistaken(want: Wanted, value: str, line: Line) -> Iterator[Match]:
    """Numbers with letters for digits: l2 for 12, or S alone for 5."""
    for token in _MIXED.finditer(line.text):
        number = not token[0].isdigit() and token[0].translate(_DIGITS) == value
        degrees = want.unit == "°" and token[0][-1] in "oO" and token[0][:-1] == value
        if number or degrees:
            yield _match(line, *token.span(), LOOKALIKE, exact=False)
    alone = line.text.strip()
    if len(alone) == 1 and alone.isalpha() and alone.translate(_DIGITS) == value:
        start = line.text.index(alone)
        yield _match(line, start, start + 1, LONE_LOOKALIKE, exact=False)


def _value(number: str) -> str:
    """A number without what only sets its digits in groups."""
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", number)


# ------------------------------------------------------------------------------- labels and figures


def _labels(want: Wanted, lines: Sequence[Line]) -> Iterator[Match]:
    twin = _TWINS.get(want.text)
    for line, start, end in _names(lines):
        name = line.text[start:end]
        if name == want.text:
            yield _match(line, start, end, 1.0, exact=True)
        elif line.score >= SURE and (name == twin or (want.text in "Oo" and name == "0")):
            yield _match(line, start, end, LOOKALIKE, exact=False)
    for line in lines:
        together = line.text.strip()
        if together in CAPITALS or line.score < SURE or len(want.text) > 1:
            continue
        if _TOGETHER.fullmatch(together):
            for start in (i for i, sign in enumerate(line.text) if sign == want.text):
                yield _match(line, start, start + 1, NOT_ALONE, exact=False)


def _names(lines: Sequence[Line]) -> Iterator[tuple[Line, int, int]]:
    """Letters that stand alone, as those of points do; within a sentence only in brackets."""
    for line in lines:
        worded = _WORD.search(line.text)
        for token in _NAME.finditer(line.text):
            start, end = token.span()
            if _AN_AMOUNT.fullmatch(line.text):
                continue
            if not worded or line.text[max(0, start - 1) : end + 1] == f"({token[0]})":
                yield line, start, end
        if line.text.strip() == "0":
            start = line.text.index("0")
            yield line, start, start + 1


def _bracketed(want: Wanted, lines: Sequence[Line]) -> Iterator[Match]:
    """(A), or A) at the head of what it names."""
    pattern = re.compile(rf"(?:(?<!\w)\(\s?|(?<![\w(])){re.escape(want.text)}\s?\)")
    for line in lines:
        for token in pattern.finditer(line.text):
            yield _match(line, *token.span(), 1.0, exact=True)


def _figures(want: Wanted, lines: Sequence[Line]) -> Iterator[Match]:
    literal = list(_words(Wanted("words", want.text), lines))
    exact = [m for m in literal if m.exact]
    hull = _hull(want.names, lines)
    if want.literal == "before":
        yield from exact or hull
    else:
        yield from hull or exact


def _hull(names: Sequence[str], lines: Sequence[Line]) -> list[Match]:
    """What lies between the letters of a figure, if every one of them is there once."""
    corners = []
    for name in dict.fromkeys(names):
        found = find(Wanted("label", name), [n for n in lines if "(" not in n.text])
        if len(found) != 1:
            return []
        corners += found
    if len(corners) < 2:
        return []
    polygon = _around([c.polygon for c in corners])
    exact = all(c.exact for c in corners)
    text = " ".join(c.text for c in corners)
    return [Match(text, min(c.score for c in corners), polygon, exact, inferred=True)]


# -------------------------------------------------------------------------------------------- words


def _words(want: Wanted, lines: Sequence[Line]) -> Iterator[Match]:
    target = _squeeze(clean(want.text))[0]
    if not target or len(target) > _MOST_SIGNS:
        return
    written = [list(_literally(target, line)) for line in lines]
    if not any(written):
        rows = _rows([line for line in lines if line.places])
        written += [list(_literally(target, row)) for row in rows]
    for found in written:
        yield from found
    for line, found in zip(lines, written, strict=False):
        if not found and len(target) >= _FUZZY_FROM:
            yield from _nearly(target, line)


def _literally(target: str, line: Line) -> Iterator[Match]:
    signs, where = _squeeze(line.text)
    for start, end in _occurrences(target, signs, line.text, where):
        yield _match(line, where[start], where[end - 1] + 1, 1.0, exact=True)


def _rows(lines: Sequence[Line]) -> list[Line]:
    """Lines that stand beside each other read as one: "TOTAL" at the left, "8.70" at the right."""
    corners = [np.concatenate(line.places) for line in lines]
    boxes = [(*points.min(0).tolist(), *points.max(0).tolist()) for points in corners]
    rows: list[list[int]] = []
    for n in sorted(range(len(lines)), key=boxes.__getitem__):
        row = next((row for row in rows if _is_beside(boxes[row[-1]], boxes[n])), None)
        if row is None:
            rows.append([n])
        else:
            row.append(n)
    return [_side_by_side([lines[n] for n in row]) for row in rows if len(row) > 1]


def _is_beside(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two lines' boxes are at one height and about as tall, the other behind the one."""
    shared = min(one[3], other[3]) - max(one[1], other[1])
    tall = max(one[3] - one[1], other[3] - other[1])
    return other[0] >= one[2] and shared >= _SHARED * tall


def _side_by_side(row: Sequence[Line]) -> Line:
    places = list(row[0].places)
    for line in row[1:]:
        places += [line.places[0], *line.places]  # the space between has a place that nobody wants
    text = " ".join(line.text for line in row)
    return Line(text, min(line.score for line in row), tuple(places))


def _squeeze(text: str) -> tuple[str, list[int]]:
    """The text's signs in lower case without spaces, and where each stands in the text."""
    kept = [(c.lower() if len(c.lower()) == 1 else c, i) for i, c in enumerate(text) if c.strip()]
    return "".join(c for c, _ in kept), [i for _, i in kept]


def _occurrences(
    target: str, signs: str, text: str, where: Sequence[int]
) -> Iterator[tuple[int, int]]:
    start = signs.find(target)
    while start >= 0:
        end = start + len(target)
        before = text[where[start] - 1 : where[start]] if where[start] else ""
        after = text[where[end - 1] + 1 : where[end - 1] + 2]
        if not (_joined(before, target[0]) or _joined(target[-1], after)):
            yield start, end
        start = signs.find(target, start + 1)


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring signs belong to one word or number."""
    return left.isalnum() and right.isalnum()


def _nearly(target: str, line: Line) -> Iterator[Match]:
    """The run of words that is most like the target, if it is like it enough."""
    words = [m.span() for m in re.finditer(r"\S+", line.text)]
    best: tuple[float, int, int] = (0.0, 0, 0)
    for first, (start, _) in enumerate(words):
        for _, end in words[first : first + 12]:
            signs = _squeeze(line.text[start:end])[0]
            if len(_NEGATIVE.findall(signs)) != len(_NEGATIVE.findall(target)):
                continue
            if abs(len(signs) - len(target)) <= len(target) // 4:
                best = max(best, (_likeness(target, signs), -start, -end))
    likeness, start, end = best[0], -best[1], -best[2]
    if likeness >= LEAST_ALIKE:
        yield _match(line, start, end, likeness, exact=False)


@lru_cache(maxsize=4096)
def _likeness(one: str, other: str) -> float:
    """1 for the same text, 0 for nothing in common: what is left after the edits between them."""
    previous = [0.0]
    for b in other:
        previous.append(previous[-1] + _left_out(b))
    for a in one:
        current = [previous[0] + _left_out(a)]
        for j, b in enumerate(other, 1):
            changed = previous[j - 1] + _cost(a, b)
            current.append(min(changed, previous[j] + _left_out(a), current[-1] + _left_out(b)))
        previous = current
    return max(0.0, 1 - previous[-1] / max(len(one), len(other)))


def _left_out(sign: str) -> float:
    """Of reading one sign too few or too many."""
    return _DIGIT if sign.isdigit() else 1.0


def _cost(a: str, b: str) -> float:
    """Of reading one sign for another."""
    if a == b:
        return 0.0
    alike = a.translate(_DIGITS) == b.translate(_DIGITS)
    if a.isdigit() != b.isdigit():  # signs are small here, and it is the capital that looks like it
        alike |= a.upper().translate(_DIGITS) == b.upper().translate(_DIGITS)
    if alike:
        return 0.3
    return _DIGIT if a.isdigit() or b.isdigit() else 1.0
