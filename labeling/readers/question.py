"""What a question consists of: what it asks, the options that it lists, how it is to be answered.

Only the first says what the answer rests on: an option names what may as well be absent, and "give
the letter of the right option, e.g., A, B" names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# "A. 5" or "A) 5" at the start of a line; in a question "(A) 5 (B) 7" anywhere, too.
_HEAD = re.compile(r"^[ \t]*(?P<letter>[A-H])[.):][ \t]+", re.M)
_MARKER = re.compile(r"(?:\(|^[ \t]*(?=[A-H][.):][ \t]))(?P<letter>[A-H])[.):]\s?", re.M)
_IN_PROSE = re.compile(r"\s*(?:and|or)\b|\s*[,.?]", re.I)  # circle (A) and square (B)
_TELLS = re.compile(r"\b(?:is|are|lies?|shows?|see|has|have|contains?)\b", re.I)
_FORM = (
    r"(?:(?:correct|right|best|corresponding|given)\s+(?:option|letter|choice|answer)s?"
    r"|option'?s?\s+letter|letter\s+of\s+(?:the|your)\s+(?:\w+\s+)?(?:option|choice|answer)"
    r"|(?:one|single)[ -](?:word|phrase|number))"
)
_HOW = re.compile(
    r"^[ \t]*(?:hint|choices|options|answer choices)[ \t]*:(?:(?!\bquestion[ \t]*:)[^\n])*"
    r"|(?:\bplease\s+)?\b(?:answer|select|choose|provide|give|write|pick|reply|respond)\b"
    rf"[^.?!:\n]{{0,120}}\b{_FORM}\b[^.?!:\n]{{0,120}}(?:\be\.g\.[^\n]*)?[.!:]?"
    r"|\bquestion[ \t]*:",
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
    markers = _run(list(_MARKER.finditer(question)))
    if any(_IN_PROSE.match(question, marker.end()) for marker in markers):
        markers = ()
    spans = _spans(question, markers)
    options = {
        marker["letter"]: question[marker.end() : end].strip(" \t\n,;")
        for marker, (_, end) in zip(markers, spans, strict=True)
    }
    blanked = _blanked(question, spans)
    how = [match.span() for match in _HOW.finditer(blanked)]
    return Question(_blanked(blanked, how), options)


def without_options(text: str) -> str:
    """A text with the options that it lists line by line blanked, as long as it was; lines that say
    what is seen stay."""
    spans = _spans(text, _run(list(_HEAD.finditer(text))))
    return _blanked(text, [span for span in spans if not _TELLS.search(text[slice(*span)])])


def _run(markers: Sequence[re.Match[str]]) -> Sequence[re.Match[str]]:
    """The markers from A on that are in the order of the alphabet; one alone lists nothing."""
    run: list[re.Match[str]] = []
    for marker in markers:
        if marker["letter"] == chr(ord("A") + len(run)):
            run.append(marker)
    return run if len(run) > 1 else ()


def _spans(text: str, markers: Sequence[re.Match[str]]) -> list[tuple[int, int]]:
    """Where each option is, with its letter: up to the next, the last to the end of its line."""
    if not markers:
        return []
    line = text.find("\n", markers[-1].end())
    ends = [*(marker.start() for marker in markers[1:]), len(text) if line < 0 else line]
    return [(marker.start(), end) for marker, end in zip(markers, ends, strict=True)]


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    signs = list(text)
    for start, end in spans:
        signs[start:end] = " " * (end - start)
    return "".join(signs)
