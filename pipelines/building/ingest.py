"""Raw records to items: what a row says (``rewardlib.rows``), its image opened, its traces cleaned.

Nothing is repaired silently: what cannot be used is rejected with a reason (the row) or counted (a trace).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.ahead import ahead
from pipelines.config import SPLIT_NAME, BuildConfig
from pipelines.dataset.licenses import is_stated
from pipelines.dataset.regions import new_region
from pipelines.dataset.schema import MAX_TRACE, Item, Ledger
from pipelines.rows.base import Record, Source, SourceError
from pipelines.rows.parts import why_unreadable
from pipelines.rows.sources import folders_of, open_source
from rewardlib.rows import DatasetRow, RowError
from rewardlib.rows.chat import CHATS, QUESTIONS
from rewardlib.rows.choices import CHOICES
from rewardlib.rows.golds import GOLDS
from rewardlib.rows.images import Folders, load_stored
from rewardlib.rows.pictures import PICTURES, located
from rewardlib.rows.regions import REGIONS
from rewardlib.rows.row import reads
from rewardlib.rows.traces import TRACES
from rewardlib.rows.values import is_missing, reading, stated, text

READERS = 2  # threads that open images
# Columns that say the same thing: what --columns names comes before all others of its kind.
_KINDS: dict[str, tuple[str, ...]] = {
    "question": (*QUESTIONS, *CHATS),
    "answer": (*GOLDS, "reward_model"),
    "image": PICTURES,
    "choices": CHOICES,
    "traces": TRACES,
    "regions": REGIONS,
}


@dataclass(frozen=True)
class Shard:
    """A unit of work: which raw records, and under which name the result is stored.

    duplicates: maps a record to the earlier one that has the same id.
    """

    name: str
    split: str
    indices: tuple[int, ...]
    duplicates: Mapping[int, int]


def source_of(config: BuildConfig) -> Source:
    """The source that a build reads; ``SourceError`` with the remedy if there is none."""
    path, out = Path(config.source), config.out.resolve()
    if path.exists() and (path.resolve() == out or path.resolve().is_relative_to(out / "data")):
        raise SourceError(f"the source {path} lies where the dataset would be written, which would overwrite it; choose another --out")
    return open_source(config.source, config.split)


def image_folders(config: BuildConfig) -> Folders:
    """Where the images are that its rows name; a dataset is published, so no others are read."""
    return folders_of(config.source, config.image_root, is_closed=True)


def plan(source: Source, config: BuildConfig) -> list[Shard]:
    """Cut the source into shards of one split each, in its own order, and find duplicate ids; reads no images."""
    _require_columns(source, config)
    first_seen: dict[str, int] = {}
    duplicates: dict[int, int] = {}
    splits: dict[str, list[int]] = {}
    for index in range(min(len(source), config.limit or len(source))):
        split = config.split
        with suppress(RowError), reading():  # reported when the shard is built
            row = read_row(source.peek(index), config)
            split = row.split or config.split
            if not re.match(SPLIT_NAME, split):
                split = config.split  # rejected when the shard is built
            if (key := row_id(row, source, index)) in first_seen:
                duplicates[index] = first_seen[key]
            first_seen.setdefault(key, index)
        splits.setdefault(split, []).append(index)
    return [
        Shard(f"{split}-{n:05d}", split, part, {i: duplicates[i] for i in part if i in duplicates})
        for split, indices in splits.items()
        for n, part in enumerate(_slices(indices, config.shard_size))
    ]


def _slices(indices: list[int], size: int) -> Iterator[tuple[int, ...]]:
    yield from (tuple(indices[i : i + size]) for i in range(0, len(indices), size))


def _require_columns(source: Source, config: BuildConfig) -> None:
    """Columns that no row has are a mistake of the command, not of the rows."""
    present = source.columns()
    if not present:
        raise SourceError(f"no row of {config.source!r} can be read; the first: {why_unreadable(source)}")
    missing = sorted(set(config.columns.values()) - present)
    for what in ("image", "question", "answer"):
        if what not in config.columns and not reads(what, present):
            missing.append(what)
    if missing:
        raise SourceError(
            f"{config.source!r} has no column {', '.join(missing)}; it has {', '.join(sorted(present)) or 'none'}. "
            "If they are named otherwise, say so: --columns question problem (in YAML, columns: {question: problem}); "
            "docs/formats.md lists the names that are known"
        )
    named = config.columns.get("license", "license")
    if config.license is None and named not in present and named not in {name.lower() for name in present}:
        raise SourceError(
            f"{config.source!r} has no column license, and a dataset without a licence cannot be published; "
            "state the source's licence, e.g. --license cc-by-4.0"
        )


def read_row(record: Record, config: BuildConfig) -> DatasetRow:
    """A record as the build reads it: what ``--columns`` names comes first."""
    named = {ours: record[theirs] for ours, theirs in config.columns.items() if not is_missing(record.get(theirs))}
    replaced = {name for ours in named for name in _KINDS.get(ours, (ours,))} | set(config.columns.values())
    return DatasetRow({**{name: value for name, value in record.items() if name not in replaced}, **named})


def row_id(row: DatasetRow, source: Source, index: int) -> str:
    return row.id or f"{source.name.replace('/', '--')}-{index:07d}"


def record_digest(source: Source, index: int, config: BuildConfig, folders: Folders) -> bytes:
    """Changes whenever a record does, or the image file that it names, or why there is none."""
    digest = hashlib.sha256(source.raw(index))
    try:
        with reading():
            for picture in read_row(source.peek(index), config).pictures[:1]:
                if isinstance(name := located(picture), str):
                    stat = folders.find(name).stat()
                    digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    except RowError as error:
        digest.update(error.reason.encode())  # what its remedy changes
    return digest.digest()


def ingest(shard: Shard, source: Source, config: BuildConfig, ledger: Ledger) -> list[Item]:
    """The usable rows of a shard; the others are in the ledger. Images are opened by threads, a few rows ahead."""
    folders = image_folders(config)

    def read(index: int) -> tuple[Item | None, Ledger]:
        own = Ledger()
        return _read(index, shard, source, folders, config, own), own

    items = []
    for item, own in ahead(read, shard.indices, workers=READERS):
        ledger.add(own)
        if item is not None:
            items.append(item)
    ledger.counts["rows_in"] += len(shard.indices)
    return items


def _read(index: int, shard: Shard, source: Source, folders: Folders, config: BuildConfig, ledger: Ledger) -> Item | None:
    record: Record = {"id": f"row {index + 1}", "raw": source.raw(index)[:10_000].decode("utf-8", "backslashreplace")}
    try:
        with reading():
            row = read_row(source.read(index), config)
            if "question" in row.columns:
                del record["raw"]
            record |= {name: value for name, value in row.columns.items() if name != "id"}
            record["id"] = row_id(row, source, index)
            if index in shard.duplicates:
                raise RowError("duplicate id", f"{record['id']!r} is the id of row {shard.duplicates[index] + 1} already")
            return _item(row, record["id"], shard, source, folders, config, ledger)
    except RowError as error:
        ledger.reject(record, "ingest", error.reason, f"row {index + 1}: {error.detail}")
        return None


def _item(row: DatasetRow, key: str, shard: Shard, source: Source, folders: Folders, config: BuildConfig, ledger: Ledger) -> Item:
    question = row.question
    answer, license = row.answer, row.license if is_stated(row.license) else config.license or row.license
    if answer is None:
        raise RowError("no answer", f"the column {config.columns.get('answer', 'answer')!r} is missing or empty")
    if license is None:
        raise RowError("no license", "the row states no licence; give --license for rows that state none")
    if not re.match(SPLIT_NAME, row.split or config.split):
        raise RowError("bad split", f"{row.split!r} is no split name; use letters, digits and underscores")
    image, data = load_stored(_only_picture(row, config), folders)
    traces = list(_traces(row, ledger))
    regions = [_given(n, region) for n, region in enumerate(row.all_regions_on(image.size))]
    if not traces and not regions and config.collector.model is None:
        raise RowError(
            "no usable trace",
            "no trace can be read (traces are texts, or objects with text), and no regions are given; --columns traces NAME names "
            "the column that holds them, --collector.model asks a vision model for traces",
        )
    return Item(
        {
            "id": key,
            "source": row.source or source.name,
            "split": shard.split,
            "license": license,
            "image": {"bytes": data, "path": None},
            "width": image.width,
            "height": image.height,
            "image_sha256": hashlib.sha256(data).hexdigest(),
            "question": question,
            "choices": list(row.choices.texts),
            "answer": answer,
            "alternatives": list(row.alternatives),
            "traces": traces,
            "annotations": [],
            "regions": regions,
            "counterfactuals": [],
        },
        image,
    )


def _only_picture(row: DatasetRow, config: BuildConfig) -> Any:
    pictures = row.pictures
    if not pictures:
        raise RowError("no image", f"the column {config.columns.get('image', 'image')!r} is missing or empty")
    if len(pictures) > 1:
        raise RowError(
            "several images",
            f"the row has {len(pictures)} images, and regions are of one; drop the row, or make a row of the image that counts",
        )
    return pictures[0]


def _traces(row: DatasetRow, ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Usable traces, numbered by their place in the source; the others are counted by reason."""
    for n, trace in enumerate(row.traces):
        ledger.counts["traces_in"] += 1
        try:
            written = trace["text"]
            if not isinstance(written, str) or is_missing(written):
                raise RowError("empty", "")
            if len(written) > MAX_TRACE:
                raise RowError("too long", "")
            model = text(stated(trace).get("model", "unknown"), "model")
            yield {"trace_id": f"t{n}", "model": model, "text": text(written, "trace"), "answer": None, "correct": None}
        except RowError as error:
            ledger.counts[f"traces_dropped: {error.reason}"] += 1


def _given(n: int, region: Mapping[str, Any]) -> dict[str, Any]:
    """A region that came with the row, as SAYO's do: kept as it is, marked as given, and evidence unless the row says otherwise."""
    return new_region(
        f"r{n}",
        region["phrase"],
        region["bbox"],
        "given",
        mask=region["mask"],
        mask_source="given" if region["mask"] else None,
        role=region["role"] or "evidence",
        role_by="given",
        flags=region["flags"],
    )
