"""Every locator answers the same whatever it is batched with, and only for what is there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from demo.scenes import make_scene
from labeling.boxes import Detection
from labeling.locators import Sought
from labeling.locators.grounding_dino import GroundingDinoLocator
from labeling.locators.loading import load_locator
from labeling.locators.prompts import encode_phrases
from labeling.locators.zero_shot import ZeroShotLocator, needed, to_pixels
from tests import tiny_vision
from tests.conftest import ROOT

EMBEDDED = str(ROOT / "labeling/embedded/detector")
THRESHOLDS = {
    "grounding-dino": 0.25,
    "mm-grounding-dino": 0.3,
    "owlv2": 0.1,
    "owlvit": 0.1,
    "sam3": 0.5,
}
PHRASES = ("black circle", "dog", "red square")


def seek(*phrases: str) -> list[Sought]:
    return [Sought(phrase) for phrase in phrases]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Several sizes, of which some are the same to Grounding DINO's processor, and others to none.
IMAGES = [noise(80, 60), noise(160, 120, 1), noise(50, 120, 2), noise(80, 60, 3), noise(70, 70, 4)]
WANTED = [seek(*PHRASES), seek("dog"), seek("blue circle", "cat"), seek("dog"), seek(*PHRASES)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("locators")
    return {name: tiny_vision.make(name, folder / name) for name in tiny_vision.LOCATORS}


@pytest.fixture(scope="module", params=tiny_vision.LOCATORS)
def checkpoint(request: pytest.FixtureRequest, checkpoints: dict[str, str]) -> str:
    return checkpoints[request.param]


@pytest.fixture(scope="module")
def tiny(checkpoint: str) -> ZeroShotLocator:
    """With a threshold that a third of what its random weights score pass."""
    locator = load_locator(checkpoint, threshold=0.0)
    everything = [d.score for found in locator.locate(IMAGES, WANTED) for d in found]
    return load_locator(checkpoint, threshold=float(np.quantile(everything, 0.67)), batch_size=3)


def same(some: Sequence[Detection], others: Sequence[Detection]) -> bool:
    """To the last bit."""
    return list(some) == list(others) and all(
        np.array_equal(a.mask, b.mask)  # also where neither has one
        for a, b in zip(some, others, strict=True)
    )


# ------------------------------------------------------------------------------ what is loaded


@pytest.mark.parametrize("name", tiny_vision.LOCATORS)
def test_a_checkpoint_says_which_locator_it_is_for(name: str, checkpoints: dict[str, str]) -> None:
    locator = load_locator(checkpoints[name])
    assert locator.name == name
    assert locator.threshold == THRESHOLDS[name]
    assert load_locator(checkpoints[name], threshold=0.4).threshold == 0.4
    info = locator.info().as_dict()
    assert info["name"] == checkpoints[name]
    assert (info["threshold"], info["dtype"]) == (THRESHOLDS[name], "float32")


def test_another_architecture_is_refused_and_the_families_are_named() -> None:
    with pytest.raises(ValueError, match=r"'sam' model.*grounding-dino.*owlv2.*sam3"):
        load_locator(str(ROOT / "labeling/embedded/segmenter"))


def test_an_architecture_that_transformers_does_not_know_is_refused_alike(tmp_path: Path) -> None:
    for config in ("{}", '{"model_type": "sam-of-tomorrow"}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match="expected"):
            load_locator(str(tmp_path))


def test_an_unknown_dtype_is_refused(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"'half'.*float32, float16, bfloat16"):
        load_locator(checkpoint, dtype="half")


def test_the_locator_of_sam3s_own_checkpoint_is_found_beside_its_tracker(tmp_path: Path) -> None:
    locator = load_locator(tiny_vision.sam3_video(tmp_path))
    alone = load_locator(tiny_vision.sam3(tmp_path / "alone"))
    assert locator.name == "sam3"
    for name, weight in alone.model.state_dict().items():
        assert torch.equal(weight, locator.model.state_dict()[name]), name


# ------------------------------------------------------------------------------ what is found


def oracle(locator: ZeroShotLocator, image: Image.Image, phrases: list[str]) -> list[Any]:
    """(phrase, box, score, mask) by transformers' own processing."""
    model, processor, size = locator.model, locator.processor, [image.size[::-1]]
    with torch.inference_mode():
        if locator.name == "sam3":
            found = []
            for phrase in phrases:
                inputs = processor(images=image, text=phrase, return_tensors="pt")
                result = processor.post_process_instance_segmentation(
                    model(**inputs),
                    threshold=locator.threshold,
                    target_sizes=size,
                )[0]
                rows = zip(result["boxes"], result["scores"], result["masks"], strict=True)
                found += [(phrase, *row) for row in rows]
            return found
        inputs = processor(images=image, text=[phrases], return_tensors="pt")
        result = processor.post_process_grounded_object_detection(
            model(**inputs),
            threshold=locator.threshold,
            target_sizes=size,
            text_labels=[phrases],
        )[0]
    rows = zip(result["text_labels"], result["boxes"], result["scores"], strict=True)
    return [(*row, None) for row in rows]


@pytest.mark.parametrize("name", ["owlv2", "owlvit", "sam3"])
@pytest.mark.parametrize("size", [(80, 60), (50, 120)])
def test_what_transformers_finds_is_found(
    name: str,
    size: tuple[int, int],
    checkpoints: dict[str, str],
) -> None:
    locator = load_locator(checkpoints[name], threshold=0.3, nms_iou=1.0, max_area=1.1)
    image, limit = noise(*size), np.array([*size, *size])
    found = locator.locate([image], [seek(*PHRASES)])[0]
    theirs = oracle(locator, image, list(PHRASES))
    expected = [(p, np.clip(box.numpy(), 0, limit), score, mask) for p, box, score, mask in theirs]
    expected = [e for e in expected if (e[1][2] > e[1][0]) and (e[1][3] > e[1][1])]
    assert len(expected) > 3
    for phrase, box, score, mask in expected:
        near = [d for d in found if d.phrase == phrase and np.allclose(d.bbox, box, atol=0.02)]
        assert any(d.score == pytest.approx(float(score), abs=1e-3) for d in near)
        assert mask is None or any((d.mask == mask.numpy().astype(bool)).all() for d in near)


@pytest.mark.parametrize("name", ["grounding-dino", "mm-grounding-dino"])
def test_a_phrases_score_is_the_mean_over_its_span(name: str, checkpoints: dict[str, str]) -> None:
    locator = load_locator(checkpoints[name], threshold=0.0, nms_iou=1.0)
    image = noise(80, 60)
    found = locator.locate([image], [seek("red square")])[0]
    inputs = locator.processor(images=image, text="red square.", return_tensors="pt")
    with torch.inference_mode():
        out = locator.model(**inputs)
    scores = out.logits[0].sigmoid()[:, 1:3].mean(1).tolist()  # after [CLS]
    boxes = to_pixels(out.pred_boxes[0].numpy(), image.size, image.size)
    for d in found:
        near = [s for s, b in zip(scores, boxes, strict=True) if np.allclose(b, d.bbox, atol=0.02)]
        assert any(d.score == pytest.approx(s, abs=1e-3) for s in near)


def test_masks_have_the_images_size(checkpoints: dict[str, str]) -> None:
    found = load_locator(checkpoints["sam3"], threshold=0.0).locate(IMAGES, WANTED)
    for image, detections in zip(IMAGES, found, strict=True):
        assert detections
        for d in detections:
            assert d.mask is not None
            assert (d.mask.shape, d.mask.dtype) == ((image.height, image.width), bool)


def test_sam3_encodes_an_image_once_whatever_is_sought_in_it(
    checkpoints: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locator = load_locator(checkpoints["sam3"])
    encode, seen = locator.model.get_vision_features, []

    def counted(pixels: torch.Tensor) -> Any:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(locator.model, "get_vision_features", counted)
    locator.locate(IMAGES[:2], [seek(*(f"dog {n}" for n in range(10))), seek("cat")])
    assert seen == [1, 1]


# -------------------------------------------------------------------------- what changes nothing


def test_company_and_order_change_nothing_at_all(checkpoint: str, tiny: ZeroShotLocator) -> None:
    single = load_locator(checkpoint, threshold=tiny.threshold)
    together = single.locate(IMAGES, WANTED)
    assert sum(map(len, together)) > 10
    alone = [single.locate([i], [w])[0] for i, w in zip(IMAGES, WANTED, strict=True)]
    backwards = single.locate(IMAGES[::-1], [w[::-1] for w in WANTED[::-1]])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert same(a, b)
        assert same(a, c)


def test_company_in_a_batch_changes_next_to_nothing(tiny: ZeroShotLocator) -> None:
    together = tiny.locate(IMAGES, WANTED)
    backwards = tiny.locate(IMAGES[::-1], WANTED[::-1])[::-1]
    for image, wanted, a, c in zip(IMAGES, WANTED, together, backwards, strict=True):
        assert_near(a, tiny.locate([image], [wanted])[0])
        assert_near(a, c)


def test_a_model_is_asked_for_each_phrase_once_and_in_one_order(
    tiny: ZeroShotLocator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def look(images: Any, phrases: Any, threshold: float) -> list[Any]:
        asked.append(phrases)
        return []

    monkeypatch.setattr(tiny, "_look", look)
    tiny.locate(IMAGES[:1], [seek("dog", "cat", "dog")])
    assert asked == [[["cat", "dog"]]]


def test_threads_may_share_a_locator(checkpoint: str, tiny: ZeroShotLocator) -> None:
    shared = load_locator(checkpoint, threshold=tiny.threshold)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: shared.locate(IMAGES[:3], WANTED[:3]), range(6)))
    for other in found[1:]:
        assert all(same(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_batch_size_changes_next_to_nothing(checkpoint: str, tiny: ZeroShotLocator) -> None:
    single = load_locator(checkpoint, threshold=tiny.threshold, nms_iou=1.0)
    batched = load_locator(checkpoint, threshold=tiny.threshold, nms_iou=1.0, batch_size=4)
    for one, other in zip(single.locate(IMAGES, WANTED), batched.locate(IMAGES, WANTED), strict=True):
        assert_near(one, other)


def assert_near(one: Sequence[Detection], other: Sequence[Detection]) -> None:
    """The same but for the roundings of matrix products of other shapes."""
    for a, b in zip(sorted(one, key=key), sorted(other, key=key), strict=True):
        assert a.bbox == pytest.approx(b.bbox, abs=0.02)
        assert a.score == pytest.approx(b.score, abs=1e-3)


def key(d: Detection) -> tuple[Any, ...]:
    return d.phrase, [round(v) for v in d.bbox], round(d.score, 2)


def test_images_of_the_same_processed_size_share_a_forward(
    checkpoints: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locator = load_locator(checkpoints["grounding-dino"], batch_size=2)
    shapes: list[tuple[int, ...]] = []
    forward = locator.model.forward

    def counted(**inputs: torch.Tensor) -> Any:
        shapes.append(tuple(inputs["pixel_values"].shape))
        return forward(**inputs)

    monkeypatch.setattr(locator.model, "forward", counted)
    locator.locate([noise(80, 60), noise(70, 70), noise(160, 120)], [seek("dog")] * 3)
    assert sorted(shapes) == [(2, 3, 64, 64), (2, 3, 64, 85)]


def test_the_processed_size_is_the_processors(checkpoints: dict[str, str]) -> None:
    locator = load_locator(checkpoints["grounding-dino"])
    assert isinstance(locator, GroundingDinoLocator)
    rng = random.Random(0)
    for _ in range(30):
        size = rng.randint(1, 300), rng.randint(1, 300)
        made = locator.processor.image_processor(noise(*size), return_tensors="pt")
        assert locator._processed_size(size)[::-1] == tuple(made["pixel_values"].shape[-2:])


# ------------------------------------------------------------------------------------- the edges


def test_nothing_is_found_of_nothing(tiny: ZeroShotLocator) -> None:
    assert tiny.locate([IMAGES[0]], [[]]) == [[]]
    assert tiny.locate([], []) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_the_smallest_images_are_looked_at(tiny: ZeroShotLocator, size: tuple[int, int]) -> None:
    for d in tiny.locate([noise(*size)], [seek("dog")], threshold=0.0)[0]:
        assert 0 <= d.bbox[0] < d.bbox[2] <= size[0]
        assert 0 <= d.bbox[1] < d.bbox[3] <= size[1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_mode_of_image_is_seen_in_colours(tiny: ZeroShotLocator, mode: str) -> None:
    image = noise(80, 60).convert("L").convert(mode)
    wanted = [seek(*PHRASES)]
    assert same(tiny.locate([image], wanted)[0], tiny.locate([image.convert("RGB")], wanted)[0])


def test_many_phrases_are_asked_in_chunks_and_duplicates_once(tiny: ZeroShotLocator) -> None:
    many = [f"{c} {s} {n}" for c in ("pink", "brown") for s in ("dog", "cat") for n in range(15)]
    found = tiny.locate(IMAGES[:1], [seek(*many)])[0]
    assert len({d.phrase for d in found}) > 5
    assert same(found, tiny.locate(IMAGES[:1], [seek(*many, *many)])[0])


def test_a_long_phrase_is_cut_and_comes_back_whole(tiny: ZeroShotLocator) -> None:
    long = " ".join(["red square"] * 200)
    found = tiny.locate(IMAGES[:1], [seek(long)], threshold=0.0)[0]
    assert {d.phrase for d in found} == {long}


@pytest.mark.parametrize("name", ["owlv2", "sam3"])
def test_a_phrase_is_cut_and_padded_as_its_tokenizer_would(
    name: str,
    checkpoints: dict[str, str],
) -> None:
    tokenizer = load_locator(checkpoints[name]).processor.tokenizer
    for phrase in ("dog", "red square", "a" * 14, "a" * 15, "red square " * 20):
        ids, mask = encode_phrases(tokenizer, [phrase], 16)[phrase]
        theirs = tokenizer(phrase, padding="max_length", max_length=16, truncation=True)
        assert ids.tolist() == theirs["input_ids"]
        assert mask.tolist() == theirs["attention_mask"]


@pytest.mark.parametrize("unreadable", [" ", ""])
def test_a_phrase_without_tokens_is_not_found(tiny: ZeroShotLocator, unreadable: str) -> None:
    images = IMAGES[:1]
    assert tiny.locate(images, [seek(unreadable)], threshold=0.0) == [[]]
    with_it = tiny.locate(images, [seek(unreadable, *PHRASES)])[0]
    assert same(with_it, tiny.locate(images, [seek(*PHRASES)])[0])


def test_boxes_lie_inside_their_image(tiny: ZeroShotLocator) -> None:
    found = tiny.locate(IMAGES, WANTED, threshold=0.0)
    for image, detections in zip(IMAGES, found, strict=True):
        assert detections
        for d in detections:
            assert 0 <= d.bbox[0] < d.bbox[2] <= image.width
            assert 0 <= d.bbox[1] < d.bbox[3] <= image.height
            assert 0 <= d.score <= 1
            assert d.locator == tiny.name


def test_halves_are_for_the_model_alone(checkpoint: str, tiny: ZeroShotLocator) -> None:
    half = load_locator(checkpoint, dtype="bfloat16", threshold=0.0)
    assert half.info().as_dict()["dtype"] == "bfloat16"
    found = half.locate(IMAGES[:2], WANTED[:2])
    assert all(found)
    assert half.model.dtype == torch.bfloat16
    # Not on bfloat16's grid, which has eight bits.
    scores = np.array([d.score for d in found[0]], np.float32)
    assert not np.array_equal(scores, torch.tensor(scores).bfloat16().float().numpy())


def test_what_is_no_number_is_not_nothing(checkpoint: str) -> None:
    locator = load_locator(checkpoint)
    with torch.no_grad():
        for weight in locator.model.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(OverflowError, match="no numbers in float32"):
        locator.locate(IMAGES[:1], WANTED[:1])


@pytest.mark.parametrize(
    ("threshold", "own", "whole"),
    [(0.25, 0.25, 0.5), (0.5, 0.5, 0.75), (0.1, 0.25, 0.5), (0.9, 0.5, 0.9)],
)
def test_a_box_of_the_whole_image_needs_more(threshold: float, own: float, whole: float) -> None:
    assert needed(threshold, own) == pytest.approx(whole)


# ------------------------------------------------------------------------ the embedded checkpoint


@pytest.fixture(scope="module")
def detector() -> ZeroShotLocator:
    return load_locator(EMBEDDED, threshold=0.3)


@pytest.fixture(scope="module")
def scenes() -> tuple[list[Image.Image], list[list[Sought]]]:
    rng = random.Random(42)
    drawn = [make_scene(rng, kind) for kind in ("strip", "canvas", "strip", "strip", "canvas")]
    return [s.image for s in drawn], [seek(*sorted({t.name for t in s.things})) for s in drawn]


Scenes = tuple[list[Image.Image], list[list[Sought]]]


def test_the_embedded_locators_answers_do_not_depend_on_company(scenes: Scenes) -> None:
    locator = load_locator(EMBEDDED, threshold=0.3)
    images, wanted = scenes
    together = locator.locate(images, wanted)
    assert sum(map(len, together)) > 5
    alone = [locator.locate([i], [w])[0] for i, w in zip(images, wanted, strict=True)]
    assert together == alone
    assert locator.locate(images[::-1], wanted[::-1])[::-1] == together
    batched = load_locator(EMBEDDED, threshold=0.3, batch_size=2)
    for one, other in zip(together, batched.locate(images, wanted), strict=True):
        assert_near(one, other)


@pytest.mark.parametrize("unreadable", ["\u200b", "\ufffd", "\ue000", "\u0301", " . ", ""])
def test_the_embedded_locator_does_not_find_what_it_cannot_read(
    detector: ZeroShotLocator,
    scenes: Scenes,
    unreadable: str,
) -> None:
    images, wanted = scenes[0][1:2], scenes[1][1]
    assert detector.locate(images, [seek(unreadable)]) == [[]]
    with_it = detector.locate(images, [[*seek(unreadable), *wanted]])
    assert with_it == detector.locate(images, [wanted])


def test_an_empty_image_shows_nothing(detector: ZeroShotLocator) -> None:
    image = Image.new("RGB", (400, 100), (211, 211, 211))
    assert detector.locate([image], [seek("black square", "yellow circle")]) == [[]]


def test_what_is_there_is_found_among_many_phrases(
    detector: ZeroShotLocator,
    scenes: Scenes,
) -> None:
    fillers = [f"{c} {s} {n}" for c in ("pink", "brown") for s in ("dog", "cat") for n in range(15)]
    images, wanted = scenes[0][1:2], scenes[1][1]
    found = detector.locate(images, [[*wanted, *seek(*fillers)]])[0]
    assert {d.phrase for d in found} & {s.phrase for s in wanted}


@pytest.mark.parametrize("size", [(8, 3000), (3000, 8)])
def test_an_image_of_which_the_frame_leaves_nothing_shows_nothing(size: tuple[int, int]) -> None:
    locator = load_locator(EMBEDDED)
    pictures = [Image.new("RGB", size, "white"), Image.new("RGB", (100, 100), "white")]
    assert locator.locate(pictures, [[Sought("red circle")]] * 2) == [[], []]
