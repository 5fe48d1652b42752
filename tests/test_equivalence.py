"""Whether two answers mean the same: the forms of a right answer, tolerance, and what is loaded to decide it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# --- what looks like arithmetic and is none ---

TIMES = [
    ("3:30", "3:30 PM"), ("3:30 PM", "3:30"), ("3:30", "03:30"), ("3:30 PM", "15:30"), ("15:30", "3:30 p.m."),
    ("3:30 PM", "3:30 in the afternoon"), ("3:30", "3:30:00"), ("0:30", "12:30 AM"), ("noon", "12:00 PM"), ("3 PM", "3pm"),
    ("3:00", "3 o'clock"), ("3:30", "half past three"), ("3:45", "a quarter to 4"), ("2:10", "10 past 2"), ("1:50", "ten to two"),
    ("10:10", "at 10:10"), ("3", "3 PM"), ("3:30-4:30", "3:30 PM to 4:30 PM"), ("9:00-17:00", "9:00 AM - 5:00 PM"),
]  # fmt: skip
OTHER_TIMES = [
    ("2:10", "4:20"), ("2:10", "1:5"), ("10:10", "1"), ("1", "10:10"), ("3:30", "3.5"), ("3:30", "0.1"), ("3:30 AM", "3:30 PM"),
    ("3:30 AM", "15:30"), ("15:30", "3:30"), ("3 PM", "3 AM"), ("noon", "midnight"), ("3:30", "3:31"), ("3:30", "3:30:15"),
    ("3:30", "3:30 or 4:30"), ("3:30", "3:30, 4:30"), ("2:10", "2-10"), ("11:55", "5 to 12"), ("2:58", "two to three"),
    ("3:30", "about 3:30"), ("12:05", "12:5"),
    ("3:30-4:30", "3:30-5:30"), ("3:30-4:30", "4:30-3:30"), ("3:30-4:30", "3:30"),
]  # fmt: skip
DATES = [
    ("2020-01-05", "January 5, 2020"), ("2020-01-05", "5 January 2020"), ("2020-01-05", "2020/1/5"), ("1/2/2020", "01/02/2020"),
    ("13/1/2020", "2020-01-13"), ("5.1.2020", "5/1/2020"), ("Jan 5, 2020", "January 5th, 2020"), ("July 4th", "the 4th of July"),
    ("January 2020", "Jan 2020"), ("2020", "in 2020"),
]  # fmt: skip
OTHER_DATES = [
    ("2020-01-05", "2014"), ("2014", "2020-01-05"), ("2020-01-05", "2020-05-01"), ("1/2/2020", "2/1/2020"), ("1/2/2020", "1/4040"),
    ("2020-01-05", "1/5/2020"), ("January 5", "January 6"), ("January 5, 2020", "January 5, 2021"), ("12/25", "25/12"),
]  # fmt: skip
SEQUENCES = [
    ("3-2", "3 - 2"), ("3-2", "3–2"), ("3-2", "3—2"), ("3-2", r"3\text{-}2"), ("3-2", "$3-2$"), ("10-20", "10 to 20"), ("10-20", "10--20"),
    ("10-20", "between 10 and 20"), ("10 to 20", "from 10 to 20"), ("10-20 cm", "10 cm to 20 cm"), ("10-20 cm", "10-20"),
    ("$10-$20", "$10 to $20"), ("1939-1945", "1939–1945"), ("5-10 years", "5 to 10 years"), ("1920x1080", "1920 × 1080"),
    ("1920x1080", "1920 x 1080"), ("1920x1080", "1920 by 1080"), ("1920x1080", r"1920 \times 1080"), ("1920x1080", "1920*1080"),
    ("10 cm x 20 cm", "10 x 20 cm"), ("2x3x4", "2 × 3 × 4"), ("4x4", "4x4 grid"), ("1:2", "1 : 2"), ("1:2", "1 to 2"), ("1:2", "1/2"),
    (r"\frac12", "1:2"), ("3:16", r"\frac{3}{16}"), ("1:2:3", "1 : 2 : 3"), ("1:50,000", "1:50000"), (r"6:\pi", r"6/\pi"),
]  # fmt: skip
OTHER_SEQUENCES = [
    ("1", "3-2"), ("3-2", "1"), ("1", "(3-2)"), ("1", r"3\text{-}2"), ("1", "3 - 2"), ("1", "2.5-1.5"), ("3-2", "2-3"), ("3-2", "4-3"),
    ("10-20", "15"), ("10-20", "-10"), ("-10", "10-20"), ("10-20", "20-10"), ("10-20", "10"), ("10-20", "10 or 20"), ("10-20", "10, 20"),
    ("10-20 cm", "10-20 m"), ("$10-$20", "€10-€20"), ("555-1234", "-679"), ("1920x1080", "1080x1920"), ("1920 × 1080", "1080 × 1920"),
    ("1920x1080", "2073600"), ("12", "3x4"), ("12", r"3 \times 4"), ("3x4", "12"), ("2x3x4", "24"), ("10 x 20 cm", "10 x 20 m"),
    ("1:2", "2:4"), ("2:1", "4:2"), ("2:1", "2"), ("2", "2:1"), ("3:1", "1:3"), ("2:1", "1/2"), ("1:2", "0.5"), ("2.04", "1.2.3"),
]  # fmt: skip
ARITHMETIC = [
    ("5", "2+3"), ("2", "6/3"), ("5/7", "0.714286"), ("6", r"2\cdot3"), ("99999", "10^5-1"), ("0.5", r"1-\frac{1}{2}"),
    (r"2\sqrt{3}-1", r"-1+2\sqrt{3}"), ("3x-2", "-2+3x"), ("3m-2", "-2+3m"), ("17-3a", "-3a+17"), (r"1:\sqrt{3}", r"\sqrt{3}:3"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), TIMES + DATES + SEQUENCES + ARITHMETIC)
def test_same_time_date_or_sequence(gold: str, answer: str) -> None:
    assert check_answer(f"<answer>{answer}</answer>", gold, strict=True)


@pytest.mark.parametrize(("gold", "answer"), OTHER_TIMES + OTHER_DATES + OTHER_SEQUENCES)
def test_times_dates_and_sequences_are_not_computed(gold: str, answer: str) -> None:
    assert not check_answer(f"<answer>{answer}</answer>", gold)
    assert not answers_match(answer, gold, tolerance=0.05)


# --- units ---

SAME_UNITS = [
    ("50", "50 km/h"), ("50 km/h", "50"), ("50 km/h", "50 kph"), ("50 km/h", "50km/h"), ("50 km/h", "50 kilometres per hour"),
    ("10 km/h", r"10\ \frac{\text{km}}{\text{h}}"), ("60 mph", "60 miles an hour"),
    ("€5", "EUR 5"), (r"6\pi", r"6\pi\text{ units}"), ("10 m/s", r"10\ \mathrm{m\,s^{-1}}"),
    ("10 m^2", "10 m²"), ("10 m^2", "10 sq m"), ("10 m^2", "10 square metres"), ("5 cm³", "5 cubic centimeters"), ("18 cm2", "18 cm^2"),
    ("18 cm^2", r"18 \text{cm}^2"), ("5 kg/m^3", "5 kg/m³"), ("100 sq ft", "100 ft^2"), ("5 L/100km", "5 litres per 100 km"),
    ("€18.50", "18.50"), ("18.50", "€18.50"), ("€5", "5 euros"), ("$5", "5 dollars"), ("$5", "US$5"), ("$5", r"\$5.00"), ("£5", "5 pounds"),
    ("5 lb", "5 pounds"), ("75", "75°"), ("75°F", "75 degrees Fahrenheit"), ("75°F", "75°"), ("100 km", "100 kilometers"),
    ("10 KM", "10 km"), ("5 ft", "5 feet tall"), ("12 cm", "12 (cm)"), ("30 min", "30 minutes"), ("3 mugs",
    "3 red mugs"), ("3", "three mugs"),
    (r"6\pi cm", r"6\pi"), (r"6\pi", r"6\pi cm"), (r"6\pi cm", "6π cm"), (r"6\pi cm^2", r"6\pi\text{cm}^2"), (r"6\pi cm^2", "6π sq cm"),
    (r"6\pi cm", "18.8496 cm"), (r"2\sqrt{3} m", r"\sqrt{12}\ \text{m}"),
]  # fmt: skip
OTHER_UNITS = [
    ("12 cm", "12 m"), ("50 km/h", "50 mph"), ("50 km/h", "50 km"), ("50 km/h", "50 m/s"), ("10 m/s", "10 m"), ("5 m/s^2", "5 m/s"),
    ("10 m^2", "10 m^3"), ("5 cm³", "5 cm"), ("5 kg/m^3", "5 kg"), ("5 L/100km", "5 L"), ("€5", "$5"), ("$5", "£5"), ("$5", "5 cents"),
    ("5 lb", "£5"), ("75°F", "75°C"), ("45°", "45 cm"), ("5%", "5 cm"), ("5 mW", "5 MW"), ("2 GB", "2 MB"), ("5 hours", "5 minutes"),
    ("12 apples", "12 cm"), ("3 red mugs", "3 red cups"), ("3 red mugs", "3 blue mugs"), ("5 m", "5 m or cm"), (r"6\pi cm", r"6\pi cm^2"),
    (r"6\pi cm", r"6\pi m"), (r"6\pi cm", "18.8496 m"), (r"2\sqrt{3} m", r"2\sqrt{3} cm"), ("7", "7 C"), ("10", "10h"),
    ("7", "7 is too small"), ("7", "7 if red"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME_UNITS)
def test_a_unit_may_be_left_out_or_spelled_otherwise(gold: str, answer: str) -> None:
    assert check_answer(f"<answer>{answer}</answer>", gold, strict=True)


@pytest.mark.parametrize(("gold", "answer"), OTHER_UNITS)
def test_a_unit_may_not_be_replaced(gold: str, answer: str) -> None:
    assert not check_answer(f"<answer>{answer}</answer>", gold)


# --- ways to write a number ---

NUMBERS = [
    *(("1000", number) for number in ["1{,}000", r"1\,000", r"1\;000", r"1\ 000", "1 000", "1\u2009000", "1\u202f000",
    r"1,\!000", "1'000"]),
    ("1234567", "1 234 567"), ("1234567", r"1{,}234{,}567"), ("1000.5", r"1\,000.5"), (r"1000\pi", r"1{,}000\pi"),
    ("1000 km", r"1\,000\text{ km}"),
    ("(1000, 2)", "(1{,}000, 2)"),
    *(("1500", number) for number in ["1.5e3", "1.5E+03", r"1.5\times10^3", "1.5×10^{3}", "1.5 × 10³", r"1.5\cdot 10^3", "1.5 x 10^3"]),
    ("0.0015", r"1.5\times 10^{-3}"), ("0.0015", "1.5 × 10⁻³"), ("100000", "10^5"), (r"3\times10^8 m/s", "300000000 m/s"),
    ("0.5", "½"), (r"\frac12", "½"), ("1.5", "1½"), ("2.5", "2 ½"), ("3.75", "3¾"), ("1/3", "⅓"), ("½ cup", "0.5 cups"), ("1/2", "1⁄2"),
    ("x^2", "x²"), ("2^{10}", "2¹⁰"), (r"2\sqrt{3}", "2√3"), ("13", "thirteen"),
]  # fmt: skip
OTHER_NUMBERS = [
    ("78", "7 8"), ("1000", "10 00"), ("1", "1,000"), ("7", "7 000"), ("3.141", "3{,}141"), ("1500", "1.5e4"), ("1500", "1.5"),
    (r"3\times10^8 m/s", r"3\times10^8 km/s"), ("7", "7e999999999"), ("7e999999999", "7"), ("7",
    r"7\times10^{99999999}"), ("1e400", "1e401"),
    ("½", "1/3"), ("1½", "1/2"), ("2", "two hundred"), ("1", "one half"), ("2", "two or three"), ("7", "7e"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), NUMBERS)
def test_same_number(gold: str, answer: str) -> None:
    assert check_answer(f"<answer>{answer}</answer>", gold, strict=True)


@pytest.mark.parametrize(("gold", "answer"), OTHER_NUMBERS)
def test_other_number(gold: str, answer: str) -> None:
    assert not check_answer(f"<answer>{answer}</answer>", gold)


# --- answers in words ---

WORDS = [
    ("yes", "Yes, there are more people than bicycles."), ("no", "No, it isn't"), ("no", "No, there is no dog."), ("yes", "Yes it is"),
    ("yes", "Yes — there are more"), ("yes", "Yes. The dog is brown."), ("true", "True, because there is a dog"),
    ("false", "False, there is no dog"), ("true", "The statement is true."),
    ("left", "on the left"), ("left", "to the left"), ("left", "left side"), ("left", "on the left-hand side"), ("on the left", "left"),
    ("left", "The cup is on the left."), ("kitchen", "in the kitchen"), ("New York", "in New York"),
    ("a dog and a cat", "dog and cat"), ("a dog and a cat", "cat and dog"), ("dog, cat and bird", "cat, dog, and bird"),
    ("dog and cat", "dog & cat"), ("2 and 3", "3, 2"), ("7/2, 5", "5, 3.5"), ("man on the bench", "man on a bench"),
    ("Bob", "Bob (181 cm)"), ("Bob", "Bob (the tallest)"), ("Bob", "The tallest is Bob (181 cm)."),
    ("brown", "it is brown"), ("brown", "The mug is brown."), ("brown", "It's brown"), ("dog", "This is a dog."), ("dog", "There is a dog"),
    ("stop", 'The sign says "STOP"'), ("3", "3 red mugs"), ("3", "three"),
]  # fmt: skip
OTHER_WORDS = [
    ("yes", "No, it isn't"), ("no", "Yes, there are."), *((gold, "Yes and no") for gold in ("yes", "no")), ("yes", "Yes, no, maybe"),
    ("yes", "Yes, maybe"), ("yes", "Yes, but no"), ("yes", "Yes. No."), ("no", "No. Actually yes"), ("yes",
    "Yes, it is not"), ("yes", "Yes?"),
    ("no", "No idea"), ("no", "No, I am not sure"), ("no", "No-one"), ("no", "No. 1"), ("true", "The statement is not true."),
    ("yes", "Yes, the answer is no"), ("no", "No, or yes"),
    ("left", "on the right"), ("left", "left and right"), ("left", "not left"), ("left", "on the left or on the right"),
    ("on the table", "under the table"), ("on the table", "in the table"),
    ("a dog and a cat", "a dog"), ("a dog", "a dog and a cat"), ("a dog and a cat", "a dog or a cat"), ("dog and cat", "dog and maybe cat"),
    ("dog and cat", "dog and cat and bird"), ("2", "2 and 3"),
    *(("Bob", f"Bob ({note})") for note in ["or Al", "Al", "maybe Al", "not Al", "Al?", "and Al", "it is Al", "alternatively Al"]),
    ("Bob", "Al (Bob)"), ("Bob", "Bob (181 cm), Al"), ("7", "7 (8)"),
    ("brown", "It is not brown"), ("brown", "It is brown or red"), ("brown", "It is brown and red"), ("brown",
    "The red or blue mug is brown"),
    ("brown", "The brown mug is red"), ("brown", "It might be brown"), ("brown", "If red is wrong, it is brown"),
    ("dog", "There is no dog"),
    ("42", "about 42"), ("light blue", "blue"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), WORDS)
def test_what_changes_nothing_may_be_added(gold: str, answer: str) -> None:
    assert check_answer(f"<answer>{answer}</answer>", gold, strict=True)
    assert check_answer(rf"\boxed{{{answer}}}", gold, strict=True)


@pytest.mark.parametrize(("gold", "answer"), OTHER_WORDS)
def test_what_changes_the_answer_may_not(gold: str, answer: str) -> None:
    assert not check_answer(f"<answer>{answer}</answer>", gold)


@pytest.mark.parametrize(
    ("answer", "index"), [("The mug is brown.", 1), ("it is red", 0), ("brown and red", 2), ("red and brown", 2), ("red or brown", None)]
)
def test_a_statement_may_name_one_choice(answer: str, index: int | None) -> None:
    choices = ["red", "brown", "red and brown"]
    assert [answers_match(answer, gold, choices) for gold in "ABC"] == [i == index for i in range(3)]


def test_what_two_choices_mean_names_none() -> None:
    assert not any(answers_match("10", gold, ["10 cm", "10 m", "12 m"]) for gold in "AB")
    assert answers_match("12", "C", ["10 cm", "10 m", "12 m"])


@pytest.mark.parametrize(("answer", "same"), [("crimson", True), ("Red", True), ("3", True), ("blue", False), ("red or crimson", False)])
def test_several_golds_are_of_equal_standing(answer: str, same: bool) -> None:
    assert answers_match(answer, ("red", "crimson", "three")) == same
    assert check_answer(f"<answer>{answer}</answer>", ["red", "crimson", "three"], strict=True) == same
    assert not answers_match(answer, ())


PIECES = [
    "3", "4", "3:30", "10-20", "3x4", "yes", "no", "dog", "cat", "left", "right", "5 cm", "5 m", "€6", "$6",
    r"6\pi cm", r"6\pi m", "Bob", "Al",
    " or ", " and ", ", ", " (", ")", "not ", "It is ", "There are ", "Yes, ", "No, ", " to ", "-", ":", "x", "/",
    " cm", " m", " PM", " AM",
    "$", "on the ", "a ", "=", r"\times ", "10^3", "e3", r"\,", "{,}", " ", "\n", "½", "half past ", "three",
]  # fmt: skip
APART = ["3", "4", "yes", "no", "dog", "cat", "left", "right", "3-4", "4-3", "3x4", "4x3", "2:10", "4:20", "1500", "1 or 2", "red"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_no_answer_means_two_golds(answer: str) -> None:
    for response in (answer, f"<answer>{answer}</answer>"):
        assert sum(check_answer(response, gold) for gold in APART) <= 1
    for one, other, shared in [("5 cm", "5 m", "5"), ("€6", "$6", "6"), ("3:30 AM", "3:30 PM", "3:30"), (r"6\pi cm", r"6\pi m", r"6\pi")]:
        if answers_match(answer, one) and answers_match(answer, other):
            assert answers_match(answer, shared)  # nothing is said of what sets them apart


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


@pytest.mark.parametrize(
    (("answer", "gold")), [("5=5", "7=7"), ("=", "["), ("[", "="), ("x =", "y ="), ("0.5", "9" * 400), ("9" * 400, "0.5")]
)
def test_empty_equations_and_endless_numbers_match_nothing_else(answer: str, gold: str) -> None:
    assert not answers_match(answer, gold, tolerance=0.1)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("B", "Ｂ"), ("B", "（B）"), ("café", "cafe\u0301"), ("stop", "STOP!"), ("stop", "“stop”"), ("3.5", "３．５"), ("it's", "it’s")],
)
def test_signs_that_look_alike_are_alike(gold: str, answer: str) -> None:
    assert answers_match(answer, gold)
    assert answers_match(gold, answer)


def test_an_exclamation_mark_behind_a_number_is_a_factorial() -> None:
    assert not answers_match("5!", "5")
