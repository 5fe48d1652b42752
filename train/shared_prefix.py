"""Attention over a prompt that several completions share, without ever repeating the prompt or
storing a mask.

A query of a completion sees the prompt and its own completion. Both parts are run through the fused
kernel by themselves, all completions' queries at once against the one copy of the prompt, and are
merged by their log-sum-exps:

    lse = log(exp(lse_prompt) + exp(lse_own))
    out = exp(lse_prompt - lse) * out_prompt + exp(lse_own - lse) * out_own

The backward hands each part's kernel the *merged* output and log-sum-exp, which makes it return its
exact share of the whole gradient (as in ring attention, arXiv 2310.01889). A T x T mask would cost
three times the work at sixteen completions behind a thousand tokens.

A model whose text attention is set to ``SHARED_PREFIX`` does all this when its forward is given
``block_mask`` (a packed row, with gradient) or ``prefix`` (one decoding step); otherwise it runs
sdpa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewardlib.masses import announce

SHARED_PREFIX = "shared_prefix"


@dataclass(frozen=True)
class Padding:
    """Completions one by one: padded to the longest, L, as a batch of G."""

    index: Tensor  # (G * L,) which of the N tokens stands where
    place: Tensor  # (N,) where each token stands among the G * L
    real: Tensor  # (G, L) bool: what is not padding

    def padded(self, x: Tensor) -> Tensor:
        """(1, H, N, D) as (G, H, L, D)."""
        return (
            x[0].index_select(1, self.index).view(x.shape[1], *self.real.shape, -1).transpose(0, 1)
        )

    def flat(self, x: Tensor) -> Tensor:
        """The inverse."""
        return x.transpose(0, 1).flatten(1, 2).index_select(1, self.place)[None]


@dataclass(frozen=True)
class SharedPrefix:
    """Who sees whom in a packed row [ prompt | c1 | c2 | ... | cG ]."""

    prompt: int  # tokens of the prompt, P
    completion_index: Tensor  # (N,) the completion of every completion token, in order

    @cached_property
    def padding(self) -> Padding:
        lengths = self.completion_index.bincount()
        longest, starts = int(lengths.max()), lengths.cumsum(0) - lengths
        step = torch.arange(longest, device=self.completion_index.device)
        index = (starts[:, None] + step).clamp(max=len(self.completion_index) - 1)
        place = (
            self.completion_index * longest
            + torch.arange(len(self.completion_index), device=self.completion_index.device)
            - starts[self.completion_index]
        )
        return Padding(index.flatten(), place, step < lengths[:, None])

    @property
    def length(self) -> int:
        """Tokens of prompt and completions."""
        return self.prompt + len(self.completion_index)

    @property
    def segment(self) -> Tensor:
        """(T,) the completion of every position; -1 for the prompt's."""
        prompt = self.completion_index.new_full((self.prompt,), -1)
        return torch.cat([prompt, self.completion_index])

    def mask_mod(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether positions ``query`` see positions ``key``, in the signature of flex attention."""
        segment = self.segment
        return (key <= query) & ((segment[key] == -1) | (segment[key] == segment[query]))


@dataclass(frozen=True)
class SharedPrefixes:
    """Who sees whom in packed rows that stand one behind the other: nobody sees another row."""

    parts: Sequence[SharedPrefix]

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins."""
        return [0, *accumulate(part.length for part in self.parts)][:-1]

    def mask_mod(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether positions ``query`` see positions ``key``, in the signature of flex attention."""
        device = self.parts[0].completion_index.device
        lengths = torch.tensor([part.length for part in self.parts], device=device)
        of = torch.repeat_interleave(torch.arange(len(self.parts), device=device), lengths)
        segment = torch.cat([part.segment for part in self.parts])
        own = (segment[key] == -1) | (segment[key] == segment[query])
        return (key <= query) & (of[key] == of[query]) & own


@dataclass(frozen=True)
class SharedPrompts:
    """What the rows of a decoding step see of their prompts: the first ``counts[0]`` rows of the
    first prompt, and so on.
    """

    layers: Sequence[Sequence[tuple[Tensor, Tensor]]]  # keys, values (1, H_kv, P, D) of each prompt
    counts: Sequence[int]  # rows of each prompt, at least one


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function of this module: (B, H, T, D), (B, H_kv, S, D) -> (B, T, H,
    D).
    """
    packed, prefix = options.pop("block_mask", None), options.pop("prefix", None)
    scale = scaling or query.shape[-1] ** -0.5
    if torch.is_autocast_enabled(
        query.device.type
    ):  # rotary embeddings make float32 of what sdpa would take in half precision
        query, key, value = (
            x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value)
        )
    if packed is not None:
        parts = packed.parts if isinstance(packed, SharedPrefixes) else [packed]
        out = _Packed.apply(query, key, value, parts, scale)
    elif prefix is not None:
        out = decode(query, key, value, prefix.layers[module.layer_idx], prefix.counts, scale)
    else:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return out, None
    return out.transpose(1, 2), None


vars(shared_prefix_attention)["announces"] = (
    True  # its rows' log-sum-exp: rewardlib.probe may read it
)
AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)


def decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompts: Sequence[tuple[Tensor, Tensor]],
    counts: Sequence[int],
    scale: float,
) -> Tensor:
    """One decoding step of B completions of several prompts.

    query: (B, H, 1, D). key, value: (B, H_kv, t, D) of the completions. prompts: keys and values
        (1, H_kv, P, D) of each. counts: how many of the completions are each prompt's.
    """
    (rows, heads, _, width), shared = query.shape, key.shape[1]
    # Query heads that share a key head are rows of it, as completions are, so a prompt's keys are
    # read once.
    stacked = query.view(rows, shared, heads // shared, width).transpose(0, 1)
    parts = [
        forward(own.reshape(1, shared, -1, width), *prompt, causal=False, scale=scale)
        for own, prompt in zip(torch.split(stacked, list(counts), dim=1), prompts, strict=True)
    ]
    out, lse = (
        parts[0]
        if len(parts) == 1
        else (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    )
    out = out.view(shared, rows, heads // shared, width).transpose(0, 1).reshape(query.shape)
    lse = lse.view(shared, rows, heads // shared).transpose(0, 1).reshape(rows, heads, 1)
    return merge(out, lse, *forward(query, key, value, causal=False, scale=scale))


class _Packed(torch.autograd.Function):
    """Attention of packed rows that stand one behind the other: query (1, H, T, D), keys and values
    (1, H_kv, T, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shapes: Sequence[SharedPrefix],
        scale: float,
    ) -> Tensor:
        rows = [_rows(x, shapes) for x in (query, key, value)]
        out, lse = _joined(
            [_attend(shape, scale, *row) for shape, *row in zip(shapes, *rows, strict=True)]
        )
        announce(lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.shapes, ctx.scale = shapes, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shapes, scale = ctx.shapes, ctx.scale
        rows = [_rows(x, shapes) for x in (grads[0].contiguous(), *ctx.saved_tensors)]
        gradients = _joined(
            [
                _attend_backward(shape, scale, *row)
                for shape, *row in zip(shapes, *rows, strict=True)
            ]
        )
        return (*gradients, None, None)


def _rows(x: Tensor, shapes: Sequence[SharedPrefix]) -> Sequence[Tensor]:
    """(1, H, T, ...) cut where its packed rows begin."""
    if len(shapes) == 1:
        return (x,)
    return torch.split(x, [shape.length for shape in shapes], dim=2)


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True))


def _attend(
    shape: SharedPrefix, scale: float, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention of one packed row and the log-sum-exp of its positions."""
    split, padding = shape.prompt, shape.padding
    prompt = [x[:, :, :split] for x in (query, key, value)]
    rows = [x[:, :, split:] for x in (query, key, value)]
    # The prompt attends to itself; completions attend to it, and each to itself.
    out_prompt, lse_prompt = forward(*prompt, causal=True, scale=scale)
    on_prompt = forward(rows[0], *prompt[1:], causal=False, scale=scale)
    out_own, lse_own = forward(*map(padding.padded, rows), causal=True, scale=scale)
    on_own = padding.flat(out_own), padding.flat(lse_own[..., None])[..., 0]
    out = torch.cat([out_prompt, merge(*on_prompt, *on_own)], dim=2)
    lse = torch.cat([lse_prompt, torch.logaddexp(on_prompt[1], on_own[1])], dim=2)
    return out, lse


def _attend_backward(
    shape: SharedPrefix,
    scale: float,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one packed row's query, key and value."""
    split, padding = shape.prompt, shape.padding
    whole = (grad, query, key, value, out, lse)
    prompt = [x[:, :, :split] for x in whole]
    grad_rows, query_rows, key_rows, value_rows, out_rows, lse_rows = (
        x[:, :, split:] for x in whole
    )
    # As in the forward: the prompt on itself, completions on it, and each on itself.
    d_query, d_key, d_value = backward(*prompt, causal=True, scale=scale)
    d_query_rows, d_key_shared, d_value_shared = backward(
        grad_rows,
        query_rows,
        prompt[2],
        prompt[3],
        out_rows,
        lse_rows,
        causal=False,
        scale=scale,
    )
    rows = (grad_rows, query_rows, key_rows, value_rows, out_rows)
    grad_own, query_own, key_own, value_own, out_own = map(padding.padded, rows)
    # What stands in the padding has no gradient.
    grad_own = grad_own * padding.real[:, None, :, None]
    lse_own = padding.padded(lse_rows[..., None])[..., 0]
    d_own = backward(
        grad_own, query_own, key_own, value_own, out_own, lse_own, causal=True, scale=scale
    )
    d_query_own, d_key_own, d_value_own = map(padding.flat, d_own)
    return (
        torch.cat([d_query, d_query_rows + d_query_own], dim=2),
        torch.cat([d_key + d_key_shared, d_key_own], dim=2),
        torch.cat([d_value + d_value_shared, d_value_own], dim=2),
    )


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Attention over two disjoint sets of keys (..., T, D), with log-sum-exps (..., T), as
    attention over both.
    """
    return torch.lerp(out, other, torch.sigmoid(other_lse - lse)[..., None].to(out.dtype))


# --------------------------------------------------------------------------------------------------
# The kernels: torch's own flash attention where there is one for the tensors, plain torch
# elsewhere.

_aten = torch.ops.aten


def _fused(query: Tensor) -> bool:
    return query.device.type == "cpu" or (
        query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256
    )


def forward(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention (B, H, T, D) and the rows' log-sum-exp (B, H, T) in float32."""
    if not _fused(query):
        return plain(query, key, value, causal=causal, scale=scale)
    if query.device.type == "cpu":
        out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, scale=scale
        )
        return out, lse
    result = _aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, causal, False, scale=scale
    )
    return result[0], result[1]


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. ``out`` and ``lse`` may be those of a larger set of keys
    of which these are a part.
    """
    if not _fused(query):
        return plain_backward(grad, query, key, value, out, lse, causal=causal, scale=scale)
    if query.device.type == "cpu":
        return _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
    state = torch.zeros(2, dtype=torch.uint64, device=query.device)
    lse = lse.contiguous()
    sizes = query.shape[2], key.shape[2]
    return _aten._scaled_dot_product_flash_attention_backward(
        grad,
        query,
        key,
        value,
        out,
        lse,
        None,
        None,
        *sizes,
        0.0,
        causal,
        state,
        state,
        scale=scale,
    )


def plain(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """``forward`` in plain torch."""
    scores = _scores(query, key, causal, scale)
    lse = scores.logsumexp(dim=-1)
    return (torch.exp(scores - lse[..., None]) @ _repeated(value, query).float()).to(
        query.dtype
    ), lse


def plain_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``backward`` in plain torch."""
    weights = torch.exp(_scores(query, key, causal, scale) - lse[..., None])
    grad, out = grad.float(), out.float()
    of_scores = (
        weights
        * (grad @ _repeated(value, query).float().mT - (grad * out).sum(dim=-1, keepdim=True))
        * scale
    )
    of_query = of_scores @ _repeated(key, query).float()
    of_key, of_value = (
        _gathered(x, key) for x in (of_scores.mT @ query.float(), weights.mT @ grad)
    )
    return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype)


def _scores(query: Tensor, key: Tensor, causal: bool, scale: float) -> Tensor:
    scores = scale * query.float() @ _repeated(key, query).float().mT
    if not causal:
        return scores
    return scores.masked_fill(
        ~torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(), -torch.inf
    )


def _repeated(states: Tensor, query: Tensor) -> Tensor:
    """Keys or values, one for every query head."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)


def _gathered(grad: Tensor, states: Tensor) -> Tensor:
    """The gradient of repeated states as that of the states."""
    return grad.view(len(grad), states.shape[1], -1, *grad.shape[2:]).sum(dim=2)
