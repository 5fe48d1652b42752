"""Every phrase's tokens are exactly where its span says, whatever the phrase."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.teach_detector import build_tokenizer
from labeling.facts import normalize_phrase
from labeling.locators.prompts import SEPARATOR_IDS, build_prompts

TOKENIZER = build_tokenizer()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30), min_size=1, max_size=20, unique=True))
def test_spans_hold_their_phrase_and_no_separator(raw: list[str]) -> None:
    phrases = list(dict.fromkeys(p for r in raw if (p := normalize_phrase(r))))
    prompts = build_prompts(TOKENIZER, phrases, 64)
    assert [p for prompt in prompts for p in prompt.phrases] == phrases
    for prompt in prompts:
        assert len(prompt.input_ids) <= 64
        for phrase, (start, end) in zip(prompt.phrases, prompt.spans, strict=True):
            ids = TOKENIZER(phrase, add_special_tokens=False)["input_ids"]
            expected = [token for token in ids if token not in SEPARATOR_IDS]
            assert list(prompt.input_ids[start:end]) == expected[: 64 - 3]
            assert prompt.input_ids[end] == 1012
            assert not set(prompt.input_ids[start:end]) & set(SEPARATOR_IDS)


@pytest.mark.parametrize(
    ("given_phrase", "expected"), [("  The  Red.Cup? ", "the red cup"), ("st. cat", "st cat"), ("a;b", "a b"), ("?!.", "")]
)
def test_separators_never_reach_a_prompt(given_phrase: str, expected: str) -> None:
    assert normalize_phrase(given_phrase) == expected


def test_long_lists_are_chunked_and_nothing_is_lost() -> None:
    phrases = [f"red circle {n}" for n in range(60)]
    prompts = build_prompts(TOKENIZER, phrases, 40)
    assert len(prompts) > 1
    assert [p for prompt in prompts for p in prompt.phrases] == phrases


@pytest.mark.parametrize("phrase", ["", " ", "\u200b", "."])
def test_a_phrase_without_tokens_is_left_out(phrase: str) -> None:
    assert [prompt.phrases for prompt in build_prompts(TOKENIZER, [phrase, "red cup"], 40)] == [("red cup",)]
    assert build_prompts(TOKENIZER, [phrase], 40) == []


@pytest.mark.parametrize("phrase", ["\u200b", "\u2060 \u00ad", "...", " "])
def test_a_phrase_that_nobody_can_see_is_none(phrase: str) -> None:
    assert normalize_phrase(phrase) == ""
