"""Rows for other tools, and what people did there."""

from __future__ import annotations

from pathlib import Path

from pipelines.dataset import store
from pipelines.export import appearing
from pipelines.reviewing import corrections
from pipelines.reviewing.choosing import chosen
from pipelines.reviewing.coco import read_coco, write_coco
from pipelines.reviewing.corrections import Corrections, dataset_hash
from pipelines.reviewing.kinds import Only, Tool
from pipelines.reviewing.label_studio import read_export, write_tasks


def write_for(
    tool: Tool,
    dataset: Path,
    out: Path,
    *,
    limit: int | None = None,
    offset: int = 0,
    only: Only | None = None,
    images_at: str | None = None,
) -> int:
    """Write rows into a new folder for another tool; how many there are."""
    known = dataset_hash(dataset)
    rows = chosen(dataset, only, offset, limit)
    with appearing(out.resolve()) as folder:
        if tool == "label-studio":
            return write_tasks(rows, known, folder, images_at)
        return write_coco(rows, known, folder)


def corrections_from(tool: Tool, export: Path, dataset: Path) -> Corrections:
    """What people did in another tool."""
    columns = ["id", "width", "height", "regions", "annotations"]
    rows = {row["id"]: row for row in store.read_rows(dataset, columns)}
    known = dataset_hash(dataset)
    read, noun = (read_export, "task") if tool == "label-studio" else (read_coco, "image")
    entries = [corrections.parse(entry.record(), entry.entry, f"{export}, {noun} {entry.entry}") for entry in read(export, rows, known)]
    found = corrections.ordered(entries, known, str(export))
    corrections.check(found, dataset)
    return found
