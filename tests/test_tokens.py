"""Regions to image tokens, against the real processors: change a region of the picture, and see which tokens change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch")

from rewardlib import rle  # noqa: E402
from rewardlib.tokens import Tile, draw, image_mask, image_tiles, token_weights  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402

# Resampling blurs a region's edge by a few pixels of the resized image; beyond that nothing may change.
BLUR = 12


def question(processor, images, **settings):
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": "what?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(images=[images], text=[text], return_tensors="pt", **settings)


def local_model(family, **config):
    """A model whose vision tower lets no patch see another, so that a token's features tell what its patch showed."""
    made = model(FAMILIES[family]())
    for key, value in config.items():
        setattr(made.config, key, value)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            of_tower = not {"language_model", "text_model"} & {*name.split(".")}
            if of_tower and any(part in name for part in ("attn.proj", "projection_layer", "out_proj")):
                weight.zero_()
    return made


@torch.no_grad()
def embeddings(made, inputs):
    """What enters the language model: (length, hidden)."""
    seen = {}
    hook = made.get_decoder().register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    made(**inputs)
    hook.remove()
    return seen["inputs_embeds"][0]


def noise(size, seed):
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def check(processor, made, sizes, which, box, **settings):
    """Repaint ``box`` of image ``which``: the tokens that it covers change, and none beyond its blurred edge does."""
    pictures = [noise(size, n) for n, size in enumerate(sizes)]
    changed = [picture.copy() for picture in pictures]
    x0, y0, x1, y1 = box
    changed[which][y0:y1, x0:x1] = 255 - changed[which][y0:y1, x0:x1]
    before, after = (question(processor, [Image.fromarray(p) for p in some], **settings) for some in (pictures, changed))
    length = before["input_ids"].shape[1]
    tiles = image_tiles(processor, before, [sizes], **settings)[0]
    differs = (embeddings(made, before) - embeddings(made, after)).abs().amax(dim=-1).numpy() > 1e-4

    weights = token_weights(tiles[which], draw(sizes[which], [box]), length)
    wide = (x0 - BLUR, y0 - BLUR, x1 + BLUR, y1 + BLUR)
    reach = token_weights(tiles[which], draw(sizes[which], [wide]), length)
    assert (weights > 0.1).any()
    assert differs[weights > 0.1].all()
    assert not differs[reach == 0].any()
    assert image_mask(tiles, length).sum() >= (weights > 0).sum()


BOXES = {"top left": (0, 0, 40, 25), "right edge": (120, 20, 150, 60), "bottom": (30, 50, 100, 70), "middle": (60, 20, 105, 48)}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_region_are_those_that_change(family, box):
    check(PROCESSORS[family](), local_model(family), [(150, 70)], 0, box)


@pytest.mark.parametrize("family", FAMILIES)
def test_tall_image(family):
    check(PROCESSORS[family](), local_model(family), [(60, 170)], 0, (10, 90, 50, 140))


@pytest.mark.parametrize("family", FAMILIES)
def test_second_of_two_images(family):
    check(PROCESSORS[family](), local_model(family), [(90, 60), (150, 70)], 1, (60, 10, 120, 50))


def test_gemma3_crops_of_pan_and_scan():
    processor = PROCESSORS["gemma3"]()
    sizes = {"pan_and_scan_min_crop_size": 20, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}
    for size, box in (((150, 50), (100, 5, 150, 45)), ((50, 150), (5, 60, 45, 100))):
        settings = {"do_pan_and_scan": True, **sizes}
        tiles = image_tiles(processor, question(processor, [Image.fromarray(noise(size, 0))], **settings), [[size]], **settings)[0][0]
        assert len(tiles) == 4  # the whole and three crops
        check(processor, local_model("gemma3"), [size], 0, box, **settings)


def test_llava_onevision_shrinks_a_grid_of_too_many_tokens():
    processor = PROCESSORS["llava_onevision"]()
    processor.vision_aspect_ratio = "anyres_max_1"
    check(processor, local_model("llava_onevision", vision_aspect_ratio="anyres_max_1"), [(150, 140)], 0, (60, 40, 120, 110))


@pytest.mark.parametrize("size", [(7, 5), (56, 56), (57, 56), (112, 3), (99, 101), (233, 77), (300, 299), (1000, 40)])
@pytest.mark.parametrize("settings", [{}, {"do_image_splitting": False}, {"do_resize": False}, {"size": {"longest_edge": 150}}])
def test_smolvlm_cuts_images_of_any_size_as_its_processor_does(size, settings):
    processor = PROCESSORS["smolvlm"](**settings)
    inputs = question(processor, [Image.fromarray(noise(size, 0))])
    tiles = image_tiles(processor, inputs, [[size]])[0]
    count = int((inputs["input_ids"] == processor.image_token_id).sum())
    assert image_mask(tiles, inputs["input_ids"].shape[1]).sum() == count == len(tiles[0]) * 4
    assert tiles[0][-1].box == (0, 0, *size)


def test_rows_of_a_padded_batch_have_their_own_offsets():
    processor = PROCESSORS["qwen2_5_vl"]()
    sizes = [[(150, 70)], [(60, 60)]]
    texts = [
        processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": t}]}])
        for t in ("a", "a long question")
    ]
    images = [[Image.fromarray(noise(row[0], 0))] for row in sizes]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    for row, image, text, size in zip(range(2), images, texts, sizes, strict=True):
        alone = processor(images=[image], text=[text], return_tensors="pt")
        shift = batch["input_ids"].shape[1] - alone["input_ids"].shape[1]
        (single,) = image_tiles(processor, alone, [size])[0]
        (batched,) = image_tiles(processor, batch, sizes)[row]
        assert (batched[0].positions == single[0].positions + shift).all()
    assert shift == 0 or row == 1


# ---------------------------------------------------------------------------------------------------------------------------------------
# Geometry


TILE = Tile((0.0, 0.0, 100.0, 50.0), np.arange(8).reshape(2, 4) + 3)


def test_weights_are_shares_of_the_patch():
    weights = token_weights([TILE], draw((100, 50), [(0, 0, 25, 25), (25, 0, 37.5, 12.5)]), 12)
    assert weights.tolist() == [0, 0, 0, 1, 0.25, 0, 0, 0, 0, 0, 0, 0]


def test_region_is_scaled_before_it_is_clamped():
    """A box at the right of an image that is larger than the model's canvas keeps its width (the released code cut it at the canvas)."""
    weights = token_weights([Tile((0.0, 0.0, 1000.0, 500.0), TILE.positions)], draw((1000, 500), [(750, 0, 1000, 250)]), 12)
    assert weights[6] == 1
    assert weights.sum() == 1


def test_box_at_the_last_pixel_stays_in_its_row():
    """Scaling up must not spill into the next row of tokens (the released code's column index could reach the row's length)."""
    weights = token_weights([Tile((0.0, 0.0, 20.0, 10.0), TILE.positions)], draw((20, 10), [(15, 0, 20, 5)]), 12)
    assert weights.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_overlapping_boxes_count_once():
    one, two = (
        token_weights([TILE], draw((100, 50), boxes), 12)
        for boxes in ([(5, 5, 40, 30)], [(5, 5, 40, 30), (5, 5, 40, 30), (10, 10, 20, 20)])
    )
    assert (one == two).all()


@given(st.tuples(*[st.floats(0, 99)] * 4))
def test_covered_area_is_the_boxes_area(numbers):
    x0, x1 = sorted(numbers[:2])
    y0, y1 = sorted(n / 2 for n in numbers[2:])
    if x1 - x0 < 0.01 or y1 - y0 < 0.01:
        return
    weights = token_weights([TILE], draw((100, 50), [(x0, y0, x1, y1)]), 12)
    assert weights.sum() * 25 * 25 == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-3, abs=1e-2)


def test_mask_and_box_agree():
    mask = np.zeros((50, 100), bool)
    mask[10:30, 20:70] = True
    assert np.allclose(
        token_weights([TILE], draw((100, 50), masks=[rle.encode(mask)]), 12), token_weights([TILE], draw((100, 50), [(20, 10, 70, 30)]), 12)
    )


def test_line_ends_are_no_image_tokens():
    processor = PROCESSORS["llava_onevision"]()
    inputs = question(processor, [Image.fromarray(noise((150, 70), 0))])
    mask = image_mask(image_tiles(processor, inputs, [[(150, 70)]])[0], inputs["input_ids"].shape[1])
    assert mask.sum() == 16 + 32
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16 + 36


# ---------------------------------------------------------------------------------------------------------------------------------------
# Bad input


def test_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match=r"token layout of object is unknown; known are Qwen2VLProcessor, .*Gemma3Processor"):
        image_tiles(object(), {"input_ids": [[1]]}, [[]])


def test_missing_image_tokens_name_the_row_and_both_counts():
    processor = PROCESSORS["internvl"]()
    inputs = question(processor, [Image.fromarray(noise((150, 70), 0))])
    with pytest.raises(ValueError, match=r"row 0 holds 10 image tokens, its 1 images make 12 or 4: was the prompt truncated"):
        image_tiles(processor, {"input_ids": _cut(inputs, processor, 2)}, [[(150, 70)]])


def _cut(inputs, processor, count):
    ids = inputs["input_ids"].clone()
    last = (ids[0] == processor.image_token_id).nonzero()[-count:, 0]
    ids[0, last] = 5
    return ids


def test_empty_box_and_wrong_mask():
    with pytest.raises(ValueError, match="empty: expected x0 < x1"):
        draw((10, 10), [(5, 5, 5, 8)])
    with pytest.raises(ValueError, match="a mask of 4x3 pixels for an image of 10x10"):
        draw((10, 10), masks=[rle.encode(np.ones((3, 4), bool))])
