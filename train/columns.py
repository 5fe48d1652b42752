"""Other people's columns to what a policy is asked and rewarded for: chat messages with places for images, and images opened.

What counts is which columns a row has; ``pipelines.formats.columns`` says what each of them means. An ``<image>`` in a text is the place of
an image; images without a place come before the question. These are functions of one row. They raise ``ValueError`` with the value and the
remedy; ``train.data`` adds which row it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.formats.columns import ANSWERS as ANSWERS
from pipelines.formats.columns import CHATS as CHATS
from pipelines.formats.columns import LABELS as LABELS
from pipelines.formats.columns import PICTURES as PICTURES
from pipelines.formats.columns import PLACEHOLDER as PLACEHOLDER
from pipelines.formats.columns import QUESTIONS as QUESTIONS
from pipelines.formats.columns import Columns, turns
from pipelines.formats.columns import in_pixels as in_pixels
from pipelines.formats.columns import labels as labels
from pipelines.formats.columns import pictures as pictures

_FILE = re.compile(r"(?i).*\.(png|jpe?g|webp|gif|bmp|tiff?)")


def chat(columns: Columns, pictures: int, instruction: str) -> list[dict[str, Any]]:
    """Chat messages with an image part for every picture, and the instruction behind the last question."""
    told = turns(columns)
    asked = [text for role, text in told if role == "user"]
    if not asked:
        raise ValueError(f"the chat has no message of a user, only of {', '.join(role for role, _ in told) or 'nobody'}; add the question")
    unplaced = pictures - sum(text.count(PLACEHOLDER) for _, text in told)
    if unplaced < 0:
        raise ValueError(
            f"the text has {pictures - unplaced} {PLACEHOLDER} placeholders for {pictures} images: {asked[-1]!r:.80}; "
            f"add images (read from {', '.join(PICTURES)}), or take placeholders out"
        )
    messages: list[dict[str, Any]] = [{"role": role, "content": _parts(text)} for role, text in told]
    users = [message["content"] for message in messages if message["role"] == "user"]
    users[0][:0] = [{"type": "image"} for _ in range(unplaced)]
    if users[-1] and users[-1][-1]["type"] == "text":
        users[-1][-1]["text"] += f"\n{instruction}"
    else:
        users[-1].append({"type": "text", "text": instruction})
    return messages


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
