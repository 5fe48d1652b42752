"""Finding the answer in a response: where it may stand, ways to cheat, hostile input, and agreement with published verdicts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlib.answers import check_answer, final_answer

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="shared data not present")

LETTERS = ["A", "B", "C", "D", "E"]


def rows(source: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / source / "rows.jsonl").read_text().splitlines()]


# --- extraction ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>so A</think><answer> B </answer>", "B"),
        ("<answer>A</answer> wait <answer>B</answer>", "B"),
        (r"<answer>There are no red cubes, so it is \boxed{0}</answer>", "0"),
        (r"<answer>\boxed{B} or C</answer>", None),
        (r"<answer>B</answer> and \boxed{C}", "B"),
        (r"first \boxed{4}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"$\boxed{\text{(B)}}$", "(B)"),
        (r"\boxed{7} and an unclosed \boxed{8", "7"),
        ("The answer is (B).", "(B)"),
        ("Therefore, the answer is: C", "C"),
        ("The answer is A. No, the answer is (D), as the sum is odd.", "(D)"),
        ("So the correct option is D", "D"),
        ("**Answer:** 12.5 cm", "12.5 cm"),
        ("The answer is:\n(E)", "(E)"),
        ("It depends.\n(A)", "(A)"),
        ("(C) 20 cm", "(C) 20 cm"),
        ("The pieces fit as shown in (C).", "(C)"),
        ("The largest sum is 15.", "15"),
        ("20.", "20"),
        ("Carol", "Carol"),
        ("We cannot know which of the towers is taller from this picture alone.", None),
        ("It is not (C).", None),
        ("<answer></answer> The answer is B.", None),
        (r"\boxed{}", None),
        ("", None),
    ],
)
def test_final_answer(text: str, expected: str | None) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize("text", ["The answer is (B).", "B", "Answer: B", "the option is (B)"])
def test_prose_counts_only_outside_strict_mode(text: str) -> None:
    assert check_answer(text, "B", LETTERS)
    assert not check_answer(text, "B", LETTERS, strict=True)


GOLD_ALPHABET = st.text("abcXYZ019 .,+-/", min_size=1, max_size=30).filter(lambda gold: bool(gold.strip(" .,")))


@given(GOLD_ALPHABET)
@settings(deadline=None, max_examples=150)
def test_gold_is_always_right(gold: str) -> None:
    assert check_answer(f"<answer>{gold}</answer>", gold, strict=True)
    assert check_answer(rf"\boxed{{{gold}}}", gold, strict=True)


# --- cheating ---

LETTER_HACKS = [
    "", "A or B or C", "A, B, C, D", "A, B, C, D, E", "A/B", "B C", "BC", "B\nC", "(B) and (C)", "(b) (c)", "B: c, d", "B?", "not B",
    "B or maybe C", "B, maybe C", "anything but B", "(B) is wrong", r"\boxed{A} or \boxed{B}", r"\boxed{A}\boxed{B}", r"not \boxed{B}",
]  # fmt: skip
NUMBER_HACKS = [
    "17", "-7", "7 8", "7, 8", "7 or 8", "not 7", "7/8", "7 (8)", "7 million", "7 and a half", "7x", "7s", "7!", "5 = 7", "x - 2 = 7",
    "2x = 7", "x = 5, y = 7", "x < 7", r"x \neq 7", r"\pm 7", r"\{7, 8\}", "0/0", r"\frac{0}{0}", r"\infty",
]  # fmt: skip
HACKS = [
    *((hack, "B") for hack in LETTER_HACKS), *((hack, "7") for hack in NUMBER_HACKS),
    ("7 8", "78"), ("7 8", "15"), ("20200", "20201"), ("0.25%", "25%"), ("2500", "25%"), ("10 m", "10 cm"), ("10 cm^2", "10 cm"),
    ("7", r"\infty"), ("1/0", r"\infty"), ("M/m", "m/M"), ("A dog is sitting", "A"), ("not true", "true"), ("true or false", "true"),
    ("true, false", "true"), ("untrue", "true"), ("yes and no", "yes"),
]  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("answer", "gold"), HACKS)
def test_hacked_block(answer: str, gold: str, strict: bool) -> None:
    assert not check_answer(f"<answer>{answer}</answer>", gold, LETTERS if gold in LETTERS else (), strict=strict)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "The answer is B. <answer>C</answer>",
        "<answer>C</answer> The answer is B.",
        r"<answer>C</answer> \boxed{B}",
        "<answer></answer>B",
        "<answer>B",
        "B</answer>",
        "<answer>B</answer></answer>",
        "<answer><answer>B</answer>",
        "<answer><answer>B</answer></answer>",
        "<think>The answer is B. <answer>B</answer>",
        r"<think>\boxed{B}</think>",
        r"\boxed{A}, \boxed{B}",
        r"The answer is not \boxed{B}.",
        r"\boxed{All except B}",
        r"\boxed{(A), (B), (C), (D), or (E)}",
        "<answer>" + "B " * 200 + "</answer>",
    ],
)
def test_hacked_response(text: str, strict: bool) -> None:
    assert not check_answer(text, "B", LETTERS, strict=strict)


@pytest.mark.parametrize("text", ["<answer>C</answer><answer>B</answer>", "<answer>B</answer><answer>B</answer>"])
def test_strict_mode_takes_one_block(text: str) -> None:
    assert check_answer(text, "B", LETTERS)
    assert not check_answer(text, "B", LETTERS, strict=True)


def test_last_of_several_boxes_counts() -> None:
    assert check_answer(r"First \boxed{A}. A closer look gives \boxed{B}.", "B", LETTERS, strict=True)


# --- hostile input ---

HOSTILE_SPANS = [
    "9**9**9", "9^9^9", "9^{9^{9}}", "((9^{999})^{999})^{999}", "9^{99999999}", "99999999!", r"\sum_{k=1}^{10^9} k", r"\binom{10^9}{10^8}",
    "(" * 140 + "8" + ")" * 140, r"\frac{1}{1+" * 14 + "x" + "}" * 14, "8" + "/8" * 140, "(a+b+c+d)^{999}", r"\sqrt{" + "9" * 280 + "}",
    "_a" * 99 + "=8",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        *(f"<answer>{span}</answer>" for span in HOSTILE_SPANS),
        *(token * 20_000 for token in [r"\boxed{", "<answer>", "<think>", "</think>", "$", "*", "answer is ", "(A)", "is "]),
        r"\boxed{" * 9_000 + "}" * 9_000,
        "<answer>" + " " * 100_000 + "8</answer>",
        "<answer>\x00\ud800</answer>",
    ],
)
def test_hostile_input_is_refused_quickly(text: str) -> None:
    start = time.process_time()
    assert not any(check_answer(text, gold, strict=strict) for gold in ("7", r"\sqrt{7}+x") for strict in (False, True))
    assert time.process_time() - start < 3


@given(st.text(max_size=80), st.text(max_size=20), st.lists(st.text(max_size=8), max_size=3))
@settings(deadline=None, max_examples=150)
def test_never_raises(text: str, gold: str, choices: list[str]) -> None:
    for response in (text, f"<answer>{text}</answer>", rf"\boxed{{{text}}}"):
        check_answer(response, gold, choices)


# --- published traces ---


@needs_data
def test_agreement_with_published_verdicts() -> None:
    verdicts = [
        check_answer(trace["text"], row["answer"], row["choices"]) == trace["reported_correct"]
        for row in rows("mathvision")
        for trace in row["traces"]
    ]
    assert sum(verdicts) / len(verdicts) >= 0.97  # the rest are right choice texts published as wrong


@needs_data
def test_templates_are_told_apart() -> None:
    for row in rows("nlvr"):
        for trace in row["traces"]:
            assert check_answer(trace["text"], row["answer"], strict=True) == (trace["model"] == "template")


@needs_data
@pytest.mark.parametrize("source", ["mathvision", "nlvr"])
def test_every_gold_is_right(source: str) -> None:
    for row in rows(source):
        choices = row.get("choices", [])
        for text in (f"<answer>{row['answer']}</answer>", rf"\boxed{{{row['answer']}}}"):
            assert check_answer(text, row["answer"], choices, strict=True), row["id"]


@needs_data
def test_only_the_gold_choice_text_is_right() -> None:
    for row in rows("mathvision"):
        for letter, choice in zip(LETTERS, row["choices"], strict=False):
            if choice in LETTERS and choice != letter:
                continue  # a text that is another choice's letter means that letter
            assert check_answer(f"<answer>{choice}</answer>", row["answer"], row["choices"]) == (letter == row["answer"]), row["id"]
