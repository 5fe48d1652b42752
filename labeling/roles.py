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
    differ,
    noun_phrases,
    placed_noun_phrases,
)
from labeling.readers.question import parts
from labeling.readers.vocabulary import KINDS, SAME_THING, words

# Nouns that stand for anything that can be seen, and nouns of which one may be called by the other.
_ANYTHING = frozenset({"object", "item", "thing", "shape", "figure", "element", "symbol", "one"})
# What a question asks for that is no thing: "what shape is the red thing?"
_LOOKS = frozenset(words("shape color colour size kind type material pattern letter number"))
# Where things are, unless adorned; the others only "in the figure".
_PLACES = frozenset({"box", "picture", "photo", "image", "diagram", "scale"})
_PLACES_IN = frozenset({"figure", "chart", "graph", "table", "grid", "map"})
_IN = re.compile(r"\b(?:in|from|of|see)\s+(?:the|this|that|each)\s+(?:\w+\s+){0,2}$", re.I)
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
_COUNTS = re.compile(
    r"\bhow\s+many\s+(?!minutes|hours|seconds|degrees|dollars|euros|points|percent)"
    r"|\bnumber\s+of\s+(?!the\b|this\b|an?\b)",
    re.I,
)
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
    fits = _fits_of_answer(facts, asked)
    best = "yes" if "yes" in fits else "maybe"  # "umbrella" for "a black umbrella"
    things = {fact.phrase.lower() for fact, fit in zip(facts, fits, strict=True) if fit == best}

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


def _fits_of_answer(facts: Sequence[Fact], asked: Asked) -> list[Fit]:
    """Whether each fact is about the thing that the answer is; "a square" is none where the shape
    of something is asked for."""
    named = list(noun_phrases(_in_words(asked), also=_ANYTHING))
    asks_how_it_looks = any(
        m["noun"].lower() in _LOOKS for m in _ASKED_FOR.finditer(asked.question)
    )
    if len(named) != 1 or _stands_for_anything(named[0]) or asks_how_it_looks:
        return ["no"] * len(facts)

    def fit(fact: Fact) -> Fit:
        told = [] if fact.kind in _WRITING else noun_phrases(fact.phrase)
        fits = {_same(thing, named[0], alone=False) for thing in told}
        return "yes" if "yes" in fits else "maybe" if "maybe" in fits else "no"

    return [fit(fact) for fact in facts]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _holds(told: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether words stand among others, one behind the other."""
    starts = range(len(told) - len(wanted) + 1)
    return any(told[start : start + len(wanted)] == wanted for start in starts)


def by_question(asked: Asked, facts: Sequence[Fact]) -> list[Decision]:
    """The role of every fact, by what the question asks about.

    A fact is evidence if it names a thing that the question names: the same noun, one of its kind,
    or one that stands for anything, and no attribute that contradicts. Where at least one fact
    does, those that name none of the question's things are context. A thing that the question names
    more narrowly than the fact leaves the fact undecided; so does one that may be the answer.
    """
    stem = parts(asked.question).stem
    things = list(_asked_about(stem))
    names = set(_NAME.findall(stem)) - {"A", "I"}
    fits = [_fit(fact, things, names) for fact in facts]
    if "yes" not in fits:
        return [UNDECIDED] * len(facts)
    answers = _fits_of_answer(facts, asked)
    return [
        _decision("maybe" if fit == "no" and answer != "no" else fit, things)
        for fit, answer in zip(fits, answers, strict=True)
    ]


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
    for start, phrase in placed_noun_phrases(question, also=_ANYTHING | {*KINDS}):
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
        or noun in KINDS.get(wanted, ())
        or any({noun, wanted} <= alike for alike in SAME_THING)
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
