"""What is a fact to the answer? Evidence, which the answer rests on, or context, which is merely
mentioned.

Several parties may decide, each where those before it could not, and each by its name in the
dataset:

    given       the region came with the row, which says where to look
    judge       the judge LLM, who is told question and answer, said whether the fact is needed
    answer      the fact is what is written there, and that is the answer
    question    the fact names what the question asks about, by the grammar that reads traces
    agreement   every one of several right traces states the fact
    effect      the gold answer's log-probability falls without its region, beyond its control
    person      somebody looked
    nobody      no party could tell: the role is unknown, and nothing is guessed

The judge decides while it reads (``labeling.annotate``); effects are measured by
``labeling.effect``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from labeling.facts import Decider, Fact, Role
from labeling.readers.phrases import NounPhrase, noun_phrases

# Nouns that stand for anything that can be seen, and nouns of which one may be called by the other.
_ANYTHING = frozenset({"object", "item", "thing", "shape", "figure", "element", "symbol", "one"})
_ALIKE = ({"block", "square", "cube", "brick", "tile"}, {"circle", "disc", "disk", "dot", "ball"})
_PLACES = frozenset(
    {"box", "picture", "photo", "image", "diagram", "scale"}
)  # where things are, unless adorned
# "What shape is the purple object?": here the noun is what is asked for, not what is asked about.
_ASKED_FOR = re.compile(
    r"\b(?:what|which)\s+(?:is\s+the\s+)?(?P<noun>\w+)\s+(?:is|are|of|does|do|has|have)\s+(?:the|this|that|an?)\b",
    re.I,
)
_COMPUTES = re.compile(r"[=+×÷√^]|\d\s*[-−–*/·]\s*\d|\\(?:frac|sqrt|times|cdot|div)")
_TAG = re.compile(r"</?\w+>")
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+")
_NAME = re.compile(r"(?<![A-Za-z\\])[A-Z]{1,4}(?![A-Za-z])")  # of a point, a line, a triangle


@dataclass(frozen=True)
class Decision:
    role: Role
    by: Decider
    reason: str = ""


UNDECIDED = Decision("unknown", "nobody")


def by_answer(facts: Sequence[Fact], answer: str, traces: Collection[str]) -> list[Decision]:
    """The role of every fact that reads what is written in the image: evidence, where that holds
    the answer, and the right ``traces`` (their texts) only read and compute nothing.

    Where something is computed, a label that is the answer too may be one by chance.
    """
    wanted = _words(answer)
    if not wanted or any(_COMPUTES.search(_TAG.sub(" ", trace)) for trace in traces):
        return [UNDECIDED] * len(facts)
    return [
        Decision("evidence", "answer", f"it reads {answer!r}, which is the answer")
        if fact.kind in ("text", "measure") and _holds(_words(fact.quote), wanted)
        else UNDECIDED
        for fact in facts
    ]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _holds(told: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether words stand among others, one behind the other."""
    starts = range(len(told) - len(wanted) + 1)
    return any(told[start : start + len(wanted)] == wanted for start in starts)


def by_question(question: str, facts: Sequence[Fact]) -> list[Decision]:
    """The role of every fact, by what the question asks about.

    A fact is evidence if it names a thing that the question names: the same noun, or one that
    stands for anything, and no attribute that contradicts. Where at least one fact does, those that
    name none of the question's things are context. A thing that the question names more narrowly
    than the fact leaves the fact undecided.
    """
    asked = list(_asked_about(question))
    names = set(_NAME.findall(question)) - {"A", "I"}
    fits = [_fit(fact, asked, names) for fact in facts]
    if "yes" not in fits:
        return [UNDECIDED] * len(facts)
    return [_decision(fit, asked) for fit in fits]


def by_agreement(
    facts: Sequence[Fact], traces: Sequence[Collection[str]], of: int
) -> list[Decision]:
    """The role of every fact, by how many of the ``of`` right traces state it; ``traces`` has the
    ids of those that do.

    What all of several right traces state is evidence. A trace may leave out what it needs, so
    nothing is context by this.
    """
    return [
        Decision("evidence", "agreement", f"stated by all {of} right traces")
        if of > 1 and len(t) == of
        else UNDECIDED
        for t in traces
    ]


Fit = Literal["yes", "maybe", "no"]


def _asked_about(question: str) -> Iterator[NounPhrase]:
    """The things that a question names, without the attribute that it asks for and the places that
    hold things."""
    asked_for = {match["noun"].lower() for match in _ASKED_FOR.finditer(question)}
    for phrase in noun_phrases(question, also=_ANYTHING):
        bare = not phrase.adjectives and not phrase.label
        if bare and (phrase.noun in asked_for or phrase.noun in _PLACES or phrase.noun == "one"):
            continue
        yield phrase


def _stands_for_anything(phrase: NounPhrase) -> bool:
    return phrase.noun in _ANYTHING and not phrase.adjectives


def _fit(fact: Fact, asked: Sequence[NounPhrase], names: Collection[str]) -> Fit:
    """Whether a fact is about one of the things that are asked about."""
    if fact.kind in ("text", "measure") and not fact.phrase.lower().startswith(
        ("letter ", "number ")
    ):
        told = set(_NAME.findall(fact.quote)) - {"A", "I"}
        return "yes" if told and told <= set(names) else "maybe"
    things = list(noun_phrases(fact.phrase or fact.quote))
    alone = all(_stands_for_anything(wanted) for wanted in asked)
    fits = {_same(thing, wanted, alone) for thing in things for wanted in asked}
    if "yes" in fits:
        return "yes"
    return "maybe" if "maybe" in fits or not things or not asked else "no"


def _same(thing: NounPhrase, wanted: NounPhrase, alone: bool) -> Fit:
    """Whether a thing may be called what is wanted. "The object left of the star" is a thing, but
    who knows which: a noun for anything tells one from another only where it stands alone."""
    if _stands_for_anything(wanted):
        return "yes" if alone else "maybe"
    if not _may_be_called(thing.noun, wanted.noun):
        return "no"
    if thing.label and wanted.label and thing.label != wanted.label:
        return "no"
    told = thing.attributes()
    verdicts = [told.get(kind) for kind in wanted.attributes()]
    wanted_values = list(wanted.attributes().values())
    if any(
        have is not None and have != want
        for have, want in zip(verdicts, wanted_values, strict=True)
    ):
        return "no"
    return "maybe" if None in verdicts else "yes"


def _may_be_called(noun: str, wanted: str) -> bool:
    return (
        noun == wanted
        or wanted in _ANYTHING
        or noun in _ANYTHING
        or any({noun, wanted} <= alike for alike in _ALIKE)
    )


def _decision(fit: Fit, asked: Sequence[NounPhrase]) -> Decision:
    things = ", ".join(dict.fromkeys(p.text for p in asked))
    if fit == "yes":
        return Decision(
            "evidence",
            "question",
            f"the question asks about: {things}" if things else "the question names it",
        )
    return (
        Decision("context", "question", f"the question asks about: {things}")
        if fit == "no"
        else UNDECIDED
    )
