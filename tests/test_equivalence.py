"""Whether two answers mean the same: the forms of a right answer, tolerance, and what is loaded to decide it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rewardlib.answers import check_answer
from rewardlib.equivalence import answers_match

LENGTHS = ["10 cm", r"$20 \mathrm{~cm}$", "30 cm", "It cannot be determined."]

# --- forms of a right answer ---

LETTER_FORMS = [
    "B", "b", "(B)", "(b)", "B.", "B)", "B:", r"\text{B}", r"\mathrm{(B)}", r"\textbf{B.}", "**B**", "$B$", "Option B", "The answer is B",
]  # fmt: skip
TEXT_FORMS = [
    "20 cm", "20cm", "20", "20.0 cm", "20 centimeters", r"20\,\text{cm}", "B: 20 cm", "(B) 20 cm", "**B**: 20 cm", r"\text{(B)}\quad 20",
]  # fmt: skip
SAME = [
    ("4", "4.0"), ("1,000", "1000"), ("-7", "−7"), ("three", "3"), ("x = 3", "3"), (r"\angle ABC = 40^\circ", "40"),
    ("0.5", r"\frac{1}{2}"), (r"\dfrac12", "1/2"), (r"5\frac{1}{2}", "5.5"), ("5 1/2", "11/2"), ("0.33333", "1/3"),
    (r"25\%", "25%"), ("25", "25%"), ("0.25", "25%"), ("25 percent", "0.25"),
    (r"69^\circ", "69{degrees}"), ("69", r"$69^{\circ}$"), ("69 degrees", "69"),
    ("21 jumps", "21"), (r"18 \text{ cm}^2", r"$18 \mathrm{~cm}^{2}$"), ("18 square centimetres", "18 cm^2"), ("24 square units", "24"),
    (r"\$18.90", "$18.90"), (r"\frac{144}{49}", r"$\boxed{\frac{144}{49}}$"), ("(10,0)", "(10 ; 0)"), ("-2, 3", "3, -2"), ("1:2", "1 : 2"),
    (r"72\sqrt{2}+72", r"72+72\sqrt{2}"), (r"\frac{1}{\sqrt{6}}", r"$\frac{\sqrt{6}}{6}$"), (r"6/\pi", r"$6:\pi$"), ("2^{10}", "1024"),
    (r"12\pi \text{ cm}^2", r"12\pi"), ("3.1416", r"\pi"), ("w^2+2wh", "2wh+w^2"), ("(x-1)(x+1)", "x^2-1"), ("y=x^2", "$y = x^{2}$"),
    ("True.", "true"), ("YES", "yes"), ("false", "False"), ("the dog", "Dog"), ("carol", "Carol"), ("2h 48m", "2h 48m"),
]  # fmt: skip


@pytest.mark.parametrize("wrapper", ["<answer>{}</answer>", r"so \boxed{{{}}}.", r"<think>no</think><answer>\boxed{{{}}}</answer>"])
@pytest.mark.parametrize("form", LETTER_FORMS + TEXT_FORMS)
def test_choice_forms(form: str, wrapper: str) -> None:
    assert check_answer(wrapper.format(form), "B", LENGTHS, strict=True)
    assert not check_answer(wrapper.format(form), "A", LENGTHS, strict=True)


@pytest.mark.parametrize("form", LETTER_FORMS)
def test_letter_forms_without_choices(form: str) -> None:
    assert answers_match(form, "B")
    assert not answers_match(form, "A")


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_same_value(answer: str, gold: str) -> None:
    assert answers_match(answer, gold)


@pytest.mark.parametrize("answer", ["B", "20 cm", r"\boxed{20}"])
def test_gold_may_be_the_choice_text(answer: str) -> None:
    assert answers_match(answer, "20 cm", LENGTHS)
    assert not answers_match(answer, "30 cm", LENGTHS)


def test_a_choice_text_may_contain_hedging_words() -> None:
    assert answers_match("It cannot be determined", "D", LENGTHS)
    assert answers_match("(D) It cannot be determined", "D", LENGTHS)


@pytest.mark.parametrize("text", ["(A) 10 cm (B) 20 cm", "10 cm, 20 cm, 30 cm", "10 cm or 20 cm", "(A) 20 cm", "A cube of 20 cm"])
def test_hacked_choice_texts(text: str) -> None:
    assert not any(check_answer(f"<answer>{text}</answer>", gold, LENGTHS) for gold in "ABCD")


# --- tolerance ---


@pytest.mark.parametrize(("answer", "gold"), [("3.1416", r"\pi"), ("0.33333", "1/3"), ("1000.05 cm", "1000 cm")])
def test_default_tolerance_is_for_rounding(answer: str, gold: str) -> None:
    assert answers_match(answer, gold)
    assert not answers_match(answer, gold, tolerance=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
@pytest.mark.parametrize(("answer", "gold"), [("20200", "20201"), ("100001 m", "100000 m"), ("10^5+1", "10^5"), ("9.99", "10")])
def test_default_tolerance_keeps_integers_exact(answer: str, gold: str, tolerance: float) -> None:
    assert not answers_match(answer, gold)
    assert not answers_match(answer, gold, tolerance=tolerance)


@pytest.mark.parametrize(
    ("near", "far", "gold"),
    [
        ("95", "80", "100"),
        ("95 cm", "80 cm", "100 cm"),
        ("95%", "80%", "100%"),
        ("x = 95", "x = 80", "100"),
        ("-95", "95", "-100"),
        ("0.3", "0.2", "1/3"),
        ("3", "4", r"\pi"),
        (r"\sqrt{99}", r"\sqrt{50}", "10"),
        ("(95, 21)", "(95, 30)", "(100, 20)"),
    ],
)
def test_wider_tolerance(near: str, far: str, gold: str) -> None:
    assert not answers_match(near, gold)
    assert answers_match(near, gold, tolerance=0.1)
    assert not answers_match(far, gold, tolerance=0.1)
    assert check_answer(f"<answer>{near}</answer>", gold, strict=True, tolerance=0.1)
    assert not check_answer(f"<answer>{far}</answer>", gold, strict=True, tolerance=0.1)


NEVER_NEAR = [
    ("dog", "dogs"), ("Carol", "Carola"), ("yes", "no"), ("nine", "ten"), ("95 m", "100 cm"), ("95 or 100", "100"), ("not 100", "100"),
    ("about 100", "100"), ("95x", "100x"), ("x+95", "x+100"), ("95s", "100"), ("B", "A"), ("7 8", "78"), ("95, 100", "100"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), NEVER_NEAR)
def test_tolerance_is_for_numbers_only(answer: str, gold: str) -> None:
    assert not answers_match(answer, gold, tolerance=0.5)


@pytest.mark.parametrize("answer", ["21", "21.0 cm", "20.5 cm", "(C) 21 cm"])
def test_wider_tolerance_never_reaches_another_choice(answer: str) -> None:
    choices = ["10 cm", "20 cm", "21 cm"]
    assert not answers_match(answer, "B", choices, tolerance=0.1)
    assert answers_match("20.0 cm", "B", choices, tolerance=0.1)


# --- cost ---


def test_works_in_threads() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(answers_match, [rf"{n}\sqrt{{2}}" for n in range(2, 6)], [rf"\sqrt{{2}}\cdot{n}" for n in range(2, 6)]))


def test_choice_answers_never_load_sympy() -> None:
    code = "import sys; from rewardlib.equivalence import answers_match; assert answers_match('(b)', 'B', 'ABC')"
    code += "; assert 'sympy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("answer", "gold", "same"), [("B", "20 cm", True), ("20 cm", "B", True), ("B. 20 cm", "B", True), ("10 cm", "B", False)]
)
def test_choices_may_carry_their_own_labels(answer: str, gold: str, same: bool) -> None:
    assert answers_match(answer, gold, ("A. 10 cm", "B. 20 cm", "C. 30 cm")) == same


@pytest.mark.parametrize(("answer", "gold"), [("5=5", "7=7"), ("0.5", "9" * 400), ("9" * 400, "0.5")])
def test_empty_equations_and_endless_numbers_match_nothing_else(answer: str, gold: str) -> None:
    assert not answers_match(answer, gold, tolerance=0.1)
