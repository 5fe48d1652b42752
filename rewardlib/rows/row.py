"""A dataset's row, read: question, options, gold answers, images, labels. The one place where a row's columns get a meaning.

    row = DatasetRow({"problem": "<image>Which?", "options": ["blue", "red"], "answer": 1, "images": ["a.png"]})
    row.answer, row.choices.texts, row.pictures          # "B", ("blue", "red"), ["a.png"]

Columns may be Sightline's own, or those of EasyR1, PAPO, verl, VLM-R1, ms-swift, LLaVA or Visual-CoT; docs/formats.md lists
them. Each property reads its own columns when it is asked for, and raises ``RowError`` where they cannot be understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from rewardlib.rows.chat import CHATS, QUESTIONS, Turn, read_reply, read_turns
from rewardlib.rows.choices import CHOICES, Choices, read_choices, without_choices
from rewardlib.rows.golds import ALTERNATIVES, GOLDS, read_golds
from rewardlib.rows.pictures import PICTURES, picture_columns, read_pictures
from rewardlib.rows.regions import REGIONS, SIZE, fitted, read_regions, stated_size, to_look_at
from rewardlib.rows.traces import TRACES, read_traces
from rewardlib.rows.values import RowError, decoded, is_missing, listed, stated, text

_KEY_INFO = re.compile(r"(?s)<info\d+>\s*(.*?)\s*</info\d+>")
# What verl's rows keep in extra_info, for rewards to read.
_EXTRA = (*CHOICES, "annotations", "regions", "split", ALTERNATIVES, *GOLDS)
# Columns that say what a row is labelled with; all others say what it asks and shows.
LABELS = (
    *("id", "annotations", "visual_key_info", "counterfactuals", "reward_model", "extra_info", ALTERNATIVES),
    *(*CHOICES, *GOLDS, *REGIONS, *SIZE, *CHATS, *TRACES),
)


class DatasetRow:
    """What the columns of one row say."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = _unfolded(_folded(stated(columns)))

    @classmethod
    def of(cls, row: Any) -> DatasetRow:
        """A row given as its columns, as their JSON text, or as the bare gold answer."""
        if isinstance(row, Mapping):
            return cls(row)
        return cls({"answer": row})

    # ------------------------------------------------------------------------------------------ who it is

    @cached_property
    def id(self) -> str | None:
        return self._text("id")

    @cached_property
    def source(self) -> str | None:
        return self._text("source", "data_source", "dataset")

    @cached_property
    def split(self) -> str | None:
        return self._text("split")

    @cached_property
    def license(self) -> str | None:
        return self._text("license")

    def _text(self, *names: str) -> str | None:
        name = next((name for name in names if name in self.columns), None)
        return None if name is None else text(self.columns[name], name)

    # ------------------------------------------------------------------------------------------ what it asks

    @cached_property
    def choices(self) -> Choices:
        return read_choices(self.columns)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The chat up to its last question, options listed, with a place for every image."""
        if self._carries_pictures:
            return self._turns
        return read_turns(self.columns, self.choices, len(self.pictures))

    @cached_property
    def question(self) -> str:
        """What the user asks, without options and images; ``RowError`` for a chat of several questions."""
        asked = [turn for turn in self.turns if turn.role == "user"]
        if len(asked) != 1:
            raise RowError(
                "several questions", f"the chat has {len(asked)} messages of a user, expected one; make a row of each, or drop the row"
            )
        question = without_choices(asked[0].text, self.choices.texts).strip()
        if is_missing(question):
            raise RowError("no question", "the question has no words")
        return question

    @cached_property
    def _turns(self) -> tuple[Turn, ...]:
        return read_turns(self.columns, self.choices)

    @cached_property
    def _carries_pictures(self) -> bool:
        """Whether the chat's parts hold the images themselves."""
        pictures = [picture for turn in self._turns for picture in turn.pictures]
        return any(picture.value is not None for picture in pictures)

    # ------------------------------------------------------------------------------------------ what it shows

    @cached_property
    def pictures(self) -> list[Any]:
        """Its images as they are stored, unopened, in the order of their places."""
        stored = read_pictures(self.columns)
        if not any(name in self.columns for name in CHATS) or not self._carries_pictures:
            return stored
        waiting = iter(stored)
        pictures = [picture.value or next(waiting, None) for turn in self._turns for picture in turn.pictures]
        if None in pictures:
            raise RowError("placeholders without images", "the chat has more places than images; add images, or take places out")
        return pictures

    def regions_on(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        """The regions to look at in pixels of the first image, which has this (width, height) as it is shown."""
        return self._on(size, self.regions)

    def all_regions_on(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Every region that it states, whatever its role, in pixels of the first image."""
        return self._on(size, self.all_regions)

    def _on(self, size: tuple[int, int], regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return fitted(regions, size, stated_size(self.columns)) if regions else []

    # ------------------------------------------------------------------------------------------ what is known of it

    @cached_property
    def golds(self) -> tuple[str, ...]:
        """Answers of equal standing, the first for showing; none where the row has no gold."""
        return read_golds(self.columns, self.choices, read_reply(self.columns))

    @property
    def answer(self) -> str | None:
        return self.golds[0] if self.golds else None

    @property
    def alternatives(self) -> tuple[str, ...]:
        return self.golds[1:]

    @cached_property
    def annotations(self) -> tuple[str, ...]:
        """Statements of visual facts."""
        given = listed(decoded(self.columns.get("annotations")))
        info = self.columns.get("visual_key_info")
        if not given and isinstance(info, str):
            return tuple(_KEY_INFO.findall(info))
        statements = [fact.get("statement") if isinstance(fact, Mapping) else fact for fact in given]
        return tuple(text(statement, "annotations") for statement in statements if not is_missing(statement))

    @cached_property
    def regions(self) -> list[dict[str, Any]]:
        """The regions that its answer rests on, in its own unit (``regions_on`` gives pixels): where to look."""
        return to_look_at(self.all_regions)

    @cached_property
    def all_regions(self) -> list[dict[str, Any]]:
        """Every region that it states, in its own unit, also those that are merely mentioned."""
        return read_regions(self.columns)

    @property
    def counterfactual_roles(self) -> set[str]:
        """The roles of its changed images, evidence or control; tells without reading one."""
        given = listed(self.columns.get("counterfactuals"))
        return {str(image.get("role")) for image in given if isinstance(image, Mapping)}

    @cached_property
    def counterfactuals(self) -> dict[str, Any]:
        """The first changed image of each role, unopened."""
        images: dict[str, Any] = {}
        for given in listed(self.columns.get("counterfactuals")):
            if isinstance(given, Mapping) and not is_missing(given.get("image")):
                images.setdefault(str(given.get("role")), given["image"])
        return images

    @cached_property
    def traces(self) -> list[dict[str, Any]]:
        return read_traces(self.columns, self.answer)

    @property
    def correct_traces(self) -> tuple[str, ...]:
        """Texts of the traces that a build has checked and called right."""
        given = listed(self.columns.get("traces"))
        return tuple(trace["text"] for trace in given if isinstance(trace, Mapping) and trace.get("correct"))


def reads(what: str, names: Collection[str]) -> bool:
    """Whether a question, an answer or an image is read from one of these columns."""
    small = {name.lower() for name in names}
    return not small.isdisjoint(columns_for(what)) or (what == "image" and bool(picture_columns(small)))


def columns_for(what: str) -> Sequence[str]:
    """The columns that a question, an answer or an image is read from, for messages."""
    chats = CHATS[1:]
    names: dict[str, Sequence[str]] = {
        "question": (*QUESTIONS, *chats),
        "answer": (*GOLDS, "reward_model", *chats),
        "image": (*PICTURES, *chats),
    }
    return names[what]


_NAMES = frozenset((*LABELS, *QUESTIONS, *PICTURES, "split", "license", "source", "data_source", "dataset"))


def _folded(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns, of which those with a known name in capitals, as tables of people have them, have it in small letters."""
    small = {name: name.lower() for name in columns if name.lower() in _NAMES and name.lower() not in columns}
    return {small.get(name, name): value for name, value in columns.items()}


def _unfolded(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns, over those in verl's extra_info; and over both, those that a gold holds as JSON text."""
    extra = decoded(columns.get("extra_info"))
    if isinstance(extra, Mapping):
        beside = stated({name: extra.get(name) for name in _EXTRA})
        columns = {**beside, **columns}
    model = decoded(columns.get("reward_model"))
    golds = [model.get("ground_truth") if isinstance(model, Mapping) else None, *(columns.get(name) for name in GOLDS)]
    first = next((gold for gold in golds if not is_missing(gold)), None)
    if (told := _told(first)) is not None:
        columns = {name: value for name, value in columns.items() if name not in (*GOLDS, "reward_model", *CHOICES[1:])}
        columns |= stated(told)
    return columns


def _told(gold: Any) -> Mapping[str, Any] | None:
    """The columns that a gold answer holds as JSON text; None where it is an answer."""
    if not isinstance(gold, str) or not gold.lstrip().startswith("{"):
        return None
    try:
        told = json.loads(gold)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and any(name in told for name in GOLDS) else None
