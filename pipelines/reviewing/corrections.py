"""What a person says of a dataset's rows: a small JSON file, read, checked and put in order.

    {"format": "sightline-corrections", "version": 1, "dataset": "9a4f…",
     "corrections": [
      {"row": "a", "action": "accept"},
      {"row": "b", "action": "reject"},
      {"row": "c", "region": "r0", "action": "redraw", "bbox": [8, 8, 20, 20]},
      {"row": "c", "region": "r1", "action": "role", "role": "context"},
      {"row": "c", "annotation": "a2", "action": "reject"},
      {"row": "c", "action": "add", "phrase": "red cup", "bbox": [1, 2, 9, 9], "role": "evidence"}
     ]}

``dataset`` is the hash of the dataset that was looked at, so that corrections of one are not put
on another. The order of the entries says nothing. docs/review.md describes every field.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from labeling import masks
from labeling.facts import ROLES, Role, normalize_phrase
from pipelines.dataset import store
from rewardlib.ink import is_encodable

FORMAT, VERSION = "sightline-corrections", 1
MAX_PHRASE = 200  # characters

Action = Literal["accept", "reject", "role", "redraw", "add"]
Target = Literal["row", "region", "annotation"]
Box = tuple[float, float, float, float]
Row = dict[str, Any]

# What each entry says besides its target and its action; ``mask`` may be left out.
_SAYS: dict[tuple[Target, str], tuple[str, ...]] = {
    ("row", "accept"): (),
    ("row", "reject"): (),
    ("row", "add"): ("phrase", "bbox", "role", "mask"),
    ("region", "accept"): (),
    ("region", "reject"): (),
    ("region", "role"): ("role",),
    ("region", "redraw"): ("bbox", "mask"),
    ("annotation", "accept"): (),
    ("annotation", "reject"): (),
    ("annotation", "role"): ("role",),
}


class CorrectionError(ValueError):
    """Corrections that cannot be used; the message names file, entry, value and remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")


@dataclass(frozen=True)
class Correction:
    """One thing that a person did. ``entry`` is its place in the file, for errors."""

    row: str
    action: Action
    region: str | None = None
    annotation: str | None = None
    role: Role | None = None
    phrase: str | None = None
    bbox: Box | None = None
    mask: dict[str, Any] | None = field(default=None, hash=False)
    entry: int = field(default=0, compare=False)

    @property
    def target(self) -> Target:
        if self.region is not None:
            return "region"
        return "row" if self.annotation is None else "annotation"

    def record(self) -> dict[str, Any]:
        """The entry as the file holds it."""
        values = {name: getattr(self, name) for name in _NAMES}
        return {name: value for name, value in values.items() if value is not None}


_NAMES = ("row", "region", "annotation", "action", "phrase", "bbox", "role", "mask")


@dataclass(frozen=True)
class Corrections:
    """The entries in an order of their own, whatever the file's is."""

    dataset: str
    entries: tuple[Correction, ...]
    name: str = "corrections"  # of the file, for errors

    def sha256(self) -> str:
        said = [FORMAT, VERSION, self.dataset, [c.record() for c in self.entries]]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """How often a person did what: accept_row, redraw_region, add_region and so on."""
        targets = (("region" if c.action == "add" else c.target, c) for c in self.entries)
        return dict(sorted(Counter(f"{c.action}_{target}" for target, c in targets).items()))

    def by_row(self) -> dict[str, list[Correction]]:
        rows: dict[str, list[Correction]] = {}
        for correction in self.entries:
            rows.setdefault(correction.row, []).append(correction)
        return rows

    def text(self) -> str:
        """The file: an entry a line, so that two of them can be compared."""
        lines = ",\n  ".join(json.dumps(c.record(), ensure_ascii=False) for c in self.entries)
        listed = f"[\n  {lines}\n ]" if lines else "[]"
        head = f'"format": "{FORMAT}",\n "version": {VERSION},\n "dataset": "{self.dataset}"'
        return f'{{\n {head},\n "corrections": {listed}\n}}\n'


def dataset_hash(dataset: Path) -> str:
    """What a finished dataset's rows are known by: the names and hashes of its shards."""
    shards = [[s["file"], s["sha256"]] for s in store.read_manifest(dataset)["shards"]]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def ordered(entries: Iterable[Correction], dataset: str, name: str = "corrections") -> Corrections:
    """The corrections that some entries are."""

    def place(c: Correction) -> tuple[str, ...]:
        return (c.row, c.region or "", c.annotation or "", json.dumps(c.record(), sort_keys=True))

    return Corrections(dataset, tuple(sorted(entries, key=place)), name)


def read(path: Path, dataset: Path) -> Corrections:
    """The corrections in a file, each of which the dataset can be given; otherwise an error."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CorrectionError(
            f'{path} holds no corrections, which have "format": "{FORMAT}"',
            "save them with the review page; of Label Studio and COCO, make them with --from",
        )
    if content.get("version") != VERSION:
        raise CorrectionError(
            f"{path} is of version {content.get('version')!r}, and not {VERSION}",
            "save it again with the page of this program",
        )
    known = dataset_hash(dataset)
    if content.get("dataset") != known:
        problem = f"{path} is about the dataset {content.get('dataset')!r:.80}"
        remedy = "give the dataset that was reviewed, or review this one"
        raise CorrectionError(f"{problem}, and {dataset} is {known!r}", remedy)
    listed = content.get("corrections")
    if not isinstance(listed, list):
        raise CorrectionError(f"{path}: corrections is {listed!r:.60}", "give a list of entries")
    entries = [parse(entry, n, f"{path}, entry {n}") for n, entry in enumerate(listed, start=1)]
    found = ordered(entries, known, str(path))
    check(found, dataset)
    return found


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror}"
        raise CorrectionError(problem, "give the file's name") from error
    except (ValueError, RecursionError) as error:
        problem = f"{path} is no JSON: {error}"
        raise CorrectionError(problem, "save or export it again") from error


# ------------------------------------------------------------------------------------- one entry


def parse(entry: Any, number: int, where: str) -> Correction:
    """A correction from its JSON; ``where`` is the file and the entry, for errors."""
    if not isinstance(entry, Mapping):
        remedy = "give an object with a row and an action"
        raise CorrectionError(f"{where} is {entry!r:.60}", remedy)
    values = {name: entry[name] for name in ("row", "region", "annotation") if name in entry}
    for name, value in values.items():
        if not (isinstance(value, str) and value):
            raise CorrectionError(f"{where}: {name} is {value!r:.60}", "give an id in quotes")
    if "row" not in values or len(values) > 2:
        problem = f"{where} has no row, or both region and annotation"
        raise CorrectionError(problem, "name the row, and at most one of the two")
    target: Target = "region" if "region" in values else "row"
    target = "annotation" if "annotation" in values else target
    says = _said(entry, target, where)
    readers = {"role": _role, "phrase": _phrase, "bbox": _box, "mask": _mask}
    values |= {name: readers[name](entry[name], where) for name in says if name in entry}
    return Correction(action=entry["action"], entry=number, **values)


def _said(entry: Mapping[str, Any], target: Target, where: str) -> tuple[str, ...]:
    """The fields that an entry may have; all but the mask it must."""
    action, actions = entry.get("action"), [action for kind, action in _SAYS if kind == target]
    if action not in actions:
        expected = f"for a {target} give one of {', '.join(actions)}"
        raise CorrectionError(f"{where}: action is {action!r:.60}", expected)
    says = _SAYS[target, action]
    if missing := [name for name in says if name not in entry and name != "mask"]:
        raise CorrectionError(f"{where}: {action} needs {' and '.join(missing)}", "add it")
    if unknown := sorted(set(entry) - {"row", "action", target, *says}):
        raise CorrectionError(f"{where}: {action} has no {' and no '.join(unknown)}", "take it out")
    return says


def _role(value: Any, where: str) -> Role:
    if value not in get_args(Role):
        expected = f"give one of {', '.join(ROLES)}"
        raise CorrectionError(f"{where}: role is {value!r:.60}", expected)
    role: Role = value
    return role


def _phrase(value: Any, where: str) -> str:
    phrase = " ".join(value.split()) if isinstance(value, str) and is_encodable(value) else ""
    if not normalize_phrase(phrase) or len(phrase) > MAX_PHRASE:
        expected = f"name what is there in words, in at most {MAX_PHRASE} characters"
        raise CorrectionError(f"{where}: phrase is {value!a:.60}", expected)
    return phrase


def _box(value: Any, where: str) -> Box:
    """Four numbers as the dataset stores them, which is as float32."""
    problem = f"{where}: bbox is {value!r:.60}"
    try:
        numbers = [float(str(np.float32(v))) for v in value if not isinstance(v, str | bool)]
        x0, y0, x1, y1 = numbers
    except (TypeError, ValueError, OverflowError):
        raise CorrectionError(problem, "give [x0, y0, x1, y1] in pixels") from None
    if not (all(map(math.isfinite, numbers)) and 0 <= x0 < x1 and 0 <= y0 < y1):
        raise CorrectionError(problem, "x1 and y1 must lie beyond x0 and y0, and none below 0")
    return (x0, y0, x1, y1)


def _mask(value: Any, where: str) -> dict[str, Any]:
    try:
        return masks.encode(masks.decode(value))  # the same mask has the same encoding
    except ValueError as error:
        remedy = "give COCO run lengths, or leave it out and the box is segmented"
        raise CorrectionError(f"{where}: mask is {error}", remedy) from error


# ------------------------------------------------------------------------- entries and a dataset


def check(corrections: Corrections, dataset: Path) -> None:
    """``CorrectionError`` unless every entry is about something that the dataset has."""
    wanted = corrections.by_row()
    for name, mine in wanted.items():
        _check_together(mine, corrections.name, name)
    columns = ["id", "width", "height", "annotations", "regions"]
    for row in store.read_rows(dataset, columns):
        for correction in wanted.pop(row["id"], ()):
            _check_fits(correction, row, f"{corrections.name}, entry {correction.entry}")
    for name, mine in wanted.items():
        raise CorrectionError(
            f"{corrections.name}, entry {mine[0].entry}: {dataset} has no row {name!r}",
            "take the entry out, or give the dataset that was reviewed",
        )


def _check_together(mine: Sequence[Correction], name: str, row: str) -> None:
    """Entries of a row that contradict or repeat each other."""
    rejects_row = next((c for c in mine if c.target == "row" and c.action == "reject"), None)
    seen: dict[tuple[str | None, str | None], list[Correction]] = {}
    for c in mine:
        others = seen.setdefault((c.region, c.annotation), [])
        contrary = rejects_row if rejects_row is not None and c is not rejects_row else None
        contrary = contrary or next((o for o in others if _contradict(o, c)), None)
        if contrary is not None:
            done = f"{name}, entry {c.entry}: {c.action} of row {row!r}"
            other = f"{contrary.action} in entry {contrary.entry}"
            problem = f"{done} does not go together with {other}"
            raise CorrectionError(problem, "take one of them out")
        others.append(c)


def _contradict(one: Correction, other: Correction) -> bool:
    """Of the same target: said twice, or said of what is rejected."""
    if "add" in (one.action, other.action):
        return one == other
    return one.action == other.action or "reject" in (one.action, other.action)


def _check_fits(correction: Correction, row: Row, where: str) -> None:
    for kind, name in (("region", correction.region), ("annotation", correction.annotation)):
        ids = [entry[f"{kind}_id"] for entry in row[f"{kind}s"]]
        if name is not None and name not in ids:
            has = f"row {row['id']!r} has no {kind} {name!r}, only {', '.join(ids) or 'none'}"
            raise CorrectionError(f"{where}: {has}", "correct the id, or take the entry out")
    if correction.bbox is not None:
        _check_place(correction.bbox, correction.mask, row, where)


def _check_place(box: Box, mask: dict[str, Any] | None, row: Row, where: str) -> None:
    width, height = row["width"], row["height"]
    image = f"the image of row {row['id']!r}, which is {width}x{height} pixels"
    if box[2] > width or box[3] > height:
        problem = f"{where}: bbox {list(box)} reaches outside {image}"
        raise CorrectionError(problem, "correct it")
    if mask is None:
        return
    drawn = masks.decode(mask)
    if drawn.shape != (height, width):
        size = f"{drawn.shape[1]}x{drawn.shape[0]} pixels"
        problem = f"{where}: the mask is {size} and not of {image}"
        raise CorrectionError(problem, "draw it on the stored image")
    if not (drawn & masks.from_box(box, height, width)).any():
        problem = f"{where}: the mask does not overlap its bbox {list(box)}"
        raise CorrectionError(problem, "correct either")


def entries_of(mine: Iterable[Correction], **target: str) -> Iterator[Correction]:
    """Those about one region or annotation: ``entries_of(mine, region="r0")``."""
    ((kind, name),) = target.items()
    return (c for c in mine if getattr(c, kind) == name)
