"""Attention over a shared prefix against one dense, masked attention, and its kernels against plain torch."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from rewardlib.masses import LogSumExp  # noqa: E402
from train.shared_prefix import SharedPrefix, SharedPrefixes, _Packed, backward, decode, forward, plain, plain_backward  # noqa: E402

SCALE = 0.3


def tensors(rows, keys, heads=4, shared=2, width=16, batch=1, seed=0):
    torch.manual_seed(seed)
    return torch.randn(batch, heads, rows, width), *(torch.randn(batch, shared, keys, width) for _ in range(2))


def visible(shape, length):
    at = torch.arange(length)
    return shape.mask_mod(None, None, at[:, None], at[None])


def test_who_sees_whom():
    shape = SharedPrefix(2, torch.tensor([0, 0, 1]))
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert visible(shape, 5).int().tolist() == expected


def prefix(prompt, lengths):
    return SharedPrefix(prompt, torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)))


@pytest.mark.parametrize("rows", [[(9, (5, 1, 11, 7))], [(9, (6, 6, 6))], [(9, (1,))], [(9, (5, 1)), (4, (2, 2, 7)), (1, (1,))]], ids=str)
@pytest.mark.parametrize("plainly", [False, True])
def test_packed_rows_equal_dense_masked_attention(rows, plainly, monkeypatch):
    if plainly:
        monkeypatch.setattr("train.shared_prefix._fused", lambda query: False)
    parts = [prefix(*row) for row in rows]
    shape = SharedPrefixes(parts) if len(parts) > 1 else parts[0]
    length = sum(part.length for part in parts)
    states = [x.requires_grad_() for x in tensors(length, length)]
    weights = torch.randn(1, 4, length, 16)
    dense = scaled_dot_product_attention(*states, attn_mask=visible(shape, length)[None, None], scale=SCALE, enable_gqa=True)
    expected = torch.autograd.grad((dense * weights).sum(), states)
    with LogSumExp() as heard:
        out = _Packed.apply(*states, parts, SCALE)
    assert (out - dense).abs().max() < 1e-5
    scores = (SCALE * states[0] @ states[1].repeat_interleave(2, dim=1).mT).masked_fill(~visible(shape, length), -torch.inf)
    assert (heard.value - scores.logsumexp(dim=-1)).abs().max() < 1e-5
    for mine, theirs in zip(torch.autograd.grad((out * weights).sum(), states), expected, strict=True):
        assert (mine - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("counts", [(3, 3), (5, 1), (6,)], ids=str)
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (6, 1)])
def test_a_decoding_step_equals_attention_over_repeated_keys(heads, counts):
    """Six completions of prompts of eight and eleven tokens."""
    query, key, value = tensors(1, 5, *heads, batch=6)
    prompts = [tensors(1, length, *heads, seed=length)[1:] for length in (8, 11)][: len(counts)]
    found = decode(query, key, value, prompts, counts, SCALE)
    start = 0
    for count, prompt in zip(counts, prompts, strict=True):
        mine = slice(start, start + count)
        start += count
        whole = [torch.cat([p.expand(count, -1, -1, -1), own[mine]], dim=2) for p, own in zip(prompt, (key, value), strict=True)]
        assert (found[mine] - scaled_dot_product_attention(query[mine], *whole, scale=SCALE, enable_gqa=True)).abs().max() < 1e-5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_kernels_equal_plain_torch(causal, dtype):
    states = [x.to(dtype) for x in tensors(7, 7)]
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    out, lse = forward(*states, causal=causal, scale=SCALE)
    for mine, theirs in zip((out, lse), plain(*states, causal=causal, scale=SCALE), strict=True):
        assert (mine.float() - theirs.float()).abs().max() < tolerance
    grad = torch.randn(out.shape).to(dtype)
    for mine, theirs in zip(
        backward(grad, *states, out, lse, causal=causal, scale=SCALE),
        plain_backward(grad, *states, out, lse, causal=causal, scale=SCALE),
        strict=True,
    ):
        assert mine.shape == theirs.shape
        assert (mine.float() - theirs.float()).abs().max() < tolerance


def test_the_gpu_kernels_take_what_they_are_given():
    """Their signatures, on tensors that have a device and a shape but no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        query, key, value = (torch.empty(1, heads, 24, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2))
        out, lse = forward(query, key, value, causal=True, scale=SCALE)
        grads = backward(out, query, key, value, out, lse, causal=True, scale=SCALE)
        assert (out.shape, lse.shape, lse.dtype) == (query.shape, (1, 4, 24), torch.float32)
        assert [grad.shape for grad in grads] == [query.shape, key.shape, value.shape]
