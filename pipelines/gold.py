"""What is known to be true of rows, to score a dataset against: a file, or another dataset.

Any source that a build takes (``pipelines.rows.sources``). Regions are read from ``gold_regions``, or from where rows and COCO have theirs;
verdicts on traces from ``reported_correct``. A row is the dataset's row of its id; where no id is, as in COCO files with numbers of their
own, of the name of its image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pipelines.rows.base import Record, Source, SourceError
from pipelines.rows.sources import open_source
from rewardlib.rows import DatasetRow, RowError
from rewardlib.rows.pictures import located
from rewardlib.rows.regions import REGIONS, fitted, phrase_of, stated_size
from rewardlib.rows.values import is_missing, reading

Size = tuple[int, int]  # width, height
_VERDICTS = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}
LONGEST_NAME = 1000  # characters; longer texts are images in base64


class GoldError(ValueError):
    """The gold cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Truth:
    """What is known of one row.

    regions: boxes in pixels of the row's image, with phrase (empty where it has none), and mask and role where they are known; None where
        nothing is said of regions.
    traces: the row's traces as they are written, of which some may have ``reported_correct``.
    """

    id: str
    regions: list[dict[str, Any]] | None
    traces: list[Any]

    @property
    def says_something(self) -> bool:
        judged = (trace.get("reported_correct") for trace in self.traces if isinstance(trace, Mapping))
        return bool(self.regions) or any(verdict is not None for verdict in judged)


def read_gold(gold: Path, sizes: Mapping[str, Size], known: AbstractSet[str]) -> Iterator[Truth]:
    """What the gold says, row by row.

    Args:
        gold: A file or a folder.
        sizes: The (width, height) of the dataset's images by row; boxes of others are left in their own unit, to be counted only.
        known: The ids that the dataset has, or had before it rejected them.

    Raises:
        GoldError: it cannot be read, a row of it has no id or no usable region, or it is about none of the dataset's rows.
    """
    try:
        source = open_source(str(gold), None, asks=False)
    except SourceError as error:
        raise GoldError(f"cannot read the gold file {gold}: {error}") from error
    names = [_names(gold, source, number) for number in range(len(source))]
    ids = [own or image for own, image in names]
    if not known & set(ids):
        ids = [image or own for own, image in names]
    if not known & set(ids):
        theirs = _some(sorted(known))
        raise GoldError(
            f"{gold} is about none of the dataset's rows: its ids are {_some([own or image for own, image in names])}, theirs {theirs}"
        )
    first: dict[str, int] = {}
    for number, own in enumerate(ids):
        with _blaming(gold, number):
            record = source.peek(number)
            truth = Truth(own, _regions(record, sizes.get(own)), _traces(record.get("traces")))
            if truth.says_something and first.setdefault(own, number) != number:
                raise RowError("duplicate id", f"{own!r} is the id of row {first[own] + 1} already, which would count twice")
        yield truth


def _traces(traces: Any) -> list[Any]:
    """The traces with their verdicts as true or false, however they are written."""
    listed = traces if isinstance(traces, list) else []
    return [{**t, "reported_correct": _verdict(n, t)} if isinstance(t, Mapping) else t for n, t in enumerate(listed)]


def _verdict(n: int, trace: Mapping[str, Any]) -> bool | None:
    verdict = trace.get("reported_correct")
    if is_missing(verdict):
        return None
    word = str(verdict).strip().lower()
    if word not in _VERDICTS:
        raise RowError("bad verdict", f"traces[{n}].reported_correct is {verdict!r:.40}, expected true or false")
    return _VERDICTS[word]


@contextmanager
def _blaming(gold: Path, number: int) -> Iterator[None]:
    """``GoldError`` that names the row for whatever is wrong with it."""
    try:
        with reading():
            yield
    except RowError as error:
        raise GoldError(f"cannot read the gold file {gold}, row {number + 1}: {error.detail}; correct it, or take the row out") from error


def _names(gold: Path, source: Source, number: int) -> tuple[str, str]:
    """What a row may be known by: its id, and its image file's name without the ending; either may be empty."""
    with _blaming(gold, number):
        row = DatasetRow(source.peek(number))
        names = (row.id or "", _name_of_image(row))
        if not any(names):
            raise RowError("no id", "it has no id and no image with a name")
    return names


def _regions(record: Record, size: Size | None) -> list[dict[str, Any]] | None:
    """The true regions; those that are called gold come before those that a build would be given."""
    columns = dict(record)
    if "gold_regions" in columns:
        columns = {name: value for name, value in columns.items() if name not in REGIONS} | {"regions": columns["gold_regions"]}
    name = next((name for name in REGIONS if columns.get(name) is not None), None)
    if name is None:
        return None
    regions = DatasetRow(columns).all_regions
    if size is not None:
        return fitted(regions, size, stated_size(columns))
    return [{**region, "phrase": phrase_of(region)} for region in regions]


def _name_of_image(row: DatasetRow) -> str:
    try:
        with reading():
            name = located(row.pictures[0]) if row.pictures else ""
    except RowError:
        return ""
    return PurePath(name).stem if isinstance(name, str) and len(name) < LONGEST_NAME else ""


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
