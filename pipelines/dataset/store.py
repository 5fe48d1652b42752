"""Shards on disk. A shard is done when its Parquet file and the record beside it agree; whatever else lies there is unfinished work.

    DIR/data/train-00000.parquet      the dataset, one file a shard
    DIR/rejects.parquet               every row that was dropped, with stage and reason
    DIR/manifest.json                 configuration, models, counts and the hash of every file
    DIR/.work/train-00000.json        what a shard was made from, its counts and rejects; deleted with no loss but time

Files are written aside, flushed, and renamed, so ``kill -9`` leaves either the old state or the new one. No file holds a time or a path of
this machine: the same inputs and configuration give the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset.schema import COLUMNS, SCHEMA_VERSION, Ledger, Reject
from pipelines.dataset.versions import upgrade_from, upgraded_manifest

ROWS_PER_GROUP = 100  # the Hub's viewer refuses large row groups of images
_REJECT_COLUMNS = dict.fromkeys(("id", "stage", "reason", "detail", "row", "thumbnail"), pl.String)


class StoreError(RuntimeError):
    """The dataset folder cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard."""

    name: str
    key: str  # hash of inputs, configuration and code
    file_sha256: str
    rows: int
    counts: dict[str, int]
    rejects: list[dict[str, str]]


def data_path(out: Path, shard: str) -> Path:
    return out / "data" / f"{shard}.parquet"


def _record_path(out: Path, shard: str) -> Path:
    return out / ".work" / f"{shard}.json"


def finished(out: Path, shard: str, key: str) -> ShardRecord | None:
    """The record of a shard that was made from exactly these inputs and is intact on disk."""
    record = recorded(out, shard, key)
    try:
        intact = record is not None and _file_sha256(data_path(out, shard)) == record.file_sha256
    except OSError:
        return None
    return record if intact else None


def recorded(out: Path, shard: str, key: str) -> ShardRecord | None:
    """The record of the last attempt at a shard from exactly these inputs, whatever became of its file."""
    try:
        record = ShardRecord(**json.loads(_record_path(out, shard).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.key == key else None


def write_shard(out: Path, shard: str, key: str, rows: list[dict[str, Any]], ledger: Ledger) -> ShardRecord:
    """Store a shard: first its data, then the record that declares it done."""
    from pipelines.dataset.features import FEATURES

    path = data_path(out, shard)
    table = pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)
    write_aside(path, lambda temporary: pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP, compression="zstd"))
    rejects = [asdict(r) for r in ledger.rejects]
    record = ShardRecord(shard, key, _file_sha256(path), len(rows), dict(sorted(ledger.counts.items())), rejects)
    write_text(_record_path(out, shard), json.dumps(asdict(record)))
    return record


def or_raise(outcomes: Sequence[ShardRecord | BaseException]) -> list[ShardRecord]:
    """The records, if every shard has one; otherwise the first error."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, ShardRecord)]


def finish(out: Path, records: list[ShardRecord], about: dict[str, Any]) -> dict[str, Any]:
    """Write rejects and manifest, and remove shards of an earlier plan. Returns the manifest."""
    names = {r.name for r in records}
    for stale in [p for p in (out / ".work").glob("*.json") if p.stem not in names]:  # of an earlier plan; files of others stay
        data_path(out, stale.stem).unlink(missing_ok=True)
        stale.unlink()
    rejects = [reject for record in records for reject in record.rejects]
    table = pl.DataFrame(rejects, schema=_REJECT_COLUMNS)
    write_aside(out / "rejects.parquet", lambda temporary: table.write_parquet(temporary))
    counts = sum_counts(records)
    manifest = {
        **about,
        "rows": sum(r.rows for r in records),
        "rejected": table.height,
        "rejects": table.group_by("stage", "reason").len("rows").sort("stage", "reason").to_dicts(),
        "counts": counts,
        "shards": [{"file": f"data/{r.name}.parquet", "rows": r.rows, "sha256": r.file_sha256} for r in records],
    }
    if counts["rows_in"] != manifest["rows"] + manifest["rejected"]:
        raise StoreError(f"{counts['rows_in']} rows went in, {manifest['rows']} came out and {manifest['rejected']} were rejected")
    write_text(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return manifest


def sum_counts(records: list[ShardRecord]) -> dict[str, int]:
    total: dict[str, int] = {}
    for record in records:
        for name, value in record.counts.items():
            total[name] = total.get(name, 0) + value
    return dict(sorted(total.items()))


def read_manifest(out: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        if not out.is_dir():
            raise StoreError(f"there is no folder {out}; give one that a build has written") from None
        raise StoreError(
            f"{out} has no manifest.json: it is no finished dataset. Run the build again; it resumes where it stopped"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot read {out / 'manifest.json'}: {error.strerror}; make it readable") from error
    except ValueError as error:
        raise StoreError(f"{out / 'manifest.json'} is damaged ({error}). Run the build again; finished shards are reused") from error
    if not isinstance(manifest, dict) or not {"shards", "rows", "counts"} <= set(manifest):
        raise StoreError(f"{out / 'manifest.json'} is no Sightline manifest. Run the build again; finished shards are reused")
    if not isinstance(version := manifest.get("schema_version", 1), int) or version > SCHEMA_VERSION:
        raise StoreError(
            f"{out / 'manifest.json'} has the schema_version {version!r}, and this program knows up to {SCHEMA_VERSION}: a newer Sightline "
            "wrote it; update yours"
        )
    return upgraded_manifest(manifest)


def read_rejects(out: Path) -> list[Reject]:
    with _blaming(out / "rejects.parquet"):
        return [Reject(**row) for row in pl.read_parquet(out / "rejects.parquet").to_dicts()]


@contextmanager
def _blaming(file: Path) -> Iterator[None]:
    """``StoreError`` that names a file of a dataset that cannot be read."""
    try:
        yield
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise StoreError(
            f"{file} is missing or damaged ({error!s:.120}). Run the build again, which makes anew what is not whole, or fetch it again"
        ) from error


def read_rows(out: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a finished dataset as plain dicts (images as ``{"bytes", "path"}``), a row group at a time.

    Rows of an older version are read as if they had been written by this one (``pipelines.dataset.versions``).
    """
    wanted = list(COLUMNS) if columns is None else columns
    manifest = read_manifest(out)
    upgrade = upgrade_from(manifest)
    for shard in manifest["shards"]:
        path = out / shard["file"]
        with _blaming(path):
            file = pq.ParquetFile(path)
        present = [name for name in wanted if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            with _blaming(path):
                rows = file.read_row_group(group, columns=present).to_pylist()
            for row in rows:
                yield upgrade(row, wanted)


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Only one build at a time may write a folder; the lock goes with the process, however it ends."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; give a folder for the dataset")
    (out / ".work").mkdir(parents=True, exist_ok=True)
    (out / "data").mkdir(exist_ok=True)
    with (out / ".work" / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another build is writing {out}, or it is being published; wait for it, or choose another folder") from None
        _sweep(out)
        yield
        _sweep(out)


def _sweep(out: Path) -> None:
    """Remove what killed workers left half written."""
    ours = ("data/*.parquet.*tmp", ".work/*.json.*tmp", "rejects.parquet.*tmp", "manifest.json.*tmp")
    for leftover in [path for pattern in ours for path in out.glob(pattern)]:
        leftover.unlink()


@contextmanager
def at_rest(out: Path) -> Iterator[None]:
    """No build writes the folder meanwhile: for readers of a finished dataset as a whole, of which there may be several."""
    lock = out / ".work" / "lock"
    if not lock.exists():  # copied without its work folder: nobody builds here
        yield
        return
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"a build is writing {out}; wait until it has ended") from None
        yield


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written whole or not at all."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder; give the name of a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")  # a worker given up for lost may still be writing the same
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_aside(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
