"""The shared-prefix computation of the trainer against separate sequences: rollouts, packed scoring, gradients, losses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from rewardlib import Measurer, Sample  # noqa: E402
from rewardlib.tokens import draw  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model, qwen3_vl  # noqa: E402
from train.divergence import kl_to_reference  # noqa: E402
from train.engines import Sampling  # noqa: E402
from train.engines.local import rollout, sample  # noqa: E402
from train.flat import padded  # noqa: E402
from train.folders import find_model  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loading import load_model  # noqa: E402
from train.losses import LOSSES  # noqa: E402
from train.measures import RegionAttention  # noqa: E402
from train.methods.vgpo import AttentionFocus, VisualFocus  # noqa: E402
from train.packing import pack  # noqa: E402
from train.policy import Policy  # noqa: E402

POLICIES = ("qwen2_5_vl", "qwen3_vl")
BOX = (20.0, 10.0, 90.0, 60.0)


def picture(size, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def ask(text, images=1):
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}]


def policy(family, **text):
    return Policy(model(FAMILIES[family](**text)), PROCESSORS[family]())


def prompts(made):
    """Prompts of different lengths: one image, two images, none."""
    one, two = picture((150, 70), 0), picture((90, 90), 1)
    return [
        made.encode(ask("how many?"), [one], draw(one.size, [BOX])),
        made.encode(ask("what differs?", 2), [one, two], draw(one.size, [BOX])),
        made.encode(ask("how are you today?", 0), []),
    ]


def completions(seed=0, lengths=(5, 1, 9, 3)):
    torch.manual_seed(seed)
    return [torch.randint(4, 100, (n,)) for n in lengths]


def separate(made, prompt, completion):
    """Log-probabilities (n,) of one completion behind its prompt, as an ordinary sequence."""
    ids = torch.cat([prompt.ids, completion])[None]
    types = torch.nn.functional.pad((prompt.image | (prompt.ids == made.model.config.image_token_id)).int(), (0, len(completion)))[None]
    extra = {"mm_token_type_ids": types} if prompt.images else {}
    output = made.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **extra, **prompt.images)
    return output.logits[0, -len(completion) - 1 : -1].log_softmax(dim=-1).gather(1, completion[:, None])[:, 0]


# ---------------------------------------------------------------------------------------------------------------------------------------
# Packing


def test_a_packed_row():
    positions = torch.tensor([[0, 1, 1, 4], [0, 1, 2, 4], [0, 3, 1, 4]])
    packed = pack(torch.tensor([7, 8, 9, 10]), positions, [torch.tensor([1, 2]), torch.tensor([3])])
    assert packed.ids.tolist() == [[7, 8, 9, 10, 1, 2, 3]]
    assert packed.positions[:, 0, 4:].tolist() == [[5, 6, 5]] * 3
    assert packed.tokens.tolist() == [4, 5, 6]
    assert packed.predictors.tolist() == [3, 4, 3]
    assert packed.completion_index.tolist() == [0, 0, 1]
    assert padded(torch.tensor([1.0, 2.0, 3.0]), packed.completion_index, 2, fill=-1).tolist() == [[1, 2], [3, -1]]


@pytest.mark.parametrize("family", POLICIES)
@torch.no_grad()
def test_packed_log_probabilities_equal_those_of_separate_sequences(family):
    made = policy(family)
    for prompt in prompts(made):
        scored = forward(made, prompt, completions())
        for i, completion in enumerate(completions()):
            assert (scored.logprobs[scored.completion_index == i] - separate(made, prompt, completion)).abs().max() < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", POLICIES)
@torch.no_grad()
def test_packed_log_probabilities_equal_those_of_a_padded_batch(family, side):
    """Prompts of different lengths and their completions in one batch, as other trainers compute them."""
    made = policy(family)
    some, completion = prompts(made), completions()[0]
    rows = [torch.cat([prompt.ids, completion]) for prompt in some]
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    pads = [(gap, 0) if side == "left" else (0, gap) for gap in gaps]
    ids, real = (
        torch.stack([torch.nn.functional.pad(row, pad) for row, pad in zip(kind, pads, strict=True)])
        for kind in (rows, [torch.ones_like(row) for row in rows])
    )
    images = {name: torch.cat([prompt.images[name] for prompt in some if prompt.images]) for name in some[0].images}
    types = (ids == made.model.config.image_token_id).int() * real
    logits = made.model(input_ids=ids, attention_mask=real, mm_token_type_ids=types, use_cache=False, **images).logits
    for i, (prompt, row, (before, _)) in enumerate(zip(some, rows, pads, strict=True)):
        end = before + len(row)
        expected = logits[i, end - len(completion) - 1 : end - 1].log_softmax(dim=-1).gather(1, completion[:, None])[:, 0]
        assert (forward(made, prompt, [completion]).logprobs - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", POLICIES)
def test_packed_gradients_equal_those_of_separate_sequences(family):
    def gradients(loss, made):
        made.model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}

    made = policy(family)
    for prompt in prompts(made)[:2]:
        weights = [torch.randn(len(c)) for c in completions()]
        packed = gradients(forward(made, prompt, completions()).logprobs @ torch.cat(weights), made)
        apart = gradients(sum(separate(made, prompt, c) @ w for c, w in zip(completions(), weights, strict=True)), made)
        assert set(packed) == set(apart)
        for name, gradient in apart.items():
            assert (packed[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, name


@torch.no_grad()
def test_no_score_depends_on_which_completions_share_the_row():
    made = policy("qwen2_5_vl")
    prompt, group = prompts(made)[0], completions()
    whole = forward(made, prompt, group, measures=[RegionAttention(), VisualFocus()])
    for part in ([2], [3, 1], [1, 0, 3, 2]):
        some = forward(made, prompt, [group[i] for i in part], measures=[RegionAttention(), VisualFocus()])
        for j, i in enumerate(part):
            mine, same = some.completion_index == j, whole.completion_index == i
            for name in ("logprobs", "entropy"):
                assert torch.allclose(getattr(some, name)[mine], getattr(whole, name)[same], atol=1e-5)
            for name in ("attention", "visual_focus"):
                assert torch.allclose(some.measured[name][mine], whole.measured[name][same], atol=1e-5)


@torch.no_grad()
def test_scores_equal_those_of_an_ordinary_forward():
    """The packed pass measures what ``Measurer`` measures with one padded row per response."""
    made = policy("qwen2_5_vl")
    image = picture((150, 70), 0)
    prompt = made.encode(ask("how many?"), [image], draw(image.size, [BOX]))
    group = completions()
    scored = forward(made, prompt, group, measures=[RegionAttention()], temperature=1.3)
    plain = Sample("x", prompt=ask("how many?"), images=(image,), regions=({"bbox": BOX},))
    measured = Measurer(made.model, made.processor, temperature=1.3)(
        [replace(plain, response_ids=tuple(c.tolist())) for c in group], {"attention", "entropy", "counterfactual"}
    )
    for i, sample_ in enumerate(measured):
        mine = scored.completion_index == i
        on_region, on_image = scored.measured["attention"][mine].unbind(dim=1)
        assert np.allclose(scored.logprobs[mine], sample_.counterfactual.original, atol=1e-4)
        assert np.allclose(scored.entropy[mine], sample_.entropy, atol=1e-4)
        assert np.allclose(on_region, sample_.attention.region, atol=1e-5)
        assert np.allclose(on_image, sample_.attention.image, atol=1e-5)
        assert float(prompt.region.sum()) == pytest.approx(sample_.attention.region_tokens)


@torch.no_grad()
def test_focus_is_the_cosine_to_the_mean_image_state():
    made = policy("qwen2_5_vl")
    prompt, (completion, *_) = prompts(made)[1], completions()
    ids = torch.cat([prompt.ids, completion])[None]
    types = torch.nn.functional.pad(prompt.image.int(), (0, len(completion)))[None]
    hidden = made.model.model(input_ids=ids, mm_token_type_ids=types, **prompt.images).last_hidden_state[0]
    mean = hidden[: -len(completion)][prompt.image].mean(dim=0)
    expected = (torch.cosine_similarity(hidden[-len(completion) :], mean[None]) + 1) / 2
    assert torch.allclose(forward(made, prompt, [completion], measures=[VisualFocus()]).measured["visual_focus"], expected, atol=1e-5)
    blind = forward(made, prompts(made)[2], [completion], measures=[VisualFocus()])
    assert blind.measured["visual_focus"].isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("on", ["image", "evidence"])
def test_focus_may_be_attention(on):
    made = policy("qwen2_5_vl")
    image = picture((150, 70), 0)
    prompt = made.encode(ask("how many?"), [image], draw(image.size, [BOX]))
    apart = forward(made, prompt, completions(), measures=[RegionAttention(None), AttentionFocus(on)]).measured
    assert torch.allclose(apart["visual_focus"], apart["attention"][:, int(on == "image")], atol=1e-6)
    assert apart["visual_focus"].max() > 0
    nothing = made.encode(ask("how many?"), [image]) if on == "evidence" else prompts(made)[2]
    assert forward(made, nothing, completions(), measures=[AttentionFocus(on)]).measured["visual_focus"].isnan().all()


@torch.no_grad()
def test_log_probabilities_change_with_the_image():
    made = policy("qwen3_vl")
    first, second = (forward(made, made.encode(ask("what?"), [picture((90, 90), seed)]), completions()).logprobs for seed in (1, 2))
    assert (first - second).abs().max() > 1e-3


# ---------------------------------------------------------------------------------------------------------------------------------------
# Rollouts


@pytest.mark.parametrize("family", POLICIES)
@torch.no_grad()
def test_greedy_rollouts_equal_generate(family):
    made = policy(family)
    together = rollout(made, prompts(made), 3, Sampling(max_tokens=12, temperature=0), [torch.Generator()] * 3)
    for found, (text, images) in zip(together, (("how many?", 1), ("what differs?", 2), ("how are you today?", 0)), strict=True):
        pictures = [picture((150, 70), 0), picture((90, 90), 1)][:images]
        chat = made.processor.apply_chat_template(ask(text, images), add_generation_prompt=True)
        inputs = made.processor(text=[chat], return_tensors="pt", **({"images": [pictures]} if images else {}))
        greedy = {"do_sample": False, "suppress_tokens": made.suppressed.tolist(), "eos_token_id": made.ends.tolist(), "pad_token_id": 0}
        expected = made.model.generate(**inputs, max_new_tokens=12, **greedy)[0, inputs["input_ids"].shape[1] :]
        assert len(found) == 3
        assert all(row.tolist() == expected.tolist() for row in found)


@torch.no_grad()
def test_sampled_tokens_have_the_scored_probabilities():
    """What the rollout drew from is what the scoring pass sees: their frequencies agree."""
    made = policy("qwen2_5_vl")
    prompt = prompts(made)[0]
    first = torch.cat(rollout(made, [prompt], 4000, Sampling(max_tokens=1), [torch.Generator().manual_seed(0)])[0])
    ids = first.unique()
    probabilities = forward(made, prompt, [token[None] for token in ids]).logprobs.exp()
    frequencies = (first[None] == ids[:, None]).float().mean(dim=1)
    assert (frequencies - probabilities).abs().max() < 0.03


def test_image_tokens_are_never_sampled_and_completions_stop_at_the_end():
    made = policy("qwen2_5_vl")
    logits = torch.zeros(2000, 120)
    logits[:, made.suppressed] = 50
    drawn = sample(logits, made.suppressed, Sampling(), [torch.Generator().manual_seed(0)])
    assert not torch.isin(drawn, made.suppressed).any()
    assert made.model.config.image_token_id in made.suppressed
    for row in rollout(made, prompts(made)[:1], 50, Sampling(max_tokens=40), [torch.Generator().manual_seed(0)])[0]:
        assert not torch.isin(row[:-1], made.ends).any()
        assert len(row) == 40 or row[-1] in made.ends


@torch.no_grad()
def test_a_generator_decides_a_prompts_completions():
    made = policy("qwen2_5_vl")
    some = prompts(made)

    def draw(chosen, *seeds):
        found = rollout(made, [some[i] for i in chosen], 4, Sampling(max_tokens=8), [torch.Generator().manual_seed(s) for s in seeds])
        return [[row.tolist() for row in completions] for completions in found]

    assert draw([0], 1) == draw([0], 1) != draw([0], 2)
    assert draw([2, 0, 1], 5, 1, 7) == [*draw([2], 5), *draw([0], 1), *draw([1], 7)]


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [({"top_p": 0.75}, [0, 1]), ({"top_k": 3}, [0, 1, 2]), ({}, [0, 1, 2, 3]), ({"temperature": 0}, [0])],
    ids=["top_p", "top_k", "all", "cold"],
)
def test_nucleus_and_top_k(settings, drawn):
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(3000, -1)
    nothing = torch.tensor([], dtype=torch.long)
    assert sample(logits, nothing, Sampling(**settings), [torch.Generator().manual_seed(0)]).unique().tolist() == drawn


# ---------------------------------------------------------------------------------------------------------------------------------------
# Losses


def test_unsupported_policies_and_long_prompts_are_explained():
    strange = SimpleNamespace(config=SimpleNamespace(model_type="mllama"))
    with pytest.raises(ValueError, match="policies of type 'mllama' are not supported; supported are qwen2_vl, qwen2_5_vl, qwen3_vl"):
        Policy(strange, None)
    made = policy("qwen2_5_vl")
    with pytest.raises(ValueError, match=r"more than 20, with images of 150x70: shrink them, or raise --max-prompt"):
        made.encode(ask("how many?"), [picture((150, 70), 0)], limit=20)


def test_a_package_that_the_processor_asks_for_is_named(tmp_path, monkeypatch):
    model(FAMILIES["smolvlm"]()).save_pretrained(tmp_path)
    PROCESSORS["smolvlm"]().save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(ValueError, match=r"the processor of .* cannot be loaded: .*pip install num2words"):
        load_model(str(tmp_path), "cpu")


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_their_formulas(loss):
    torch.manual_seed(0)
    lengths = torch.tensor([3, 1, 4])
    owner = torch.repeat_interleave(torch.arange(3), lengths)
    logprobs, old, advantages = torch.randn(8) - 2, torch.randn(8) - 2, torch.randn(8)
    weights = LOSSES[loss]().weights(lengths, completions=3, tokens=8, max_tokens=5)
    total = (weights[owner] * LOSSES[loss](0.2, 0.28).objective(logprobs, old, advantages, owner)).sum().item()

    per_token = []
    for t in range(8):
        mine = [u for u in range(8) if owner[u] == owner[t]]
        ratio = float(torch.exp(logprobs[t] - old[t]))
        if loss == "gspo":
            ratio = float(torch.exp(sum(logprobs[u] - old[u] for u in mine) / len(mine)))
        a = float(advantages[t])
        value = min(ratio * a, min(max(ratio, 0.8), 1.28) * a)
        if loss == "cispo":
            value = min(ratio, 1.28) * a * float(logprobs[t])
        if loss == "sapo":
            temperature = 1.0 if a > 0 else 1.05
            value = 4 / temperature / (1 + np.exp(-temperature * (ratio - 1))) * a
        norm = {"grpo": len(mine) * 3, "gspo": len(mine) * 3, "sapo": len(mine) * 3, "dr_grpo": 15}.get(loss, 8)
        per_token.append(-value / norm)
    assert total == pytest.approx(sum(per_token), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_on_policy_all_losses_have_the_policy_gradient(loss):
    logprobs = torch.randn(6, requires_grad=True)
    advantages, owner = torch.randn(6), torch.tensor([0, 0, 0, 1, 1, 1])
    LOSSES[loss]().objective(logprobs, logprobs.detach(), advantages, owner).sum().backward()
    assert torch.allclose(logprobs.grad, -advantages, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_a_batch_add_up_to_the_whole(loss):
    torch.manual_seed(1)
    lengths = torch.tensor([3, 1, 4, 2])
    logprobs, old, advantages = torch.randn(10), torch.randn(10), torch.randn(10)

    def part(which):
        inside = torch.cat([torch.arange(int(lengths[:i].sum()), int(lengths[: i + 1].sum())) for i in which])
        owner = torch.repeat_interleave(torch.arange(len(which)), lengths[which])
        weights = LOSSES[loss]().weights(lengths[which], completions=4, tokens=10, max_tokens=6)
        return (weights[owner] * LOSSES[loss]().objective(logprobs[inside], old[inside], advantages[inside], owner)).sum()

    whole = part([0, 1, 2, 3])
    for split in ([[0], [1], [2], [3]], [[3, 1], [0, 2]], [[2, 0, 1], [3]]):
        assert torch.allclose(sum(part(which) for which in split), whole, atol=1e-6)


def test_divergence_and_clipping():
    logprobs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0])
    assert kl_to_reference(logprobs, reference).tolist() == pytest.approx([0, np.e - 2])
    old = torch.zeros(3)
    owner = torch.zeros(3, dtype=torch.long)
    low, high = LOSSES["grpo"]().clipped(torch.tensor([-1.0, 1.0, 1.0]), old, torch.tensor([-1.0, 1.0, -1.0]), owner)
    assert (low.tolist(), high.tolist()) == ([True, False, False], [False, True, False])


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo"])
@pytest.mark.parametrize("seed", range(5))
def test_clipped_are_the_tokens_whose_gradient_is_taken_away(loss, seed):
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])
    old, advantages = torch.randn(8, generator=generator), torch.randn(3, generator=generator)[owner]
    logprobs = (old + 0.5 * torch.randn(8, generator=generator)).requires_grad_()
    LOSSES[loss](0.2, 0.28).objective(logprobs, old, advantages, owner).sum().backward()
    low, high = LOSSES[loss](0.2, 0.28).clipped(logprobs.detach(), old, advantages, owner)
    assert torch.equal(low | high, logprobs.grad == 0)
    assert not (low & high).any()


def test_sapo_closes_softly_and_faster_for_negative_advantages():
    """The gradient with respect to the ratio is A times the paper's weight, 4 sigmoid (1 - sigmoid), which is 1 at a ratio of 1."""
    ratio = torch.tensor([0.2, 0.6, 1.0, 1.4, 3.0]).repeat(2)
    advantages = torch.tensor([1.0, -1.0]).repeat_interleave(5)
    logprobs = ratio.log().requires_grad_()
    LOSSES["sapo"]().objective(logprobs, torch.zeros(10), advantages, torch.zeros(10, dtype=torch.long)).sum().backward()
    weights = (-logprobs.grad / advantages / ratio).view(2, 5)
    expected = [[1 / np.cosh(t * (r - 1) / 2) ** 2 for r in (0.2, 0.6, 1.0, 1.4, 3.0)] for t in (1.0, 1.05)]
    assert torch.allclose(weights, torch.tensor(expected, dtype=torch.float32), atol=1e-5)
    assert (weights[1] <= weights[0]).all()


def test_cispo_caps_weights_and_takes_no_gradient_away():
    old, owner = torch.zeros(4), torch.zeros(4, dtype=torch.long)
    logprobs = torch.tensor([-1.0, 0.1, 1.0, 1.0], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0])
    LOSSES["cispo"](0.2, 0.28).objective(logprobs, old, advantages, owner).sum().backward()
    low, high = LOSSES["cispo"](0.2, 0.28).clipped(logprobs.detach(), old, advantages, owner)
    assert not low.any()
    assert high.tolist() == [False, False, True, True]
    assert (logprobs.grad != 0).all()
    assert logprobs.grad[2:].abs().tolist() == pytest.approx([1.28, 1.28])


def test_logits_in_chunks_are_the_logits(monkeypatch):
    made = policy("qwen3_vl")
    prompt = prompts(made)[0]
    whole = forward(made, prompt, completions())
    monkeypatch.setattr("train.forward.CHUNK", 4)
    parts = forward(made, prompt, completions())
    assert torch.allclose(whole.logprobs, parts.logprobs, atol=1e-6)
    assert torch.allclose(whole.entropy, parts.entropy, atol=1e-6)
    assert not whole.entropy.requires_grad
    assert qwen3_vl().text_config.vocab_size == 120


def test_a_model_is_found_where_a_run_has_put_it(tmp_path):
    for folder in ("run/checkpoint-5", "run/checkpoint-10", "anchored/model", "plain"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    assert find_model(str(tmp_path / "run")) == str(tmp_path / "run" / "checkpoint-10")
    assert find_model(str(tmp_path / "anchored")) == str(tmp_path / "anchored" / "model")
    for name in (str(tmp_path / "plain"), str(tmp_path), "Qwen/Qwen2.5-VL-3B-Instruct"):
        assert find_model(name) == name
