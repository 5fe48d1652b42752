"""Where rows are stored: Parquet, JSON, a folder saved by ``datasets``, or the Hub. Gives columns as they are, images unopened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.formats import coco

Columns = Mapping[str, Any]

SUFFIXES = (".json", ".jsonl", ".ndjson")


class Records(Protocol):
    """Rows by their number."""

    @property
    def names(self) -> Sequence[str]:
        """Of the columns that any row has."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Columns: ...

    def plain(self, names: Sequence[str]) -> Iterable[Columns]:
        """These columns of all rows, as far as they exist, without reading images: of counterfactuals only how many there are."""
        ...


class JsonRecords(list[Columns]):
    """The objects of a JSON file."""

    @property
    def names(self) -> Sequence[str]:
        return list(dict.fromkeys(name for row in self for name in row))

    def plain(self, names: Sequence[str]) -> Iterable[Columns]:
        return self


class TableRecords:
    """A table of ``datasets``. Read as Arrow, for its own rows would decode their images."""

    def __init__(self, table: Any) -> None:
        self._table = table.with_format("arrow")
        self.names: list[str] = table.column_names
        self._json = [name for name, feature in table.features.items() if type(feature).__name__ == "Json"]

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Columns:
        return self._rows(self._table[index])[0]

    def plain(self, names: Sequence[str]) -> Iterator[Columns]:
        import pyarrow.compute as pc

        table = self._table.select_columns([name for name in self.names if name in names])
        images = [name for name in table.column_names if name == "counterfactuals"]
        for start in range(0, len(table), 1000):
            batch = table[start : start + 1000]
            counts = [pc.list_value_length(batch[name]).to_pylist() for name in images]
            for n, row in enumerate(self._rows(batch.drop_columns(images))):
                yield row | {name: [{}] * (count[n] or 0) for name, count in zip(images, counts, strict=True)}

    def _rows(self, batch: Any) -> list[dict[str, Any]]:
        return [row | {name: json.loads(row[name]) for name in self._json if row.get(name) is not None} for row in batch.to_pylist()]


def open_records(data: str) -> Records:
    """The rows of a folder, a file, or the split train of a Hub dataset; ``ValueError`` or ``OSError`` if there are none."""
    import datasets

    path = Path(data)
    if path.is_dir():
        records = _folder(path)
    elif path.suffix in SUFFIXES:
        records = _json(path)
    elif path.suffix == ".parquet":
        records = _parquet(sorted(path.parent.glob(path.name)))
    elif path.exists() or path.is_absolute() or data.startswith("."):
        raise ValueError("it is neither a folder nor a .parquet, .json or .jsonl file")
    else:
        records = TableRecords(datasets.load_dataset(data, split="train"))
    if not len(records):
        raise ValueError("it has no rows")
    return records


def _folder(path: Path) -> Records:
    import datasets

    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        try:
            saved = datasets.load_from_disk(str(path))
        except IndexError as error:  # how `datasets` reads a table of no rows
            raise ValueError("it has no rows, or one of its splits has none") from error
        if isinstance(saved, Mapping) and "train" not in saved:
            raise ValueError(f"it has no split train, only {', '.join(saved)}")
        return TableRecords(saved["train"] if isinstance(saved, Mapping) else saved)
    # A build keeps its rows in data/, other tables beside it. Rows of other splits are there to be held out.
    files = sorted(path.glob("data/*.parquet")) or sorted(path.glob("*.parquet"))
    return _parquet([file for file in files if re.match(r"train(-|$)", file.stem)] or files)


def _parquet(files: Sequence[Path]) -> Records:
    import datasets
    import pyarrow.parquet as pq

    if not files:
        raise ValueError("there is no .parquet file")
    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file).num_rows
        except ValueError as error:
            raise ValueError(f"{file.name} is damaged: {error}") from error
    if not rows:  # which `datasets` refuses to read
        return JsonRecords()
    return TableRecords(datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train"))


def _json(path: Path) -> Records:
    if path.suffix == ".json" and (found := coco.load(path)) is not None:
        return JsonRecords(found)
    text = path.read_text("utf-8-sig")
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = [_parsed(line, n) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {n} is {row!r:.80}, expected an object")
    return JsonRecords(rows)


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON object: {error}: {line!r:.80}") from error
