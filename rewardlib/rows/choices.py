"""The options of a multiple-choice question, however a table writes them.

["blue", "red"]                                   a list
'["blue", "red"]', "['blue', 'red']"              the same as text
{"A": "blue", "B": "red"}                         an object
{"label": ["A", "B"], "text": ["blue", "red"]}    an object of lists (ARC, CommonsenseQA)
[{"label": "A", "text": "blue"}, ...]             a list of objects
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlib.rows.values import RowError, decoded, is_missing, plain, text

CHOICES = ("choices", "options")
_LABELS = ("label", "key", "letter", "id", "index")
_TEXTS = ("text", "value", "content", "choice", "option", "answer", "name", "label")
_EXPECTED = "expected a list of texts, or an object such as {'A': 'blue', 'B': 'red'}"


@dataclass(frozen=True)
class Choices:
    """Options in the order of their letters. ``labels`` are the table's own names for them; none where it has none."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def index(self, label: str) -> int | None:
        """Which option the table calls by this label."""
        wanted = _bare(label)
        return self.labels.index(wanted) if wanted in self.labels else None


def _in_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Options that have a column each (MMBench: A, B, ...; SEED-Bench: choice_a, ...); none where there are fewer than two."""
    for prefix in ("", "option_", "choice_", "option", "choice"):
        for first in ("A", "a", "1"):
            names = [f"{prefix}{chr(ord(first) + n)}" for n in range(9)]
            if (prefix and not is_missing(columns.get(names[1]))) or (names[0].isupper() and {"A", "B"} <= set(columns)):
                return {letter(n): columns[name] for n, name in enumerate(names) if name in columns}
    return {}


def letter(index: int) -> str:
    """The letter of an option: A for the first."""
    return chr(ord("A") + index)


def read_choices(columns: Mapping[str, Any]) -> Choices:
    """A row's options; none where it has none. ``RowError`` where they cannot be understood."""
    name = next((name for name in CHOICES if not is_missing(columns.get(name)) and decoded(columns[name]) not in ([], {})), None)
    value = _in_columns(columns) if name is None else decoded(columns[name])
    if not value:
        return Choices()
    name = name or "the columns of options"
    if isinstance(value, Mapping):
        pairs = _of_mapping(value, name)
    elif isinstance(value, list | tuple):
        pairs = _of_list(value, name)
    elif isinstance(value, str) and (pairs := _of_text(value)):
        pass
    else:
        raise RowError("bad choices", f"{name} is {value!r:.80}, {_EXPECTED}")
    while pairs and is_missing(pairs[-1][1]):  # tables fill up lists and objects to one length
        pairs.pop()
    if empty := [n for n, (_, option) in enumerate(pairs, start=1) if is_missing(option)]:
        raise RowError("bad choices", f"option {empty[0]} of {len(pairs)} in {name} is empty, so that the letters are in doubt")
    if len(pairs) > 26:
        raise RowError("bad choices", f"{name} has {len(pairs)} options, more than there are letters")
    texts = _unlabelled([text(option, "choices") for _, option in pairs])
    return _in_order(texts, tuple(_bare(label) for label, _ in pairs if label is not None), name)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """A question as it is asked: its options a line each, unless its text lists them already."""
    if not choices or all(_is_listed(question, n, choice) for n, choice in enumerate(choices)):
        return question
    return question + "".join(f"\n({letter(n)}) {choice}" for n, choice in enumerate(choices))


def without_choices(question: str, choices: Sequence[str]) -> str:
    """A question without the lines that ``with_choices`` adds."""
    return question.removesuffix("".join(f"\n({letter(n)}) {choice}" for n, choice in enumerate(choices)))


def _is_listed(question: str, n: int, choice: str) -> bool:
    return re.search(rf"(?<![A-Za-z]){letter(n)}\s*[).:]\s*{re.escape(choice.strip())}", question, re.I) is not None


def _of_mapping(value: Mapping[str, Any], name: str) -> list[tuple[Any, Any]]:
    """(label, text) of an object: label to text, or a list of labels beside a list of texts."""
    columns = {key: plain(item) for key, item in value.items()}
    lists = {key: item for key, item in columns.items() if isinstance(item, list | tuple)}
    if not lists:
        return list(columns.items())
    texts = next((lists[key] for key in _TEXTS if key in lists), None)
    labels = next((lists[key] for key in _LABELS if key in lists and lists[key] is not texts), None)
    if texts is None or (labels is not None and len(labels) != len(texts)):
        raise RowError("bad choices", f"{name} is {value!r:.80}, {_EXPECTED}")
    return list(zip(labels if labels is not None else [None] * len(texts), texts, strict=True))


def _of_list(value: Sequence[Any], name: str) -> list[tuple[Any, Any]]:
    """(label, text) of a list of texts or of objects."""
    pairs: list[tuple[Any, Any]] = []
    for option in map(plain, value):
        if not isinstance(option, Mapping):
            pairs.append((None, option))
            continue
        names = [key for key in _TEXTS if not is_missing(option.get(key))]
        if not names:
            raise RowError("bad choices", f"{name} holds {option!r:.80}, {_EXPECTED}")
        labels = [key for key in _LABELS if key != names[0] and not is_missing(option.get(key))]
        pairs.append((option[labels[0]] if labels else None, option[names[0]]))
    return pairs


def _of_text(value: str) -> list[tuple[Any, Any]]:
    """(label, text) of a text that labels its options A, B, ... from its beginning; none where it does not."""
    pieces = re.split(r"(?:^|\s+)\(?([A-Z])[.):]\s+", value.strip())
    labels, texts = pieces[1::2], pieces[2::2]
    in_order = len(labels) > 1 and labels == [letter(n) for n in range(len(labels))]
    return list(zip(labels, texts, strict=True)) if in_order and not pieces[0] else []


def _unlabelled(texts: Sequence[str]) -> tuple[str, ...]:
    """The options without labels in their texts, where all have them in order."""
    labelled = [re.fullmatch(rf"\(?{letter(n)}[.):]\s+(\S.*)", option.strip(), re.S) for n, option in enumerate(texts)]
    return tuple(match[1] for match in labelled if match) if all(labelled) else tuple(texts)


def _in_order(texts: tuple[str, ...], labels: tuple[str, ...], name: str) -> Choices:
    """Options whose labels are letters or numbers in the order of these, so that (A) is the option that the table calls A."""
    if len(labels) != len(texts):
        return Choices(texts)
    if len(set(labels)) < len(labels):
        raise RowError("bad choices", f"{name} has two options of the same label, {', '.join(labels):.80}")
    order = sorted(range(len(texts)), key=lambda n: (len(labels[n]), labels[n]))
    ordered = tuple(labels[n] for n in order)
    letters = tuple(letter(n) for n in range(len(texts)))
    numbers = [tuple(str(n + first) for n in range(len(texts))) for first in (0, 1)]
    if ordered in (letters, *numbers):
        return Choices(tuple(texts[n] for n in order), ordered)
    if all(re.fullmatch("[A-Z]", label) for label in labels):
        raise RowError("bad choices", f"{name} has the labels {', '.join(labels)}, expected {', '.join(letters)}")
    return Choices(texts, labels)


def _bare(label: Any) -> str:
    """A label without what is written around it: "(a)" and "A." are A."""
    return text(label, "choices").strip(" ().:[]").upper()
