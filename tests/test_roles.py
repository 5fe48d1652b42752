"""What is evidence, and what is merely mentioned: by the question, by agreement, and by what erasing does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo.questions import make_row
from labeling import masks
from labeling.annotate import Asked
from labeling.boxes import Detection
from labeling.counterfactual import intervene
from labeling.effect import Effect, Weighed, effect_of, weigh
from labeling.facts import Fact, Kind
from labeling.info import ModelInfo
from labeling.merging import MOST, merge_boxes, same_facts
from labeling.roles import by_agreement, by_answer, by_question
from labeling.rules import facts_of
from pipelines.building.steps import Annotate, Check, Select
from pipelines.dataset.schema import Item, Ledger
from tests.conftest import FakeAnnotator

ASKED = {
    "What shape is the purple object?": {"purple circle": "evidence", "red star": "context", "blue square": "context"},
    "How many yellow squares are there?": {"yellow square": "evidence", "red circle": "context", "square": "unknown"},
    "Which letter is written in the image?": {"letter a": "evidence", "red star": "context"},
    "Which box contains the yellow star: left, middle or right?": {"yellow star": "evidence", "red star": "context"},
    "Is the blue circle larger than the red one?": {
        "blue circle": "evidence",
        "red circle": "evidence",
        "red star": "evidence",
        "green cross": "context",
    },
    "How many objects are there?": {"blue circle": "evidence", "red star": "evidence"},
    "What color is the object left of the star?": {"blue circle": "unknown", "red star": "evidence"},
    "What is the largest small circle worth?": {"small red circle": "evidence", "large red circle": "context", "red circle": "unknown"},
    "How many red, green and blue stars are there?": {
        "red star": "evidence",
        "green star": "evidence",
        "blue star": "evidence",
        "grey star": "context",
    },
    "Are there more red than blue circles?": {"red circle": "evidence", "blue circle": "evidence", "red star": "context"},
    "How many non-red circles are there?": {"blue circle": "evidence", "red circle": "context"},
    "How many light blue squares are there?": {"light blue square": "evidence", "dark blue square": "context"},
    "How many large stars are there?": {"large tall star": "evidence", "small star": "context"},
    "Is the dog next to the couch?": {"dog": "evidence", "sofa": "evidence", "bus": "context"},
    "How many polygons are left of the circle?": {"square": "evidence", "circle": "evidence", "star": "context"},
    "How many books are on the table?": {"book": "evidence", "table": "evidence", "dog": "context"},
    "What color is the car beside the tree?": {"red car": "evidence", "dog": "context"},
    "In the figure, circle (A) and square (B) touch. Which is red?": {"circle": "evidence", "square": "evidence"},
    "Give the number of red circles.": {"red circle": "evidence", "blue circle": "context"},
    "Please answer with one word: what color is the star?": {"red star": "evidence", "dog": "context"},
    "In the figure, how large is the circle?": {"circle": "evidence", "bus": "context"},
    "In the figure, what is the value of x?": {"triangle": "unknown", "bus": "unknown"},
    "Which is left of the star?\nA. red circle\nB. blue square": {"star": "evidence", "red circle": "context"},
    "Which letter is inside the circle?": {"letter b": "unknown", "circle": "evidence"},
    "Why?": {"blue circle": "unknown"},
    "": {"blue circle": "unknown"},
}


def fact(phrase: str, kind: Any = "object", statement: str = "") -> Fact:
    return Fact(kind, statement or f"There is a {phrase}.", phrase, phrase, 0, len(phrase))


@pytest.mark.parametrize("question", ASKED)
def test_the_question_tells_evidence(question: str) -> None:
    roles = ASKED[question]
    decisions = by_question(Asked(question, ""), [fact(phrase) for phrase in roles])
    assert dict(zip(roles, (d.role for d in decisions), strict=True)) == roles


def test_roles_do_not_depend_on_the_order_of_facts() -> None:
    for question, roles in ASKED.items():
        for order in itertools.islice(itertools.permutations(roles), 6):
            decisions = by_question(Asked(question, ""), [fact(phrase) for phrase in order])
            assert {p: d.role for p, d in zip(order, decisions, strict=True)} == roles


def test_a_labels_name_in_the_question_makes_it_evidence() -> None:
    facts = [fact("angle abc", "measure", "Angle ABC is 40 degrees.")]
    named = [Fact("measure", "Angle ABC is marked.", "angle abc", "angle ABC", 0, 9), Fact("text", "It says 5.", "5", "5", 0, 1)]
    assert [d.role for d in by_question(Asked("How large is angle ABC?", ""), named)] == ["evidence", "unknown"]
    assert [d.role for d in by_question(Asked("How large is angle PQR?", ""), facts)] == ["unknown"]


def test_what_all_of_several_right_traces_state_is_evidence() -> None:
    facts = [fact("red star"), fact("blue circle")]
    decisions = by_agreement(facts, [{"t0", "t1"}, {"t0"}], of=2)
    assert [(d.role, d.by) for d in decisions] == [("evidence", "agreement"), ("unknown", "nobody")]
    assert [d.role for d in by_agreement(facts, [{"t0"}, {"t0"}], of=1)] == ["unknown", "unknown"]


def test_the_shapes_worlds_roles() -> None:
    """Every object that the rules call evidence is what the question was made about, and nothing of that is missed."""
    rng = random.Random(5)
    said = true = common = 0
    for n in range(150):
        row, _ = make_row(rng, str(n))
        facts = [f for t in row["traces"] if t["reported_correct"] for f in facts_of(t["text"])]
        decided = {f.phrase: d.role for f, d in zip(facts, by_question(Asked(row["question"], ""), facts), strict=True) if f.phrase}
        evidence = {g["phrase"] for g in row["gold_regions"] if g["role"] == "evidence"}
        named = {g["phrase"] for g in row["gold_regions"]}
        found = {phrase for phrase, role in decided.items() if role == "evidence" and phrase in named}
        said, true, common = said + len(found), true + len(evidence), common + len(found & evidence)
    assert common / said > 0.97
    assert common / true > 0.97


# ------------------------------------------------------------------------------------------ saying the same


def test_facts_of_several_traces_are_one_with_several_quotes() -> None:
    first = [fact("red star", statement="I see a red star."), fact("red star", statement="And a red star."), fact("blue circle")]
    second = [fact("red star", statement="And a red star."), fact("green cross")]
    groups = same_facts([("t0", first), ("t1", second)])
    assert [[trace for trace, _ in group] for group in groups] == [["t0"], ["t0", "t1"], ["t0"], ["t1"]]


def test_facts_about_different_places_are_two() -> None:
    left, right = (fact("red star", statement=f"The {side} box contains a red star.") for side in ("left", "right"))
    assert len(same_facts([("t0", [left]), ("t1", [right])])) == 2
    assert len(same_facts([("t0", [left]), ("t1", [fact("red star")])])) == 1


def test_different_counts_are_two() -> None:
    two, three = (Fact("count", f"There are {n} red stars.", "red star", f"{n} red stars", 0, 5) for n in ("two", "three"))
    assert len(same_facts([("t0", [two]), ("t1", [three])])) == 2
    assert len(same_facts([("t0", [two]), ("t1", [two])])) == 1


def test_boxes_of_a_phrase_that_lie_in_each_other_are_one() -> None:
    bar = [Detection("bar", (0, 0, 20, 100), 0.9), *(Detection("bar", (1, 5 * n, 19, 5 * n + 12), 0.5) for n in range(15))]
    other = Detection("roof", (1, 5, 19, 17), 0.4)
    assert merge_boxes([*bar, other]) == [bar[0], other]
    crowd = [Detection("dot", (10.0 * n, 0, 10.0 * n + 5, 5), 0.9 - n / 1000) for n in range(MOST + 9)]
    assert merge_boxes(crowd) == crowd[:MOST]


def test_a_better_box_speaks_for_its_place() -> None:
    place, beside = (0, 0, 20, 20), (2, 2, 22, 22)
    best = Detection("yellow diamond", place, 0.9)
    wrong = [Detection(phrase, beside, 0.8) for phrase in ("yellow circle", "red diamond", "small red star")]
    right = [Detection(phrase, beside, 0.7) for phrase in ("diamond", "sign", "yellow shape")]
    assert merge_boxes([best, *wrong, *right]) == [best, *right]
    assert merge_boxes([best, Detection("yellow circle", (15, 15, 35, 35), 0.8)])[1:] != []


# ------------------------------------------------------------------------------------------ the steps


def item(**row: Any) -> Item:
    blank = {"id": "a", "question": "", "answer": "red", "alternatives": [], "choices": [], "annotations": [], "regions": []}
    return Item(blank | row, Image.new("RGB", (8, 8)))


def test_an_annotation_has_all_its_quotes() -> None:
    texts = ["I see a red square. The answer is red.", "Now a blue square, a red square. The answer is red."]
    traces = [{"trace_id": f"t{n}", "text": text} for n, text in enumerate(texts)]
    row, ledger = item(traces=traces, question="Which color is the red square?"), Ledger()
    for step in (Check(), Annotate(FakeAnnotator()), Select()):
        assert step.run([row], ledger) == [row]
    red, blue = row.row["annotations"]
    assert (red["trace_id"], [place["trace_id"] for place in red["also"]]) == ("t0", ["t1"])
    assert all(texts[int(p["trace_id"][1])][p["start"] : p["end"]] == p["quote"] for p in (red, *red["also"], blue))
    assert [(a["role"], a["role_by"]) for a in (red, blue)] == [("evidence", "question"), ("context", "question")]
    assert (ledger.counts["annotations"], ledger.counts["facts_stated_again"]) == (2, 1)


# ------------------------------------------------------------------------------------------ effects


class Seeing:
    """Knows the answer as far as it sees red."""

    name = "seeing"

    def __init__(self, noise: float = 0.0) -> None:
        self.noise, self.asked = noise, 0

    def log_probabilities(self, images: Sequence[Image.Image], question: str, choices: Sequence[str], answer: str) -> list[float]:
        self.asked += 1
        seen = [(np.asarray(image) == (255, 0, 0)).all(2).sum() for image in images]
        return [float(count) / 100 for count in seen]

    def info(self) -> ModelInfo:
        return ModelInfo(self.name)


def picture(*boxes: tuple[int, int, int, int]) -> tuple[Image.Image, list[Weighed]]:
    pixels = np.full((60, 90, 3), 200, np.uint8)
    for n, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1] = (255, 0, 0) if n else (0, 0, 255)
    regions = [Weighed(masks.from_box(box, 60, 90), box, "blue" if n == 0 else "red") for n, box in enumerate(boxes)]
    return Image.fromarray(pixels), regions


def test_the_answer_falls_with_its_evidence_and_with_nothing_else() -> None:
    image, regions = picture((5, 5, 15, 15), (60, 30, 70, 40))
    answerer = Seeing()
    blue, red = weigh(answerer, image, "q", (), "a", regions, draws=4, seed="a")
    assert blue == Effect(0, 0, 0)
    assert red is not None
    assert red.fall == pytest.approx(1.0)
    assert red.low > 0.9
    assert answerer.asked == len(regions)  # a batch for each


def test_things_that_stand_in_for_each_other_weigh_together() -> None:
    class SeeingAny(Seeing):
        def log_probabilities(self, images: Sequence[Image.Image], *asked: Any) -> list[float]:
            return [float((np.asarray(image) == (255, 0, 0)).all(2).any()) for image in images]

    image, regions = picture((5, 5, 15, 15), (60, 30, 70, 40), (30, 10, 38, 18))
    _, one, other = weigh(SeeingAny(), image, "q", (), "a", regions, draws=3, seed="a")
    assert one == other == Effect(1.0, 1.0, 1.0, of_group=True)


def test_no_room_for_a_control_means_no_effect() -> None:
    image, regions = picture((0, 0, 90, 60))
    assert weigh(Seeing(), image, "q", (), "a", regions, draws=2, seed="a") == [None]


def test_the_interval_is_students() -> None:
    effect = effect_of([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    assert (effect.fall, effect.low, effect.high) == (2.0, pytest.approx(2 - 4.303 / 3**0.5), pytest.approx(2 + 4.303 / 3**0.5))


def test_context_is_erased_beside_the_evidence() -> None:
    image, regions = picture((5, 5, 15, 15), (12, 12, 30, 30))
    blue, red = ((r.mask, r.bbox) for r in regions)
    made = {m.role: m for m in intervene(image, [blue], [red], fill="mean", shape="mask", seed=0)}
    assert set(made) == {"evidence", "control", "context"}
    assert not (made["evidence"].mask & made["context"].mask).any()
    assert (made["evidence"].mask | made["context"].mask).sum() == (blue[0] | red[0]).sum()
    original = np.asarray(image)
    assert (np.asarray(made["context"].image) == original)[~made["context"].mask].all()


def read(quote: str, kind: Kind = "text") -> Fact:
    return Fact(kind, f"It says {quote}.", quote.lower(), quote, 0, len(quote))


@pytest.mark.parametrize(
    ("quotes", "answer", "trace", "evidence"),
    [
        (["number 50", "END"], "50", "<think>The sign shows the number 50.</think><answer>50</answer>", [0]),
        (["TOTAL 8.70", "Milk 1.20"], "8.70", "At the bottom it says TOTAL 8.70.", [0]),
        (["letter A", "letter B"], "A", "The letter A is on it.", [0]),
        (["main street", "street"], "Main Street", "It reads Main Street.", [0]),
        (["number 508"], "50", "It shows the number 508.", []),
        (["75", "40"], "35", "75 - 40 = 35", []),
        (["5", "3"], "5", "The sides are 5 and 3, so 3 + 2 = 5.", []),  # by chance, perhaps
        (["5"], "5", r"\frac{10}{2} is 5", []),
    ],
)
def test_what_reads_the_answer_is_evidence_where_nothing_is_computed(
    quotes: list[str], answer: str, trace: str, evidence: list[int]
) -> None:
    decisions = by_answer([read(quote) for quote in quotes], Asked("", "", answer), [trace])
    assert [n for n, d in enumerate(decisions) if (d.role, d.by) == ("evidence", "answer")] == evidence
    assert all(d.role == "unknown" for n, d in enumerate(decisions) if n not in evidence)


def test_things_do_not_read_the_answer() -> None:
    assert [d.role for d in by_answer([read("red circle", "object")], Asked("", "", "red"), ["There is a red circle."])] == ["unknown"]


@pytest.mark.parametrize(
    ("question", "answer", "choices", "facts", "evidence"),
    [
        ("What is below the blue circle?", "red star", (), ["red star", "blue circle", "green star"], ["red star"]),
        ("What is the man holding?", "an umbrella", (), ["man", "umbrella", "bus"], ["umbrella"]),
        ("What is it?", "B", ("a bus", "a dog"), ["dog", "bus"], ["dog"]),
        ("Which animal has the red ball?", "dog", (), ["dog", "red ball", "bus"], ["dog"]),
        ("What is the man holding?", "a black umbrella", (), ["man", "umbrella"], ["umbrella"]),
        ("Which bar is the tallest?", "red bar", (), ["red bar", "blue bar"], ["red bar"]),
        ("What is it?\nA. a bus\nB. a dog", "B", (), ["dog", "bus"], ["dog"]),
        ("What is below it?", "a star", (), ["red star", "green star"], []),  # who knows which
        ("What shape is the red thing?", "square", (), ["red square", "blue square"], []),
        ("What color is it?", "red", (), ["red square"], []),
    ],
)
def test_the_thing_that_is_the_answer_is_evidence(
    question: str, answer: str, choices: tuple[str, ...], facts: list[str], evidence: list[str]
) -> None:
    decisions = by_answer([fact(phrase) for phrase in facts], Asked(question, "", answer, choices), [])
    assert [phrase for phrase, d in zip(facts, decisions, strict=True) if (d.role, d.by) == ("evidence", "answer")] == evidence
    by_the_question = by_question(Asked(question, "", answer, choices), [fact(phrase) for phrase in facts])
    named = [d.role for phrase, d in zip(facts, by_the_question, strict=True) if phrase in evidence]
    assert "context" not in named


@pytest.mark.parametrize(
    ("question", "answer", "quote"),
    [
        ("Which is right? (A) 5 (B) 7", "B", "B"),
        ("How many stars are there?", "3", "number 3"),
    ],
)
def test_an_answer_that_is_written_somewhere_may_be_so_by_chance(question: str, answer: str, quote: str) -> None:
    assert by_answer([read(quote)], Asked(question, "", answer), ["It shows that."])[0].role == "unknown"
