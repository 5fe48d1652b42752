"""Datasets whose regions are not the evidence: what a reward for looking must not be able to pass by with."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any, Literal

import polars

Regions = Literal["evidence", "shuffled", "elsewhere", "mentions"]


def relabel(dataset: Path, out: Path, regions: Regions) -> Path:
    """A copy of a dataset's rows with other regions; an earlier copy is used again.

    ``shuffled``: those of the row before; ``elsewhere``: boxes of the same size that touch no evidence; ``mentions``: all that was found of
    what traces mention, as if the answer rested on it.
    """
    if not (out / "data").exists():
        parts = sorted((dataset / "data").glob("*.parquet"))
        table = polars.concat([polars.read_parquet(part) for part in parts])
        rows = table.select("id", "width", "height", "regions").to_dicts()
        changed = [_regions(rows, n, regions) for n in range(len(rows))]
        aside = out.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "data").mkdir(parents=True)
        column = polars.Series("regions", changed, dtype=table.schema["regions"])
        table.with_columns(column).write_parquet(aside / "data" / "train-00000.parquet")
        aside.replace(out)
    return out


def _regions(rows: list[dict[str, Any]], n: int, regions: Regions) -> list[dict[str, Any]]:
    own = rows[n]["regions"]
    if regions == "shuffled":
        return list(rows[n - 1]["regions"])
    if regions == "mentions":
        return [region | {"role": "evidence"} for region in own]
    if regions == "elsewhere":
        evidence = [region for region in own if region["role"] == "evidence"]
        rng = random.Random(rows[n]["id"])
        size = rows[n]["width"], rows[n]["height"]
        return [region | {"bbox": _elsewhere(rng, region["bbox"], size, evidence), "mask": None} for region in evidence]
    return list(own)


def _elsewhere(rng: random.Random, box: list[float], size: tuple[int, int], evidence: list[dict[str, Any]]) -> list[float]:
    """A box of the same size that touches none of the evidence; of a hundred tries the last, if none is free."""
    width, height = box[2] - box[0], box[3] - box[1]
    for _ in range(100):
        x, y = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
        moved = [x, y, x + width, y + height]
        if not any(_touch(moved, region["bbox"]) for region in evidence):
            break
    return moved


def _touch(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
