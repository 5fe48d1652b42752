"""Raw records to items: columns checked, images normalised, traces and given regions cleaned.

Nothing is repaired silently: what cannot be used is rejected with a reason (the row) or counted (a trace).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling import masks
from pipelines.config import SPLIT_NAME, BuildConfig
from pipelines.formats.adopt import adopt, format_of
from pipelines.formats.columns import in_pixels
from pipelines.images import normalize
from pipelines.schema import MAX_TRACE, Item, Ledger, Rejected
from pipelines.sources import Record, Source, SourceError


@dataclass(frozen=True)
class Shard:
    """A unit of work: which raw records, and under which name the result is stored. ``duplicates`` maps a record to the earlier one that
    has the same id."""

    name: str
    split: str
    indices: tuple[int, ...]
    duplicates: Mapping[int, int]


def plan(source: Source, config: BuildConfig) -> list[Shard]:
    """Cut the source into shards of one split each, in its own order, and find duplicate ids; reads no images."""
    _require_columns(source, config)
    first_seen: dict[str, int] = {}
    duplicates: dict[int, int] = {}
    splits: dict[str, list[int]] = {}
    for index in range(min(len(source), config.limit or len(source))):
        split = config.split
        try:
            record = read_columns(source.peek(index), config)
            split = str(record.get("split") or config.split)
            if not re.match(SPLIT_NAME, split):
                split = config.split  # rejected when the shard is built
            if (key := row_id(record, source, index)) in first_seen:
                duplicates[index] = first_seen[key]
            first_seen.setdefault(key, index)
        except Rejected:
            pass  # reported when the shard is built
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
    named = set(config.columns.values())
    if format_of(rename(dict.fromkeys(present), config)) is None:
        named |= {config.columns.get(c, c) for c in ("image", "question", "answer")}
    if missing := sorted(named - present):
        raise SourceError(
            f"{config.source!r} has no column {', '.join(missing)}; it has {', '.join(sorted(present)) or 'none'}. "
            "If they are named otherwise, say so: --columns question problem (in YAML, columns: {question: problem}); "
            "docs/formats.md lists the formats that need no names"
        )
    if config.license is None and config.columns.get("license", "license") not in present:
        raise SourceError(
            f"{config.source!r} has no column license, and a dataset without a licence cannot be published; "
            "state the source's licence, e.g. --license cc-by-4.0"
        )


def read_columns(record: Record, config: BuildConfig) -> Record:
    """A record as the pipeline reads it: other people's formats under Sightline's names, and what ``--columns`` names above all."""
    renamed = rename(record, config)
    return adopt(renamed) | {ours: renamed[ours] for ours in config.columns if ours in renamed}


def rename(record: Record, config: BuildConfig) -> Record:
    """A record under Sightline's own column names."""
    renamed = {ours: record[theirs] for ours, theirs in config.columns.items() if theirs in record}
    return {**{k: v for k, v in record.items() if k not in config.columns.values()}, **renamed}


def row_id(record: Record, source: Source, index: int) -> str:
    if record.get("id") in (None, ""):
        return f"{source.name.replace('/', '--')}-{index:07d}"
    return _text(record["id"], "id")


def record_digest(source: Source, index: int, config: BuildConfig) -> bytes:
    """Changes whenever a record does, or the image file that it names."""
    digest = hashlib.sha256(source.raw(index))
    try:
        image = read_columns(source.peek(index), config).get("image")
        path = image[0] if isinstance(image, list) and image else image.get("path") if isinstance(image, dict) else image
        if isinstance(path, str) and source.root is not None:
            stat = (source.root / path).stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    except (Rejected, OSError, ValueError):
        pass  # such a row is rejected, for what it says alone
    return digest.digest()


def ingest(shard: Shard, source: Source, config: BuildConfig, ledger: Ledger) -> list[Item]:
    """The usable rows of a shard; the others are in the ledger."""
    items = []
    for index in shard.indices:
        record: Record = {"id": f"row {index + 1}", "raw": source.raw(index)[:10_000].decode("utf-8", "backslashreplace")}
        try:
            given = read_columns(source.read(index), config)
            record = {**given, "id": row_id(given, source, index)}
            if index in shard.duplicates:
                raise Rejected("duplicate id", f"{record['id']!r} is the id of row {shard.duplicates[index] + 1} already")
            items.append(_item(record, shard, source, config, ledger))
        except Rejected as rejected:
            ledger.reject(record, "ingest", rejected.reason, f"row {index + 1}: {rejected.detail}")
    ledger.counts["rows_in"] += len(shard.indices)
    return items


def _item(record: Record, shard: Shard, source: Source, config: BuildConfig, ledger: Ledger) -> Item:
    for name in ("image", "question", "answer"):
        if record.get(name) in (None, "", []):
            raise Rejected(f"no {name}", f"the column {config.columns.get(name, name)!r} is missing or empty")
    if not re.match(SPLIT_NAME, str(record.get("split") or config.split)):
        raise Rejected("bad split", f"{record['split']!r} is no split name; use letters, digits and underscores")
    image, data = normalize(image_bytes(record["image"], source.root))
    traces = list(_traces(record.get("traces"), ledger))
    regions = [_region(i, r, image.width, image.height) for i, r in enumerate(_list(record, "regions"))]
    if not traces and not regions and config.collector.model is None:
        raise Rejected(
            "no usable trace", "no trace can be read, and no regions are given; --collector.model asks a vision model for traces"
        )
    row = {
        "id": record["id"],
        "source": _text(record.get("source") or source.name, "source"),
        "split": shard.split,
        "license": _text(record.get("license") or config.license, "license"),
        "image": {"bytes": data, "path": None},
        "width": image.width,
        "height": image.height,
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "question": _text(record["question"], "question"),
        "choices": [_text(c, "choices") for c in _list(record, "choices")],
        "answer": _text(record["answer"], "answer"),
        "traces": traces,
        "annotations": [],
        "regions": regions,
        "counterfactuals": [],
    }
    return Item(row, image)


def _list(record: Record, name: str) -> list[Any]:
    value = record.get(name)
    if value is not None and not isinstance(value, (list, tuple)):
        raise Rejected(f"bad {name}", f"{name} is {value!r:.80}, expected a list")
    return list(value or [])


def _text(value: Any, name: str) -> str:
    if value is None or not isinstance(value, (str, int, float, bool)):
        raise Rejected(f"bad {name}", f"{name} is {value!r:.80}, expected text")
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Rejected("not UTF-8", f"{name} holds an unpaired surrogate: {error}") from error
    return text


def image_bytes(value: Any, root: Path | None) -> bytes:
    """The bytes of an image given as a path below ``root``, as bytes, or as a ``datasets`` image struct (the first, if a list)."""
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise Rejected("bad image", f"the image is a {type(value).__name__}, expected a path or bytes")
    if root is None:
        raise Rejected("missing image", f"{value!r} is a path, and this source has no image folder; give one with --image-root")
    try:
        path = (root / value).resolve()
        if not path.is_relative_to(root):
            raise Rejected(
                "path outside the image folder", f"{value!r} leads out of {root.name}/; use paths below it or another --image-root"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise Rejected("missing image", f"the file {value!r} does not exist in {root.name}/") from None
    except OSError as error:
        raise Rejected("unreadable image", f"{value!r}: {error.strerror}") from error
    except ValueError as error:
        raise Rejected("unreadable image", f"{value!r}: {error}") from error


def _traces(value: Any, ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Usable traces, numbered by their place in the source; the others are counted by reason."""
    for n, given in enumerate(value if isinstance(value, list) else [] if value is None else [value]):
        trace = given if isinstance(given, dict) else {"text": given}
        text = trace.get("text")
        ledger.counts["traces_in"] += 1
        try:
            if not isinstance(text, str) or not text.strip():
                raise Rejected("empty", "")
            if len(text) > MAX_TRACE:
                raise Rejected("too long", "")
            model = _text(trace.get("model") or "unknown", "model")
            yield {"trace_id": f"t{n}", "model": model, "text": _text(text, "trace"), "answer": None, "correct": None}
        except Rejected as rejected:
            ledger.counts[f"traces_dropped: {rejected.reason}"] += 1


def _region(n: int, given: Any, width: int, height: int) -> dict[str, Any]:
    """A region that came with the row, as SAYO's do: kept as it is, and marked as given."""
    if not isinstance(given, dict) or not isinstance(given.get("bbox"), (list, tuple)):
        raise Rejected("bad region", f"regions[{n}] is {given!r:.80}, expected an object with a bbox")
    try:
        x0, y0, x1, y1 = (float(v) for v in in_pixels(given, (width, height))["bbox"])
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected("bad region", f"regions[{n}].bbox is {given['bbox']!r:.80}, expected x0, y0, x1, y1: {error}") from error
    if max(x0, y0, x1, y1) <= 1 and "bbox_type" not in given:
        raise Rejected("bad region", f"regions[{n}].bbox {given['bbox']} lies on one pixel; shares of the image need a bbox_type of norm1")
    clipped = tuple(round(v, 2) for v in (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)))
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise Rejected("bad region", f"regions[{n}].bbox {given['bbox']} covers nothing of the {width}x{height} image (xyxy expected)")
    inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
    flags = [] if inside else ["clipped"]
    mask = _given_mask(n, given.get("mask"), clipped, width, height)
    return {
        "region_id": f"r{n}",
        "annotation_ids": [],
        "phrase": _text(given.get("phrase") or given.get("label") or "", f"regions[{n}].phrase"),
        "bbox": list(clipped),
        "score": None,
        "mask": mask,
        "mask_score": None,
        "mask_source": "given",
        "flags": flags,
    }


def _given_mask(n: int, rle: Any, box: masks.Box, width: int, height: int) -> dict[str, Any] | None:
    if rle is None:
        return None  # the segmenter draws it
    try:
        mask = masks.decode(rle)
    except ValueError as error:
        raise Rejected("bad region", f"regions[{n}].mask: {error}") from error
    if mask.shape != (height, width):
        raise Rejected("bad region", f"regions[{n}].mask has the size {rle['size']}, the image {[height, width]} (height, width)")
    if not (mask & masks.from_box(box, height, width)).any():
        raise Rejected("bad region", f"regions[{n}].mask does not overlap its box {list(box)}")
    return {"size": [height, width], "counts": rle["counts"]}
