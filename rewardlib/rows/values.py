"""What single values of a table say: text, a list, or nothing at all.

Tables write "nothing" in many ways: None, NaN (which ``json.dumps`` of a pandas row writes), pandas' NA, an empty string,
the text "nan". ``is_missing`` decides for the whole house, so that none of them is ever taken for a licence, an answer or
an id.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rewardlib.ink import has_ink, is_encodable, printable

# How tables spell a missing value in a column of texts. "None" and "null" are left: they can be an answer.
_MISSING_TEXTS = frozenset({"nan", "NaN", "<NA>", "NaT"})
_MISSING_TYPES = frozenset({"NAType", "NaTType"})  # pandas'


_NO_COMMA = re.compile(r"(?<=['\"])\s+(?=['\"])|(?<=\d\.)\s+(?=[-\d])|(?<=\d)\s+(?=[-\d])")


class RowError(ValueError):
    """A row, or a part of it, cannot be used.

    reason: a few words that are the same for all rows with the same fault, for counting.
    detail: the value, and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        detail = printable(detail)  # it quotes the row
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        return RowError, (self.reason, self.detail)


@contextmanager
def reading() -> Iterator[None]:
    """Whatever goes wrong with a row inside is a ``RowError``: no row is so odd that it may end a run."""
    try:
        yield
    except RowError:
        raise
    except Exception as error:
        raise RowError("unreadable row", f"a value is not as expected: {type(error).__name__}: {error!s:.200}") from error


def plain(value: Any) -> Any:
    """A value with all that is numpy's or torch's in it as Python's own; pictures, which have many pixels, stay arrays."""
    if type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(value, "tolist"):
        return value if getattr(value, "ndim", 0) > 2 else plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def is_missing(value: Any) -> bool:
    """Whether a value states nothing. An empty list states that there is none, and is not missing."""
    value = plain(value)
    if isinstance(value, str):
        return (not has_ink(value) and is_encodable(value)) or value.strip() in _MISSING_TEXTS
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in _MISSING_TYPES


def stated(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that state something, in Python's own types."""
    return {name: plain(value) for name, value in columns.items() if not is_missing(value)}


def text(value: Any, what: str, reason: str | None = None) -> str:
    """A value as text. ``RowError`` for what is no text or number, and for half a character.

    Tables write whole numbers as 3.0 where a row lacks one; 3 is meant.
    """
    value = plain(value)
    if not isinstance(value, str | int | float):
        raise RowError(reason or f"bad {what}", f"{what} is {value!r:.80}, expected text")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    written = str(value)
    if not is_encodable(written):
        raise RowError("not UTF-8", f"{what} holds half a character (an unpaired surrogate): {written!a:.80}")
    return written


def listed(value: Any) -> list[Any]:
    """A value as a list without its missing items; a single one is a list of one."""
    value = plain(value)
    if is_missing(value):
        return []
    is_picture = getattr(value, "ndim", 0) == 3
    if is_picture or isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        value = [value]
    return [plain(item) for item in value if not is_missing(item)]


def decoded(value: Any) -> Any:
    """A list or an object that a table holds as text, in JSON or as Python prints it; anything else as it is."""
    value = plain(value)
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    # numpy prints lists without commas, which Python would read as one text
    separated = _NO_COMMA.sub(", ", value.strip())
    try:
        return ast.literal_eval(separated)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def number(value: Any) -> float:
    """A number, also one that is written as text. ``ValueError`` for anything else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)
