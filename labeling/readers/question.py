"""What a question consists of: what it asks, the options that it lists, how it is to be answered.

Only the first says what the answer rests on: an option names what may as well be absent, and "give
the letter of the right option, e.g., A, B" names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# "(A) 5 (B) 7" anywhere, "A. 5" or "A) 5" at the start of a line.
_MARKER = re.compile(r"\((?P<letter>[A-H])\)\s?|^[ \t]*(?P<head>[A-H])[.):][ \t]+", re.M)
_HOW = re.compile(
    r"^[ \t]*(?:hint|choices|options|answer choices)[ \t]*:[^\n]*"
    r"|(?:\bplease\s+)?\b(?:answer|select|choose|provide|give|write|pick|reply|respond)\b[^.?!\n]*"
    r"\b(?:option|letter|choice|word|phrase|number)s?\b[^.?!\n]*(?:\be\.g\.[^\n]*)?[.!]?"
    r"|^[ \t]*question[ \t]*:",
    re.I | re.M,
)


@dataclass(frozen=True)
class Question:
    """stem: what is asked, as long as the question was, blank where it was anything else.
    options: what each letter stands for, where the question lists that."""

    stem: str
    options: dict[str, str] = field(default_factory=dict)


def parts(question: str) -> Question:
    """The parts of a question."""
    markers = _options(list(_MARKER.finditer(question)))
    ends = [marker.start() for marker in markers[1:]]
    if markers:
        line = question.find("\n", markers[-1].end())
        ends.append(len(question) if line < 0 else line)
    options, blanked = {}, question
    for marker, end in zip(markers, ends, strict=True):
        options[_letter(marker)] = question[marker.end() : end].strip(" \t\n,;")
        blanked = _blank(blanked, marker.start(), end)
    for match in _HOW.finditer(blanked):
        blanked = _blank(blanked, *match.span())
    return Question(blanked, options)


def _options(markers: Sequence[re.Match[str]]) -> Sequence[re.Match[str]]:
    """The markers from A on that are in the order of the alphabet; one alone lists nothing."""
    run: list[re.Match[str]] = []
    for marker in markers:
        if _letter(marker) == chr(ord("A") + len(run)):
            run.append(marker)
    return run if len(run) > 1 else ()


def _letter(marker: re.Match[str]) -> str:
    return marker["letter"] or marker["head"]


def _blank(text: str, start: int, end: int) -> str:
    return text[:start] + " " * (end - start) + text[end:]
