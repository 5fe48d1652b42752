"""An annotator without a model: reads facts out of traces by grammar.

It knows the nouns of pictures with their colours and sizes ("two small red circles"), what pictures
have in writing (labels, marked lengths and angles, quotations, in LaTeX too), and the figures that
traces call by their letters; it notices when the writer says that something is *not* there, and
when a sentence concludes, supposes or defines instead of telling what is seen. It is the embedded
default, so that everything runs offline; for free-form traces use a judge LLM.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from labeling.annotate import Annotated, Asked
from labeling.facts import Fact
from labeling.info import ModelInfo
from labeling.readers.amounts import amounts_in
from labeling.readers.claims import Claim, claim
from labeling.readers.names import invented_in, names_in
from labeling.readers.objects import objects_in
from labeling.readers.question import parts, without_options
from labeling.readers.spelling import Plain, plain
from rewardlib.judge import JudgeError
from rewardlib.spans import find_boxes

RULES_VERSION = "rules-3"

# Ends at punctuation that is not within a number, at an empty line, before an item of a list, and
# before a line that a colon announces; and somewhere, so that a text without any is no burden.
_SENTENCE = re.compile(
    r"(?:(?!\n[ \t]*(?:[\n*•-]|\(?[A-Z]\)|\d+[.)]\s)|[!?]|\.(?!\d)|:\s*\n).){1,1500}",
    re.S,
)
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|\Z)|</?\w+>", re.S | re.I)
_CODE = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)|```.*?```", re.S)


class RuleAnnotator:
    """Facts by grammar; deterministic, and named in provenance like any other judge."""

    name = RULES_VERSION

    def annotate(self, traces: Sequence[Asked]) -> list[Annotated | JudgeError]:
        return [_annotated(asked) for asked in traces]

    def info(self) -> ModelInfo:
        return ModelInfo(RULES_VERSION)


def _annotated(asked: Asked) -> Annotated:
    facts, letter = list(facts_of(asked.trace)), picked(asked)
    if letter:
        facts = list(_with_pick(facts, asked.trace, letter))
    return Annotated(tuple(dict.fromkeys(facts)))


def picked(asked: Asked) -> str:
    """The letter of the picture that is the right answer, where the choices are pictures with a
    letter each; empty elsewhere."""
    letter = asked.answer.strip("() .").upper()
    letters = [choice.strip("() .").upper() for choice in asked.choices]
    are_pictures = letters == [chr(ord("A") + n) for n in range(len(letters))]
    return letter if are_pictures and letter in letters else ""


def _with_pick(facts: Sequence[Fact], trace: str, letter: str) -> Iterator[Fact]:
    """The facts, and that the image shows the picture that a right trace picks: the answer rests on
    it."""
    why = "it is the picture that is asked for"
    names = {letter.lower(), f"letter {letter.lower()}"}
    named = [fact for fact in facts if fact.phrase.lower().strip("()") in names]
    for fact in facts:
        needed = replace(fact, role="evidence", by="question", reason=why)
        yield needed if fact in named else fact
    places = list(re.finditer(rf"(?<![A-Za-z]){letter}(?![A-Za-z])", trace))
    if places and not named:
        statement, phrase = f"One of the pictures has the letter {letter}.", f"letter {letter}"
        start, end = places[-1].span()
        found = Fact("text", statement, phrase, letter, start, end)
        yield replace(found, role="evidence", by="question", reason=why)


def facts_of(trace: str) -> Iterator[Fact]:
    """The facts of a trace in reading order; what has a name or is written, once."""
    return _facts_of(trace, claim)


def named_by(question: str) -> Iterator[Fact]:
    """What a question names, as facts: it claims nothing, but what it names is in the picture; its
    options may not be."""
    return (
        replace(fact, role="evidence", by="question", reason="the question names it")
        for fact in _facts_of(
            parts(question).stem, lambda sentence, _: Claim(len(sentence), len(sentence))
        )
        if fact.phrase and fact.kind != "count"
    )


def _facts_of(trace: str, claimed_by: Callable[[str, bool], Claim]) -> Iterator[Fact]:
    spelled = plain(_readable(trace))
    invented: set[str] = set()
    known: set[str] = set()
    for sentence in _SENTENCE.finditer(spelled.text):
        start, end = sentence.span()
        claimed = claimed_by(spelled.text[start:end], spelled.text[end : end + 1] == "?")
        invented |= invented_in(spelled.text[start:end])
        seen, named = start + claimed.seen, start + claimed.named
        objects, writing = _facts(trace, spelled, start, seen, named, invented)
        known.update(f.quote.split()[-1] for f in objects if f.kind == "text")  # letter F: F
        new = {f.phrase: f for f in reversed(writing) if f.phrase not in known}
        known.update(new)
        yield from sorted([*objects, *new.values()], key=lambda f: f.start)


def _facts(
    trace: str,
    spelled: Plain,
    start: int,
    seen: int,
    named: int,
    invented: set[str],
) -> tuple[list[Fact], list[Fact]]:
    """Of one sentence, the things and the writing; about the same words only the most telling.

    seen, named: where it ends to say what is seen, and what has a name.
    """
    things = list(objects_in(trace, spelled, start, seen))
    labels = [f for f in things if f.kind == "text"]
    said = [
        *amounts_in(trace, spelled, start, seen),
        *names_in(trace, spelled, start, named, invented),
    ]
    writing: list[Fact] = []
    for fact in said:
        if _apart(fact, [*labels, *writing]):
            writing.append(fact)
    return [f for f in things if _apart(f, writing)], sorted(writing, key=lambda f: f.start)


def _apart(fact: Fact, others: Sequence[Fact]) -> bool:
    """Whether a fact has its words to itself."""
    return all(fact.end <= other.start or other.end <= fact.start for other in others)


def _readable(trace: str) -> str:
    """The trace with tags, final answer, drawings' code and lists of options blanked, as long as it
    was."""
    for pattern in (_ANSWER, _CODE):
        trace = pattern.sub(lambda m: " " * len(m.group()), trace)
    signs = list(without_options(trace))
    for command, _, end in find_boxes(trace):
        signs[command : end + 1] = " " * (end + 1 - command)
    return "".join(signs)
