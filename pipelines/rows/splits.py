"""Which split a file or a row is of, by the file's name or a column ``split``."""

from __future__ import annotations

import re
from collections import Counter

from pipelines.rows.base import Record, Source, SourceError
from pipelines.rows.parts import scan
from rewardlib.rows import RowError
from rewardlib.rows.values import is_missing

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


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


def _told_split(record: Record | RowError) -> str | None:
    value = None if isinstance(record, RowError) else record.get("split")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or is_missing(value):
        return None
    name = str(value).strip()
    return _SPLITS.get(name.lower(), name)


def split_in(name: str) -> str | None:
    """The split that a file's name tells: test for test-00000-of-00002.parquet and geo_test.jsonl; None for one that tells none."""
    words = re.split(r"[^a-z]+", name.lower().partition(".")[0])
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def is_of(name: str, split: str) -> bool:
    """Whether a file's name says that its rows are of a split; splits may have any name, which shards then begin with."""
    told = split_in(name)
    return told == _SPLITS.get(split.lower(), split) or re.match(rf"{re.escape(split)}(?![A-Za-z0-9])", name) is not None
