"""Where rows come from: JSONL or COCO with image files, Parquet, a folder saved by ``datasets``, or a Hub dataset.

A source gives random access to raw records without holding them: JSONL by byte offsets, the others memory-mapped. A line that cannot be
read is a ``Rejected`` in its place, never a crash and never a shift of the lines after it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow.parquet as pq

from pipelines.config import BuildConfig
from pipelines.formats import coco
from pipelines.schema import Rejected

Record = dict[str, Any]


class SourceError(ValueError):
    """The source as a whole cannot be used; the message says which, why, and what to do."""


class Source(Protocol):
    name: str
    root: Path | None  # folder that image paths are relative to; None where images must be inside the records

    def __len__(self) -> int: ...

    def columns(self) -> set[str]: ...

    def peek(self, index: int) -> Record:
        """A record without its image bytes; ``Rejected`` if it cannot be read."""
        ...

    def read(self, index: int) -> Record:
        """A whole record; ``Rejected`` if it cannot be read."""
        ...

    def raw(self, index: int) -> bytes:
        """The record's own bytes: to hash, and to keep where it cannot be read."""
        ...


class JsonlSource:
    """One JSON object a line; images are paths."""

    def __init__(self, path: Path, image_root: Path | None = None) -> None:
        self.path = path.resolve()
        self.name = _name(self.path)
        self.root: Path | None = (image_root or self.path.parent).resolve()
        self._offsets = self._index()
        if self._offsets and self.raw(0).startswith(b"["):
            raise SourceError(f"{path} is one JSON array; write one object a line, e.g. with jq -c '.[]' {path.name} > rows.jsonl")

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
        found: set[str] = set()
        for index in range(len(self)):
            try:
                found |= set(self.read(index))
            except Rejected:
                continue
        return found

    def read(self, index: int) -> Record:
        line = self.raw(index)
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Rejected("not UTF-8", f"{self.path.name}: {error}; save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise Rejected("not JSON", f"{self.path.name}: {error}: {line[:60]!r}") from error
        if not isinstance(record, dict):
            raise Rejected("not an object", f"{self.path.name} holds a {type(record).__name__} here, expected a JSON object")
        return record

    peek = read


class CocoSource:
    """A COCO file whose images carry questions; images are paths."""

    def __init__(self, path: Path, rows: coco.Coco, image_root: Path | None = None) -> None:
        self.name = _name(path.resolve())
        self.root: Path | None = (image_root or path.parent).resolve()
        self._rows = rows
        if "question" not in rows.names():
            raise SourceError(
                f"{path} is COCO without questions: give the entries of its images a question and an answer, which COCO allows, or write "
                "JSONL rows whose regions are its boxes (as x0, y0, x1, y1)"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def columns(self) -> set[str]:
        return self._rows.names()

    def read(self, index: int) -> Record:
        try:
            return dict(self._rows[index])
        except ValueError as error:
            raise Rejected("bad COCO entry", f"{error}; correct it, or drop it") from error

    peek = read

    def raw(self, index: int) -> bytes:
        return json.dumps(self._rows.raw(index)).encode()


class TableSource:
    """Any table that ``datasets`` opens; images are stored in it, or are paths below ``root``."""

    def __init__(self, table: datasets.Dataset, name: str, root: Path | None) -> None:
        table = table.with_format(None)
        for column, feature in table.features.items():
            if isinstance(feature, datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
            elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
                table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
        light = [column for column, feature in table.features.items() if not _holds_bytes(feature)]
        self.table, self.name, self.root = table, name, root.resolve() if root else None
        self._light = table.select_columns(light)

    def __len__(self) -> int:
        return len(self.table)

    def columns(self) -> set[str]:
        return set(self.table.column_names)

    def peek(self, index: int) -> Record:
        return dict(self._light[index])

    def read(self, index: int) -> Record:
        return dict(self.table[index])

    def raw(self, index: int) -> bytes:
        return repr(sorted(self.table[index].items())).encode("utf-8", "surrogatepass")


def _holds_bytes(feature: Any) -> bool:
    """Whether a column is heavy: images, or binary values however nested."""
    if isinstance(feature, dict):
        return any(map(_holds_bytes, feature.values()))
    if isinstance(feature, datasets.List):
        return _holds_bytes(feature.feature)
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def open_source(config: BuildConfig) -> Source:
    """The source that ``config.source`` names; ``SourceError`` with the remedy if there is none."""
    path = Path(config.source)
    if path.exists() and path.resolve().is_relative_to((config.out / "data").resolve()):
        raise SourceError(f"the source {path} lies inside {config.out}/data, where the dataset would be written; choose another --out")
    try:
        source = _open(config, path)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"cannot read {config.source!r}: {error}") from error
    if len(source) == 0:
        raise SourceError(f"{config.source!r} has no rows; nothing to build")
    return source


def _open(config: BuildConfig, path: Path) -> Source:
    if path.is_dir():
        if not (path / "dataset_info.json").exists() and not (path / "state.json").exists() and not (path / "dataset_dict.json").exists():
            raise SourceError(f"the folder {path} was not saved by `datasets`; give the JSONL or Parquet file in it")
        saved = datasets.load_from_disk(str(path))
        return TableSource(_one_split(saved, config), path.name, config.image_root or path)
    if path.suffix in (".jsonl", ".json", ".ndjson") or path.suffix == ".parquet":
        if not path.exists():
            raise SourceError(f"the file {path} does not exist")
        if path.suffix == ".json" and (found := coco.load(path)) is not None:
            return CocoSource(path, found, config.image_root)
        if path.suffix != ".parquet":
            return JsonlSource(path, config.image_root)
        if pq.read_metadata(path).num_rows == 0:
            raise SourceError(f"{config.source!r} has no rows; nothing to build")
        return TableSource(datasets.Dataset.from_parquet(str(path)), path.stem, config.image_root or path.parent)
    if path.exists() or path.suffix or path.is_absolute() or config.source.startswith("."):
        raise SourceError(f"{config.source!r} is no JSONL or Parquet file, no folder saved by `datasets`, and no Hub id")
    return TableSource(_one_split(datasets.load_dataset(config.source), config), config.source, config.image_root)


def _name(path: Path) -> str:
    """A file's name, or its folder's where the file's says nothing."""
    return path.parent.name if path.stem in ("rows", "data", "train") else path.stem


def _one_split(loaded: datasets.Dataset | datasets.DatasetDict, config: BuildConfig) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if config.split not in loaded:
        raise SourceError(f"{config.source!r} has the splits {', '.join(loaded)}; choose one with --split (now {config.split!r})")
    return loaded[config.split]
