"""Which rows of a dataset a person wants to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.dataset import store
from pipelines.dataset.schema import COLUMNS
from pipelines.reviewing.kinds import Only

Row = dict[str, Any]


def _has_role(row: Row, role: str) -> bool:
    return role in {entry["role"] or "unknown" for entry in row["regions"] + row["annotations"]}


def _unfound(row: Row) -> bool:
    """Whether a fact names something that no region shows."""
    grounded = {name for region in row["regions"] for name in region["annotation_ids"]}
    return any(a["phrase"] and a["annotation_id"] not in grounded for a in row["annotations"])


_ONLY: dict[Only, Callable[[Row], bool]] = {
    "evidence": lambda row: _has_role(row, "evidence"),
    "context": lambda row: _has_role(row, "context"),
    "unknown": lambda row: _has_role(row, "unknown"),
    "unfound": _unfound,
    "boxes": lambda row: any(r["mask_source"] == "box" for r in row["regions"]),
    "unverified": lambda row: not all(c["verified"] for c in row["counterfactuals"]),
}


def chosen(dataset: Path, only: Only | None, offset: int, limit: int | None) -> Iterator[Row]:
    """The rows to look at: those that ``only`` names, from the ``offset``-th of them."""
    for name, number in (("--offset", offset), ("--limit", limit)):
        if number is not None and number < 0:
            raise store.StoreError(f"{name} is {number}; give 0 or more")
    columns = [name for name in COLUMNS if name != "counterfactuals" or only == "unverified"]
    rows = store.read_rows(dataset, columns)
    fitting = (row for row in rows if only is None or _ONLY[only](row))
    return islice(fitting, offset, None if limit is None else offset + limit)
