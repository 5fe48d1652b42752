"""The rows of a dataset as the trainer wants them: a chat prompt, images, the labelled region, and what rewards read.

    load_rows("dataset", "think-answer")           # a folder made by flows.build_dataset, of Parquet files, or saved by `datasets`
    load_rows("dataset/data/test-*.parquet", ...)  # Parquet files; also .json and .jsonl with images beside them
    load_rows("hiyouga/geometry3k", ...)           # the split train of a dataset on the Hub

Rows may have Sightline's columns, or those of other people's formats (``pipelines.formats.columns``). They are read, and their images
opened, when asked for. Where files of several splits lie in a folder, its rows are those of the split train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewardlib.adapters.rows import to_sample
from rewardlib.sample import Sample
from rewardlib.text import Template
from rewardlib.tokens import Weights, draw_regions
from train import columns as layouts
from train.tables import JsonRecords, Records, open_records

# What each template asks of the model, after the question.
INSTRUCTIONS: dict[Template, str] = {
    "think-answer": "First think inside <think> </think>, then give the final answer inside <answer> </answer>.",
    "perception-r1": (
        "First describe what you see and think inside <think> </think>, then give the final answer inside <answer> </answer> as "
        "\\boxed{...}, each tag on a line of its own."
    ),
    "boxed": "First think inside <think> </think>, then give the final answer inside \\boxed{}.",
    "answer": "Look at the part of the image that matters, reason briefly, then give the final answer inside <answer> </answer>.",
}

_ACCEPTED = (
    "give a folder made by `python -m flows.build_dataset`, Parquet files or a folder of them, a .json or .jsonl file of objects, "
    "a folder saved by `datasets`, or a Hub id with a split train"
)
_LABEL = "build labels with `python -m flows.build_dataset`"
# By label: what needs it, and what to do without it.
_NEEDS = {
    "answer": ("the accuracy reward needs a gold answer", "add a column answer, or set --accuracy 0"),
    "regions": ("the recipe's attention reward needs regions", f"{_LABEL}, or set --attention-contrast 0 --causal-attention 0"),
    "counterfactuals": ("the causal attention reward needs counterfactual images", f"{_LABEL}, or set --causal-attention 0"),
    "annotations": ("the perception reward needs annotations", f"{_LABEL}, or set --perception 0"),
    "traces": ("anchoring needs correct traces", f"{_LABEL} from rows that have traces"),
}


class DataError(ValueError):
    """The dataset cannot be trained on; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One question: what the policy sees, and a sample without a response for the rewards."""

    id: str
    messages: list[dict[str, Any]]
    sample: Sample
    region: Weights | None  # drawn on the image; None without regions
    traces: tuple[str, ...] = ()  # correct chain-of-thought responses

    @property
    def images(self) -> tuple[Any, ...]:
        return self.sample.images

    @property
    def question(self) -> str:
        """What was asked last, without the template's instruction, for people to read."""
        last = next(message for message in reversed(self.messages) if message["role"] == "user")
        text = "".join(part.get("text", layouts.PLACEHOLDER) for part in last["content"])
        for instruction in INSTRUCTIONS.values():
            text = text.removesuffix(instruction)
        return text.removeprefix(layouts.PLACEHOLDER).strip()


def to_row(columns: Mapping[str, Any], template: Template, folders: Sequence[Path] = (Path(),)) -> Row:
    """A row from a dataset's columns; images may be paths in one of the folders."""
    labels = layouts.labels(columns)
    images = [layouts.open_picture(value, folders) for value in layouts.pictures(columns)]
    messages = layouts.chat(columns, len(images), INSTRUCTIONS[template])
    if images:
        labels["regions"] = [layouts.in_pixels(region, images[0].size) for region in labels["regions"]]
    name = str(columns.get("id", ""))
    sample = to_sample("", labels | {"images": images}, prompt=messages, group=name)
    changed = {role: image for role in ("evidence_image", "control_image") if (image := getattr(sample, role)) is not None}
    sample = replace(sample, **{role: layouts.open_picture(image, folders) for role, image in changed.items()})
    region = None
    if images and sample.regions:
        layouts.check_boxes(sample.regions, images[0].size)
        region = draw_regions(images[0].size, sample.regions)
    return Row(name, messages, sample, region, tuple(labels["traces"]))


class Rows(Sequence[Row]):
    """The rows of a dataset, made as they are asked for."""

    def __init__(self, data: str, records: Records, template: Template, folders: Sequence[Path] = (Path(),)) -> None:
        self.data, self.records, self.template, self.folders = data, records, template, folders

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        columns = self.records[int(index)]
        name = self.name(index, columns)
        with self.naming(index, columns):
            return to_row({**columns, "id": name}, self.template, self.folders)

    def name(self, index: int, columns: Mapping[str, Any]) -> str:
        """A row's id, or its number where it has none."""
        given = columns.get("id")
        return str(index % len(self) if given in (None, "") else given)

    @contextmanager
    def naming(self, index: int, columns: Mapping[str, Any]) -> Iterator[None]:
        """Errors inside say which row they are about."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = error if isinstance(error, ValueError) else f"a column is not as expected: {type(error).__name__}: {error}"
            raise DataError(f"{self.data}, row {index} (id {self.name(index, columns)!r}): {what}") from error


def load_rows(data: str, template: Template) -> Rows:
    """The training rows of what ``data`` names. ``DataError`` if it cannot be read, or its columns say nothing to the trainer."""
    from datasets.exceptions import DatasetsError

    try:
        records = open_records(data)
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        raise DataError(f"cannot read {data}: {cause}; {_ACCEPTED}") from error
    base = Path(data) if Path(data).is_dir() else Path(data).parent
    folders = (base, base / "images", base.parent, base.parent / "images") if base.is_dir() else (Path(),)
    rows = Rows(data, records, template, folders)
    _check_columns(rows)
    _check_rows(rows)
    return rows


def _check_columns(rows: Rows) -> None:
    """``DataError`` if no column holds questions, or answers, or if images are where none are looked for."""
    names = set(rows.records.names)
    strays = [name for name, value in rows.records[0].items() if layouts.holds_picture(value)]
    accepted = {
        "question": (*layouts.QUESTIONS, *layouts.CHATS[1:]),
        "answer": (*layouts.ANSWERS, "reward_model", *layouts.CHATS[1:]),
        **({"image": layouts.PICTURES} if strays else {}),
    }
    for what, known in accepted.items():
        if names.isdisjoint(known):
            raise DataError(
                f"{rows.data} has no {what} column, only {', '.join(sorted(names))}; {what}s are read from {', '.join(known)}: rename yours"
            )


def _check_rows(rows: Rows) -> None:
    """Read the first row, for most mistakes are in all of them. A JSON file is only text: look at all of its rows, but open no image."""
    for index in range(len(rows) if isinstance(rows.records, JsonRecords) else 0):
        columns = rows.records[index]
        with rows.naming(index, columns):
            shown = layouts.pictures(columns)
            layouts.chat(columns, len(shown), "")
            layouts.labels(columns)
            for path in shown:
                if isinstance(path, str):
                    layouts.locate(path, rows.folders)
    rows[0]


def require(
    rows: Rows,
    *,
    answer: bool = False,
    regions: bool = False,
    counterfactuals: bool = False,
    annotations: bool = False,
    traces: bool = False,
) -> dict[str, int]:
    """How many rows lack what is needed, by label; a label that no row lacks is left out. ``DataError`` where all do. Opens no image."""
    needed = {"answer": answer, "regions": regions, "counterfactuals": counterfactuals, "annotations": annotations, "traces": traces}
    lacking = Counter({label: 0 for label, is_needed in needed.items() if is_needed})
    for index, columns in enumerate(rows.records.plain(layouts.LABELS) if lacking else ()):
        with rows.naming(index, columns):
            found = layouts.labels(columns)
        lacking.update([label for label in lacking if not found[label]])
    for label, count in lacking.items():
        if count == len(rows):
            need, remedy = _NEEDS[label]
            raise DataError(f"{need}, and none of the {count} rows of {rows.data} has any: {remedy}")
    return {label: count for label, count in lacking.items() if count}
