"""What every place of rows is: rows by their number, read when they are asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from rewardlib.rows import RowError
from rewardlib.rows.values import reading

Record = dict[str, Any]


class SourceError(ValueError):
    """The source as a whole cannot be used; the message says which, why, and what to do."""


class Source(Protocol):
    """Rows by their number."""

    name: str

    def __len__(self) -> int: ...

    def columns(self) -> set[str]:
        """The columns that any row has."""
        ...

    def peek(self, index: int) -> Record:
        """A record without images and other bytes; ``RowError`` if it cannot be read."""
        ...

    def read(self, index: int) -> Record:
        """A whole record; ``RowError`` if it cannot be read."""
        ...

    def raw(self, index: int) -> bytes:
        """The record's own bytes: to hash, and to keep where it cannot be read."""
        ...


def as_record(record: Any, name: str) -> Record:
    if isinstance(record, RowError):
        raise record
    if not isinstance(record, dict):
        raise RowError("not an object", f"{name} holds a {type(record).__name__} here, expected a JSON object")
    return record


def columns_of(source: Source) -> set[str]:
    columns: set[str] = set()
    for index in range(len(source)):
        with suppress(RowError), reading():
            columns |= set(source.read(index))
    return columns
