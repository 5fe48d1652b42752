"""What the columns of other people's rows mean: EasyR1's, PAPO's, verl's, VLM-R1's, ms-swift's, Visual-CoT's, and Sightline's own.

    question     a chat in prompt, messages or conversations, else the text in question (with choices), problem or prompt
    images       images, image or image_path: stored in the row, or paths; one or several
    answer       reward_model.ground_truth, answer, solution, ground_truth or gt, else the chat's last reply; without <answer> tags
    regions      regions of {"bbox", "mask"}, ms-swift's objects, or bboxes, bboxs or bbox: x0, y0, x1, y1 in pixels of the image as it is
                 stored; shares of the image only where the row says "bbox_type": "norm1"
    annotations  annotations, or Perception-R1's visual_key_info
    choices, counterfactuals, traces

verl's extra_info is looked at for choices, annotations and regions that are no columns. These are functions of one row. They raise
``ValueError`` with the value and the remedy; who reads the rows adds which row it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewardlib.adapters.rows import to_sample

Columns = Mapping[str, Any]

CHATS = ("prompt", "messages", "conversations")
QUESTIONS = ("question", "problem", "prompt")
PICTURES = ("images", "image", "image_path")
ANSWERS = ("answer", "solution", "ground_truth", "gt")
REGIONS = ("regions", "objects", "bboxes", "bboxs", "bbox")
_EXTRA = ("choices", "annotations", "regions")
LABELS = (
    *("id", "choices", "annotations", "visual_key_info", "counterfactuals", "traces", "reward_model", "extra_info"),
    *(*ANSWERS, *REGIONS, *CHATS),
)

PLACEHOLDER = "<image>"
_ROLES = {"human": "user", "gpt": "assistant"}
_ANSWER = re.compile(r"(?is)<answer>(.*?)</answer>")
_KEY_INFO = re.compile(r"(?s)<info\d+>\s*(.*?)\s*</info\d+>")


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row asks


def turns(columns: Columns) -> list[tuple[str, str]]:
    """(role, text) of every message up to the last question; a chat says more than a bare question, so it comes first."""
    name, messages = _chat(columns)
    if messages:
        return _without_reply([_turn(message, name) for message in messages])
    for name in QUESTIONS:
        if isinstance(text := columns.get(name), str) and text.strip():
            return [("user", with_choices(text, columns.get("choices") or ()) if name == "question" else text)]
    present = {name: columns[name] for name in dict.fromkeys((*QUESTIONS, *CHATS)) if name in columns}
    raise ValueError(f"there is no question in {present!r:.80}; fill one of these columns, or drop the row")


def with_choices(question: str, choices: Sequence[Any]) -> str:
    """A question as it is asked, its choices a line each."""
    return question + "".join(f"\n({chr(65 + i)}) {choice}" for i, choice in enumerate(choices))


def _chat(columns: Columns) -> tuple[str, list[Any]]:
    """The row's chat and its column; an empty one where the row has none."""
    return next(((name, value) for name in CHATS if isinstance(value := columns.get(name), list) and value), ("", []))


def _turn(message: Any, column: str) -> tuple[str, str]:
    found = message if isinstance(message, Mapping) else {}
    role, content = _first(found, ("role", "from")), _first(found, ("content", "value"))
    if isinstance(content, list):  # parts, as processors take them
        content = "".join(PLACEHOLDER if part["type"] == "image" else part.get("text") or "" for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(f"{column} holds the message {message!r:.80}; expected role and content, or from and value")
    return _ROLES.get(role, role), content


def _without_reply(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A chat up to its last question: the reply behind it is the gold answer, not part of the prompt."""
    while turns and turns[-1][0] == "assistant":
        turns = turns[:-1]
    return turns


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row is labelled with


def labels(columns: Columns) -> dict[str, Any]:
    """The answer, choices, annotations, regions, counterfactuals and correct traces of a row, under Sightline's names."""
    told = to_sample("", _gold(columns))  # an answer may be the JSON text of several columns
    if isinstance(extra := columns.get("extra_info"), Mapping):
        columns = {**columns, **{name: extra.get(name) for name in _EXTRA if columns.get(name) is None}}
    info = columns.get("visual_key_info")
    annotations = columns.get("annotations") or (_KEY_INFO.findall(info) if isinstance(info, str) else ())
    return {
        "answer": told.answer,
        "choices": told.choices or _decoded(columns, "choices"),
        "annotations": told.annotations or annotations,
        "regions": told.regions or _regions(columns),
        "counterfactuals": columns.get("counterfactuals"),
        "traces": [t["text"] for t in columns.get("traces") or () if isinstance(t, Mapping) and t.get("correct")],
    }


def key_info(statements: Sequence[str]) -> str:
    """Perception-R1's visual_key_info."""
    return "\n".join(f"<info{n}>{statement}</info{n}>" for n, statement in enumerate(statements, start=1))


def reasoning(columns: Columns) -> str | None:
    """The solution or the chat's reply where it says more than the gold answer: a trace."""
    gold = _gold(columns)
    for text in (columns.get("solution"), _reply(columns)):
        if isinstance(text, str) and _ANSWER.sub("", text).strip() not in ("", gold):
            return text
    return None


def _gold(columns: Columns) -> str:
    """The gold answer as text without its tags; empty where there is none."""
    model = columns.get("reward_model")
    told = model.get("ground_truth") if isinstance(model, Mapping) else None
    for value in (told, *(columns.get(name) for name in ANSWERS), _reply(columns)):
        text = json.dumps(value) if isinstance(value, list | dict) else "" if value is None else str(value)
        if text.strip():
            return (_ANSWER.findall(text) or [text])[-1].strip()
    return ""


def _reply(columns: Columns) -> str | None:
    """The reply that ends a chat, if one does."""
    name, messages = _chat(columns)
    role, text = _turn(messages[-1], name) if messages else ("", "")
    return text if role == "assistant" else None


# ---------------------------------------------------------------------------------------------------------------------------------------
# Where a row's evidence is


def in_pixels(region: Mapping[str, Any], size: tuple[int, int]) -> Mapping[str, Any]:
    """A region with its box in pixels of an image of this (width, height); ``ValueError`` for a unit that nobody defined."""
    unit, box = region.get("bbox_type") or "real", region.get("bbox")
    if unit == "real" or box is None:
        return region
    if unit != "norm1":
        raise ValueError(f"the boxes have the bbox_type {unit!r}, expected real (pixels) or norm1 (shares of the image); convert yours")
    return {**region, "bbox": [value * side for value, side in zip(box, (*size, *size), strict=False)], "bbox_type": "real"}


def _regions(columns: Columns) -> list[Any]:
    name = next((name for name in REGIONS if columns.get(name)), "regions")
    if name == "objects":
        return list(_objects(columns))
    found = _decoded(columns, name) or []
    if found and isinstance(found[0], int | float):  # a single box
        found = [found]
    return [region if isinstance(region, Mapping) else {"bbox": region} for region in found]


def _objects(columns: Columns) -> Iterator[dict[str, Any]]:
    """ms-swift's boxes, each with its phrase: as many phrases as boxes, or one for all of them.

    Other ``objects``, such as the Hub's for detection, hold boxes of x, y, width, height: these have no ``ref`` and are left alone.
    """
    objects = columns["objects"]
    if not isinstance(objects, Mapping) or objects.get("bbox") is None or not ("ref" in objects or "messages" in columns):
        return
    boxes, phrases = objects["bbox"], objects.get("ref") or [""]
    if len(phrases) not in (1, len(boxes)):
        raise ValueError(f"objects has {len(boxes)} boxes and {len(phrases)} phrases in ref; give a phrase for each, or one for all")
    if any(objects.get("image_id") or ()):
        raise ValueError("objects.image_id names other images than the first; regions are of the first image: drop the row, or split it")
    unit = {"bbox_type": kind} if (kind := objects.get("bbox_type")) else {}
    for box, phrase in zip(boxes, phrases * (len(boxes) if len(phrases) == 1 else 1), strict=True):
        yield {"phrase": phrase, "bbox": box, **unit}


def _decoded(columns: Columns, name: str) -> Any:
    """A column of lists, which some tables hold as JSON text."""
    value = columns.get(name)
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}: {value!r:.80}; correct it, or give a list") from error


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row shows


def pictures(columns: Columns) -> list[Any]:
    """The row's images as they are stored: an empty list for a question without one."""
    present = [name for name in PICTURES if name in columns]
    value = _first(columns, present)
    if value is None and present:
        raise ValueError(f"the column {present[0]} is empty: give an image, drop the row, or write [] for a question without image")
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _first(columns: Columns, names: Sequence[str]) -> Any:
    """The first of the columns that has a value."""
    return next((columns[name] for name in names if columns.get(name) is not None), None)
