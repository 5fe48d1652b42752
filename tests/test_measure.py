"""Measurements of a policy's responses, against one unpadded eager forward per sample."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from rewardlib import AttentionContrast, CausalAttention, Measurer, Sample, rle  # noqa: E402
from rewardlib.sinks import without_sinks  # noqa: E402
from rewardlib.tokens import draw, image_mask, image_tiles, token_weights  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402

NEEDS = {"entropy", "attention", "counterfactual"}
BOX = (20.0, 10.0, 90.0, 60.0)


def picture(size, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def ask(text, images=1):
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}]


def samples(processor, sizes=((150, 70), (90, 90), (60, 150))):
    made = []
    for n, size in enumerate(sizes):
        response = "<think>seen</think><answer>4</answer>"[: 37 - 5 * n]
        made.append(
            Sample(
                response,
                prompt=ask("how many?" * (n + 1)),
                answer="4",
                images=(picture(size, n),),
                regions=({"bbox": BOX, "mask": None},),
                evidence_image=picture(size, 10 + n),
                control_image=picture(size, 20 + n) if n else None,
                response_ids=tuple(processor.tokenizer(response, add_special_tokens=False)["input_ids"]),
                group=n,
            )
        )
    return made


@torch.no_grad()
def one_by_one(made, processor, sample, image=None):
    """(log-probs, entropy, maps (T, length) of the last layer averaged over heads, processor output) of one sample."""
    text = processor.apply_chat_template(sample.prompt, add_generation_prompt=True)
    prompt = processor(text=[text], images=[[image or sample.images[0]]], return_tensors="pt")
    response = torch.tensor([sample.response_ids])
    inputs = dict(prompt, input_ids=torch.cat([prompt["input_ids"], response], dim=1))
    inputs.pop("attention_mask")
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.nn.functional.pad(inputs[name], (0, response.shape[1]))
    made.set_attn_implementation("eager")
    output = made(**inputs, output_attentions=True)
    made.set_attn_implementation("sdpa")
    start = prompt["input_ids"].shape[1]
    scores = output.logits[0, start - 1 : -1].log_softmax(dim=-1)
    maps = output.attentions[-1][0].mean(dim=0)[start:]
    return scores.gather(1, response.T)[:, 0], -(scores.exp() * scores).sum(dim=-1), maps, prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_measurements_equal_one_eager_forward_per_sample(family):
    processor, made = PROCESSORS[family](), model(FAMILIES[family]())
    given = samples(processor)
    for sample, seen in zip(given, Measurer(made, processor)(given, NEEDS), strict=True):
        logprobs, entropy, maps, prompt = one_by_one(made, processor, sample)
        tiles = image_tiles(processor, prompt, [[sample.images[0].size]])[0]
        length = maps.shape[1]
        image, region = image_mask(tiles, length), token_weights(tiles[0], draw(sample.images[0].size, [BOX]), length)
        assert np.allclose(seen.entropy, entropy, atol=1e-4)
        assert np.allclose(seen.counterfactual.original, logprobs, atol=1e-4)
        assert np.allclose(seen.attention.image, maps @ torch.from_numpy(image).float(), atol=1e-5)
        assert np.allclose(seen.attention.region, maps @ torch.from_numpy(region), atol=1e-5)
        assert (seen.attention.image_tokens, seen.attention.region_tokens) == (image.sum(), pytest.approx(region.sum()))
        for role in ("evidence", "control"):
            changed = getattr(sample, f"{role}_image")
            measured = getattr(seen.counterfactual, role)
            assert (measured is None) == (changed is None)
            if changed is not None:
                assert np.allclose(measured, one_by_one(made, processor, sample, changed)[0], atol=1e-4)
                assert not np.allclose(measured, logprobs, atol=1e-3)  # the model sees another picture


@pytest.mark.parametrize("family", FAMILIES)
def test_no_measurement_depends_on_batch_size_or_order(family):
    processor, made = PROCESSORS[family](), model(FAMILIES[family]())
    given = samples(processor)
    text_only = Sample("4", prompt=ask("how many?", images=0), answer="4", response_ids=(70, 71), group="text")
    given.insert(1, text_only)
    reference = Measurer(made, processor, batch_size=1)(given, NEEDS)
    for size, order in ((2, (0, 1, 2, 3)), (4, (3, 1, 0, 2)), (8, (1, 3, 2, 0))):
        found = Measurer(made, processor, batch_size=size)([given[i] for i in order], NEEDS)
        for i, sample in zip(order, found, strict=True):
            assert sample.group == reference[i].group
            assert np.allclose(sample.entropy, reference[i].entropy, atol=1e-5)
            assert np.allclose(sample.attention.region, reference[i].attention.region, atol=1e-6)
            assert np.allclose(sample.attention.image, reference[i].attention.image, atol=1e-6)
            assert np.allclose(sample.counterfactual.original, reference[i].counterfactual.original, atol=1e-5)
    assert reference[1].attention.image_tokens == 0
    assert AttentionContrast()([reference[1]]) == CausalAttention()([reference[1]]) == [None]


def test_only_what_is_needed_is_filled_in_and_the_model_is_left_in_training():
    processor, made = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]()).train()
    (seen,) = Measurer(made, processor)(samples(processor)[:1], {"entropy"})
    assert made.training
    assert seen.entropy is not None
    assert seen.attention is None
    assert seen.counterfactual is None


def test_masks_boxes_and_many_regions():
    processor, made = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]())
    (sample,) = samples(processor)[:1]
    mask = np.zeros((70, 150), bool)
    mask[10:60, 20:90] = True
    variants = [
        ({"bbox": BOX},),
        ({"bbox": (0, 0, 1, 1), "mask": rle.encode(mask)},),  # a mask says it better than its box
        ({"bbox": BOX}, {"bbox": (30, 20, 40, 30)}),
    ]
    measurer = Measurer(made, processor)
    (first, *others) = [measurer([replace(sample, regions=regions)], NEEDS)[0].attention.region for regions in variants]
    for other in others:
        assert np.allclose(first, other, atol=1e-6)


def test_visual_sinks_are_left_out():
    maps = np.full((10, 20), 0.01)
    maps[:, 0] = 0.6  # attended to by everyone
    maps[4, 7] = 0.5  # looked at once
    weights = np.zeros(20)
    weights[[0, 7]] = 1
    seen = without_sinks(maps, weights, ratio=5)
    assert (seen.image_tokens, seen.region_tokens) == (19, 1)
    assert np.allclose(seen.image, [0.19] * 4 + [0.68] + [0.19] * 5)
    assert seen.region[4] == 0.5

    processor, made = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]())
    plain, dropped = (Measurer(made, processor, drop_sinks=drop)(samples(processor), NEEDS) for drop in (False, True))
    for a, b in zip(plain, dropped, strict=True):
        assert b.attention.image_tokens <= a.attention.image_tokens
        if b.attention.image_tokens == a.attention.image_tokens:
            assert np.allclose(a.attention.region, b.attention.region, atol=1e-6)


def test_temperature_and_empty_responses():
    processor, made = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]())
    given = [samples(processor)[0], replace(samples(processor)[1], response="", response_ids=())]
    cool, warm = (Measurer(made, processor, temperature=t)(given, NEEDS) for t in (1.0, 5.0))
    assert warm[0].entropy.mean() > cool[0].entropy.mean()
    assert len(cool[1].entropy) == len(cool[1].attention.region) == 0
    assert AttentionContrast()([cool[1]]) == [-1.0]


def test_responses_without_tokens_are_refused():
    processor, made = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]())
    with pytest.raises(ValueError, match="1 samples have no response_ids"):
        Measurer(made, processor)([replace(samples(processor)[0], response_ids=())], NEEDS)
