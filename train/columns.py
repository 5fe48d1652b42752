"""Other people's columns to ours: Sightline's own rows, EasyR1's and PAPO's, verl's, VLM-R1's. What counts is which columns a row has:

    question     a chat in prompt, messages or conversations, else the text in question (with choices), problem or prompt
    images       images, image or image_path: stored in the row, or paths; one or several
    answer       reward_model.ground_truth, answer, solution, ground_truth or gt, else the chat's last reply; without <answer> tags
    regions      regions of {"bbox", "mask"}, or bboxes, bboxs or bbox: x0, y0, x1, y1 in pixels of the image as it is stored
    annotations  annotations, or Perception-R1's visual_key_info
    choices, counterfactuals, traces

An ``<image>`` in a text is the place of an image; images without a place come before the question. These are functions of one row. They
raise ``ValueError`` with the value and the remedy; ``train.data`` adds which row it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardlib.adapters.rows import to_sample

Columns = Mapping[str, Any]

CHATS = ("prompt", "messages", "conversations")
QUESTIONS = ("question", "problem", "prompt")
PICTURES = ("images", "image", "image_path")
ANSWERS = ("answer", "solution", "ground_truth", "gt")
REGIONS = ("regions", "bboxes", "bboxs", "bbox")
LABELS = ("id", "choices", "annotations", "visual_key_info", "counterfactuals", "traces", "reward_model", *ANSWERS, *REGIONS, *CHATS)

PLACEHOLDER = "<image>"
_ROLES = {"human": "user", "gpt": "assistant"}
_ANSWER = re.compile(r"(?is)<answer>(.*?)</answer>")
_FILE = re.compile(r"(?i).*\.(png|jpe?g|webp|gif|bmp|tiff?)")
_KEY_INFO = re.compile(r"(?s)<info\d+>\s*(.*?)\s*</info\d+>")


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row asks


def chat(columns: Columns, pictures: int, instruction: str) -> list[dict[str, Any]]:
    """Chat messages with an image part for every picture, and the instruction behind the last question."""
    turns = _without_reply(_turns(columns))
    asked = [text for role, text in turns if role == "user"]
    if not asked:
        raise ValueError(f"the chat has no message of a user, only of {', '.join(role for role, _ in turns) or 'nobody'}; add the question")
    unplaced = pictures - sum(text.count(PLACEHOLDER) for _, text in turns)
    if unplaced < 0:
        raise ValueError(
            f"the text has {pictures - unplaced} {PLACEHOLDER} placeholders for {pictures} images: {asked[-1]!r:.80}; "
            f"add images (read from {', '.join(PICTURES)}), or take placeholders out"
        )
    messages: list[dict[str, Any]] = [{"role": role, "content": _parts(text)} for role, text in turns]
    users = [message["content"] for message in messages if message["role"] == "user"]
    users[0][:0] = [{"type": "image"} for _ in range(unplaced)]
    if users[-1] and users[-1][-1]["type"] == "text":
        users[-1][-1]["text"] += f"\n{instruction}"
    else:
        users[-1].append({"type": "text", "text": instruction})
    return messages


def _turns(columns: Columns) -> list[tuple[str, str]]:
    """(role, text) of every message; a chat says more than a bare question, so it comes first."""
    name, messages = _chat(columns)
    if messages:
        return [_turn(message, name) for message in messages]
    for name in QUESTIONS:
        if isinstance(text := columns.get(name), str) and text.strip():
            choices = columns.get("choices") or () if name == "question" else ()
            return [("user", text + "".join(f"\n({chr(65 + i)}) {choice}" for i, choice in enumerate(choices)))]
    present = {name: columns[name] for name in dict.fromkeys((*QUESTIONS, *CHATS)) if name in columns}
    raise ValueError(f"there is no question in {present!r:.80}; fill one of these columns, or drop the row")


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


def _parts(text: str) -> list[dict[str, Any]]:
    """A message's parts. White space around its leading placeholders goes, all else stays as it is written."""
    parts: list[dict[str, Any]] = []
    for n, piece in enumerate(text.split(PLACEHOLDER)):
        if n:
            parts.append({"type": "image"})
        if not any(part["type"] == "text" for part in parts):
            piece = piece.lstrip()
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row is labelled with


def labels(columns: Columns) -> dict[str, Any]:
    """The answer, choices, annotations, regions, counterfactuals and correct traces of a row, under Sightline's names."""
    told = to_sample("", _gold(columns))  # an answer may be the JSON text of several columns
    info = columns.get("visual_key_info")
    annotations = columns.get("annotations") or (_KEY_INFO.findall(info) if isinstance(info, str) else ())
    return {
        "answer": told.answer,
        "choices": told.choices or columns.get("choices"),
        "annotations": told.annotations or annotations,
        "regions": told.regions or _regions(columns),
        "counterfactuals": columns.get("counterfactuals"),
        "traces": [t["text"] for t in columns.get("traces") or () if isinstance(t, Mapping) and t.get("correct")],
    }


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


def _regions(columns: Columns) -> list[Any]:
    found: Any = next((value for name in REGIONS if (value := columns.get(name))), [])
    if isinstance(found, str):
        found = json.loads(found)
    if found and isinstance(found[0], int | float):  # a single box
        found = [found]
    return [region if isinstance(region, Mapping) else {"bbox": region} for region in found]


def check_boxes(regions: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> None:
    """``ValueError`` for boxes in other units than pixels, or another order: attention would be rewarded in the wrong place."""
    width, height = size
    for box in [region.get("bbox") for region in regions if not region.get("mask")]:
        if not isinstance(box, Sequence) or len(box) != 4:
            raise ValueError(f"the region's box is {box!r:.80}, expected x0, y0, x1, y1")
        x0, y0, x1, y1 = box
        # Annotators are a little off at the borders. A box below 1 is one in shares of the image.
        inside = x0 < x1 <= 1.05 * width and y0 < y1 <= 1.05 * height and min(x1, y1) > 0
        if not inside or max(box) <= 1:
            raise ValueError(
                f"the box {list(box)} does not lie on the image of {width}x{height}: boxes are x0, y0, x1, y1 in pixels of the image as it "
                "is stored; convert yours"
            )


# ---------------------------------------------------------------------------------------------------------------------------------------
# What a row shows


def pictures(columns: Columns) -> list[Any]:
    """The row's images as they are stored: an empty list for a question without one."""
    present = [name for name in PICTURES if name in columns]
    value = _first(columns, present)
    if value is None and present:
        raise ValueError(f"the column {present[0]} is empty: give an image, drop the row, or write [] for a question without image")
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def holds_picture(value: Any) -> bool:
    """Whether a column's value looks like an image or several."""
    if isinstance(value, list):
        return any(map(holds_picture, value))
    if isinstance(value, Mapping):
        return "bytes" in value
    return isinstance(value, bytes) or bool(isinstance(value, str) and _FILE.fullmatch(value))


def open_picture(value: Any, folders: Sequence[Path]) -> Any:
    """An upright RGB image from a path, the bytes of a file, the struct that ``datasets`` stores, or a PIL image."""
    from datasets import Image
    from PIL.Image import Image as PILImage

    from pipelines.images import to_rgb

    if isinstance(value, PILImage):
        return to_rgb(value)
    stored = value if isinstance(value, Mapping) else {"bytes": value} if isinstance(value, bytes) else {"path": value}
    data, name = stored.get("bytes"), stored.get("path")
    if data is None and not isinstance(name, str):
        raise ValueError(f"the image is {value!r:.80}, expected a path, the bytes of a file, or a PIL image")
    path = locate(str(name), folders) if data is None else None
    try:
        return to_rgb(Image().decode_example({"bytes": data, "path": path}))
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, ValueError, EOFError
        raise ValueError(f"the image {path or str(name or 'in the row')} cannot be opened: {error}; restore it, or drop the row") from error


def locate(path: str, folders: Sequence[Path]) -> str:
    """The file that a path names, in one of the folders if it is relative."""
    if "://" in path:
        return path
    places = [folder / path for folder in folders]  # an absolute path stays itself
    if found := next((place for place in places if place.is_file()), None):
        return str(found)
    looked = "" if Path(path).is_absolute() else f" in {', '.join(str(folder.resolve()) for folder in folders)}"
    raise ValueError(f"the image {path!r} does not exist{looked}; put it there, or write its absolute path")


def _first(columns: Columns, names: Sequence[str]) -> Any:
    """The first of the columns that has a value."""
    return next((columns[name] for name in names if columns.get(name) is not None), None)
