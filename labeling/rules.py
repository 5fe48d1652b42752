"""An annotator without a model: reads objects out of plain descriptive English.

It knows colours, sizes and the nouns of simple pictures, takes noun phrases such as "two small red circles" apart, and notices when the
writer says that something is *not* there. It is the embedded default, so that everything runs offline; for free-form traces use a judge
LLM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labeling.annotate import Annotated, Asked
from labeling.facts import Fact, Kind
from labeling.info import ModelInfo
from rewardlib.judge import JudgeError

RULES_VERSION = "rules-1"

COLORS = [
    "black",
    "white",
    "grey",
    "gray",
    "red",
    "green",
    "blue",
    "yellow",
    "orange",
    "purple",
    "pink",
    "brown",
    "cyan",
    "magenta",
    "violet",
    "dark",
    "light",
]
SIZES = ["small", "medium", "large", "big", "tiny", "little", "tall", "short", "long", "wide", "narrow"]
LOOKS = [
    "shaded",
    "dashed",
    "dotted",
    "striped",
    "solid",
    "filled",
    "empty",
    "isosceles",
    "equilateral",
    "right-angled",
    "horizontal",
    "vertical",
    "curved",
    "wooden",
    "round",
]
NOUNS = [
    "arrow",
    "axis",
    "ball",
    "bar",
    "barrel",
    "bicycle",
    "bird",
    "block",
    "boat",
    "book",
    "bottle",
    "box",
    "building",
    "bus",
    "button",
    "cake",
    "candle",
    "car",
    "card",
    "cat",
    "chair",
    "circle",
    "clock",
    "coin",
    "cone",
    "container",
    "cross",
    "cube",
    "cup",
    "cylinder",
    "diamond",
    "dice",
    "dog",
    "door",
    "dot",
    "ellipse",
    "face",
    "fence",
    "figure",
    "fish",
    "flag",
    "flower",
    "fruit",
    "girl",
    "boy",
    "glass",
    "graph",
    "grid",
    "hat",
    "heart",
    "hexagon",
    "house",
    "key",
    "kite",
    "ladder",
    "leaf",
    "letter",
    "lamp",
    "line",
    "lollipop",
    "man",
    "map",
    "marble",
    "number",
    "octagon",
    "oval",
    "parallelogram",
    "path",
    "pentagon",
    "person",
    "photo",
    "picture",
    "plant",
    "plate",
    "point",
    "polygon",
    "pyramid",
    "ray",
    "rectangle",
    "rhombus",
    "ribbon",
    "ring",
    "road",
    "rope",
    "ruler",
    "scale",
    "sector",
    "segment",
    "semicircle",
    "shape",
    "sheet",
    "sign",
    "sphere",
    "spinner",
    "square",
    "star",
    "stick",
    "strip",
    "table",
    "tile",
    "tower",
    "trapezoid",
    "tree",
    "triangle",
    "wall",
    "wheel",
    "window",
    "woman",
]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "several"]
IRREGULAR = {"axes": "axis", "boxes": "box", "buses": "bus", "crosses": "cross", "glasses": "glass", "leaves": "leaf", "people": "person",
             "men": "man", "women": "woman", "rhombuses": "rhombus", "axises": "axis", "dishes": "dish", "branches": "branch"}  # fmt: skip
_CONTAINERS = {
    "box",
    "picture",
    "photo",
    "figure",
    "image",
    "scale",
    "number",
    "shape",
}  # places and whole images, not evidence, when unadorned

_ADJECTIVE = "|".join([*COLORS, *SIZES, *LOOKS])
_NOUN = "|".join([*(f"{n}e?s?" for n in NOUNS), *IRREGULAR])
_PHRASE = re.compile(
    rf"\b(?P<article>(?:an?|the|another)\s+)?(?P<count>(?:{'|'.join(NUMBERS)}|\d{{1,2}})\s+)?(?P<adjectives>(?:(?:{_ADJECTIVE})(?:,?\s+|-))*)"
    rf"(?:(?P<label>(?:letter|number)\s+[\"'“]?(?-i:[A-Z]|\d+)\b)|(?P<noun>{_NOUN})\b)",
    re.I,
)
_SENTENCE = re.compile(r"(?:(?!\n\s*[\n*•-]|[.!?]).)+", re.S)  # ends at punctuation, a blank line or a bullet
_NEGATION = re.compile(r"\b(?:no|without|neither|nor|(?:not|n't)\s+(?:see\s+)?(?:an?|any))\b[^,;]*$", re.I)
_CONCLUSION = re.compile(
    r"\s*(?:so|therefore|thus|hence|that makes|that settles)\b|.*\banswer\b", re.I
)  # says what follows, not what is seen
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|$)|\\boxed\{[^{}]*\}|</?\w+>", re.S | re.I)


class RuleAnnotator:
    """Facts by grammar; deterministic, and named in provenance like any other judge."""

    name = RULES_VERSION

    def annotate(self, traces: Sequence[Asked]) -> list[Annotated | JudgeError]:
        return [Annotated(tuple(dict.fromkeys(facts_of(asked.trace)))) for asked in traces]

    def info(self) -> ModelInfo:
        return ModelInfo(RULES_VERSION)


def facts_of(trace: str) -> Iterator[Fact]:
    """The facts of a trace in reading order. Tags and the final answer are blanked, so that offsets stay those of the trace."""
    readable = _ANSWER.sub(lambda m: " " * len(m.group()), trace)
    for sentence in _SENTENCE.finditer(readable):
        if _CONCLUSION.match(sentence.group()):
            continue
        found = [(m, phrase) for m in _PHRASE.finditer(sentence.group()) if (phrase := _phrase(m))]
        for match, phrase in found:
            head = sentence.group()[: found[0][0].start()]
            absent = _NEGATION.search(sentence.group()[: match.end("article")] if match["article"] else sentence.group()[: match.start()])
            kind: Kind = "absence" if absent else "text" if match["label"] else "count" if match["count"] else "object"
            start, end = sentence.start() + max(match.start(), match.end("article")), sentence.start() + match.end()
            statement = " ".join(f"{head} {match.group()}".split()) + "."
            yield Fact(kind, statement, "" if absent else phrase, trace[start:end], start, end)


def _phrase(match: re.Match[str]) -> str:
    """The noun phrase to ground, singular and lower-case; empty for a bare container."""
    adjectives = [w for w in re.split(r"[\s,-]+", match["adjectives"].lower()) if w]
    noun = _label(match["label"]) if match["label"] else _singular(match["noun"].lower())
    bare = noun in _CONTAINERS and not set(adjectives) & set(COLORS)
    return "" if bare else " ".join([*adjectives, noun])


def _label(text: str) -> str:
    kind, value = re.split(r"\s+", text, maxsplit=1)
    return f"{kind.lower()} {value.strip(chr(34) + chr(39) + '“').lower()}"


def _singular(noun: str) -> str:
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in NOUNS:
        return noun
    for ending in ("s", "es"):
        if noun.endswith(ending) and noun[: -len(ending)] in NOUNS:
            return noun[: -len(ending)]
    return noun
