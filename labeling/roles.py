"""What is a fact to the answer? Evidence, which the answer rests on, or context, which is merely
mentioned.

Several parties may decide, each where those before it could not, and each by its name in the
dataset:

    given       the region came with the row, which says where to look
    judge       the judge LLM, who is told question and answer, said whether the fact is needed
    answer      the fact is what is written there, or the thing that is there, and the answer is it
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

from labeling.annotate import Asked
from labeling.facts import Decider, Fact, Role
from labeling.readers.phrases import (
    NounPhrase,
    are_disjoint,
    differ,
    noun_phrases,
    placed_noun_phrases,
)
from labeling.readers.question import parts

# Nouns that stand for anything that can be seen, and nouns of which one may be called by the other.
_ANYTHING = frozenset({"object", "item", "thing", "shape", "figure", "element", "symbol", "one"})
_ALIKE = ({"block", "square", "cube", "brick", "tile"}, {"circle", "disc", "disk", "dot", "ball"})
# Where things are, unless adorned; the others only "in the figure".
_PLACES = frozenset({"box", "picture", "photo", "image", "diagram", "scale"})
_PLACES_IN = frozenset({"figure", "chart", "graph", "table", "grid", "map"})
_IN = re.compile(r"\b(?:in|from|of|on|to|see)\s+(?:the|this|that|each)\s+(?:\w+\s+){0,2}$", re.I)
# "What shape is the purple object?": here the noun is what is asked for, not what is asked about.
_ASKED_FOR = re.compile(
    r"\b(?:what|which)\s+(?:is\s+the\s+)?(?P<noun>\w+)\s+(?:is|are|of|does|do|has|have)\s+(?:the|this|that|an?)\b",
    re.I,
)
_COMPUTES = re.compile(
    r"[=+×÷√^]|\d\s*[-−–*/·]\s*\d|\\(?:frac|sqrt|times|cdot|div)"
    r"|\b(?:remaining|together|sum|total(?:s|ling)?\s+of|minus|plus|subtract\w*|add(?:s|ing|ed)?"
    r"|difference|half|twice|average|leaves)\b",
    re.I,
)
_COUNTS = re.compile(r"\bhow\s+many\b|\bnumber\s+of\b", re.I)
_A_NUMBER = re.compile(r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve", re.I)
_TAG = re.compile(r"</?\w+>")
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+")
_NAME = re.compile(r"(?<![A-Za-z\\])[A-Z]{1,4}(?![A-Za-z])")  # of a point, a line, a triangle


@dataclass(frozen=True)
class Decision:
    role: Role
    by: Decider
    reason: str = ""


UNDECIDED = Decision("unknown", "nobody")


def by_answer(facts: Sequence[Fact], asked: Asked, traces: Collection[str]) -> list[Decision]:
    """The role of every fact that is the answer: it reads what is written in the image, and that
    holds the answer, or it is about the one thing that the answer names.

    Where the right ``traces`` (their texts) compute something, a label that is the answer too may
    be one by chance, as may any number where things are counted.
    """
    answer = _in_words(asked)
    wanted = _words(answer)
    counted = bool(_COUNTS.search(asked.question) and _A_NUMBER.fullmatch(answer.strip()))
    computed = any(_COMPUTES.search(_TAG.sub(" ", trace)) for trace in traces)
    reads = wanted and not counted and not computed
    things = {fact.phrase.lower() for fact in facts if _is_named(fact, asked)}

    def decide(fact: Fact) -> Decision:
        if reads and fact.kind in _WRITING and _holds(_words(fact.quote), wanted):
            return Decision("evidence", "answer", f"it reads {answer!r}, which is the answer")
        if len(things) == 1 and fact.phrase.lower() in things:
            return Decision("evidence", "answer", f"it is {answer!r}, which is the answer")
        return UNDECIDED

    return [decide(fact) for fact in facts]


def _in_words(asked: Asked) -> str:
    """The answer; of an option's letter what that says, and nothing where it says no more."""
    options = parts(asked.question).options
    letter = asked.answer.strip("() .").upper()
    if asked.choices or letter in options:
        words = asked.chosen or options.get(letter, asked.answer)
        return "" if words.strip("() .").upper() == letter and len(letter) == 1 else words
    return asked.answer


def _is_named(fact: Fact, asked: Asked) -> bool:
    """Whether the answer is a thing, and a fact is about such a one. "A square" is none where the
    shape of something is asked for."""
    named = list(noun_phrases(_in_words(asked)))
    if len(named) != 1 or _ASKED_FOR.search(asked.question) or fact.kind in _WRITING:
        return False
    return any(_same(thing, named[0], alone=False) == "yes" for thing in noun_phrases(fact.phrase))


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _holds(told: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether words stand among others, one behind the other."""
    starts = range(len(told) - len(wanted) + 1)
    return any(told[start : start + len(wanted)] == wanted for start in starts)


def by_question(asked: Asked, facts: Sequence[Fact]) -> list[Decision]:
    """The role of every fact, by what the question asks about.

    A fact is evidence if it names a thing that the question names: the same noun, or one that
    stands for anything, and no attribute that contradicts. Where at least one fact does, those that
    name none of the question's things are context. A thing that the question names more narrowly
    than the fact leaves the fact undecided; so does one that may be the answer, or that may be
    called by a word of the question that no other fact goes by ("sofa", where it asks about a
    couch).
    """
    stem = parts(asked.question).stem
    things = list(_asked_about(stem))
    names = set(_NAME.findall(stem)) - {"A", "I"}
    fits = [_fit(fact, things, names) for fact in facts]
    if "yes" not in fits:
        return [UNDECIDED] * len(facts)
    unmet = _unmet(things, facts)
    return [
        _decision("maybe" if _may_be_meant(fact, unmet) or _is_named(fact, asked) else fit, things)
        if fit == "no"
        else _decision(fit, things)
        for fact, fit in zip(facts, fits, strict=True)
    ]


def _unmet(wanted: Sequence[NounPhrase], facts: Sequence[Fact]) -> list[str]:
    """The nouns of a question that no fact goes by."""
    told = {thing.noun for fact in facts for thing in noun_phrases(fact.phrase)}
    return [
        phrase.noun for phrase in wanted if not any(_may_be_called(n, phrase.noun) for n in told)
    ]


def _may_be_meant(fact: Fact, unmet: Sequence[str]) -> bool:
    """Whether a fact's thing may be another word for one of the nouns."""
    told = [thing.noun for thing in noun_phrases(fact.phrase)]
    return any(not are_disjoint(noun, wanted) for noun in told for wanted in unmet)


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


_WRITING = ("text", "measure")
Fit = Literal["yes", "maybe", "no"]


def _asked_about(question: str) -> Iterator[NounPhrase]:
    """The things that a question names, without the attribute that it asks for and the places that
    hold things."""
    asked_for = {match["noun"].lower() for match in _ASKED_FOR.finditer(question)}
    for start, phrase in placed_noun_phrases(question, also=_ANYTHING):
        bare = not phrase.adjectives and not phrase.label
        if bare and (phrase.noun in asked_for or phrase.noun in _PLACES or phrase.noun == "one"):
            continue
        if phrase.noun in _PLACES_IN and _IN.search(question[:start]):
            continue
        yield phrase


def _stands_for_anything(phrase: NounPhrase) -> bool:
    return phrase.noun in _ANYTHING and not phrase.adjectives


def _is_any_label(phrase: NounPhrase) -> bool:
    return phrase.noun in ("letter", "number") and not (phrase.label or phrase.adjectives)


def _fit(fact: Fact, asked: Sequence[NounPhrase], names: Collection[str]) -> Fit:
    """Whether a fact is about one of the things that are asked about."""
    if fact.kind in _WRITING and not fact.phrase.lower().startswith(("letter ", "number ")):
        told = set(_NAME.findall(fact.quote)) - {"A", "I"}
        return "yes" if told and told <= set(names) else "maybe"
    things = list(noun_phrases(fact.phrase or fact.quote))
    alone = all(_stands_for_anything(wanted) or _is_any_label(wanted) for wanted in asked)
    fits = {_same(thing, wanted, alone) for thing in things for wanted in asked}
    if "yes" in fits:
        return "yes"
    return "maybe" if "maybe" in fits or not things or not asked else "no"


def _same(thing: NounPhrase, wanted: NounPhrase, alone: bool) -> Fit:
    """Whether a thing may be called what is wanted. "The object left of the star" is a thing, but
    who knows which: a noun for anything tells one from another only where it stands alone."""
    if _stands_for_anything(wanted):
        return "yes" if alone else "maybe"
    if _is_any_label(wanted) and thing.noun == wanted.noun:
        return "yes" if alone else "maybe"
    if not _may_be_called(thing.noun, wanted.noun):
        return "no"
    if thing.label and wanted.label and thing.label != wanted.label:
        return "no"
    told = thing.attributes()
    verdicts = [told.get(kind) for kind in wanted.attributes()]
    wanted_values = list(wanted.attributes().values())
    if any(
        have is not None and differ(have, want)
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
