"""Every segmenter gives one mask per box, whatever the boxes and the images are prompted with."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.scenes import Scene, make_scene
from labeling import masks
from labeling.segmenters import Segment, Segmenter
from labeling.segmenters.base import views, windows
from labeling.segmenters.loading import load_segmenter
from labeling.segmenters.prompted import PromptedSegmenter
from labeling.segmenters.sam import SamSegmenter
from labeling.segmenters.sam2 import Sam2Segmenter
from labeling.segmenters.sam3 import Sam3Segmenter
from labeling.segmenters.sam_hq import SamHQSegmenter
from labeling.segmenters.segment_anything import SegmentAnythingSegmenter
from tests import tiny_vision
from tests.conftest import ROOT

EMBEDDED = str(ROOT / "labeling/embedded/segmenter")
CLASSES = {
    "sam": SamSegmenter,
    "sam_hq": SamHQSegmenter,
    "sam2": Sam2Segmenter,
    "edgetam": Sam2Segmenter,
    "sam3_tracker": Sam3Segmenter,
}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Of any shape: a strip is seen through windows.
IMAGES = [noise(80, 60), noise(300, 60, 1), noise(50, 120, 2), noise(64, 64, 3)]
BOXES = [
    [(5, 5, 30, 30), (20, 10, 70, 50), (0, 0, 79, 59)],
    [(5, 5, 30, 30), (200, 10, 290, 50), (10, 5, 55, 45), (10, 0, 290, 60)],
    [(4, 60, 44, 110)],
    [],
]


@pytest.fixture(scope="module", params=tiny_vision.SEGMENTERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "edgetam" and importlib.util.find_spec("timm") is None:
        pytest.skip("EdgeTAM's backbone is timm's")
    return tiny_vision.make(request.param, tmp_path_factory.mktemp("segmenters") / request.param)


@pytest.fixture(scope="module")
def tiny(checkpoint: str) -> PromptedSegmenter:
    return load_segmenter(checkpoint, batch_size=3)


@pytest.fixture(scope="module")
def embedded() -> PromptedSegmenter:
    return load_segmenter(EMBEDDED)


@pytest.fixture(scope="module")
def meta() -> SegmentAnythingSegmenter:
    """Meta's own modules at a size that a test can afford, with random weights."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=128,
        patch_size=16,
        embed_dim=32,
        depth=1,
        num_heads=2,
        out_chans=32,
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(0,),
    )
    prompts = PromptEncoder(
        embed_dim=32,
        image_embedding_size=(8, 8),
        input_image_size=(128, 128),
        mask_in_chans=4,
    )
    transformer = TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=32, num_heads=2)
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=32,
        iou_head_depth=2,
        iou_head_hidden_dim=32,
    )
    return SegmentAnythingSegmenter(Sam(encoder, prompts, decoder))


def same(some: Sequence[Segment], others: Sequence[Segment]) -> bool:
    """To the last bit."""

    def plain(segment: Segment) -> tuple[object, ...]:
        return segment.mask.tobytes(), segment.score, segment.source, segment.flags

    return [*map(plain, some)] == [*map(plain, others)]


def agreement(some: Sequence[Segment], others: Sequence[Segment]) -> float:
    """The smallest share of a mask's pixels that are the same."""
    pairs = zip(some, others, strict=True)
    return min(((a.mask == b.mask).mean() for a, b in pairs), default=1.0)


# ------------------------------------------------------------------------------ what is loaded


def test_a_checkpoint_says_which_segmenter_it_is_for(checkpoint: str) -> None:
    segmenter = load_segmenter(checkpoint)
    assert type(segmenter) is CLASSES[Path(checkpoint).name]
    info = segmenter.info().as_dict()
    assert (info["name"], info["dtype"]) == (checkpoint, "float32")


def test_another_architecture_is_refused_and_the_families_are_named() -> None:
    with pytest.raises(ValueError, match=r"'grounding-dino' model.*sam, sam_hq, sam2"):
        load_segmenter(str(ROOT / "labeling/embedded/detector"))


def test_an_architecture_that_transformers_does_not_know_is_refused_alike(tmp_path: Path) -> None:
    for config in ("{}", '{"model_type": "sam-of-tomorrow"}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match="expected"):
            load_segmenter(str(tmp_path))


def test_the_tracker_of_sam3s_own_checkpoint_is_found_beside_its_locator(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    segmenter = load_segmenter(tiny_vision.sam3_video(tmp_path))
    assert type(segmenter) is Sam3Segmenter
    stored, loaded = load_file(tmp_path / "model.safetensors"), segmenter.model.state_dict()
    assert torch.equal(
        stored["tracker_model.mask_decoder.iou_token.weight"],
        loaded["mask_decoder.iou_token.weight"],
    )
    assert torch.equal(
        stored["detector_model.vision_encoder.backbone.layers.0.mlp.fc1.weight"],
        loaded["vision_encoder.backbone.layers.0.mlp.fc1.weight"],
    )


def test_an_unknown_architecture_of_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vit_x.*expected one of"):
        SegmentAnythingSegmenter.from_checkpoint(str(tmp_path / "x.pth"), kind="vit_x")


@pytest.mark.slow
def test_a_checkpoint_file_of_the_package_loads(tmp_path: Path) -> None:
    from segment_anything import sam_model_registry

    file = tmp_path / "sam_vit_b.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), file)
    segmenter = SegmentAnythingSegmenter.from_checkpoint(str(file), kind="vit_b")
    image = Image.new("RGB", (64, 48), "white")
    assert len(segmenter.segment([image], [[(4, 4, 20, 20)]])[0]) == 1
    assert str(tmp_path) not in str(segmenter.info())


# ------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("backend", ["tiny", "meta"])
def test_one_mask_per_box_of_the_images_size(
    backend: str,
    checkpoint: str,
    request: pytest.FixtureRequest,
) -> None:
    segmenter: Segmenter = request.getfixturevalue(backend)
    found = segmenter.segment(IMAGES, BOXES)
    assert any(segment.source == "sam" for segments in found for segment in segments)
    for image, boxes, segments in zip(IMAGES, BOXES, found, strict=True):
        for segment, box in zip(segments, boxes, strict=True):
            assert segment.mask.shape == (image.height, image.width)
            assert segment.mask.dtype == bool
            assert (segment.mask & masks.from_box(box, *segment.mask.shape)).any()
            assert 0 <= segment.score <= 1


def test_a_mask_is_what_transformers_draws(tiny: PromptedSegmenter) -> None:
    image, boxes = IMAGES[0], BOXES[0]
    prompts = [[list(map(float, box)) for box in boxes]]
    inputs = tiny.processor(images=image, input_boxes=prompts, return_tensors="pt")
    sizes = [inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
    with torch.inference_mode():
        out = tiny.model(
            pixel_values=inputs["pixel_values"],
            input_boxes=inputs["input_boxes"].float(),
            multimask_output=False,
        )
    drawn = tiny.processor.post_process_masks(out.pred_masks, *sizes)[0][:, 0].numpy()
    raw = tiny._draw_all(tiny._encode_all(inputs["pixel_values"]), inputs)
    for mask, (ours, score), expected in zip(drawn, raw, out.iou_scores[0, :, 0], strict=True):
        assert (mask == ours).mean() > 0.999
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_the_embedded_segmenter_knows_the_shapes_world(embedded: PromptedSegmenter) -> None:
    scenes = [make_scene(random.Random(8), "strip"), make_scene(random.Random(9), "canvas")]
    found = embedded.segment([s.image for s in scenes], [boxes_of(s) for s in scenes])
    overlaps = [
        masks.iou(segment.mask, thing.mask)
        for scene, segments in zip(scenes, found, strict=True)
        for segment, thing in zip(segments, scene.things, strict=True)
    ]
    assert np.mean(overlaps) > 0.85


def boxes_of(scene: Scene) -> list[tuple[float, ...]]:
    return [tuple(map(float, t.bbox)) for t in scene.things]


# -------------------------------------------------------------------------- what changes nothing


def test_company_and_order_change_nothing_at_all(checkpoint: str) -> None:
    single = load_segmenter(checkpoint)
    together = single.segment(IMAGES, BOXES)
    backwards = single.segment(IMAGES[::-1], [b[::-1] for b in BOXES[::-1]])[::-1]
    for image, boxes, a, c in zip(IMAGES, BOXES, together, backwards, strict=True):
        assert same(a, single.segment([image], [boxes])[0])
        assert same(a, c[::-1])


def test_a_model_is_always_asked_in_the_same_form(
    tiny: PromptedSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that roundings are the same: as many images at once, and the boxes in one order."""
    encode, seen = tiny.model.get_image_embeddings, []

    def counted(pixels: torch.Tensor) -> object:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(tiny.model, "get_image_embeddings", counted)
    tiny.segment(IMAGES, BOXES)
    assert seen == [3, 3]  # five views, one of them an image's second
    asked = [[v.inside([b]) for v in views([IMAGES[0]], [b])] for b in (BOXES[0], BOXES[0][::-1])]
    assert asked[0] == asked[1]


def test_the_embedded_segmenters_masks_do_not_depend_on_company() -> None:
    scenes = [make_scene(random.Random(n), "canvas" if n % 2 else "strip") for n in range(5)]
    segmenter, batched = load_segmenter(EMBEDDED), load_segmenter(EMBEDDED, batch_size=4)
    images, boxes = [s.image for s in scenes], [boxes_of(s) for s in scenes]
    together = segmenter.segment(images, boxes)
    for a, image, wanted in zip(together, images, boxes, strict=True):
        assert same(a, segmenter.segment([image], [wanted])[0])
    for a, b in zip(together, batched.segment(images, boxes), strict=True):
        assert agreement(a, b) > 0.999


@pytest.mark.parametrize("changed", [{"boxes_at_once": 2}, {"batch_size": 1}])
def test_chunks_and_batches_change_next_to_nothing(
    checkpoint: str,
    tiny: PromptedSegmenter,
    changed: dict[str, int],
) -> None:
    other = load_segmenter(checkpoint, **changed)
    boxes = [of_image * 3 for of_image in BOXES]
    for a, b in zip(tiny.segment(IMAGES, boxes), other.segment(IMAGES, boxes), strict=True):
        assert agreement(a, b) > 0.999
        assert [s.score for s in a] == pytest.approx([s.score for s in b], abs=1e-3)


def test_halves_are_for_the_model_alone(checkpoint: str, tiny: PromptedSegmenter) -> None:
    half = load_segmenter(checkpoint, dtype="bfloat16")
    assert (half.model.dtype, half.info().as_dict()["dtype"]) == (torch.bfloat16, "bfloat16")
    for a, b in zip(tiny.segment(IMAGES, BOXES), half.segment(IMAGES, BOXES), strict=True):
        # Random weights draw rags, which rounding moves: of the masks little can be said.
        assert [s.score for s in a] == pytest.approx([s.score for s in b], abs=0.2)


def test_what_is_no_number_is_no_mask(checkpoint: str) -> None:
    segmenter = load_segmenter(checkpoint)
    with torch.no_grad():
        for weight in segmenter.model.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(OverflowError, match="no numbers in float32"):
        segmenter.segment(IMAGES[:1], BOXES[:1])


# ------------------------------------------------------------------------------------- the edges


@pytest.mark.parametrize("backend", ["tiny", "meta"])
def test_no_boxes_no_masks(backend: str, checkpoint: str, request: pytest.FixtureRequest) -> None:
    segmenter: Segmenter = request.getfixturevalue(backend)
    assert segmenter.segment([], []) == []
    assert segmenter.segment(IMAGES[:2], [[], []]) == [[], []]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 2)])
def test_the_smallest_images_are_drawn(tiny: PromptedSegmenter, size: tuple[int, int]) -> None:
    segment = tiny.segment([noise(*size)], [[(0, 0, *size)]])[0][0]
    assert segment.mask.shape == size[::-1]
    assert segment.mask.any()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_of_image_is_seen_in_colours(tiny: PromptedSegmenter, mode: str) -> None:
    image = noise(80, 60).convert("L").convert(mode)
    found = tiny.segment([image, image.convert("RGB")], [BOXES[0], BOXES[0]])
    assert same(*found)


@pytest.mark.parametrize(
    ("size", "box", "window"),
    [
        ((200, 100), (150, 10, 190, 40), (0, 0, 200, 100)),
        ((400, 100), (10, 10, 30, 30), (0, 0, 100, 100)),
        ((400, 100), (190, 80, 210, 100), (150, 0, 250, 100)),
        ((400, 100), (380, 80, 400, 100), (300, 0, 400, 100)),
        ((400, 100), (10, 10, 390, 90), (0, 0, 400, 100)),
        ((100, 330), (40, 300, 60, 330), (0, 230, 100, 330)),
    ],
)
def test_strips_are_seen_through_square_windows(
    size: tuple[int, int],
    box: tuple[int, ...],
    window: tuple[int, ...],
) -> None:
    assert windows(size, [box]) == {window: [0]}


def test_every_box_has_one_window_that_holds_it() -> None:
    boxes = [(x, 10, x + 15, 40) for x in range(0, 380, 7)]
    chosen = windows((400, 100), boxes)
    assert sorted(i for members in chosen.values() for i in members) == list(range(len(boxes)))
    for (x, _, right, _), members in chosen.items():
        assert all(x <= boxes[i][0] and boxes[i][2] <= right for i in members)
