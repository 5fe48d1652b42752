"""What a processor makes of images is made again where it has not been kept, and is the same."""

import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import train.image_inputs as image_inputs  # noqa: E402
from tests.test_families import ask, completions, picture  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402
from train.forward import forward  # noqa: E402
from train.policy import Policy  # noqa: E402


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_made_again_is_the_same(family, monkeypatch):
    monkeypatch.setattr(image_inputs._kept, "_most", 0)
    made = Policy(model(FAMILIES[family]()), PROCESSORS[family]())
    pictures = [picture((150 + 10 * n, 70 + 30 * n), n) for n in range(3)]
    prompts = [made.encode(ask("how many?"), [each]) for each in pictures]
    before = [{name: values.clone() for name, values in prompt.images.items()} for prompt in prompts]
    for prompt, tensors in zip(prompts, before, strict=True):
        assert prompt.images.keys() == tensors.keys()
        assert len(prompt.images) == len(tensors) > 0
        assert all(torch.equal(prompt.images[name], values) for name, values in tensors.items())
    with torch.no_grad():
        first = forward(made, prompts[0], completions()).logprobs
        forward(made, prompts[1], completions())
        assert torch.equal(forward(made, prompts[0], completions()).logprobs, first)


def test_only_what_was_used_last_is_held(monkeypatch):
    """However many prompts a step has."""
    kept = image_inputs._kept
    made = Policy(model(FAMILIES["qwen2_5_vl"]()), PROCESSORS["qwen2_5_vl"]())
    one = image_inputs._bytes_of(dict(made.encode(ask("?"), [picture()]).images))
    monkeypatch.setattr(kept, "_most", 3 * one)
    prompts = [made.encode(ask("?"), [picture(seed=n)]) for n in range(20)]
    assert len(kept._values) <= 3
    assert kept._held <= 3 * one
    assert len({float(prompt.images["pixel_values"].sum()) for prompt in prompts}) == 20
    assert all(made.family.sizes_seen(prompt.images, prompt.pictures) for prompt in prompts)  # small ones always stay


def test_a_prompt_without_images_has_no_inputs():
    made = Policy(model(FAMILIES["qwen2_5_vl"]()), PROCESSORS["qwen2_5_vl"]())
    assert not made.encode(ask("?", 0), []).images
    assert made.encode(ask("?"), [Image.new("RGB", (90, 90))]).images
