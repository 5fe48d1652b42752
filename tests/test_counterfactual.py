"""The promises of a counterfactual: bit-exact outside, no leak inside, a control that matches and touches nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from labeling import masks
from labeling.boxes import Detection
from labeling.counterfactual import Case, Region, erase, intervene, verify_removal
from labeling.info import ModelInfo
from labeling.intervention import FILLS, SHAPES, Fill, Shape
from labeling.locators.base import Sought
from labeling.locators.chain import LocatorChain

HEIGHT, WIDTH = 60, 90


def _image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def _mask(x0: int, y0: int, x1: int, y1: int) -> masks.Mask:
    return masks.from_box((x0, y0, x1, y1), HEIGHT, WIDTH)


def _region(x0: int, y0: int, x1: int, y1: int) -> Region:
    return _mask(x0, y0, x1, y1), (x0, y0, x1, y1)


boxes = st.tuples(st.integers(0, 70), st.integers(0, 45), st.integers(2, 18), st.integers(2, 14)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=4), st.sampled_from(FILLS), st.sampled_from(SHAPES), st.integers(0, 2**40))
def test_promises_hold_for_any_regions(regions: list[tuple[int, int, int, int]], fill: Fill, shape: Shape, seed: int) -> None:
    image, evidence = _image(), [_region(*r) for r in regions]
    made = intervene(image, evidence, fill=fill, shape=shape, seed=seed)
    before = np.asarray(image)
    for m in made:
        assert (np.asarray(m.image) == before)[~m.mask].all()
    assert all((mask <= made[0].mask).all() for mask, _ in evidence)
    if len(made) == 2:
        assert made[0].mask.sum() == made[1].mask.sum()
        assert not (made[0].mask & made[1].mask).any()


@pytest.mark.parametrize("fill", FILLS)
def test_what_is_hidden_does_not_shine_through(fill: Fill) -> None:
    mask = _mask(20, 10, 50, 40)
    one, other = np.asarray(_image()).copy(), np.asarray(_image()).copy()
    other[mask] = 255 - other[mask]
    assert (np.asarray(erase(one, mask, fill, 7)) == np.asarray(erase(other, mask, fill, 7))).all()


def blurred_at_full_resolution(pixels: NDArray[np.uint8], mask: masks.Mask, sigma: float) -> NDArray[np.float32]:
    """The blur that skips masked pixels, as its definition has it."""
    visible = (~mask).astype(np.float32)
    weight = cv2.GaussianBlur(visible, (0, 0), sigma)[..., None]
    colours = cv2.GaussianBlur(pixels * visible[..., None], (0, 0), sigma)
    mean = pixels[~mask].mean(0, dtype=np.float32)
    return np.asarray((colours + 1e-3 * mean) / (weight + 1e-3))


@pytest.mark.parametrize("side", [20, 60, 140])
def test_a_wide_blur_at_a_lower_resolution_is_the_blur(side: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    mask = masks.from_box((60, 40, 60 + side, 40 + side), 240, 320)
    widest = float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3).max())
    wanted = blurred_at_full_resolution(pixels, mask, widest)
    filled = np.asarray(erase(pixels, mask, "blur", 0)).astype(np.float32)
    assert np.abs(filled - wanted)[mask].max() < 6
    assert np.abs(filled - wanted)[mask].mean() < 2


@pytest.mark.parametrize("fill", FILLS)
def test_the_same_seed_gives_the_same_images(fill: Fill) -> None:
    runs = [intervene(_image(), [_region(5, 5, 20, 20)], fill=fill, shape="dilated", seed=3) for _ in range(2)]
    assert [m.image.tobytes() for m in runs[0]] == [m.image.tobytes() for m in runs[1]]


def test_a_control_is_the_same_silhouettes_elsewhere() -> None:
    regions = [_region(5, 5, 20, 20), _region(40, 30, 60, 36)]
    evidence, control = intervene(_image(), regions, fill="mean", shape="mask", seed=1)
    assert evidence.mask.sum() == control.mask.sum()


def test_a_box_silhouette_covers_the_box_where_the_mask_fell_short() -> None:
    region = (_mask(10, 10, 20, 14), (10, 10, 20, 30))
    (evidence, *_) = intervene(_image(), [region], fill="mean", shape="box", seed=0)
    assert (evidence.mask == _mask(10, 10, 20, 30)).all()


def test_different_seeds_move_the_control() -> None:
    places = {masks.bounding_box(intervene(_image(), [_region(5, 5, 12, 12)], fill="mean", shape="mask", seed=s)[1].mask) for s in range(8)}
    assert len(places) > 4


def test_no_room_means_no_control() -> None:
    made = intervene(_image(), [_region(0, 0, 60, 60)], fill="mean", shape="mask", seed=0)
    assert [m.role for m in made] == ["evidence"]


def test_an_image_that_is_all_evidence_becomes_grey() -> None:
    (made,) = intervene(_image(), [_region(0, 0, WIDTH, HEIGHT)], fill="inpaint", shape="mask", seed=0)
    assert (np.asarray(made.image) == 128).all()


class _ByColor:
    """Finds the red pixels, for as long as there are enough of them."""

    name, threshold, kinds = "color", 0.5, frozenset({"object"})

    def locate(self, images: list[Image.Image], sought: list[list[Sought]], threshold: float | None = None) -> list[list[Detection]]:
        return [[d for s in wanted for d in self._find(image, s.phrase)] for image, wanted in zip(images, sought, strict=True)]

    def _find(self, image: Image.Image, phrase: str) -> list[Detection]:
        red = (np.asarray(image) == (255, 0, 0)).all(2)
        if red.sum() < 20:
            return []
        x0, y0, x1, y1 = masks.bounding_box(red)
        return [Detection(phrase, (float(x0), float(y0), float(x1), float(y1)), 0.9)]

    def info(self) -> ModelInfo:
        return ModelInfo("color")


def test_removal_is_verified_by_the_detector() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    pixels[10:20, 10:20] = (255, 0, 0)
    image, locators, sought = Image.fromarray(pixels), LocatorChain([_ByColor()]), [Sought("red")]
    found = locators.locate([image], [sought])[0].detections
    good = intervene(image, [_region(10, 10, 20, 20)], fill="mean", shape="dilated", seed=0)
    poor = intervene(image, [_region(10, 10, 15, 15)], fill="mean", shape="mask", seed=0)[:1]
    verdicts = verify_removal(locators, [Case(good, sought, found), Case(poor, sought, found), Case(good, sought, [])])
    assert [[r.verified for r in case] for case in verdicts] == [[True, True], [False], [None, None]]
    assert (verdicts[0][0].score_before, verdicts[0][0].score_after) == (0.9, 0.0)
    assert verdicts[0][1].score_after == 0.9
