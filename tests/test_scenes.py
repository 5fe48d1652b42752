"""The shapes world tells the truth about itself."""

from __future__ import annotations

import random

import numpy as np
import pytest

from demo.questions import make_row
from demo.scenes import STRIP_SIZE, make_scene
from labeling import masks
from rewardlib.answers import check_answer


@pytest.mark.parametrize("kind", ["strip", "canvas"])
def test_boxes_are_tight_and_masks_do_not_overlap(kind: str) -> None:
    rng = random.Random(0)
    for _ in range(30):
        scene = make_scene(rng, kind)
        covered = np.zeros((scene.image.height, scene.image.width), int)
        for thing in scene.things:
            assert thing.bbox == masks.bounding_box(thing.mask)
            covered += thing.mask
        assert covered.max(initial=0) <= 1


def test_strips_have_nlvrs_size_and_canvases_the_one_asked_for() -> None:
    rng = random.Random(1)
    assert make_scene(rng, "strip").image.size == STRIP_SIZE
    assert make_scene(rng, "canvas", (120, 90)).image.size == (120, 90)


def test_the_same_seed_draws_the_same_scene() -> None:
    one, other = (make_scene(random.Random(5)) for _ in range(2))
    assert one.image.tobytes() == other.image.tobytes()
    assert [t.name for t in one.things] == [t.name for t in other.things]


def test_traces_are_what_they_say_they_are() -> None:
    rng = random.Random(2)
    for n in range(200):
        row, _ = make_row(rng, str(n))
        assert row["answer"] in row["choices"] or not row["choices"]
        for trace in row["traces"]:
            assert check_answer(trace["text"], row["answer"], row["choices"]) is trace["reported_correct"]
