"""Facts come from the trace, word for word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.annotate import Asked, check_reply, find_quote, verify
from labeling.rules import RuleAnnotator, facts_of

TRACE = "<think>The left box contains a black square and two   Yellow\ncircles. There is no red star.</think><answer>yes</answer>"


def _phrases(text: str) -> list[str]:
    return [f.phrase for f in facts_of(text)]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("The left box contains a black square, a yellow square and two blue squares.", ["black square", "yellow square", "blue square"]),
        ("I see a small red circle next to the large, blue star.", ["small red circle", "large blue star"]),
        ("The letter B is written on a dark-green box.", ["letter b", "dark green box"]),
        ("There is no green cross and it is not a star.", ["", ""]),
        ("So it is a circle. Therefore the triangle wins. The answer is the square.", []),
        ("<answer>black square</answer> \\boxed{square}", []),
        ("Boxes, buses and leaves.", ["bus", "leaf"]),
        ("squares everywhere, squared numbers nowhere", ["square"]),
        ("", []),
    ],
)
def test_rules_read_phrases(text: str, phrases: list[str]) -> None:
    assert _phrases(text) == phrases


def test_rules_make_statements_that_stand_alone() -> None:
    assert [f.statement for f in facts_of(TRACE)][:2] == [
        "The left box contains a black square.",
        "The left box contains two Yellow circles.",
    ]


def test_kinds() -> None:
    assert [f.kind for f in facts_of(TRACE)] == ["object", "count", "absence"]


@given(st.text(max_size=300))
def test_rules_quote_what_is_there(text: str) -> None:
    for fact in facts_of(text):
        assert text[fact.start : fact.end] == fact.quote


def test_the_same_fact_is_stated_once_per_place() -> None:
    annotated = RuleAnnotator().annotate([Asked("", "A red circle. A red circle.")])[0]
    assert [f.start for f in annotated.facts] == [2, 16]


@pytest.mark.parametrize(
    ("quote", "expected"),
    [("black square", "black square"), ("two yellow circles", "two   Yellow\ncircles"), ("green square", None), ("", None), ("  ", None)],
)
def test_quotes_are_found_or_refused(quote: str, expected: str | None) -> None:
    span = find_quote(quote, TRACE)
    assert (TRACE[slice(*span)] if span else None) == expected


def _claim(**changes: str) -> dict[str, str]:
    return {"kind": "object", "statement": "There is a black square.", "phrase": "black square", "quote": "black square"} | changes


def test_invented_and_empty_facts_are_dropped_and_counted() -> None:
    annotated = verify([_claim(), _claim(quote="purple cow"), _claim(statement=" "), _claim()], TRACE)
    assert [f.quote for f in annotated.facts] == ["black square"]
    assert annotated.dropped == 2


def test_every_dropped_fact_has_its_reason() -> None:
    claims = [_claim(), _claim(quote="\u200b"), _claim(statement="\u2060"), _claim(statement="half \ud83d"), _claim(quote="\ud83d")]
    annotated = verify(claims, TRACE)
    assert annotated.dropped_for == ("quote not in trace", "no statement", "half a character", "half a character")
    assert len(annotated.facts) == 1


@pytest.mark.parametrize("phrase", ["\u200b", "\u2060", "\u00ad", "\u2800", " \u200b ", ""])
def test_a_phrase_that_nobody_can_see_is_none(phrase: str) -> None:
    assert verify([_claim(phrase=phrase)], TRACE).facts[0].phrase == ""


def test_an_absence_has_nothing_to_ground() -> None:
    assert verify([_claim(kind="absence", quote="no red star", phrase="red star")], TRACE).facts[0].phrase == ""


@pytest.mark.parametrize(
    "reply", [None, [], {"facts": "x"}, {"facts": [1]}, {"facts": [{"kind": "object"}]}, {"facts": [_claim(kind="smell")]}]
)
def test_a_malformed_reply_is_an_error_not_an_empty_list(reply: object) -> None:
    with pytest.raises(ValueError, match="facts"):
        check_reply(reply)
