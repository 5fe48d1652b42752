"""What the built-in reader takes for a fact: things, writing, names; and what it does not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.annotate import Asked
from labeling.facts import Fact
from labeling.readers.spelling import plain
from labeling.rules import RULES_VERSION, RuleAnnotator, facts_of, named_by

REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mathvision" / "rows.jsonl"


def _said(text: str) -> list[tuple[str, str]]:
    return [(f.kind, f.phrase) for f in facts_of(text)]


def _written(text: str) -> list[str]:
    return [f.phrase for f in facts_of(text) if f.kind in ("text", "measure")]


@pytest.mark.parametrize(
    ("latex", "spelled"),
    [
        (r"$48^\circ$", "48°"),
        (r"$90^{\circ}$ and 45\degree", "90° and 45°"),
        (r"$10 \mathrm{~km}$", "10  km"),
        (r"5 \text{ cm}", "5  cm"),
        (r"\frac{1}{2}, \frac12, 7\frac{1}{2}", "1/2, 1/2, 7 1/2"),
        (r"\overline{AB} \perp \triangle P_{1}Q", "AB ⊥ △ P1Q"),
        (r"$\angle A B C$", "∠ ABC"),
        (r"A B C", "A B C"),
        (r"$x^2 + 10^{23}$", "x² + 10²³"),
        ("it costs $5 and my_file is __init__", "it costs 5 and my_file is __init__"),
        ("no LaTeX {here}", "no LaTeX here"),
        ("a  lot\n\n\n of   space", "a lot\n\nof space"),
    ],
)
def test_latex_is_spelled_plainly(latex: str, spelled: str) -> None:
    assert " ".join(plain(latex).text.split(" ")) == spelled


@given(st.text(alphabet="ab1 $\\{}^_~frctext\n", max_size=80))
def test_every_plain_sign_knows_where_it_is_from(text: str) -> None:
    spelled = plain(text)
    assert len(spelled.text) == len(spelled.starts) == len(spelled.ends) == len(spelled.math)
    pairs = zip(spelled.starts, spelled.ends, strict=True)
    assert all(0 <= a <= b <= len(text) for a, b in pairs)
    assert spelled.starts == sorted(spelled.starts)


def test_a_quote_is_the_traces_own() -> None:
    trace = r"Here $\angle ABC = 48^\circ$, $\overline{AB}$ is $10 \mathrm{~km}$ long."
    facts = list(facts_of(trace))
    assert [f.quote for f in facts] == [
        r"\angle ABC",
        r"48^\circ",
        r"\overline{AB}",
        r"10 \mathrm{~km}",
    ]
    assert all(trace[f.start : f.end] == f.quote for f in facts)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ('The sign says "Tea" and the clock showed 10:20.', ["Tea", "10:20"]),
        (r"$AB = 5$ and $\angle ACB = 38^\circ$.", ["AB", "5", "angle ACB", "38°"]),
        (r"In $\triangle PQR$, point $P$ is at (2, 4).", ["triangle PQR", "point P", "(2, 4)"]),
        ("The truck must be less than 325 cm wide.", ["325 cm"]),
        ("The legs are 5 and 12.", ["5", "12"]),
        ("Circle 1 is connected to circle 3.", ["1", "3"]),
        ("In shape A, the sides are equal. P has a hook.", ["A", "P"]),
        ("The total is:\n$$12 + 16 + 20 = 48$$", ["12", "16", "20"]),
        ("The number of students who preferred spaghetti is high.", ["spaghetti"]),
        (r"two parts, $P_{1}$ and $P_{2}$", ["P1", "P2"]),
        ("WXYZ is a square.", ["WXYZ"]),
        ("The number 7 and the letter A are shown.", ["number 7", "letter a"]),
    ],
)
def test_writing_is_read(text: str, phrases: list[str]) -> None:
    assert _written(text) == phrases


@pytest.mark.parametrize(
    "text",
    [
        "So the length is 10 km. Therefore it is 5 cm wide.",
        r"The area is $24^2 = 576 \mathrm{~cm}^2$.",
        r"\boxed{10 \mathrm{~km}} <answer>5 cm</answer> The answer is (C).",
        r"$\angle AXB = 180^\circ - 2\alpha$ minus the rest",
        r"with $P = 5s$",
        "(A)",
    ],
)
def test_results_are_no_readings(text: str) -> None:
    assert [p for k, p in _said(text) if k == "measure" or p.startswith("(")] == []


@pytest.mark.parametrize(
    "text",
    [
        "Taking the square root, squared, of a perfect square.",
        "Its area is 24 square units, or 5 square cm.",
        "The cube root of a round number, an even number.",
        "The dot product, the decimal point, a line of reasoning, at face value.",
        "In the figure, the image and the picture.",
    ],
)
def test_a_noun_may_name_nothing_to_be_seen(text: str) -> None:
    assert _said(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Option (A) has 6 crosses.",
        "Consider a square.",
        "Suppose there is a circle.",
        "Let ABC be a triangle.",
        "If we draw a line, it would be a red triangle.",
        "A triangle has three sides.",
        "A trapezoid is a quadrilateral with a pair of parallel sides.",
        "The area of a circle is given by its radius.",
        "Imagine a blue ball.",
        "For example, a cone would be good.",
        "I cannot see the image of the red circle.",
        "Without the image, I do not have access to a red ball.",
        "I'm sorry, but I am unable to view the diagram of a cube.",
        "So it is a circle. The answer is the square.",
    ],
)
def test_what_is_no_observation_is_no_fact(text: str) -> None:
    assert _said(text) == []


def test_not_to_see_a_thing_is_no_refusal() -> None:
    assert _said("I cannot see a red star.") == [("absence", "")]


def test_what_precedes_a_supposition_is_seen() -> None:
    said = _said("There is a red circle, and if we draw a line, a square.")
    assert said == [("object", "red circle")]


def test_a_supposition_about_a_name_leaves_the_name() -> None:
    written = _written("If triangle ABC is right-angled, it is half of the square.")
    assert written == ["triangle ABC"]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Two red mugs and a coffee cup.", ["red mug", "cup"]),
        ("There are three children with umbrellas.", ["child", "umbrella"]),
        ("A square sheet of paper and a square of side 3.", ["square", "sheet", "square"]),
    ],
)
def test_everyday_nouns(text: str, phrases: list[str]) -> None:
    assert [p for k, p in _said(text) if k in ("object", "count")] == phrases


def test_what_is_written_is_stated_once() -> None:
    annotated = RuleAnnotator().annotate([Asked("", "Angle ABC is big. Angle ABC is 48°.")])[0]
    assert isinstance(annotated.facts, tuple)
    assert [f.phrase for f in annotated.facts] == ["angle ABC", "48°"]
    assert RuleAnnotator().info().name == RULES_VERSION


@pytest.mark.parametrize(
    "bit",
    ["red ", "no circle ", " ", "\n", "\n ", "A, ", "1 + ", "AB = ", "$", "{", "\\frac{", "1,",
     "\\boxed{1}", "<answer>", "[asy]", "```", '"', "angle ", "number 1 and ", "let x ", "AB "],
)  # fmt: skip
def test_long_traces_take_no_time(bit: str) -> None:
    trace = "a red" + bit * (64_000 // len(bit))
    start = time.process_time()
    list(facts_of(trace))
    assert time.process_time() - start < 10


@given(st.lists(st.sampled_from([*"AB1=+-(),.$\n ", "∠", "°", "cm", "red circle", "so", "if"])))
def test_quotes_are_exact(bits: list[str]) -> None:
    trace = "".join(bits)
    facts: list[Fact] = list(facts_of(trace))
    assert all(trace[f.start : f.end] == f.quote != "" for f in facts)
    assert facts == list(facts_of(trace))


@pytest.mark.skipif(not REAL.exists(), reason="no data")
def test_real_traces_have_sane_facts() -> None:
    with REAL.open() as file:
        traces = [t["text"] for line in file for t in json.loads(line)["traces"]]
    facts = [(trace, fact) for trace in traces for fact in facts_of(trace)]
    assert all(trace[f.start : f.end] == f.quote for trace, f in facts)
    assert all("\\" not in f.phrase and "$" not in f.phrase for _, f in facts)
    assert sum(f.kind in ("text", "measure") for _, f in facts) > 1000


PICTURES = ("A", "B", "C", "D")


def test_the_picture_that_is_picked_is_a_fact() -> None:
    asked = Asked("Which is it?", "It has no corner. The answer is (C).", "C", PICTURES)
    (fact,) = RuleAnnotator().annotate([asked])[0].facts
    assert (fact.kind, fact.phrase, fact.quote) == ("text", "letter C", "C")
    assert (fact.role, fact.by) == ("evidence", "question")
    assert asked.trace[fact.start : fact.end] == fact.quote


def test_the_picture_that_is_picked_is_named_once() -> None:
    asked = Asked("Which is it?", "Picture C shows a star. The answer is (C).", "C", PICTURES)
    facts = RuleAnnotator().annotate([asked])[0].facts
    assert [f.role for f in facts if f.phrase.lower().strip("()") in ("c", "letter c")] == ["evidence"]


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("What color is the large star?", ["large star"]),
        (r"Let $x$ be the length of $\overline{AB}$. If $\angle C = 48^\circ$, what is $x$?", ["AB", "C", "48°"]),
        ("He starts at point A, goes over bridge 1 and finishes at point B.", ["point A", "bridge", "1", "point B"]),
        (r"Each has a radius of $2 \mathrm{~cm}$ or $4 \mathrm{~cm}$. What fraction is shaded?", ["2 cm", "4 cm"]),
        ("How many are there in all?", []),
        ("", []),
    ],
)
def test_a_question_names_what_it_is_about(question: str, names: list[str]) -> None:
    named = list(named_by(question))
    assert [fact.phrase for fact in named] == names
    assert all((fact.role, fact.by) == ("evidence", "question") for fact in named)
    assert all(question[fact.start : fact.end] == fact.quote for fact in named)


def test_choices_in_words_are_no_pictures() -> None:
    asked = Asked("Which is it?", "The answer is (C).", "C", ("red", "blue", "green"))
    assert RuleAnnotator().annotate([asked])[0].facts == ()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("I don't see a red square.", ["absence"]),
        ("There isn't any red square here.", ["absence"]),
        ("The image does not contain a circle.", ["absence"]),
        ("There are no circles, squares, or stars.", ["absence"] * 3),
        ("There are zero stars and none of the squares are red.", ["absence", "object"]),
        ("No circles, two stars.", ["absence", "count"]),
        ("Blue bar: 0.75, red bar: 0.5.", ["object", "object"]),
        ("The man is missing a shoe.", ["object", "object"]),
        ("The red square is not in the middle.", ["object"]),
        ("The largest object is not the red circle.", ["object"]),
        ("The axis starts at zero and the blue bar reaches 5.", ["object", "object"]),
        ("Rather than counting the red circles, look at the blue squares.", ["object", "object"]),
        ("A circle rather than a star.", ["object", "absence"]),
        ("The red square is missing.", ["absence"]),
        ("Stars: 0", ["absence"]),
        ("There is no square but a blue circle is there.", ["absence", "object"]),
        ("Without text it shows a red circle.", ["object"]),
        ("There is no doubt that a red circle is there.", ["object"]),
        ("No circle, a star.", ["absence", "object"]),
    ],
)
def test_what_is_denied_is_absent_and_nothing_else(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in _said(text)] == kinds


@pytest.mark.parametrize(
    "text",
    [
        "How many red squares are there?",
        "The question asks how many red squares are left.",
        "Perhaps there is a red square.",
        "At first I thought of a red square.",
        "\nA. 6 squares\nB. 5 squares\nC. 4 squares",
        "The choices are a red circle and a star.",
        "Angles add up to 180° in total.",
        "Then AB must be 10 cm.",
        "1 m = 100 cm",
        "Half of this is 4 cm.",
        "Connect OA.",
        "NOTE: FINAL.",
        "We circle back to the key role.",
        "Cross out both; square both sides.",
        "The non-red circles",
    ],
)
def test_what_nobody_claims_is_no_fact(text: str) -> None:
    assert [phrase for _, phrase in _said(text) if phrase not in ("AB",)] == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("2.5 squares", ["square"]),
        ("a 45-45-90 triangle", ["triangle"]),
        ("AB is not 5 cm but 7 cm.", ["AB", "7 cm"]),
    ],
)
def test_numbers_are_whole(text: str, phrases: list[str]) -> None:
    assert [phrase for _, phrase in _said(text)] == phrases


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Which is left of the star?\nA. red circle\nB. blue square", ["star"]),
        ("Which is it? (A) a red circle (B) a blue square", []),
        ("Select the letter inside the red circle.", ["letter", "red circle"]),
        ("Choose the option that shows a blue star.", ["blue star"]),
        ("Hint: Please give the correct option letter, e.g., A, B, C, D.\nQuestion: Where is point P?", ["point P"]),
    ],
)
def test_a_questions_options_are_not_what_it_is_about(question: str, names: list[str]) -> None:
    named = list(named_by(question))
    assert [fact.phrase for fact in named] == names
    assert all(question[fact.start : fact.end] == fact.quote for fact in named)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("There is a red circle and a blue star (is it a cross?) in the image.", ["red circle", "blue star"]),
        ("At first glance, there is a red circle.", ["red circle"]),
        ("The rest of the image shows a red circle.", ["red circle"]),
        ("A red circle (maybe orange) is left of a blue star.", ["red circle", "blue star"]),
        ("Looking at the image we get a red circle.", ["red circle"]),
        ("A. The red circle is at the top.\nB. The blue star is below it.", ["red circle", "blue star"]),
        ("At first there is a red circle, then a blue star.", ["red circle", "blue star"]),
        ("The image:\nA. There is a red circle.\nB. There is a blue star.", ["red circle", "blue star"]),
        ("The arrow ends at point\nB. It points to the red star.", ["arrow", "point", "red star"]),
    ],
)
def test_what_is_seen_is_a_fact_whatever_stands_around_it(text: str, phrases: list[str]) -> None:
    assert [phrase for kind, phrase in _said(text) if kind == "object"] == phrases


def test_a_segment_may_spell_a_word() -> None:
    assert _written("BE is perpendicular to AC, and CD to AN.") == ["BE", "AC", "CD", "AN"]
