"""Where rows are stored, for builds and trainers alike: files, folders of them, and the Hub.

    rows.jsonl  rows.json  rows.csv  rows.tsv  rows.parquet       also .gz, .zst, .bz2 of the texts
    instances.json                                                COCO, whose images carry questions
    shards/part-*.jsonl                                           a pattern
    dataset/  dataset/data/                                       a folder of shards, a build's or anybody's
    pictures/                                                     an image folder with metadata.jsonl or metadata.csv
    saved/                                                        what `datasets` saved
    hiyouga/geometry3k                                            a dataset on the Hub

A source gives random access to rows without holding them: lines by byte offsets, tables memory-mapped. A row that cannot be
read is a ``RowError`` in its place, never a crash and never a shift of the rows after it. What a row means is the subject of
``rewardlib.rows``.
"""

from __future__ import annotations

import bisect
import csv
import glob
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.rows.coco import Coco
from rewardlib.ink import is_encodable
from rewardlib.rows import RowError
from rewardlib.rows.images import Folders
from rewardlib.rows.values import is_missing, reading

Record = dict[str, Any]

TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKED = (".gz", ".zst", ".bz2")
ACCEPTED = (
    "expected JSON Lines, a JSON array, CSV, Parquet or COCO (texts also as .gz or .zst), a folder or a pattern of such files, an "
    "image folder with metadata.jsonl, a folder saved by `datasets`, a folder made by `python -m flows.build_dataset`, or a Hub id"
)
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SAVED = ("state.json", "dataset_dict.json")
_SAYS_NOTHING = ("rows", "data", "train", "metadata", "dataset")  # names of files that are no names of datasets


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
        return _columns_of(self)

    def read(self, index: int) -> Record:
        line = self.raw(index)
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RowError("not UTF-8", f"{self.name}: {error}; save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise RowError("not JSON", f"{self.name}: {error}: {line[:60]!r}") from error
        return _object(record, self.name)

    peek = read


class Objects:
    """Rows that are held: those of a JSON array, or of a table in text; a ``RowError`` in the place of one that cannot be read."""

    def __init__(self, records: Sequence[Any], name: str) -> None:
        self.name, self._records = name, records

    def __len__(self) -> int:
        return len(self._records)

    def columns(self) -> set[str]:
        return _columns_of(self)

    def read(self, index: int) -> Record:
        return _object(self._records[index], self.name)

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


class Table:
    """A table of ``datasets``, read as Arrow, since its own rows would decode their images. Labels get their names."""

    def __init__(self, table: datasets.Dataset, name: str) -> None:
        self.name, self._features, self._whole = name, table.features, table
        light = [column for column, feature in table.features.items() if not _holds_bytes(feature)]
        self._table = table.with_format("arrow")
        self._light = table.select_columns(light).with_format("arrow")
        self._json = [column for column, feature in table.features.items() if type(feature).__name__ == "Json"]

    def __len__(self) -> int:
        return len(self._table)

    def columns(self) -> set[str]:
        return set(self._features)

    def peek(self, index: int) -> Record:
        return self._record(self._light[index].to_pylist()[0])

    def read(self, index: int) -> Record:
        return self._record(self._table[index].to_pylist()[0])

    def raw(self, index: int) -> bytes:
        return repr(sorted(self._table[index].to_pylist()[0].items())).encode("utf-8", "surrogatepass")

    def select(self, indices: Sequence[int]) -> Table:
        """Some of the rows."""
        return Table(self._whole.select(indices), self.name)

    def count_missing(self, column: str) -> int:
        """How many rows have nothing in a column."""
        values = self._table.data.column(column)
        missing = pc.is_null(values)
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            missing = pc.or_kleene(missing, pc.equal(pc.list_value_length(values), 0))
        if self._table._indices is not None:  # ``data`` are all rows, also those that were not selected
            missing = missing.take(self._table._indices.column(0))
        return pc.sum(missing).as_py() or 0

    def pictures(self) -> set[str]:
        """The columns that are images by their type, whatever they are called."""
        return {column for column, feature in self._features.items() if _is_picture(feature)}

    def scan(self, names: Sequence[str]) -> Iterator[Record | RowError]:
        """These columns of every row, in batches; of counterfactual images all but the images."""
        columns = [column for column in self._table.column_names if column in names]
        table = self._table.select_columns(columns)
        heavy = [column for column in columns if _holds_bytes(self._features[column])]
        for start in range(0, len(table), 1000):
            batch = table[start : start + 1000]
            lists = [column for column in heavy if pa.types.is_list(batch.schema.field(column).type)]
            light = {column: _without_images(batch[column]) for column in lists}
            for n, values in enumerate(batch.drop_columns(heavy).to_pylist()):
                try:
                    record = self._record(values)
                except RowError as error:
                    yield error
                else:
                    yield record | {column: light[column][n] or [] for column in lists}

    def _record(self, values: Record) -> Record:
        with reading():
            record = {column: _named(value, self._features[column]) for column, value in values.items()}
            for column in self._json:
                if record.get(column) is not None:
                    record[column] = json.loads(record[column])
            return record


def _without_images(column: pa.ChunkedArray) -> list[list[Record] | None]:
    """Lists of objects without what holds their bytes; of lists of bytes an empty object each."""
    lists: list[list[Record] | None] = []
    for chunk in column.chunks:
        values = chunk.flatten()
        objects: list[Record] = [{}] * len(values)
        if pa.types.is_struct(values.type):
            light = [field.name for field in values.type if not (pa.types.is_struct(field.type) or _is_binary(field.type))]
            columns = [values.field(name).to_pylist() for name in light]
            objects = [dict(zip(light, parts, strict=True)) for parts in zip(*columns, strict=True)] or objects
        start = 0
        for count in pc.list_value_length(chunk).to_pylist():
            lists.append(None if count is None else objects[start : start + count])
            start += count or 0
    return lists


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


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


def choose_rows(source: Source, split: str | None) -> tuple[list[int] | None, Counter[str]]:
    """The numbers of the rows that a column ``split`` says are of a split, and how many there are of others; None for all.

    A row that says nothing, or cannot be read, is of any split. The column says nothing about any where it holds words that are no
    splits, or not the one that is wanted: then naming the file has named it. Without a name it is train. ``SourceError`` where
    the rows are of several other splits, and none of train.
    """
    if "split" not in source.columns():
        return None, Counter()
    told = [_told_split(record) for record in scan(source, ["split"])]
    counts = Counter(name for name in told if name is not None)
    wanted = _SPLITS.get(split.lower(), split) if split else "train"
    if len(counts) < 2 or not counts.keys() <= set(_SPLITS.values()):
        return None, Counter()
    if wanted not in counts:
        if wanted != "train":
            return None, Counter()
        found = ", ".join(f"{name} ({count})" for name, count in counts.most_common())
        raise SourceError(f"its column split names no row {wanted}, only {found}: give a file of one split, or remove the column")
    others = Counter({name: count for name, count in counts.items() if name != wanted})
    return [index for index, name in enumerate(told) if name in (wanted, None)], others


def only(source: Source, numbers: Sequence[int]) -> Source:
    """The rows of these numbers."""
    return source.select(numbers) if isinstance(source, Table) else Chosen(source, numbers)


def _told_split(record: Record | RowError) -> str | None:
    value = None if isinstance(record, RowError) else record.get("split")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or is_missing(value):
        return None
    name = str(value).strip()
    return _SPLITS.get(name.lower(), name)


def scan(source: Source, names: Sequence[str]) -> Iterator[Record | RowError]:
    """These columns of every row without its images, or why the row cannot be read."""
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


# ------------------------------------------------------------------------------------------------------ opening


def open_source(data: str, split: str | None = "train", *, asks: bool = True) -> Source:
    """What ``data`` names: a file, a folder, a pattern or a Hub id; of several splits the named one.

    Without a name it is the only one that there is, or train. ``SourceError`` with the remedy where there is none, or it has no rows, or
    is a COCO file without questions though its rows are to ask something.
    """
    path = Path(os.path.abspath(data))  # links stay: the Hub's cache is made of them, and images lie beside the link
    try:
        source = _open(data, path, split)
    except SourceError as error:
        raise SourceError(f"cannot read {data}: {error}; {ACCEPTED}") from error
    except (OSError, ValueError, IndexError, datasets.exceptions.DatasetsError, pa.ArrowException, csv.Error) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetsError) and error.__cause__ else error
        raise SourceError(f"cannot read {data}: {cause}; {ACCEPTED}") from error
    if not len(source):
        raise SourceError(f"{data} has no rows")
    if asks and isinstance(source, CocoSource) and "question" not in source.columns():
        raise SourceError(
            f"{source.name} is COCO without questions: give the entries of its images a question and an answer, which COCO allows, or "
            "write JSONL rows whose regions are its boxes (as x0, y0, x1, y1)"
        )
    return source


def folders_of(data: str, image_root: Path | None = None, *, is_closed: bool = False) -> Folders:
    """Where the images are that the rows of ``data`` name: below ``image_root``, else beside the rows or in images/ there.

    Shards often lie in data/, with the images beside that folder. Who only looks may find them above any folder.
    """
    if image_root is not None:
        return Folders((Path(os.path.abspath(image_root)),), is_closed)
    path = Path(os.path.abspath(data))
    base = path if path.is_dir() else path.parent
    if not base.is_dir() or (not path.exists() and not _is_pattern(data) and not path.suffix):
        return Folders((), is_closed)  # a Hub id
    places: tuple[Path, ...] = (base, base / "images")
    if not is_closed or base.name in ("data", "annotations"):
        places += (base.parent, base.parent / "images")
    return Folders(places, is_closed)


def _open(data: str, path: Path, split: str | None) -> Source:
    if path.is_dir():
        return _open_folder(path, split)
    if path.is_file():
        return _open_files([path], _name(path))
    if _is_pattern(data):
        files = [Path(os.path.abspath(file)) for file in sorted(glob.glob(data, recursive=True)) if Path(file).is_file()]
        if not files:
            raise SourceError("no file is called like that")
        return _open_files(files, files[0].parent.name)
    if _kind(path) is not None or path.suffix or Path(data).is_absolute() or data.startswith("."):
        raise SourceError("there is no such file or folder")
    return Table(datasets.load_dataset(data, split=split or "train"), data)


def _open_folder(folder: Path, split: str | None) -> Source:
    if any((folder / name).exists() for name in _SAVED) or any(folder.glob("*.arrow")):
        try:
            saved = datasets.load_from_disk(str(folder))
        except IndexError as error:  # how `datasets` reads a table of no rows
            raise SourceError("it has no rows, or one of its splits has none") from error
        return Table(_split_of(saved, split), folder.name)
    for place in (folder, folder / (split or "train")):
        if metadata := [place / name for name in _METADATA if (place / name).exists()]:
            return _InFolder(_open_files(metadata[:1], folder.name), place.relative_to(folder))
    # A build keeps its rows in data/, other tables beside it.
    others: set[str] = set()
    for place in (folder / "data", folder):
        files = [file for file in sorted(place.glob("*")) if file.is_file() and _kind(file) and not file.name.startswith(".")]
        files = [file for file in files if file.name not in _NO_ROWS]
        told = {name for file in files if (name := _split_in(file.name)) is not None}
        wanted = split or (min(told) if len(told) == 1 else "train")
        chosen = [file for file in files if _is_of(file.name, wanted)] or [file for file in files if _split_in(file.name) is None]
        for kind in (".parquet", *TEXTS):
            if of_kind := [file for file in chosen if _kind(file) == kind]:
                return _open_files(of_kind, folder.name)
        others |= told
    if others:
        raise SourceError(f"it has no files of the split {split}, only of {', '.join(sorted(others))}; name the files: {folder.name}/...")
    raise SourceError("there is no file of rows in it")


_NO_ROWS = ("rejects.parquet", "manifest.json", "dataset_infos.json", "dataset_info.json")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def _split_in(name: str) -> str | None:
    """The split that a file's name tells: test for test-00000-of-00002.parquet and geo_test.jsonl; None for one that tells none."""
    words = re.split(r"[^a-z]+", name.lower().partition(".")[0])
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _is_of(name: str, split: str) -> bool:
    """Whether a file's name says that its rows are of a split; splits may have any name, which shards then begin with."""
    told = _split_in(name)
    return told == _SPLITS.get(split.lower(), split) or re.match(rf"{re.escape(split)}(?![A-Za-z0-9])", name) is not None


class _InFolder:
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


def _open_files(files: Sequence[Path], name: str) -> Source:
    """Files of one kind as one source."""
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1 or None in kinds:
        wrong = next(file for file in files if len(kinds) > 1 or _kind(file) is None)
        raise SourceError(f"{wrong.name} is no file of rows, or of another kind than those beside it")
    if kinds == {".parquet"}:
        return _open_parquet(files, name)
    parts = [_open_text(file, name if len(files) == 1 else file.name) for file in files]
    return parts[0] if len(parts) == 1 else Joined(parts, name)


def _open_parquet(files: Sequence[Path], name: str) -> Source:
    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file).num_rows
        except (ValueError, pa.ArrowException) as error:
            raise SourceError(f"{file.name} is damaged: {error}") from error
    if not rows:  # which `datasets` refuses to read
        return Objects([], name)
    return Table(datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train"), name)


def _open_text(file: Path, name: str) -> Source:
    kind, path = _kind(file), _unpacked(file)
    if kind in (".csv", ".tsv"):
        return Objects(_read_csv(path), name)
    first = _first_character(path)
    if first == "[":
        return Objects(_loaded(path), name)
    if first == "{" and kind == ".json" and (content := _one_object(path)) is not None:
        return _of_object(content, name)
    return Lines(path, name)


def _of_object(content: dict[str, Any], name: str) -> Source:
    """A JSON file of one object: COCO, a list under some name, or a single row."""
    if {"images", "annotations"} <= set(content):
        return CocoSource(Coco(content), name)
    lists = [value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    is_wrapped = len(lists) == 1 and not {"question", "problem", "messages", "conversations", "prompt"} & set(content)
    return Objects(lists[0] if is_wrapped else [content], name)


def _one_object(path: Path) -> dict[str, Any] | None:
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


def _kind(file: Path) -> str | None:
    """What a file's name says that it is: .jsonl for rows.jsonl.gz too; None for what holds no rows."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    elif suffixes:
        suffixes = suffixes[-1:]
    kind = suffixes[-1] if suffixes else ""
    return kind if kind in (*TEXTS, ".parquet") else None


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _name(path: Path) -> str:
    """A file's name without its endings, or its folder's where the file's says nothing."""
    stem = path.name
    while Path(stem).suffix.lower() in (*TEXTS, *PACKED, ".parquet"):
        stem = Path(stem).stem
    return path.parent.name if stem in _SAYS_NOTHING else stem


def _split_of(loaded: datasets.Dataset | datasets.DatasetDict, split: str | None) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        return loaded
    split = split or (min(loaded) if len(loaded) == 1 else "train")
    if split not in loaded:
        raise SourceError(f"it has no split {split}, only {', '.join(loaded)}")
    return loaded[split]


# ------------------------------------------------------------------------------------------------------ records


def _object(record: Any, name: str) -> Record:
    if isinstance(record, RowError):
        raise record
    if not isinstance(record, dict):
        raise RowError("not an object", f"{name} holds a {type(record).__name__} here, expected a JSON object")
    return record


def _columns_of(source: Source) -> set[str]:
    columns: set[str] = set()
    for index in range(len(source)):
        with suppress(RowError), reading():
            columns |= set(source.read(index))
    return columns


def _is_picture(feature: Any) -> bool:
    return isinstance(feature, datasets.Image) or (isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image))


def _holds_bytes(feature: Any) -> bool:
    """Whether a column is heavy: images, or binary values however nested."""
    if isinstance(feature, dict):
        return any(map(_holds_bytes, feature.values()))
    if isinstance(feature, datasets.List):
        return _holds_bytes(feature.feature)
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _named(value: Any, feature: Any) -> Any:
    """A value in which labels that are stored as numbers have their names; -1, which `datasets` writes for none, is none."""
    if isinstance(feature, datasets.ClassLabel):
        if value is not None and value >= feature.num_classes:
            raise RowError("bad label", f"the label {value} has no name among {', '.join(feature.names):.80}")
        return feature.int2str(value) if value is not None and value >= 0 else None
    if isinstance(feature, datasets.List) and isinstance(value, list):
        return [_named(item, feature.feature) for item in value]
    if isinstance(feature, dict) and isinstance(value, dict):
        return {name: _named(item, feature.get(name)) for name, item in value.items()}
    return value
