"""The tasks ask what a board answers, in a way that nobody knows without looking."""

import json
import random
import re

import pytest

from demo.scenes import BOARD_CELL, COLORS, make_scene
from demo.tasks import KINDS, careless_trace, draw, right_trace, write_rows
from labeling.annotate import Asked
from labeling.roles import by_question
from labeling.rules import facts_of


def drawn(task, count=60):
    rng = random.Random(f"tests {task}")
    return [(scene, question) for _ in range(count) for scene, (question,) in [draw(rng, task)]]


def test_objects_of_a_board_have_a_shape_and_a_cell_of_their_own():
    for seed in range(50):
        things = make_scene(random.Random(seed), "board").things
        assert 4 <= len(things) == len({thing.shape for thing in things})
        cells = {tuple(int(side // BOARD_CELL) for side in thing.bbox[:2]) for thing in things}
        assert cells == {tuple(int((side - 1) // BOARD_CELL) for side in thing.bbox[2:]) for thing in things}
        assert len(cells) == len(things)


def answer_of(scene, text):
    """What a board answers, read off its objects and the words of the question alone."""
    text = text.rpartition(". ")[2]
    colors = {thing.shape: thing.color for thing in scene.things}
    shapes = re.findall("|".join(colors), text)
    if text.startswith("What shape"):
        (color,) = re.findall("|".join(COLORS), text)
        (shape,) = [s for s, c in colors.items() if c == color]
        return shape
    if " and the " in text:
        return " and ".join(colors[shape] for shape in shapes)
    named = re.findall("|".join(COLORS), text)
    assert not named or colors[shapes[0]] in named
    return colors[shapes[0]]


@pytest.mark.parametrize("task", KINDS)
def test_the_board_answers_the_question(task):
    for scene, question in drawn(task):
        assert question.answer == answer_of(scene, question.text)
        assert question.wrong != question.answer
        assert set(question.choices) in ({question.answer, question.wrong}, set())


@pytest.mark.parametrize("task", KINDS)
def test_a_right_trace_names_the_evidence_and_nothing_that_is_not_there(task):
    for scene, question in drawn(task):
        named = re.findall(r"There is an? ([a-z]+ [a-z]+)\.", right_trace(scene, question))
        assert set(named) <= {thing.name for thing in scene.things}
        evidence = [thing.name for thing in question.evidence]
        assert named[-len(evidence) :] == evidence
        assert len(named) == len(evidence) + (3 if task == "long" else 0)


@pytest.mark.parametrize("task", ["credit", "faithful"])
def test_neither_answer_is_the_likelier(task):
    first = [question.choices[0] == question.answer for _, question in drawn(task, 300)]
    assert 0.4 < sum(first) / len(first) < 0.6


def test_a_caption_is_true_half_of_the_time():
    true = [f"is {question.answer}." in question.text for _, question in drawn("faithful", 300)]
    assert 0.4 < sum(true) / len(true) < 0.6


@pytest.mark.parametrize("task", KINDS)
def test_the_question_tells_what_is_evidence(task):
    for scene, question in drawn(task, 30):
        facts = [fact for fact in facts_of(" ".join(f"There is a {thing.name}." for thing in scene.things)) if fact.phrase]
        decisions = by_question(Asked(question.text, ""), facts)
        evidence = {fact.phrase for fact, told in zip(facts, decisions, strict=True) if told.role == "evidence"}
        assert evidence == {thing.name for thing in question.evidence}


def test_rows_are_written_as_a_build_reads_them(tmp_path):
    path = write_rows(tmp_path, 5, seed=1, task="credit")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 5
    assert all((tmp_path / row["image"]).exists() for row in rows)
    assert all({"evidence"} <= {region["role"] for region in row["gold_regions"]} for row in rows if row["gold_regions"])
    again = write_rows(tmp_path / "again", 5, seed=1, task="credit").read_text()
    assert again == path.read_text()


def test_who_looks_for_an_offered_color_is_right_half_of_the_time():
    rng = random.Random("luck")
    right = [careless_trace(rng, *pair).endswith(f"<answer>{pair[1].answer}</answer>") for pair in drawn("credit", 400)]
    assert 0.42 < sum(right) / len(right) < 0.58


def test_who_misses_one_of_two_facts_is_wrong():
    rng = random.Random("missed")
    wrong = [not careless_trace(rng, *pair).endswith(f"<answer>{pair[1].answer}</answer>") for pair in drawn("perception", 200)]
    assert sum(wrong) / len(wrong) > 0.9
