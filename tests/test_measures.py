"""What forwards tell besides log-probabilities, against ordinary forwards of the whole sequence by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rewardlib.tokens import draw  # noqa: E402
from tests.oracles import dyco, ease, pepo, tor  # noqa: E402
from tests.test_train_core import BOX, POLICIES, ask, completions, picture, policy, prompts  # noqa: E402
from train.asking import _last_hidden, token_ends  # noqa: E402
from train.families import FAMILIES  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loading import load_model  # noqa: E402
from train.measures import ImageAttention, RegionAttention  # noqa: E402
from train.methods.dyco_rl import Alignment  # noqa: E402
from train.methods.ease import EvidenceDivergence  # noqa: E402
from train.methods.pepo import ImageSimilarity  # noqa: E402
from train.methods.tor import NucleusEntropy  # noqa: E402
from train.packing import pack  # noqa: E402
from train.shown import Shown  # noqa: E402
from train.views import NoImages, Unattended  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
BOXES = ((0.1, 0.2, 0.5, 0.7),)


def ordinary(made, prompt, completion, **options):
    """The model's own forward of one completion behind its prompt."""
    ids = torch.cat([prompt.ids, completion])[None]
    types = torch.nn.functional.pad((prompt.image | (prompt.ids == made.model.config.image_token_id)).int(), (0, len(completion)))[None]
    extra = {"mm_token_type_ids": types} if prompt.images else {}
    return made.model(input_ids=ids, use_cache=False, **extra, **prompt.images, **options)


def eager_attention(made, prompt, completion, layer):
    """Attention of all positions of a sequence, averaged over heads (T, T)."""
    made.backbone.language_model.set_attn_implementation("eager")
    attention = ordinary(made, prompt, completion, output_attentions=True).attentions[layer][0].mean(dim=0)
    made.backbone.language_model.set_attn_implementation("shared_prefix")
    return attention


def measured(made, prompt, measure, group):
    output = forward(made, prompt, group, measures=[measure])
    return [output.measured[measure.name][output.completion_index == n] for n in range(len(group))]


@pytest.mark.parametrize("family", POLICIES)
@torch.no_grad()
def test_similarity_to_the_image_in_all_layers(family):
    made = policy(family)
    for prompt in prompts(made)[:2]:
        group = completions()
        for completion, similarity in zip(group, measured(made, prompt, ImageSimilarity(), group), strict=True):
            states = ordinary(made, prompt, completion, output_hidden_states=True).hidden_states
            length = len(prompt.ids)
            wanted = pepo.pepo_similarity(
                [state[0, length:].tolist() for state in states],
                [state[0, :length][prompt.image].tolist() for state in states],
            )
            assert similarity.tolist() == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_without_an_image_nothing_is_similar_to_it_and_nothing_aligned():
    made = policy("qwen2_5_vl")
    for measure in (ImageSimilarity(), Alignment(0.05), EvidenceDivergence(64, 0.25, 0.1)):
        (values,) = measured(made, prompts(made)[2], measure, completions()[:1])
        assert values.isnan().all()


@torch.no_grad()
def test_alignment_is_read_from_the_last_layers_attention():
    made = policy("qwen2_5_vl")
    for prompt in prompts(made)[:2]:
        group = completions()
        first = int(prompt.image.nonzero()[0])
        last = int(prompt.image.nonzero()[-1])
        for completion, aligned in zip(group, measured(made, prompt, Alignment(0.001), group), strict=True):
            attention = eager_attention(made, prompt, completion, -1)[len(prompt.ids) - 1 : -1]  # of what predicts each token
            image = torch.nn.functional.pad(prompt.image, (0, len(completion)))
            behind = torch.arange(len(image)) > last
            between = ~image & (torch.arange(len(image)) > first)
            text = [row[between | behind] for row in attention]
            visible = [values[: len(values) - len(completion) + t] for t, values in enumerate(text)]
            wanted = dyco.dyco_tokens([row[image].tolist() for row in attention], [row.tolist() for row in visible], tau=0.001)
            for value, (_, _, role, s) in zip(aligned[1:].tolist(), wanted, strict=True):
                if role != dyco.NEUTRAL and value == value:
                    assert value == pytest.approx(s, abs=1e-4)
            neutral = [role == dyco.NEUTRAL for _, _, role, _ in wanted]
            assert aligned[1:].isnan().tolist() == neutral


@pytest.mark.parametrize("family", POLICIES)
def test_the_divergence_from_the_evidence_and_its_gradient(family):
    from dataclasses import replace

    made = policy(family)
    prompt = replace(prompts(made)[0], boxes=BOXES)
    group = completions()
    rows, columns = prompt.tiles[0].positions.shape
    target = ease.ease_target(rows, columns, [(x0 * columns, y0 * rows, x1 * columns, y1 * rows) for x0, y0, x1, y1 in BOXES])
    layers = len(made.model.get_decoder().layers)
    for completion, values in zip(group, measured(made, prompt, EvidenceDivergence(4, 0.25, 0.1), group), strict=True):
        with torch.no_grad():
            attention = eager_attention(made, prompt, completion, ease.ease_layer(layers))
        image = torch.nn.functional.pad(prompt.image, (0, len(completion)))
        chosen = ease.ease_positions(len(completion), 4)
        for place in chosen:
            wanted = ease.ease_token_loss(attention[len(prompt.ids) + place][image].tolist(), target)
            assert values[place].item() == pytest.approx(wanted, rel=1e-3)
        assert (~values.isnan()).sum() == len(chosen)
    values[chosen].sum().backward()
    moved = [name for name, p in made.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("q_proj" in name for name in moved)
    assert any("k_proj" in name for name in moved)


@torch.no_grad()
def test_the_nucleus_is_of_what_tokens_were_sampled_from():
    made = policy("qwen2_5_vl")
    prompt, group = prompts(made)[0], completions()
    made.model.get_output_embeddings().weight.mul_(30)
    output = forward(made, prompt, group, measures=[NucleusEntropy(0.9)], temperature=1.7)
    for n, completion in enumerate(group):
        logits = ordinary(made, prompt, completion).logits[0, len(prompt.ids) - 1 : -1] / 1.7
        wanted = [tor.top_p_entropy(row.tolist(), 0.9) for row in logits.double().softmax(dim=-1)]
        assert output.measured["nucleus_entropy"][output.completion_index == n].tolist() == pytest.approx(wanted, abs=2e-3)


@torch.no_grad()
def test_several_measures_of_one_forward():
    made = policy("qwen2_5_vl")
    prompt, group = prompts(made)[0], completions()
    every = [RegionAttention(), ImageAttention((0, -1)), Alignment(0.05), ImageSimilarity()]
    output = forward(made, prompt, group, measures=every)
    for measure in every:
        alone = forward(made, prompt, group, measures=[measure]).measured[measure.name]
        assert torch.allclose(output.measured[measure.name], alone, atol=1e-6, equal_nan=True)
    on_image = output.measured["attention"][:, 1]
    assert torch.allclose(
        forward(made, prompt, group, measures=[ImageAttention()]).measured["image_attention"].sum(dim=1), on_image, atol=1e-5
    )


def shown(made, text="how many?", images=1):
    from train.data import to_row

    pictures = [picture((150, 70), n) for n in range(images)]
    row = to_row({"images": pictures, "question": text, "answer": "4"}, "boxed")
    prompt = made.encode(row.messages, row.images)
    return Shown(made, row, prompt, 4096)


@pytest.mark.parametrize("family", POLICIES)
@pytest.mark.parametrize("images", [1, 2])
@torch.no_grad()
def test_a_view_in_which_nothing_attends_to_the_image(family, images):
    """Leaving the image's tokens out, with all positions as they were, is masking attention to them."""
    made = policy(family)
    seen = shown(made, images=images)
    (completion, *_) = completions()
    view = Unattended().prompt(seen, np.random.default_rng(0))
    ids = torch.cat([seen.prompt.ids, completion])
    packed = pack(seen.prompt.ids, seen.prompt.positions, [completion])
    image = torch.nn.functional.pad(seen.prompt.image, (0, len(completion)))
    length = len(ids)
    mask = torch.ones(length, length, dtype=torch.bool).tril() & ~image
    mask |= torch.eye(length, dtype=torch.bool)
    made.backbone.language_model.set_attn_implementation("sdpa")
    embeds = made.model.get_input_embeddings()(ids[None])
    hidden = made.model.get_decoder()(inputs_embeds=embeds, position_ids=packed.positions, attention_mask=mask[None, None], use_cache=False)
    logits = made.model.get_output_embeddings()(hidden.last_hidden_state[0])[len(seen.prompt.ids) - 1 : -1]
    wanted = logits.log_softmax(dim=-1).gather(1, completion[:, None])[:, 0]
    made.backbone.language_model.set_attn_implementation("shared_prefix")
    assert torch.allclose(forward(made, view, [completion]).logprobs, wanted, atol=1e-4)


def test_a_view_without_images_is_the_chat_without_them():
    made = policy("qwen2_5_vl")
    seen = shown(made)
    bare = NoImages().prompt(seen, np.random.default_rng(0))
    asked = [{"role": "user", "content": [part for part in seen.row.messages[0]["content"] if part["type"] == "text"]}]
    assert torch.equal(bare.ids, made.encode(asked, []).ids)
    assert NoImages().prompt(shown(made, images=0), np.random.default_rng(0)) is None
    assert Unattended().prompt(shown(made, images=0), np.random.default_rng(0)) is None


@pytest.mark.parametrize("family", POLICIES)
def test_pixels_are_those_that_the_policy_sees(family):
    made = policy(family)
    seen = shown(made)
    (pixels,) = seen.pixels
    assert [pixels.shape[1::-1]] == made.family.sizes_seen(seen.prompt.images, seen.row.images)
    again = seen.with_pixels([pixels])
    assert torch.equal(again.ids, seen.prompt.ids)
    assert (again.images["pixel_values"] - seen.prompt.images["pixel_values"]).abs().mean() < 0.1


@torch.no_grad()
def test_continuations_behind_one_prompt_are_continuations_by_themselves():
    made = policy("qwen2_5_vl")
    prompt, group = prompts(made)[0], completions()
    together = _last_hidden(made, prompt, group)
    for one, completion in zip(together, group, strict=True):
        assert torch.allclose(one, _last_hidden(made, prompt, [completion])[0], atol=1e-5)


@pytest.mark.parametrize("text", ["one two", "6² = 36 µm, 猫🙂 ends", "", "<answer>4</answer>"])
def test_where_tokens_end(text):
    made = load_model(str(ROOT / "demo" / "checkpoints" / "policy"), "cpu")
    decode = made.processor.tokenizer.decode
    ids = made.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = decode(ids, skip_special_tokens=True)
    ends = token_ends(made, tuple(ids))
    for n, end in enumerate(ends):
        said = decode(ids[: n + 1], skip_special_tokens=True).rstrip("\ufffd")
        assert whole[:end] == said
    assert not ends or ends[-1] == len(whole)


def test_every_family_tells_how_it_writes_boxes():
    spaces = {}
    for family in FAMILIES:
        made = policy(family)
        prompt = made.encode(ask("where?"), [picture((150, 70), 0)], draw((150, 70), [BOX]))
        spaces[family] = made.family.box_space(prompt.images, prompt.pictures)
    assert spaces["qwen3_vl"] == (1000, 1000)
    assert spaces["qwen2_5_vl"][0] % 28 == 0
