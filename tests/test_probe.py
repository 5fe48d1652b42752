"""Attention masses against the maps of eager attention, on tiny random models of the real architectures."""

import threading

import pytest

torch = pytest.importorskip("torch")

import transformers as tf  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

from rewardlib.masses import fused_mass, row_logsumexp, tiled_mass, visible_keys  # noqa: E402
from rewardlib.probe import AttentionProbe, attention_layers  # noqa: E402
from tests.tiny_models import FAMILIES, MROPE, TEXT, gemma3, model, qwen2_5_vl, qwen3_vl  # noqa: E402

LENGTH = 40
IMAGE = slice(12, 20)


def batch(padding=None, seed=0):
    """Two rows of ids with a padding side, the response rows, and two key sets: a block of image keys and fractional weights."""
    torch.manual_seed(seed)
    ids = torch.randint(3, 100, (2, LENGTH))
    mask = torch.ones_like(ids)
    if padding == "left":
        mask[1, :9] = 0
    if padding == "right":
        mask[1, -9:] = 0
    rows = torch.zeros(2, LENGTH, dtype=torch.bool)
    rows[:, 24:31] = True
    rows[1, 27] = False
    image = torch.zeros(2, LENGTH)
    image[:, IMAGE] = 1
    region = torch.where(torch.rand(2, LENGTH) < 0.3, torch.rand(2, LENGTH), 0.0)
    return {"input_ids": ids, "attention_mask": mask}, rows, {"image": image, "region": region}


def eager_maps(made, inputs):
    """Attention maps (L, B, H, T, T) of the same weights."""
    before = made.config._attn_implementation
    made.set_attn_implementation("eager")
    maps = torch.stack(made(**inputs, output_attentions=True).attentions)
    made.set_attn_implementation(before)
    return maps


def expected(maps, rows, keys, b):
    """(L, H, R, K) of sample b."""
    weights = torch.stack([key[b].float() for key in keys.values()], dim=-1)
    return maps[:, b][:, :, rows[b]] @ weights


def largest_error(mass, maps, rows, keys):
    return max((mass.values[:, b, :, : int(rows[b].sum())] - expected(maps, rows, keys, b)).abs().max().item() for b in range(len(rows)))


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_masses_equal_eager_maps(family, padding):
    made = model(FAMILIES[family]())
    inputs, rows, keys = batch(padding)
    plain = made(**inputs).logits
    with AttentionProbe(made).watch(rows, keys, maps="image") as mass:
        logits = made(**inputs).logits
    maps = eager_maps(made, inputs)
    assert maps.max() > 0.8  # not the near-uniform attention of a fresh model
    assert largest_error(mass, maps, rows, keys) < 1e-5
    assert torch.equal(logits, plain)  # the kernel ran as it always does
    for b in range(2):
        image = maps[:, b][:, :, rows[b], IMAGE].mean(dim=(0, 1))
        assert (mass.maps[b] - image).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_packed_with_a_four_dimensional_mask(family):
    """Two sequences in one row, which may not see each other."""
    made = model(FAMILIES[family]())
    inputs, rows, keys = batch()
    ids, rows, keys = inputs["input_ids"][:1], rows[:1], {name: key[:1] for name, key in keys.items()}
    segment = torch.arange(LENGTH) >= 16
    block = (segment[:, None] == segment[None]) & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    inputs = {"input_ids": ids, "attention_mask": block[None, None]}
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs)
    additive = torch.where(block, 0.0, torch.finfo(torch.float32).min)[None, None]
    maps = eager_maps(made, {"input_ids": ids, "attention_mask": additive})
    assert maps[..., 24:, :16].max() == 0
    assert largest_error(mass, maps, rows, keys) < 1e-5


@torch.no_grad()
def test_rows_packed_by_restarted_positions():
    """transformers recognises packing from the positions alone, and so must the probe."""
    made = tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT, attn_implementation="sdpa")).eval()
    inputs, rows, keys = batch()
    positions = torch.cat([torch.arange(16), torch.arange(LENGTH - 16)])[None]
    inputs = {"input_ids": inputs["input_ids"][:1], "position_ids": positions}
    rows, keys = rows[:1], {name: key[:1] for name, key in keys.items()}
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs, use_cache=False)
    maps = eager_maps(made, {**inputs, "use_cache": False})
    assert maps[..., 24:, :16].max() == 0
    assert largest_error(mass, maps, rows, keys) < 1e-5


@pytest.mark.parametrize("heads", [{"num_key_value_heads": 8}, {"num_key_value_heads": 2}, {"num_key_value_heads": 1}], ids=str)
@torch.no_grad()
def test_grouped_query_attention(heads):
    made = model(qwen2_5_vl(**heads))
    inputs, rows, keys = batch("left")
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs)
    assert largest_error(mass, eager_maps(made, inputs), rows, keys) < 1e-5


@torch.no_grad()
def test_sliding_window_hides_far_keys():
    made = model(gemma3())
    inputs, rows, keys = batch()
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs)
    assert (mass["image"][:2] < mass["image"][2:].mean()).any()
    assert mass["image"][0, 0, :, -1].max() == 0  # row 30 sees keys 23 to 30 only
    assert largest_error(mass, eager_maps(made, inputs), rows, keys) < 1e-5


@pytest.mark.parametrize("implementation", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
@torch.no_grad()
def test_other_attention_functions(implementation):
    made = model(gemma3())
    inputs, rows, keys = batch("left")
    made.set_attn_implementation({"text_config": implementation, "vision_config": "sdpa"})
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs)
    assert largest_error(mass, eager_maps(made, inputs), rows, keys) < 1e-5


@torch.no_grad()
def test_softcapped_scores_and_learned_sinks():
    capped = tf.Gemma2Config(**TEXT, attn_logit_softcapping=5.0, query_pre_attn_scalar=8, sliding_window=8, attn_implementation="eager")
    sinks = tf.GptOssConfig(**TEXT, num_local_experts=2, num_experts_per_tok=1, sliding_window=8, attn_implementation="eager")
    for made in (tf.Gemma2ForCausalLM(capped).eval(), tf.GptOssForCausalLM(sinks).eval()):
        inputs, rows, keys = batch()
        with AttentionProbe(made).watch(rows, keys) as mass:
            made(**inputs)
        maps = torch.stack(made(**inputs, output_attentions=True).attentions)
        assert largest_error(mass, maps, rows, keys) < 1e-5


@torch.no_grad()
def test_half_precision_is_close():
    made = model(qwen3_vl())
    inputs, rows, keys = batch("left")
    exact = eager_maps(made, inputs)
    made = made.bfloat16()
    with AttentionProbe(made).watch(rows, keys) as mass:
        made(**inputs)
    assert mass.values.dtype == torch.float32
    assert largest_error(mass, exact, rows, keys) < 0.1


# ---------------------------------------------------------------------------------------------------------------------------------------
# Choosing


@torch.no_grad()
def test_chosen_layers_and_heads():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch("left")
    with AttentionProbe(made).watch(rows, keys) as every:
        made(**inputs)
    with AttentionProbe(made, layers=[-1, 0], heads=[5, 2]).watch(rows, keys) as some:
        made(**inputs)
    assert some.layers == (2, 0)
    assert torch.allclose(some.values, every.values[[2, 0]][:, :, [5, 2]], atol=1e-6)
    assert torch.allclose(some.mean()["image"], every["image"][[2, 0]][:, :, [5, 2]].mean(dim=(0, 2)), atol=1e-6)


@torch.no_grad()
def test_masses_are_parts_of_a_whole():
    """Everything that a row sees sums to one; disjoint sets add up; a weight counts as a share."""
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    image = keys["image"].bool()
    sets = {"all": torch.ones_like(image), "image": image, "rest": ~image, "half": image * 0.5}
    with AttentionProbe(made).watch(rows, sets) as mass:
        made(**inputs)
    real = torch.arange(7) < rows.sum(dim=1, keepdim=True)
    assert torch.allclose(mass["all"][..., :6], torch.ones(()), atol=1e-5)
    assert torch.allclose(mass["image"] + mass["rest"], mass["all"], atol=1e-5)
    assert torch.allclose(2 * mass["half"], mass["image"], atol=1e-5)
    assert (mass["all"].amax(dim=(0, 2)) > 0).eq(real).all()  # rows that do not exist are zeros


@torch.no_grad()
def test_a_sample_without_keys_or_rows_reads_zero():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    keys["image"][1] = 0
    rows[0] = False
    with AttentionProbe(made).watch(rows, keys, maps="image") as mass:
        made(**inputs)
    assert mass["image"].abs().max() == 0
    assert mass["region"][:, 1].max() > 0
    assert [tuple(m.shape) for m in mass.maps] == [(0, 8), (6, 0)]


@torch.no_grad()
def test_neither_padding_nor_company_changes_a_row():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    with AttentionProbe(made).watch(rows, keys) as together:
        made(**inputs)
    for b in (0, 1):
        alone = {name: value[b : b + 1] for name, value in inputs.items()}
        for left in (0, 7):
            padded = {name: torch.nn.functional.pad(value, (left, 0)) for name, value in alone.items()}
            shifted = {name: torch.nn.functional.pad(key[b : b + 1], (left, 0)) for name, key in keys.items()}
            with AttentionProbe(made).watch(torch.nn.functional.pad(rows[b : b + 1], (left, 0)), shifted) as single:
                made(**padded)
            count = int(rows[b].sum())
            assert torch.allclose(single.values[:, 0], together.values[:, b, :, :count], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Gradients


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_gradients_equal_those_through_eager(family, checkpointing):
    inputs, rows, keys = batch("left")
    made = model(FAMILIES[family]()).train()
    if checkpointing:
        made.gradient_checkpointing_enable({"use_reentrant": False})
    with AttentionProbe(made, differentiable=True).watch(rows, keys, maps="image") as mass:
        made(**inputs, use_cache=False)
        loss = mass.values.square().sum() + sum((m**2).sum() for m in mass.maps)
        loss.backward()
    ours = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}

    other = model(FAMILIES[family](), attention="eager").train()
    maps = torch.stack(other(**inputs, output_attentions=True, use_cache=False).attentions)
    theirs = sum(expected(maps, rows, keys, b).square().sum() for b in range(2))
    theirs = theirs + sum((maps[:, b][:, :, rows[b], IMAGE].mean(dim=(0, 1)) ** 2).sum() for b in range(2))
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    reference = {name: p.grad for name, p in other.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert set(reference) <= set(ours)
    for name, gradient in reference.items():
        assert (ours[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


def test_masses_carry_no_gradient_unless_asked():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    with AttentionProbe(made).watch(rows, keys) as mass:
        logits = made(**inputs).logits
    assert logits.requires_grad
    assert not mass.values.requires_grad


# ---------------------------------------------------------------------------------------------------------------------------------------
# Cost and cleanliness


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that an operator makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@torch.no_grad()
def test_no_square_map_is_ever_made():
    made = model(qwen2_5_vl())
    length = 512
    ids = torch.randint(3, 100, (1, length))
    rows, image = torch.zeros(1, length, dtype=torch.bool), torch.zeros(1, length)
    rows[:, -64:] = True
    image[:, 32:96] = 1
    with Largest() as plain:
        made(input_ids=ids, use_cache=False)
    with AttentionProbe(made).watch(rows, {"image": image}), Largest() as probed:
        made(input_ids=ids, use_cache=False)
    assert probed.numel <= max(plain.numel, 8 * 64 * 64)
    assert probed.numel < length * length


@torch.no_grad()
def test_the_model_and_transformers_are_left_as_they_were():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    before = dict(ALL_ATTENTION_FUNCTIONS._local_mapping), made.config.to_dict(), [m for m in made.modules() if m._forward_hooks]
    probe = AttentionProbe(made)
    with pytest.raises(ZeroDivisionError), probe.watch(rows, keys):
        raise ZeroDivisionError
    with probe.watch(rows, keys):
        made(**inputs)
    assert before == (dict(ALL_ATTENTION_FUNCTIONS._local_mapping), made.config.to_dict(), [m for m in made.modules() if m._forward_hooks])
    assert not made(**inputs).attentions


@torch.no_grad()
def test_two_models_can_be_watched_at_once():
    first, second = model(qwen2_5_vl()), model(gemma3())
    inputs, rows, keys = batch()
    with AttentionProbe(first).watch(rows, keys) as one, AttentionProbe(second).watch(rows, keys) as two:
        first(**inputs)
        second(**inputs)
    assert largest_error(one, eager_maps(first, inputs), rows, keys) < 1e-5
    assert largest_error(two, eager_maps(second, inputs), rows, keys) < 1e-5


@torch.no_grad()
def test_two_probes_can_watch_one_model():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    late = rows & (rows.cumsum(dim=1) > 1)  # all but the first of each sample
    with AttentionProbe(made).watch(rows, keys) as whole, AttentionProbe(made, [-1]).watch(late, keys, maps="image") as part:
        made(**inputs)
    maps = eager_maps(made, inputs)
    assert largest_error(whole, maps, rows, keys) < 1e-5
    for b in range(len(rows)):
        count = int(late[b].sum())
        assert torch.allclose(part["image"][0, b, :, :count], whole["image"][-1, b, :, 1 : count + 1], atol=1e-6)


def test_two_threads_cannot_watch_one_model():
    made = model(qwen2_5_vl())
    _, rows, keys = batch()
    errors = []

    def watch():
        try:
            with AttentionProbe(made).watch(rows, keys):
                pass
        except RuntimeError as error:
            errors.append(str(error))

    with AttentionProbe(made).watch(rows, keys):
        other = threading.Thread(target=watch)
        other.start()
        other.join()
    assert errors == ["this model is already being watched by an open probe of another thread"]


def test_other_threads_are_not_listened_to():
    made, other = model(qwen2_5_vl()), model(qwen2_5_vl(), seed=1)
    inputs, rows, keys = batch()
    outputs = []

    def run():
        with torch.no_grad():
            outputs.append(other(**inputs).logits)

    with torch.no_grad(), AttentionProbe(made).watch(rows, keys) as mass:
        thread = threading.Thread(target=run)
        thread.start()
        made(**inputs)
        thread.join()
    with torch.no_grad():
        assert torch.equal(outputs[0], other(**inputs).logits)
        assert largest_error(mass, eager_maps(made, inputs), rows, keys) < 1e-5


@torch.no_grad()
def test_lora_models():
    peft = pytest.importorskip("peft")
    made = model(qwen2_5_vl())
    wrapped = peft.get_peft_model(made, peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False))
    inputs, rows, keys = batch("left")
    with AttentionProbe(wrapped).watch(rows, keys) as mass:
        wrapped(**inputs)
    assert largest_error(mass, eager_maps(wrapped, inputs), rows, keys) < 1e-5


# ---------------------------------------------------------------------------------------------------------------------------------------
# Errors


def test_layers_without_softmax_attention_are_named():
    linear = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    kinds = ["linear_attention", "linear_attention", "full_attention", "linear_attention", "full_attention"]
    text = TEXT | linear | {"num_hidden_layers": 5, "layer_types": kinds, "rope_parameters": MROPE}
    made = tf.Qwen3_5ForCausalLM(tf.Qwen3_5TextConfig(**text))
    assert list(attention_layers(made)) == [2, 4]
    assert AttentionProbe(made).layers == (2, 4)
    with pytest.raises(ValueError, match=r"layers \[1\] have no softmax attention to read; layers that have: \[2, 4\]"):
        AttentionProbe(made, layers=[2, 1])


def test_models_without_attention_are_refused():
    with pytest.raises(ValueError, match="Linear has no attention layer"):
        AttentionProbe(torch.nn.Linear(2, 2))


def test_unreadable_implementations_are_refused():
    made = model(qwen2_5_vl())
    made.config.get_text_config()._attn_implementation_internal = "flash_attention_2"
    _, rows, keys = batch()
    message = r"not 'flash_attention_2': call model.set_attn_implementation\('sdpa'\)"
    with pytest.raises(ValueError, match=message), AttentionProbe(made).watch(rows, keys):
        pass


@torch.no_grad()
def test_mistakes_are_explained():
    made = model(qwen2_5_vl())
    inputs, rows, keys = batch()
    probe = AttentionProbe(made)
    for message, arguments in {
        "no key sets": (rows, {}),
        r"rows \(2, 40\) and keys\['image'\] \(1, 40\) must both be": (rows, {"image": keys["image"][:1]}),
        "maps='nose' is not a key set; there are image, region": (rows, keys, "nose"),
    }.items():
        with pytest.raises(ValueError, match=message), probe.watch(*arguments):
            pass
    with probe.watch(rows, keys) as mass:
        pass
    with pytest.raises(RuntimeError, match="were not run: call the whole model once"):
        mass["image"]
    with pytest.raises(KeyError, match="no key set 'nose'; this probe watched image, region"):
        mass["nose"]
    with pytest.raises(ValueError, match="attends from 39 to 39 positions, the probe was told 40"), probe.watch(rows, keys):
        made(**{name: value[:, 1:] for name, value in inputs.items()})


# ---------------------------------------------------------------------------------------------------------------------------------------
# The two ways to a mass


@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_tiled_masses_agree(masked, monkeypatch):
    torch.manual_seed(0)
    query, key, every = torch.randn(4, 9, 8), torch.randn(2, 15, 8), torch.randn(2, 30, 8)
    every[:, :15] = key
    seen = torch.rand(9, 30) < 0.7 if masked else torch.ones(9, 30, dtype=torch.bool)
    seen[:, -1] = True
    seen[2, :15] = not masked  # a row that sees nothing of the set
    lse, weights = row_logsumexp(query, every, seen, 0.3), torch.rand(15)
    visible = seen[:, :15] if masked else None
    fused = fused_mass(query, key, visible, 0.3, lse, weights)
    whole = tiled_mass(query, key, visible, 0.3, None, lse, weights)
    monkeypatch.setattr("rewardlib.masses._TILE", 40)
    assert torch.allclose(fused, whole, atol=1e-6)
    assert torch.allclose(tiled_mass(query, key, visible, 0.3, None, lse, weights), whole, atol=1e-7)
    assert (whole[:, 2] == 0).all() == masked


def test_masks_that_are_not_understood():
    rows = columns = torch.arange(4)
    with pytest.raises(ValueError, match=r"expected an attention mask \(batch, 1, length, length\), got \(1, 8, 4, 4\)"):
        visible_keys(torch.ones(1, 8, 4, 4), True, 0, rows, columns)
    assert visible_keys(None, False, 0, rows, columns) is None
    assert visible_keys(None, True, 0, rows, columns).equal(torch.ones(4, 4, dtype=torch.bool).tril())


def test_cuda_kernels_have_the_signatures_that_are_listened_to():
    """Without a GPU: torch's own shape rules for the CUDA operators tell where the log-sum-exp is."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from rewardlib.masses import _KERNELS

    aten = torch.ops.aten
    if not torch.backends.cuda.is_built():
        pytest.skip("torch without CUDA")
    with FakeTensorMode():
        query = torch.empty(1, 4, 16, 64, device="cuda", dtype=torch.bfloat16)
        flash = aten._scaled_dot_product_flash_attention.default(query, query[:, :2], query[:, :2], 0.0, True, False, scale=0.1)
        bias = torch.empty(1, 4, 16, 16, device="cuda", dtype=torch.bfloat16)
        efficient = aten._scaled_dot_product_efficient_attention.default(query, query, query, bias, True, 0.0, False, scale=0.1)
    assert flash[1].shape == (1, 4, 16)
    assert efficient[1].shape == (1, 4, 32)
    for kernel, position in _KERNELS.items():
        names = [argument.name for argument in kernel._schema.arguments]
        assert position is None or names[position] == "compute_log_sumexp"
