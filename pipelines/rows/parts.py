"""Sources made of others: several one after the other, some rows of one, those of an image folder."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from pipelines.rows.base import Record, Source
from rewardlib.rows import RowError
from rewardlib.rows.values import reading


class Joined:
    """Several files, one after the other."""

    def __init__(self, parts: Sequence[Source], name: str) -> None:
        self.name, self._parts = name, parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def columns(self) -> set[str]:
        return set().union(*(part.columns() for part in self._parts))

    def _at(self, index: int) -> tuple[Source, int]:
        n = bisect.bisect_right(self._ends, index)
        return self._parts[n], index - (self._ends[n - 1] if n else 0)

    def peek(self, index: int) -> Record:
        part, at = self._at(index)
        return part.peek(at)

    def read(self, index: int) -> Record:
        part, at = self._at(index)
        return part.read(at)

    def raw(self, index: int) -> bytes:
        part, at = self._at(index)
        return part.raw(at)


class Chosen:
    """Some of a source's rows."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.name, self._source, self._indices = source.name, source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def columns(self) -> set[str]:
        return self._source.columns()

    def peek(self, index: int) -> Record:
        return self._source.peek(self._indices[index])

    def read(self, index: int) -> Record:
        return self._source.read(self._indices[index])

    def raw(self, index: int) -> bytes:
        return self._source.raw(self._indices[index])


class InFolder:
    """The rows of an image folder: their file_name starts from the folder of the metadata."""

    def __init__(self, source: Source, below: Path) -> None:
        self.name, self._source, self._below = source.name, source, below

    def __len__(self) -> int:
        return len(self._source)

    def columns(self) -> set[str]:
        return self._source.columns()

    def _placed(self, record: Record) -> Record:
        name = record.get("file_name")
        return record | {"file_name": (self._below / name).as_posix()} if isinstance(name, str) else record

    def peek(self, index: int) -> Record:
        return self._placed(self._source.peek(index))

    def read(self, index: int) -> Record:
        return self._placed(self._source.read(index))

    def raw(self, index: int) -> bytes:
        return self._source.raw(index)


def only(source: Source, numbers: Sequence[int]) -> Source:
    """The rows of these numbers."""
    from pipelines.rows.tables import Table  # takes long to load

    return source.select(numbers) if isinstance(source, Table) else Chosen(source, numbers)


def scan(source: Source, names: Sequence[str]) -> Iterator[Record | RowError]:
    """These columns of every row without its images, or why the row cannot be read."""
    from pipelines.rows.tables import Table  # as above

    if isinstance(source, Table):
        yield from source.scan(names)
        return
    for index in range(len(source)):
        try:
            with reading():
                record = source.peek(index)
        except RowError as error:
            yield error
        else:
            yield {name: value for name, value in record.items() if name in names}


def why_unreadable(source: Source) -> str:
    """Why the first row of a source, of which no row can be read, is none."""
    try:
        with reading():
            source.read(0)
    except RowError as error:
        return str(error)
    return "it has no columns"
