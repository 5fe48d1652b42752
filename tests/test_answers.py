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


OPTION_LISTS = [
    "(A) 3\n(B) 4\n(C) 5", "Let me see.\n(A) 3\n(B) 4\n(C) 5", "Let me see.\nA. 3\nB. 4\nC. 5", "So:\nA) 3\nB) 4", "- A: 3\n- B: 4\n- C: 5",
    "* (A) 3\n* (B) 4", "**A.** 3\n**B.** 4\n**C.** 5", "(a) 3\n(b) 4\n(c) 5", "(A) 98\n\n(B) 78\n\n(C) 88", "Options:\n(A) 3",
    "(A) 3 (B) 4 (C) 5", "Choices: (A) (B) (C)", "(A) red; (B) blue; (C) green", "A: 3, B: 4, C: 5", "Which one? A. red B. blue C. green",
    "I look at it. option A: 3, option B: 4, option C: 5", "Option A is 3. Option B is 4. Option C is 5.",
    "Option A is 3, option B is 4, option C is 5.", "Options: A, B, C, D", "The options are A, B, C and D.",
    "The options are (A), (B), (C), and (D).", "The choices are: (A) 3, (B) 4, (C) 5, (D) 6", "Answer: (A) 3\n(B) 4\n(C) 5",
    "The two are (A) and (B).", "Options:\n3\n4\n5", "3\n4\n5", "- 3\n- 4\n- 5", "1. 3\n2. 4\n3. 5", "Let's list.\n(A) 3\n(B) 4\n(C)",
]  # fmt: skip


@pytest.mark.parametrize("text", OPTION_LISTS)
def test_a_list_of_options_is_no_answer(text: str) -> None:
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(A) triangle\n(B) rectangle\n(C) trapezium\n\nThe answer is (A).", "(A)"),
        ("(A) 986\n\n(B) 789\n\n(C) 98\n\nThe largest number is 986, line (A).", "(A)"),
        ("(A) 3\n(B) 4\n(C) 5\n(B) 4", "(B) 4"),
        ("(A) 3\n(B) 4\n\n(C)", "(C)"),
        ("We drop (A).\n(B) 20 cm", "(B) 20 cm"),
        ("Comparing (A) and (B), the pieces fit as shown in (C).", "(C)"),
        ("Answer: (B) 4\nThe others are (A) 3.", "(B) 4"),
        ("2+3\n5", "5"),
        ("- The sum is 3\n- The total is 15.", "15"),
    ],
)
def test_an_answer_after_a_list_of_options(text: str, expected: str) -> None:
    assert final_answer(text) == expected


CANDIDATE_BOXES = [
    r"\boxed{A}, \boxed{B}", r"either \boxed{3} or \boxed{4}", r"\boxed{3} and \boxed{4}", r"\boxed{A} \text{ or } \boxed{B}",
    r"\boxed{A} \mathrm{~or~} \boxed{B}", r"\(\boxed{A}\), \(\boxed{B}\)", r"\[\boxed{A}\] or \[\boxed{B}\]", r"\boxed{A} \quad \boxed{B}",
    "- \\boxed{A}\n- \\boxed{B}", "* **\\boxed{A}**\n* **\\boxed{B}**", "1. \\boxed{A}\n2. \\boxed{B}", "a) \\boxed{3}\nb) \\boxed{4}",
    "\\boxed{A}\n\n\\boxed{B}", "Option 1: \\boxed{A}\nOption 2: \\boxed{B}", "Answer 1: \\boxed{3}.\nAnswer 2: \\boxed{4}.",
    r"\boxed{A}, \boxed{B}, or maybe \boxed{C}", r"\boxed{A}, \boxed{B}, \boxed{B}",
    r"\boxed{A} or possibly \boxed{B}", r"\boxed{A} / \boxed{B}",
    r"\boxed{A}; alternatively, \boxed{B}", r"\boxed{A} as well as \boxed{B}", r"\boxed{3} (or \boxed{4})", r"\boxed{3} or it is \boxed{4}",
    r"x_1 = \boxed{3}, x_2 = \boxed{4}", r"x = \boxed{3} or x = \boxed{4}", r"It is \boxed{3} if you count the lid, or \boxed{4}",
    r"One answer is \boxed{3}, another is \boxed{4}", r"\boxed{3}, \boxed{4}, \ldots, \boxed{9}",
]  # fmt: skip


@pytest.mark.parametrize("text", CANDIDATE_BOXES)
def test_boxes_that_list_candidates_are_no_answer(text: str) -> None:
    assert final_answer(text) is None
    assert not any(check_answer(text, gold, strict=True) for gold in ("A", "B", "C", "3", "4", "9"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{3}. Wait, that is wrong, so \boxed{4}", "4"),
        (r"\boxed{3} is wrong; the right one is \boxed{4}", "4"),
        (r"\boxed{3} or \boxed{4}. Since x > 3, the answer is \boxed{4}", "4"),
        (r"\boxed{4}, and again \boxed{4}", "4"),
        (r"$\boxed{x = 4}$, \boxed{4}", "4"),
        (r"The area is \boxed{3}, and adding 5 gives \boxed{8}", "8"),
        ("It is $\\boxed{12}$.\n\n**Answer:** $\\boxed{B}$", "B"),
        ("\\[ x = \\boxed{12} \\]\n\n\\boxed{B}", "B"),
        (r"I said \boxed{3}, or so I thought; it is \boxed{4}", "4"),
    ],
)
def test_a_corrected_or_repeated_box_counts(text: str, expected: str) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("There are 3 red mugs.", "3"),
        ("There are three red mugs on the wooden table.", "3"),
        ("I can see 3 mugs", "3"),
        ("The temperature is 75°F.", "75"),
        ("It is 3", "3"),
        ("The clock shows 3:30.", "3:30"),
        ("The picture shows exactly 3 dogs.", "3"),
    ],
)
def test_a_number_in_a_sentence_counts_only_outside_strict_mode(sentence: str, number: str) -> None:
    for response in (sentence, f"<answer>{sentence}</answer>", f"I look at the picture. {sentence}"):
        assert check_answer(response, number)
        assert not check_answer(response, number, strict=True)


@pytest.mark.parametrize(
    "sentence",
    [
        "There are 3 red mugs and 2 blue ones.",
        "There might be 3 mugs.",
        "There are not 3 mugs.",
        "There are 3 or 4 mugs",
        "There are 3-4 mugs",
    ],
)
def test_a_sentence_that_does_not_decide_on_a_number(sentence: str) -> None:
    assert not any(check_answer(f"<answer>{sentence}</answer>", gold) for gold in "234")
    assert not any(check_answer(f"I look. {sentence}", gold) for gold in "234")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It seems that the value of x is -5.", "-5"),
        ("The price of the book is €6.", "€6"),
        ("The price of the book is $6.", "$6"),
        ("Yes, there are more people than bicycles.", "Yes, there are more people than bicycles"),
        ("The mug on the left of the table is brown.", "The mug on the left of the table is brown"),
    ],
)
def test_an_answer_in_prose_is_taken_whole(text: str, expected: str) -> None:
    assert final_answer(text) == expected


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
    "_a" * 99 + "=8", "8" + "-8" * 140, "8" + "x8" * 140, "8" + ":8" * 140, "8e" + "9" * 290,
    r"8\times10^{" + "9" * 280 + "}", "8 and " * 49 + "9",
    "8 to " * 58 + "9", "8 m " * 70, "(" + "a " * 140 + ")", "$8" * 140, "yes, " * 59, "it is " * 49, r"\sqrt{8} m s " * 22, "8 per " * 49,
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
