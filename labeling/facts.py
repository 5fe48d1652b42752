"""Facts: what a trace says that its writer read off the image, the phrase that names it, and what
it is to the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from rewardlib.ink import has_ink

Kind = Literal["object", "attribute", "count", "relation", "text", "measure", "absence"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# evidence: the answer rests on it. context: it is mentioned, and the answer does not need it.
# unknown: nobody could tell.
Role = Literal["evidence", "context", "unknown"]
ROLES: tuple[Role, ...] = get_args(Role)
# Who said so; ``labeling.roles`` tells what each of them goes by.
Decider = Literal["given", "judge", "answer", "question", "agreement", "effect", "person", "nobody"]
DECIDERS: tuple[Decider, ...] = get_args(Decider)


@dataclass(frozen=True)
class Fact:
    """One atomic visual fact.

    kind: what is said; a ``measure`` is a marked length, angle or amount, an ``absence`` that
        something is not there.
    phrase: what a locator should look for, empty where there is nothing to find.
    quote: ``trace[start:end]``, character for character.
    role: what the fact is to the answer, where its reader could tell; ``by`` whom, and for what
        ``reason``.
    """

    kind: Kind
    statement: str
    phrase: str
    quote: str
    start: int
    end: int
    role: Role = "unknown"
    by: Decider = "nobody"
    reason: str = ""


# What ends a sentence or a word; not within a number, as in 2.5 or 10:30.
_BREAKS = re.compile(r"[?!;\"]|(?<!\d)[.:]|[.:](?!\d)")


def normalize_phrase(phrase: str) -> str:
    """Lower-case, one space between words, without what ends a sentence; empty where nothing can be
    seen."""
    words = " ".join(_BREAKS.sub(" ", phrase.lower()).split())
    return words if has_ink(words) else ""
