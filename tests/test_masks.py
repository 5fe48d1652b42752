"""Masks survive encoding, and cleaning keeps what belongs to the object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling import masks
from labeling.segmenters.base import finish
from rewardlib.rle import runs_of


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_encoding_round_trips(height: int, width: int, seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    assert (masks.decode(masks.encode(mask)) == mask).all()


@pytest.mark.parametrize("rle", [None, {}, {"size": [4, 4]}, {"size": ["a", 4], "counts": "04"}, {"size": [4, 4], "counts": "ü"}])
def test_what_is_no_encoding_is_a_value_error(rle: object) -> None:
    with pytest.raises(ValueError, match="run-length encoding"):
        masks.decode(rle)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 29.9), st.floats(0, 19.9), st.floats(0.1, 30), st.floats(0.1, 20))
def test_a_box_inside_the_image_has_pixels(x: float, y: float, w: float, h: float) -> None:
    mask = masks.from_box((x, y, min(30, x + w), min(20, y + h)), 20, 30)
    assert mask.any()
    x0, y0, x1, y1 = masks.bounding_box(mask)
    assert x0 >= x - 1
    assert x1 <= x + w + 1.5
    assert y0 >= y - 1
    assert y1 <= y + h + 1.5


def _disc(height: int = 60, width: int = 60, radius: int = 12) -> masks.Mask:
    ys, xs = np.mgrid[:height, :width]
    return (xs - 30) ** 2 + (ys - 30) ** 2 <= radius**2


BOX = (18.0, 18.0, 43.0, 43.0)


def test_cleaning_drops_specks_and_spill_and_fills_pinholes() -> None:
    dirty = _disc()
    dirty[0:5, 0:5] = True  # far outside the box
    dirty[20, 19] = True  # a speck inside it
    dirty[30, 30] = False
    cleaned, flags = masks.clean(dirty, BOX)
    assert (cleaned == _disc()).all()
    assert flags == []


def test_cleaning_keeps_a_large_hole() -> None:
    ring = _disc() & ~_disc(radius=7)
    assert (masks.clean(ring, BOX)[0] == ring).all()


def test_two_halves_are_kept_and_flagged() -> None:
    split = _disc()
    split[:, 29:32] = False
    cleaned, flags = masks.clean(split, BOX)
    assert flags == ["fragmented"]
    assert (cleaned == split).all()


@pytest.mark.parametrize("raw", [np.zeros((60, 60), bool), np.pad(np.ones((4, 4), bool), ((0, 56), (0, 56)))])
def test_a_mask_that_contradicts_its_box_becomes_the_box(raw: masks.Mask) -> None:
    segment = finish(raw, 0.9, BOX)
    assert segment.source == "box"
    assert segment.score == 0
    assert segment.flags == ("box_fallback",)
    assert (segment.mask == masks.from_box(BOX, 60, 60)).all()


def test_a_hull_covers_its_mask_and_is_convex() -> None:
    bitten = _disc()
    bitten[25:35, 30:40] = False
    hull = masks.convex_hull(bitten)
    assert (bitten <= hull).all()
    assert np.count_nonzero(hull ^ _disc()) < 0.05 * np.count_nonzero(_disc())
    assert np.count_nonzero(masks.convex_hull(hull) ^ hull) < 0.03 * np.count_nonzero(hull)  # but for the corners of pixels


def test_a_good_mask_stays_sams() -> None:
    segment = finish(_disc(), 0.93, BOX)
    assert (segment.source, segment.score) == ("sam", 0.93)


@pytest.mark.parametrize("counts", ["", "x", "`1", "X6Y", "ppppppppp0", "0P"])
def test_runs_that_do_not_fill_the_mask_are_none(counts: str) -> None:
    with pytest.raises(ValueError, match="not a COCO run-length encoding"):
        masks.decode({"size": [100, 400], "counts": counts})


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60)
def test_runs_are_those_that_were_encoded(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    mask = rng.random((height, width)) < share**3
    runs = runs_of(masks.encode(mask)["counts"].encode())
    flat = mask.T.ravel()
    assert runs.sum() == flat.size
    assert (np.repeat(np.arange(len(runs)) % 2 == 1, runs) == flat).all()
