"""Both SAM backends give one mask per box, whatever the boxes are prompted with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from labeling.segment import SegmentAnythingSegmenter, Segmenter, TransformersSegmenter, windows
from PIL import Image

from demo.scenes import Scene, make_scene
from labeling import masks
from pipelines.config import SegmenterConfig, find_checkpoint


@pytest.fixture(scope="module")
def embedded() -> TransformersSegmenter:
    return TransformersSegmenter.from_pretrained(find_checkpoint(SegmenterConfig().name))


@pytest.fixture(scope="module")
def meta() -> SegmentAnythingSegmenter:
    """Meta's own modules at a size that a test can afford, with random weights."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

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
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=32, num_heads=2)
    decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=32, iou_head_depth=2, iou_head_hidden_dim=32)
    return SegmentAnythingSegmenter(Sam(encoder, prompts, decoder))


@pytest.fixture(scope="module")
def scene() -> Scene:
    import random

    return make_scene(random.Random(8), "strip")


@pytest.mark.parametrize("backend", ["embedded", "meta"])
def test_one_mask_per_box_of_the_images_size(backend: str, scene: Scene, request: pytest.FixtureRequest) -> None:
    segmenter: Segmenter = request.getfixturevalue(backend)
    boxes = [t.bbox for t in scene.things]
    segments = segmenter.segment(scene.image, boxes)
    assert len(segments) == len(boxes)
    for segment, box in zip(segments, boxes, strict=True):
        assert segment.mask.shape == (scene.image.height, scene.image.width)
        assert segment.mask.dtype == bool
        assert (segment.mask & masks.from_box(box, *segment.mask.shape)).any()
        assert 0 <= segment.score <= 1


@pytest.mark.parametrize("backend", ["embedded", "meta"])
def test_no_boxes_no_masks(backend: str, scene: Scene, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(backend).segment(scene.image, []) == []


def test_prompting_in_chunks_changes_nothing(embedded: TransformersSegmenter, scene: Scene) -> None:
    boxes = [t.bbox for t in scene.things] * 3  # several chunks in every window
    chunked = TransformersSegmenter(embedded.model, embedded.processor, boxes_at_once=2)
    for a, b in zip(embedded.segment(scene.image, boxes), chunked.segment(scene.image, boxes), strict=True):
        assert (a.mask == b.mask).mean() > 0.999


def test_the_embedded_segmenter_knows_the_shapes_world(embedded: TransformersSegmenter, scene: Scene) -> None:
    segments = embedded.segment(scene.image, [t.bbox for t in scene.things])
    assert np.mean([masks.iou(s.mask, t.mask) for s, t in zip(segments, scene.things, strict=True)]) > 0.85


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vit_x.*expected one of"):
        SegmentAnythingSegmenter.from_checkpoint(str(tmp_path / "x.pth"), kind="vit_x")


@pytest.mark.slow
def test_a_checkpoint_file_of_the_package_loads(tmp_path: Path) -> None:
    from segment_anything import sam_model_registry

    file = tmp_path / "sam_vit_b.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), file)
    segmenter = SegmentAnythingSegmenter.from_checkpoint(str(file), kind="vit_b")
    assert len(segmenter.segment(Image.new("RGB", (64, 48), "white"), [(4, 4, 20, 20)])) == 1
    assert str(tmp_path) not in str(segmenter.describe())


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
def test_strips_are_seen_through_square_windows(size: tuple[int, int], box: tuple[int, ...], window: tuple[int, ...]) -> None:
    assert windows(size, [box]) == {window: [0]}


def test_every_box_has_one_window_that_holds_it() -> None:
    boxes = [(x, 10, x + 15, 40) for x in range(0, 380, 7)]
    chosen = windows((400, 100), boxes)
    assert sorted(i for members in chosen.values() for i in members) == list(range(len(boxes)))
    assert all(x <= boxes[i][0] and boxes[i][2] <= right for (x, _, right, _), members in chosen.items() for i in members)
