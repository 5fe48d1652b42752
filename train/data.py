"""The rows of a dataset as the trainer wants them: a chat prompt, images, the labelled region, and
what rewards read.

    load_rows("dataset", "think-answer")    # a folder of Parquet files, as flows.build_dataset or
                                            # `datasets` has written it
    load_rows("data/test-*.jsonl", ...)     # a pattern; JSON Lines, JSON, CSV, with images beside
    load_rows("hiyouga/geometry3k", ...)    # the split train of a dataset on the Hub

``pipelines.rows`` opens what a build opens, and ``rewardlib.rows`` reads rows as a build does. They
are read, and their images opened, when asked for. A row that cannot be used is left out with its
id, the reason and the remedy (``LeftOut``); it never ends a run. Where files of several splits lie
in a folder, or a column ``split`` tells several, its rows are those of train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pipelines.rows.base import Source, SourceError
from pipelines.rows.parts import only, scan, why_unreadable
from pipelines.rows.sources import folders_of, open_source
from pipelines.rows.splits import choose_rows
from pipelines.rows.tables import Table
from rewardlib.console import say
from rewardlib.rows import DatasetRow, RowError
from rewardlib.rows.chat import CHATS, PLACEHOLDER, QUESTIONS, Turn
from rewardlib.rows.images import Folders, keep_image
from rewardlib.rows.pictures import PICTURES, located, picture_columns
from rewardlib.rows.row import LABELS as LABEL_COLUMNS
from rewardlib.rows.row import columns_for, reads
from rewardlib.rows.traces import TRACES
from rewardlib.rows.values import reading
from rewardlib.sample import Sample
from rewardlib.templates import LAYOUTS, Template, without_instruction
from rewardlib.tokens import Weights, draw_regions
from train.labels import IMAGE, LABELS, Need

Made = TypeVar("Made")
SAID = 3  # rows of a kind that are named on the screen


class DataError(ValueError):
    """The dataset cannot be trained on; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One question: what the policy sees, and a sample without a response for the rewards."""

    id: str
    messages: list[dict[str, Any]]
    sample: Sample
    traces: tuple[str, ...] = ()  # correct chain-of-thought responses

    @property
    def images(self) -> tuple[Any, ...]:
        return self.sample.images

    @property
    def region(self) -> Weights | None:
        """The labelled region, drawn on the first image; None without regions."""
        regions = self.sample.regions
        return draw_regions(self.images[0].size, regions) if regions else None

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """The labelled boxes x0, y0, x1, y1, in shares of the first image's sides."""
        if not self.images:
            return ()
        width, height = self.images[0].size
        corners = [region["bbox"] for region in self.sample.regions]
        return tuple(
            (x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in corners
        )

    @property
    def question(self) -> str:
        """What was asked last, without the template's instruction, for people to read."""
        last = next(message for message in reversed(self.messages) if message["role"] == "user")
        text = "".join(part.get("text", PLACEHOLDER) for part in last["content"])
        return without_instruction(text).removeprefix(PLACEHOLDER).strip()


def to_row(
    columns: Mapping[str, Any], template: Template, folders: Folders = Folders((Path(),))
) -> Row:
    """A row from a dataset's columns; images may be paths in one of the folders. ``RowError`` if it
    cannot be used.
    """
    row = DatasetRow(columns)
    messages = to_messages(row.turns, LAYOUTS[template].instruction)
    images = tuple(keep_image(value, folders) for value in row.pictures)
    changed = {role: keep_image(image, folders) for role, image in row.counterfactuals.items()}
    regions = row.regions_on(images[0].size) if images else []
    name = row.id or ""
    sample = Sample(
        response="",
        prompt=messages,
        answer=row.answer,
        alternatives=row.alternatives,
        choices=row.choices.texts,
        annotations=row.annotations,
        images=images,
        regions=tuple(regions),
        evidence_image=changed.get("evidence"),
        control_image=changed.get("control"),
        group=name,
    )
    return Row(name, messages, sample, row.correct_traces)


def to_messages(turns: Sequence[Turn], instruction: str) -> list[dict[str, Any]]:
    """Chat messages as processors take them, with the instruction behind the last question."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in turn.parts
        ]
        messages.append({"role": turn.role, "content": parts})
    asked = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    if asked and asked[-1]["type"] == "text":
        asked[-1]["text"] += f"\n{instruction}"
    else:
        asked.append({"type": "text", "text": instruction})
    return messages


@dataclass(frozen=True)
class LeftOut:
    """A row that a run goes on without."""

    id: str
    reason: str  # a few words, for counting
    detail: str  # what exactly, and what to do

    def __str__(self) -> str:
        return f"left out row {self.id}: {self.reason}: {self.detail}"


@dataclass(eq=False)
class Rows(Sequence[Row]):
    """The rows of a dataset, made as they are asked for: by number, or by ``take``, which leaves
    out what cannot be used.
    """

    data: str
    source: Source
    template: Template
    folders: Folders
    # of its rows among all that the source has; None: as they are
    numbers: Sequence[int] | None = None
    left_out: dict[int, LeftOut] = field(default_factory=dict)  # by number
    speaks: bool = True  # whether this process says which rows it leaves out
    with_foreign: bool = False  # whether samples hold facts of another row too
    without_image: int = 0  # how many show nothing, once they have been looked over (``require``)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        number = range(len(self))[int(index)]
        try:
            return self._read(number)
        except RowError as error:
            raise DataError(
                f"{self.data}, row {number} (id {self._name_of(number)!r}): {error}"
            ) from error

    def take(self, index: int) -> Row | None:
        """A row; None for one that cannot be used, which is left out with a word."""
        if index in self.left_out:
            return None
        try:
            return self._read(index)
        except RowError as error:
            self.leave_out(index, error)
        return None

    def use(self, index: int, made: Callable[[Row], Made]) -> Made | None:
        """What is made of a row; None where it cannot be read or made, and the row is left out with
        a word.
        """
        if (row := self.take(index)) is None:
            return None
        try:
            return made(row)
        except RowError as error:
            self.leave_out(index, error)
        return None

    def _read(self, number: int) -> Row:
        with reading():
            columns = self.source.read(number)
            row = to_row({**columns, "id": self.name(number, columns)}, self.template, self.folders)
        if not self.with_foreign:
            return row
        foreign = self._foreign(number, DatasetRow(columns))
        return replace(row, sample=replace(row.sample, foreign=foreign))

    def _foreign(self, number: int, own: DatasetRow) -> tuple[str, ...]:
        """The facts of the next row of another image that has any, without those of this row."""
        for offset in range(1, min(len(self), LOOKED_AT)):
            with suppress(RowError), reading():
                other = DatasetRow(self.source.read((number + offset) % len(self)))
                if not other.pictures or other.pictures == own.pictures:
                    continue
                foreign = tuple(fact for fact in other.annotations if fact not in own.annotations)
                if foreign:
                    return foreign
        return ()

    def leave_out(self, index: int, error: RowError) -> None:
        """Go on without a row. The first ones of a kind are said; all are kept for the report."""
        if index in self.left_out:
            return
        self.left_out[index] = LeftOut(self._name_of(index), error.reason, error.detail)
        alike = sum(other.reason == error.reason for other in self.left_out.values())
        if self.speaks and alike <= SAID:
            say(str(self.left_out[index]))
            if alike == SAID:
                say(
                    f"further rows of the kind {error.reason!r} are left out without a word, and "
                    "counted"
                )

    def name(self, number: int, columns: Mapping[str, Any]) -> str:
        """A row's id, or its number where it has none."""
        return DatasetRow({"id": columns.get("id")}).id or self._number(number)

    def _number(self, index: int) -> str:
        return str(self.numbers[index] if self.numbers is not None else index)

    def _name_of(self, index: int) -> str:
        try:
            with reading():
                return self.name(index, self.source.peek(index))
        except RowError:
            return self._number(index)


def load_rows(
    data: str, template: Template, split: str | None = "train", *, answered: bool = True
) -> Rows:
    """The rows of a split of what ``data`` names. ``DataError`` if it cannot be read, or its
    columns say nothing to the trainer.
    """
    try:
        source = open_source(data, split)
        numbers, others = choose_rows(source, split)
    except SourceError as error:
        raise DataError(f"{data}: {error}" if data not in str(error) else str(error)) from error
    rows = Rows(
        data,
        source if numbers is None else only(source, numbers),
        template,
        folders_of(data),
        numbers,
    )
    if others:
        told = ", ".join(f"{name} ({count})" for name, count in others.most_common())
        say(
            f"{len(rows)} rows of {data} are of the split {split or 'train'}; others are not read: "
            f"{told}"
        )
    _check_columns(rows, answered)
    return rows


def _check_columns(rows: Rows, answered: bool) -> None:
    """``DataError`` if no column holds questions, or answers, or if images are where none are
    looked for.
    """
    names = rows.source.columns()
    if not names:
        raise DataError(
            f"no row of {rows.data} can be read; the first: {why_unreadable(rows.source)}"
        )
    strays = _stray_pictures(rows.source)
    wanted = ["question", *(["answer"] if answered else []), *(["image"] if strays else [])]
    for what in wanted:
        if not reads(what, names):
            names_read = ", ".join(columns_for(what))
            raise DataError(
                f"{rows.data} has no {what} column, only {', '.join(sorted(names))}; {what}s are "
                f"read from {names_read}: rename yours"
            )
    if strays and not any(name in CHATS for name in names) and rows.speaks:
        say(
            f"the columns {', '.join(sorted(strays))} look like images, and are not read: images "
            f"are read from {', '.join(PICTURES)}"
        )


def _stray_pictures(source: Source) -> set[str]:
    """Columns that hold images where none are looked for, by their type or by what is in the first
    rows.
    """
    names = source.columns()
    strays = source.pictures() if isinstance(source, Table) else set()
    for index in range(min(len(source), LOOKED_AT)):
        with suppress(RowError), reading():
            strays |= {name for name, value in source.peek(index).items() if _holds_picture(value)}
    return (
        strays
        - set(picture_columns(names))
        - {"counterfactuals", *CHATS, *TRACES, *LABEL_COLUMNS, *QUESTIONS}
    )


def _holds_picture(value: Any) -> bool:
    """Whether a value looks like an image or several."""
    if isinstance(value, list):
        return any(map(_holds_picture, value))
    if isinstance(value, Mapping):
        return any(
            _holds_picture(value.get(name)) or isinstance(value.get(name), bytes)
            for name in ("bytes", "path", "image", "url")
        )
    return (
        isinstance(value, str)
        and len(value) < 1000
        and value.lower().partition("?")[0].endswith(_ENDINGS)
    )


LOOKED_AT = 50  # rows in which images are looked for in columns of other names
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif")


def by_reason(rows: Rows) -> str:
    """How many rows were left out, by reason."""
    counts = Counter(left.reason for left in rows.left_out.values())
    return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def require(rows: Rows, needs: Sequence[Need] = ()) -> dict[str, int]:
    """How many rows lack what is needed, by label; a label that no row lacks is left out. Opens no
    image.

    Rows that cannot be read are left out here, before the first step. ``DataError`` where none is
    left, and for a label that all others lack.
    """
    lacking = Counter({need.label: 0 for need in needs if need.label != IMAGE})
    without_image = 0
    for index, record in enumerate(_looked_over(rows)):
        try:
            if isinstance(record, RowError):
                raise record
            with reading():
                row = DatasetRow(record)
                missing = [label for label in lacking if not LABELS[label].read(row)]
                if not isinstance(rows.source, Table):
                    without_image += not _check_question(row, rows.folders)
        except RowError as error:
            rows.leave_out(index, error)
            continue
        lacking.update(missing)
    usable = len(rows) - len(rows.left_out)
    if not usable:
        first = next(iter(rows.left_out.values()))
        raise DataError(
            f"none of the {len(rows)} rows of {rows.data} can be used; the first, {first.id}: "
            f"{first.detail}"
        )
    for need in needs:
        if lacking[need.label] == usable:
            label = LABELS[need.label]
            remedy = ", or ".join(part for part in (label.remedy, need.without) if part)
            raise DataError(
                f"{need.who} needs {label.noun}, and none of the {usable} rows of {rows.data} has "
                f"any: {remedy}"
            )
    _say_without_image(rows, without_image, needs)
    return {label: count for label, count in lacking.items() if count}


def _looked_over(rows: Rows) -> Iterator[Mapping[str, Any] | RowError]:
    """The columns of every row that can be looked at without reading images: of text files all, for
    they are only text.
    """
    if isinstance(rows.source, Table):
        yield from scan(rows.source, LABEL_COLUMNS)
    else:
        yield from scan(rows.source, [*rows.source.columns()])


def _check_question(row: DatasetRow, folders: Folders) -> bool:
    """``RowError`` if a row asks nothing, or shows what is not there; whether it shows anything."""
    row.turns  # noqa: B018  read for its errors
    for picture in row.pictures:
        if isinstance(path := located(picture), str):
            folders.find(path)
    return bool(row.pictures)


def _say_without_image(rows: Rows, count: int, needs: Sequence[Need]) -> None:
    """A question without its image is a question of another kind; all of them without one are a
    mistake.
    """
    columns = picture_columns(rows.source.columns())
    if not columns:
        chats = [name for name in rows.source.columns() if name in CHATS]
        for need in needs if not chats else ():
            if need.label == IMAGE:
                raise DataError(
                    f"{need.who} needs images, and {rows.data} has no column of them: give images, "
                    f"or {need.without}"
                )
        return
    if isinstance(rows.source, Table):
        count = min(rows.source.count_missing(name) for name in columns)
    rows.without_image = count
    if count == len(rows):
        raise DataError(
            f"the column {columns[0]} of {rows.data} is empty in all {count} rows: give images, or "
            "remove the column"
        )
    if count:
        say(f"{count} of {len(rows)} rows have no image and are asked without one")
