"""What a row asks: a chat up to its last question, in which every image has its place.

A chat is in ``prompt``, ``messages`` or ``conversations``: a list of messages with role and content (or from and value);
content is text, or parts as chat templates take them. Without one, a text is in ``question``, ``problem`` or ``prompt``.

``<image>`` in a chat or a problem is the place of an image. In a ``question``, which is plain text, it is one only where
it leads or ends; in the middle it is a word, as in "Which tag draws it, <image> or <rect>?".

Only images are read. A video or a sound is a ``RowError`` that names it: a model that is asked about what it was not shown
learns to guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rewardlib.rows.choices import Choices, with_choices
from rewardlib.rows.values import RowError, decoded, is_missing, listed, plain, stated, text

CHATS = ("prompt", "messages", "conversations")
QUESTIONS = ("question", "problem", "prompt")
UNREAD = re.compile(r"(?:video|audio|clip)s?(?:_(?:path|url|file|bytes)s?)?")  # columns of what no family here is shown

PLACEHOLDER = "<image>"
_EDGE = re.compile(rf"\s*{PLACEHOLDER}\s*")
_UNREAD_TAG = re.compile(r"<(?:video|audio)>|<\|(?:video|audio)_pad\|>")
_ROLES = {
    **dict.fromkeys(("user", "human", "usr"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai", "bard", "bing", "claude", "gemini", "llm"), "assistant"),
    **{name: name for name in ("system", "developer", "tool", "function", "observation")},
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image", "image_pil")
_IMAGE_VALUES = ("image", "image_url", "url", "path", "base64", "data", "source", "bytes", "value")


@dataclass(frozen=True)
class Picture:
    """The place of an image in a message.

    value: the image, where the part carries it; else it is in a column of the row.
    is_tag: whether it was written as ``<image>`` in a text, where it may also be a word.
    """

    value: Any = None
    is_tag: bool = False


Part = str | Picture


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Its words, without the places of images."""
        return "".join(part for part in self.parts if isinstance(part, str)).strip()

    @property
    def pictures(self) -> list[Picture]:
        return [part for part in self.parts if isinstance(part, Picture)]


def read_turns(columns: Mapping[str, Any], choices: Choices = Choices(), pictures: int | None = None) -> tuple[Turn, ...]:
    """The messages up to the last question, its options listed.

    pictures: how many images the row's columns hold, where the parts carry none. Each gets a place: those without one come
    before the first question. ``RowError`` for places without an image, and where nothing is asked.
    """
    _refuse_unread(columns)
    name, messages = _chat(columns)
    turns = _without_reply([_turn(message, name) for message in messages])
    if not messages:
        turns = [Turn("user", tuple(_question_parts(columns)))]
    if not any(turn.role == "user" for turn in turns):
        roles = ", ".join(turn.role for turn in turns) or "nobody"
        raise RowError("no question", f"the chat has no message of a user, only of {roles}; add the question")
    if not pictures and all(is_missing(turn.text) and not turn.pictures for turn in turns if turn.role == "user"):
        raise RowError("no question", "the question has no words; write them, or drop the row")
    if pictures is not None:
        turns = _placed(turns, pictures)
    return _listing(turns, choices.texts)


def read_reply(columns: Mapping[str, Any]) -> str | None:
    """The reply that ends a chat, if one does."""
    name, messages = _chat(columns)
    turns = [_turn(message, name) for message in messages]
    behind = turns[len(_without_reply(turns)) :]
    return next((turn.text for turn in reversed(behind) if turn.role == "assistant"), None)


def _chat(columns: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The row's chat and its column; an empty one where the row has none."""
    for name in CHATS:
        given = columns.get(name)
        value = decoded(given)
        is_chat = isinstance(value, list | tuple) and (not isinstance(given, str) or all(isinstance(item, Mapping) for item in value))
        if is_chat and value:
            return name, list(value)
    return "", []


def _turn(given: Any, column: str) -> Turn:
    message = stated(given) if isinstance(given, Mapping) else {}
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value", ""))
    if not isinstance(role, str) or not ("content" in given or "value" in given):
        raise RowError("bad chat", f"{column} holds the message {given!r:.80}; expected role and content, or from and value")
    if (known := _ROLES.get(role.strip().lower())) is None:
        raise RowError("bad chat", f"{column} holds a message of the role {role!r:.40}; expected user, assistant or system")
    parts = content if isinstance(content, list | tuple) else [content]
    return Turn(known, tuple(part for given in parts for part in _parts(plain(given), column)))


def _parts(part: Any, column: str) -> Iterator[Part]:
    """A part of a message, under any of the names that chat templates and APIs have for it."""
    if isinstance(part, str):
        yield from _split(part)
        return
    fields = stated(part) if isinstance(part, Mapping) else {}
    kind = fields.get("type")
    has_image = kind in _IMAGE_PARTS or (kind is None and bool({"image", "image_url"} & set(fields)))
    has_text = kind in _TEXT_PARTS or (kind is None and "text" in fields)
    if not (has_image or has_text) or any(UNREAD.fullmatch(name) for name in fields):
        what = f"of type {kind!r}" if kind else f"{part!r:.60}"
        raise RowError(
            "unread part",
            f"{column} holds a part {what}, and only texts and images are read; drop the row, or give an image instead",
        )
    if has_image:
        yield Picture(next((_inside(fields[name]) for name in _IMAGE_VALUES if name in fields), None))
    if has_text:
        yield from _split(text(fields.get("text", ""), "a message's text"))


def _inside(value: Any) -> Any:
    """The image in {"url": ...} of OpenAI's parts and {"data": ...} of Anthropic's; a struct of `datasets` stays one."""
    if isinstance(value, Mapping) and not {"bytes", "path"} & set(value):
        return next((value[name] for name in ("url", "data") if not is_missing(value.get(name))), value)
    return value


def _split(written: str) -> Iterator[Part]:
    """A message's text between its images. White space around its leading placeholders goes."""
    words = False
    for n, piece in enumerate(written.split(PLACEHOLDER)):
        if n:
            yield Picture(is_tag=True)
        if not words:
            piece = piece.lstrip()
        if piece:
            words = True
            yield piece


def _question_parts(columns: Mapping[str, Any]) -> Iterator[Part]:
    for name in QUESTIONS:
        if is_missing(columns.get(name)):
            continue
        if not isinstance(columns[name], str):
            raise RowError("bad question", f"{name} is {columns[name]!r:.80}, expected text")
        written = text(columns[name], "question")
        yield from (_edges(written) if name == "question" else _split(written))
        return
    present = {name: columns[name] for name in dict.fromkeys((*QUESTIONS, *CHATS)) if name in columns}
    said = f" in {present!r:.80}" if present else ""
    raise RowError("no question", f"there is no question{said}; fill one of {', '.join(QUESTIONS)}, or drop the row")


def _edges(written: str) -> Iterator[Part]:
    """A plain question: the placeholders that lead or end it are places, all others are words."""
    while leading := _EDGE.match(written):
        yield Picture(is_tag=True)
        written = written[leading.end() :]
    after = 0
    while written.rstrip().endswith(PLACEHOLDER):
        written = written.rstrip().removesuffix(PLACEHOLDER)
        after += 1
    if written:
        yield written
    yield from (Picture(is_tag=True) for _ in range(after))


def _placed(turns: list[Turn], pictures: int) -> list[Turn]:
    """The turns with a place for each of so many images."""
    places = sum(len(turn.pictures) for turn in turns)
    if places > pictures:
        turns = [_with_words(turn) for turn in turns]
        at_edges = sum(len(turn.pictures) for turn in turns)
        if not pictures or at_edges != pictures:
            asked = next(turn.text for turn in reversed(turns) if turn.role == "user")
            raise RowError(
                "placeholders without images",
                f"the text has {places} {PLACEHOLDER} placeholders for {pictures} images: {asked!r:.80}; add images, or take "
                "placeholders out",
            )
        places = at_edges
    first = next(n for n, turn in enumerate(turns) if turn.role == "user")
    unplaced = tuple(Picture() for _ in range(pictures - places))
    turns[first] = replace(turns[first], parts=(*unplaced, *turns[first].parts))
    return turns


def _with_words(turn: Turn) -> Turn:
    """A message whose placeholders in the middle are taken for words, since there are fewer images than placeholders."""
    if not all(picture.is_tag for picture in turn.pictures):
        return turn
    written = "".join(part if isinstance(part, str) else PLACEHOLDER for part in turn.parts)
    return replace(turn, parts=tuple(_edges(written)))


def _without_reply(turns: list[Turn]) -> list[Turn]:
    """A chat up to its last question: what stands behind it answers it, and is no part of the prompt."""
    last = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return turns[: last + 1] if last >= 0 else [turn for turn in turns if turn.role != "assistant"]


def _listing(turns: Sequence[Turn], choices: Sequence[str]) -> tuple[Turn, ...]:
    """The turns with the options behind the last question, unless it lists them."""
    last = max(n for n, turn in enumerate(turns) if turn.role == "user")
    asked = turns[last].text
    added = with_choices(asked, choices).removeprefix(asked)
    if not added:
        return tuple(turns)
    parts = list(turns[last].parts)
    at = max((n for n, part in enumerate(parts) if isinstance(part, str)), default=None)
    if at is None:
        parts.append(added.lstrip())
    else:
        parts[at] = f"{parts[at]}{added}"
    return (*turns[:last], replace(turns[last], parts=tuple(parts)), *turns[last + 1 :])


def _refuse_unread(columns: Mapping[str, Any]) -> None:
    """``RowError`` for a row that shows or plays what is not read."""
    for name in [name for name in columns if UNREAD.fullmatch(name)]:
        if listed(columns[name]):
            raise RowError(
                "unread media", f"the column {name} holds {columns[name]!r:.60}, and only images are read; drop the row, or give images"
            )
    is_chat = bool(_chat(columns)[1])
    for written in _texts(columns):
        # In a question, which is plain text, a tag is one only where it leads, as with images.
        tag = _UNREAD_TAG.search(written) if is_chat else _UNREAD_TAG.match(written.lstrip())
        if tag:
            raise RowError("unread media", f"the text has a place for {tag[0]}, {written!r:.60}, and only images are read; drop the row")


def _texts(columns: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a row in which a tag may be the place of something."""
    _, messages = _chat(columns)
    if not messages:
        yield from (columns[name] for name in QUESTIONS if isinstance(columns.get(name), str))
    for message in messages:
        content = stated(message) if isinstance(message, Mapping) else {}
        for part in listed(content.get("content", content.get("value"))):
            told = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(told, str):
                yield told
