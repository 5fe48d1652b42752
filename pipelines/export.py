"""A finished dataset in the format of another tool, in a folder that the tool reads.

    python -m pipelines.export DIR --to easyr1 --out FOLDER        # or verl, vlm-r1, ms-swift, visual-cot, coco

One file a split: FOLDER/train.parquet, .jsonl or .json, with the images in it or in FOLDER/images, byte for byte as the dataset stores
them. A row that the format cannot express is left out, counted and named. The folder appears when it is complete, and the same dataset
gives the same bytes. docs/formats.md says what each format carries, and what it loses.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from pipelines.dataset import formats, store
from pipelines.dataset.schema import COLUMNS
from rewardlib.console import failing_clearly, say, tell
from rewardlib.program import program

Row = dict[str, Any]
Format = Literal["easyr1", "verl", "vlm-r1", "ms-swift", "visual-cot", "coco"]

_RECORD: dict[Format, Callable[[Row, int, str], Row]] = {
    "easyr1": formats.easyr1,
    "verl": formats.verl,
    "vlm-r1": formats.vlm_r1,
    "ms-swift": formats.ms_swift,
    "visual-cot": formats.visual_cot,
    "coco": formats.coco_image,
}
_TABLES = ("easyr1", "verl")  # the formats that hold their images
_SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"RIFF": "webp"}  # of what a build stores


class ExportError(RuntimeError):
    """The export cannot be made; the message says why and what to do."""


@dataclass
class Exported:
    """How many rows were written, and which were not: (id, reason)."""

    rows: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def export(dataset: Path, to: Format, out: Path) -> Exported:
    """Write a finished dataset into a new folder; the rows are read, converted and written one after the other.

    ``StoreError`` for an unfinished dataset, ``ExportError`` for a folder that holds something, or if the format can express no row.
    """
    done = Exported()
    columns = [name for name in COLUMNS if name != "counterfactuals" or to == "easyr1"]  # most of a dataset's bytes
    store.read_manifest(dataset)
    try:
        with appearing(out.resolve()) as folder:
            for split, rows in groupby(store.read_rows(dataset, columns), key=lambda row: str(row["split"])):
                records = _records(to, rows, folder, done)
                if to in _TABLES:
                    _write_parquet(folder / f"{split}.parquet", records, to)
                elif to == "coco":
                    _write_coco(folder / f"{split}.json", records)
                else:
                    _write_jsonl(folder / f"{split}.jsonl", records)
            if not done.rows:
                if not done.left_out:
                    raise ExportError(f"{dataset} has no rows; its rejects.parquet says why: build it again from rows that can be used")
                reasons = "; ".join(f"row {key}: {reason}" for key, reason in done.left_out[:3])
                raise ExportError(f"{to} can express no row of {dataset}: {reasons}; choose another format")
    except (OSError, pa.ArrowException) as error:
        raise ExportError(f"cannot read {dataset} or write {out}: {error}; `python -m pipelines.validate {dataset}` checks it") from error
    return done


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when all is well, and goes away when it is not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists already; remove it, or choose another --out")
    aside = out.with_name(f".{out.name}.export")
    if aside.exists():  # of an export that was killed
        shutil.rmtree(aside)
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    try:
        yield aside
        aside.replace(out)
    finally:
        if aside.exists():
            shutil.rmtree(aside)


def _records(to: Format, rows: Iterable[Row], folder: Path, done: Exported) -> Iterator[tuple[Row, Row]]:
    """Every row that the format can express, with its record; its image is in the folder where the format wants paths."""
    for number, row in enumerate(rows):
        data = row["image"]["bytes"]
        suffix = next(suffix for magic, suffix in _SUFFIXES.items() if data.startswith(magic))
        name = f"images/{row['image_sha256']}.{suffix}"  # ids may hold anything; and rows may share an image
        try:
            record = _RECORD[to](row, number, name)
        except formats.Inexpressible as reason:
            done.left_out.append((row["id"], str(reason)))
            continue
        if to not in _TABLES and not (folder / name).exists():
            (folder / "images").mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        done.rows += 1
        yield row, record


def _write_parquet(path: Path, records: Iterator[tuple[Row, Row]], to: Format) -> None:
    from pipelines.dataset.features import EASYR1, VERL

    schema = (EASYR1 if to == "easyr1" else VERL).arrow_schema
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        while rows := [record for _, record in islice(records, store.ROWS_PER_GROUP)]:
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def _write_jsonl(path: Path, records: Iterator[tuple[Row, Row]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for _, record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_coco(path: Path, records: Iterator[tuple[Row, Row]]) -> None:
    """COCO's lists follow one another in its file: annotations wait beside it until the images are written."""
    licenses: dict[str, int] = {}
    categories: dict[str, int] = {}
    written = 0
    waiting = path.with_suffix(".annotations")
    with path.open("w", encoding="utf-8") as file, waiting.open("w+", encoding="utf-8") as annotations:
        file.write('{"images": [')
        for n, (row, image) in enumerate(records):
            license = licenses.setdefault(row["license"], len(licenses) + 1)
            file.write(",\n" * (n > 0) + json.dumps({**image, "license": license}, ensure_ascii=False))
            for found in formats.coco_annotations(row, image["id"]):
                category = categories.setdefault(found.pop("category"), len(categories) + 1)
                entry = {"id": written + 1, **found, "category_id": category}
                annotations.write(",\n" * (written > 0) + json.dumps(entry, ensure_ascii=False))
                written += 1
        file.write('],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        for name, entries in (("categories", categories), ("licenses", licenses)):
            listed = [{"id": key, "name": entry} for entry, key in entries.items()]
            file.write(f'],\n"{name}": {json.dumps(listed, ensure_ascii=False)[:-1]}')
        file.write("]}\n")
    waiting.unlink()


def main(dir: Annotated[Path, tyro.conf.Positional], to: Format, out: Path) -> None:
    """Write a dataset in the format of another tool.

    Args:
        dir: A folder written by flows.build_dataset.
        to: The format.
        out: A new folder for it.
    """
    with failing_clearly(store.StoreError, ExportError):
        done = export(dir, to, out)
    say(f"wrote {done.rows} rows to {out}")
    for key, reason in done.left_out:
        say(f"  left out row {key}: {reason}")
    tell({"rows": done.rows, "left_out": len(done.left_out)}, always=True)


if __name__ == "__main__":
    tyro.cli(main, prog=program())
