"""Rows in files of text: JSON Lines, JSON, CSV and COCO, as they are or packed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.rows.base import Record, Source, SourceError, as_record, columns_of
from pipelines.rows.coco import Coco
from rewardlib.ink import is_encodable
from rewardlib.rows import RowError
from rewardlib.rows.values import reading

TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKED = (".gz", ".zst", ".bz2")


class Lines:
    """One JSON object a line."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._offsets = self._index()

    def _index(self) -> list[int]:
        offsets, position = [], 0
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    offsets.append(position)
                position += len(line)
        return offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def raw(self, index: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            return file.readline().removeprefix(b"\xef\xbb\xbf").strip()  # some editors begin a file with a byte-order mark

    def columns(self) -> set[str]:
        return columns_of(self)

    def read(self, index: int) -> Record:
        line = self.raw(index)
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RowError("not UTF-8", f"{self.name}: {error}; save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise RowError("not JSON", f"{self.name}: {error}: {line[:60]!r}") from error
        return as_record(record, self.name)

    peek = read


class Objects:
    """Rows that are held: those of a JSON array, or of a table in text; a ``RowError`` in the place of one that cannot be read."""

    def __init__(self, records: Sequence[Any], name: str) -> None:
        self.name, self._records = name, records

    def __len__(self) -> int:
        return len(self._records)

    def columns(self) -> set[str]:
        return columns_of(self)

    def read(self, index: int) -> Record:
        return as_record(self._records[index], self.name)

    peek = read

    def raw(self, index: int) -> bytes:
        return json.dumps(self._records[index], default=repr).encode()


class CocoSource:
    """A COCO file whose images carry questions."""

    def __init__(self, rows: Coco, name: str) -> None:
        self.name, self._rows = name, rows

    def __len__(self) -> int:
        return len(self._rows)

    def columns(self) -> set[str]:
        return self._rows.names()

    def read(self, index: int) -> Record:
        with reading():
            try:
                return dict(self._rows[index])
            except ValueError as error:
                raise RowError("bad COCO entry", f"{error}; correct it, or drop it") from error

    peek = read

    def raw(self, index: int) -> bytes:
        return json.dumps(self._rows.raw(index)).encode()


# ---------------------------------------------------------------------------------------------------- opening


def open_text(file: Path, name: str) -> Source:
    kind, path = kind_of(file), _unpacked(file)
    if kind in (".csv", ".tsv"):
        return Objects(_read_csv(path), name)
    first = _first_character(path)
    if first == "[":
        return Objects(_loaded(path), name)
    if first == "{" and kind == ".json" and (content := _oneas_record(path)) is not None:
        return _ofas_record(content, name)
    return Lines(path, name)


def _ofas_record(content: dict[str, Any], name: str) -> Source:
    """A JSON file of one object: COCO, a list under some name, or a single row."""
    if {"images", "annotations"} <= set(content):
        return CocoSource(Coco(content), name)
    lists = [value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    is_wrapped = len(lists) == 1 and not {"question", "problem", "messages", "conversations", "prompt"} & set(content)
    return Objects(lists[0] if is_wrapped else [content], name)


def _oneas_record(path: Path) -> dict[str, Any] | None:
    """The object that a file is; None where it holds several, one a line."""
    try:
        content = json.loads(path.read_text("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _loaded(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"it is no JSON array: {error}") from error


def _read_csv(path: Path) -> list[Any]:
    """A table in text; every value is text, which rows take for numbers where numbers belong.

    A line of too many fields, or in another encoding, is a ``RowError`` in its place. What separates the fields is what the header
    has most of, or what Excel's first line says.
    """
    data = path.read_bytes()
    codec = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    written = data.decode(codec, "surrogateescape").replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    stated = re.match(r"sep=(.)\n", written)
    if stated:
        written = written[stated.end() :]
    header = written.partition("\n")[0]
    separator = stated[1] if stated else max(",;\t|", key=header.count)
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(io.StringIO(written, newline=""), delimiter=separator)
    names = [name.strip() for name in next(lines, [])]
    return [_csv_record(names, values, lines.line_num) for values in lines if any(values)]


def _csv_record(names: list[str], values: list[str], line: int) -> Record | RowError:
    if len(values) > len(names) and any(values[len(names) :]):
        return RowError(
            "not CSV", f"the record that ends in line {line} has {len(values)} fields, the header {len(names)}; quote its texts"
        )
    record = {name: value for name, value in zip(names, values, strict=False) if name}
    broken = next((name for name, value in record.items() if not is_encodable(value)), None)
    if broken is not None:
        return RowError("not UTF-8", f"{broken} in line {line} is written in another encoding; save the file as UTF-8")
    return record


def _unpacked(file: Path) -> Path:
    """The file itself, or what a compressed one holds, in a place of its own until this process ends."""
    if file.suffix.lower() not in PACKED:
        return file
    codec = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[file.suffix.lower()]
    unpacked = Path(_scratch().name) / f"{len(os.listdir(_scratch().name))}-{file.stem}"
    try:
        with pa.input_stream(str(file), compression=codec) as packed, unpacked.open("wb") as out:
            while block := packed.read(1 << 20):
                out.write(block)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{file.name} cannot be unpacked: {error}") from error
    return unpacked


_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []


def _scratch() -> tempfile.TemporaryDirectory[str]:
    if not _SCRATCH:
        _SCRATCH.append(tempfile.TemporaryDirectory(prefix="sightline-rows-"))
    return _SCRATCH[0]


def _first_character(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1].decode("ascii", "replace")


def kind_of(file: Path) -> str | None:
    """What a file's name says that it is: .jsonl for rows.jsonl.gz too; None for what holds no rows."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    elif suffixes:
        suffixes = suffixes[-1:]
    kind = suffixes[-1] if suffixes else ""
    return kind if kind in (*TEXTS, ".parquet") else None
