"""The detector answers the same whatever it is batched with, and only for what is there."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from demo.scenes import make_scene
from demo.teach_detector import build_model as build_detector
from demo.teach_detector import build_processor, detection_loss, forward, make_batch
from labeling.detect import GroundingDinoDetector, image_share
from pipelines.config import DetectorConfig, find_checkpoint


@pytest.fixture(scope="module")
def detector() -> GroundingDinoDetector:
    return GroundingDinoDetector.from_pretrained(find_checkpoint(DetectorConfig().name), threshold=0.3)


@pytest.fixture(scope="module")
def scenes() -> tuple[list[Image.Image], list[list[str]]]:
    rng = random.Random(42)
    drawn = [make_scene(rng, kind) for kind in ("strip", "canvas", "strip", "strip", "canvas")]
    return [s.image for s in drawn], [sorted({t.name for t in s.things}) for s in drawn]


Scenes = tuple[list[Image.Image], list[list[str]]]


def test_batch_size_and_order_change_nothing(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    images, phrases = scenes
    together = detector.detect(images, phrases)
    alone = [detector.detect([image], [wanted])[0] for image, wanted in zip(images, phrases, strict=True)]
    backwards = detector.detect(images[::-1], phrases[::-1])[::-1]
    for other in (alone, backwards):
        for a, b in zip(together, other, strict=True):
            assert [d.phrase for d in a] == [d.phrase for d in b]
            assert [d.score for d in a] == pytest.approx([d.score for d in b], abs=2e-4)


def test_the_order_of_phrases_changes_nothing(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    images, phrases = scenes
    backwards = [wanted[::-1] for wanted in phrases]
    assert detector.detect(images, phrases) == detector.detect(images, backwards)


def test_how_much_of_a_models_input_is_image() -> None:
    mask = torch.zeros(100, 400, dtype=torch.long)
    mask[:50, :100] = 1
    assert image_share(mask) == (0.25, 0.5)
    assert image_share(torch.ones(3, 5)) == (1.0, 1.0)


def test_phrases_come_back_as_they_were_given(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    images, phrases = scenes
    shouted = [[f"  {p.upper()}. " for p in wanted] for wanted in phrases]
    found = detector.detect(images, shouted)
    assert sum(map(len, found)) > 0
    assert all(d.phrase in wanted for detections, wanted in zip(found, shouted, strict=True) for d in detections)


def test_nothing_is_found_of_nothing(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    image = scenes[0][0]
    assert detector.detect([image], [[]]) == [[]]
    assert detector.detect([image], [["", "?!"]]) == [[]]
    assert detector.detect([], []) == []


@pytest.mark.parametrize("unreadable", ["\u200b", "\ufffd", "\ue000", "\u0301", " . ", ""])
def test_a_phrase_without_tokens_is_not_found(detector: GroundingDinoDetector, scenes: Scenes, unreadable: str) -> None:
    images, phrases = scenes[0][:1], scenes[1][:1]
    assert detector.detect(images, [[unreadable, *phrases[0]]]) == detector.detect(images, phrases)
    assert detector.detect(images, [[unreadable]]) == [[]]


def test_an_empty_image_shows_nothing(detector: GroundingDinoDetector) -> None:
    assert detector.detect([Image.new("RGB", (400, 100), (211, 211, 211))], [["black square", "yellow circle"]]) == [[]]


def test_many_phrases_are_asked_in_chunks(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    images, phrases = scenes
    fillers = [f"{c} {s} {n}" for c in ("pink", "brown") for s in ("dog", "cat") for n in range(8)]
    found = detector.detect(images[:1], [phrases[0] + fillers])[0]
    assert {d.phrase for d in found} & set(phrases[0])


def test_boxes_lie_inside_their_image(detector: GroundingDinoDetector, scenes: Scenes) -> None:
    images, phrases = scenes
    for image, detections in zip(images, detector.detect(images, phrases, threshold=0.05), strict=True):
        for d in detections:
            assert 0 <= d.bbox[0] < d.bbox[2] <= image.width
            assert 0 <= d.bbox[1] < d.bbox[3] <= image.height


def test_the_teaching_loss_of_a_batch_is_that_of_its_rows() -> None:
    """transformers' own loss shifts the label maps of every row after the first; ours may not mix rows at all."""
    torch.manual_seed(0)
    rng, processor, model = random.Random(3), build_processor(), build_detector().eval()
    batch = make_batch(rng, processor, "strip", 3)
    with torch.no_grad():
        whole, _ = detection_loss(forward(model, batch), batch)
        rows = []
        for i in range(3):
            row = type(batch)(
                {k: v[i : i + 1] for k, v in batch.inputs.items()},
                batch.boxes[i : i + 1],
                batch.targets[i : i + 1],
                batch.text_mask[i : i + 1],
            )
            rows.append(detection_loss(forward(model, row), row)[0] * max(1, len(row.boxes[0])))
    assert whole.item() == pytest.approx(sum(r.item() for r in rows) / sum(len(b) for b in batch.boxes), rel=1e-3)
