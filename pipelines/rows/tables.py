"""Rows in tables: Parquet, what ``datasets`` has saved, and the Hub's. By itself, since ``datasets`` takes long to load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.exceptions import DatasetsError

from pipelines.rows.base import Record, Source, SourceError
from pipelines.rows.texts import Objects
from rewardlib.rows import RowError
from rewardlib.rows.values import reading


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


# ---------------------------------------------------------------------------------------------------- opening


def open_hub(name: str, split: str) -> Source:
    """A split of a dataset on the Hub."""
    try:
        with _explained():
            return Table(datasets.load_dataset(name, split=split), name)
    except SourceError as error:
        raise SourceError(f"there is no such file or folder here, and as a dataset on the Hub: {error}") from error


def open_saved(folder: Path, split: str | None) -> Source:
    """What ``datasets`` has saved in a folder."""
    try:
        with _explained():
            return Table(_split_of(datasets.load_from_disk(str(folder)), split), folder.name)
    except IndexError as error:  # how `datasets` reads a table of no rows
        raise SourceError("it has no rows, or one of its splits has none") from error


def open_parquet(files: Sequence[Path], name: str) -> Source:
    """Parquet files of the same columns as one table."""
    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file).num_rows
        except (ValueError, pa.ArrowException) as error:
            raise SourceError(f"{file.name} is damaged: {error}") from error
    if not rows:  # which `datasets` refuses to read
        return Objects([], name)
    with _explained():
        return Table(datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train"), name)


def _split_of(loaded: datasets.Dataset | datasets.DatasetDict, split: str | None) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        return loaded
    split = split or (min(loaded) if len(loaded) == 1 else "train")
    if split not in loaded:
        raise SourceError(f"it has no split {split}, only {', '.join(loaded)}")
    return loaded[split]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DatasetsError as error:
        raise SourceError(str(error.__cause__ or error)) from error
