"""Overlap and suppression."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.boxes import Detection, iou_matrix, suppress


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 0, 0), (0, 0, 10, 10), 0.0),
    ],
)
def test_iou(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    assert iou_matrix([a], [b])[0, 0] == pytest.approx(expected)


def test_iou_of_nothing_is_empty() -> None:
    assert iou_matrix([], [(0, 0, 1, 1)]).shape == (0, 1)


def _at(phrase: str, score: float, x: float = 0.0) -> Detection:
    return Detection(phrase, (x, 0.0, x + 10, 10.0), score)


def test_the_same_phrase_keeps_its_best_box() -> None:
    assert suppress([_at("square", 0.5, 1), _at("square", 0.9)], 0.7) == [_at("square", 0.9)]


def test_a_general_and_a_special_phrase_share_an_object() -> None:
    both = [_at("black square", 0.9), _at("square", 0.8)]
    assert suppress(both, 0.7) == both


def test_a_much_weaker_phrase_does_not_claim_an_explained_object() -> None:
    assert suppress([_at("black square", 0.9), _at("blue square", 0.4)], 0.7) == [_at("black square", 0.9)]


def test_one_phrase_is_found_in_one_place_once() -> None:
    better, loose = Detection("square", (0, 0, 20, 20), 0.9), Detection("square", (0, 0, 20, 32), 0.8)
    assert iou_matrix([better.bbox], [loose.bbox])[0, 0] == pytest.approx(0.625)
    assert suppress([better, loose], 0.7) == [better]
    assert suppress([better, loose], 0.7, same=0.7) == [better, loose]
    other = Detection("blue square", loose.bbox, 0.4)
    assert suppress([better, other], 0.7) == [better, other]


def test_separate_objects_all_stay() -> None:
    apart = [_at("square", 0.9), _at("square", 0.8, 30), _at("square", 0.7, 60)]
    assert suppress(apart, 0.7) == apart


def test_order_of_the_input_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    found = [_at(str(rng.integers(3)), round(float(rng.random()), 3), float(rng.integers(40))) for _ in range(40)]
    assert suppress(found, 0.5) == suppress(list(reversed(found)), 0.5)
