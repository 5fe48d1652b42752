"""Attention of chosen query rows on chosen keys: the arithmetic behind ``rewardlib.probe``.

Everything here is one sample of one layer: queries (H, R, D) of the chosen rows, keys (H_kv, V, D) of the chosen columns. With
``lse_t = log sum over all keys exp(s_tj)``, which a fused kernel computes anyway, there are two exact ways to the mass of a key set S:

    fused   exp(lse_t(S) - lse_t), where lse_t(S) comes from the fused kernel run on the keys of S alone: no score is ever stored
    tiles   sum over S of exp(s_tj - lse_t), in tiles of bounded size: differentiable, gives single keys too, needs no kernel
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

# Numbers in one tile of scores: 2 MB of float32, which stays near the processor.
_TILE = 2**19

_aten = torch.ops.aten
# Fused kernels, and the position of their `compute_log_sumexp` argument where it is optional.
_KERNELS = {
    _aten._scaled_dot_product_flash_attention_for_cpu.default: None,
    _aten._scaled_dot_product_flash_attention.default: None,
    _aten._scaled_dot_product_efficient_attention.default: 4,
    _aten._scaled_dot_product_cudnn_attention.default: 4,
}
_DispatchMode: Any = TorchDispatchMode  # torch leaves it untyped


class LogSumExp(_DispatchMode):
    """Keeps the row log-sum-exp of the fused attention kernel that runs inside: ``value`` (B, H, T) float32, None if none ran."""

    value: Tensor | None = None

    def __enter__(self) -> Any:
        _open.listeners.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _open.listeners.remove(self)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        optional = _KERNELS.get(func)
        if optional is not None:
            args = (*args[:optional], True, *args[optional + 1 :])
        result = func(*args, **(kwargs or {}))
        if func in _KERNELS:
            lse = result[1]
            self.value = lse.reshape(*lse.shape[:2], -1)[:, :, : args[0].shape[2]]  # kernels pad the rows, or add a last dimension
        return result


class _Open(threading.local):
    def __init__(self) -> None:
        self.listeners: list[LogSumExp] = []


_open = _Open()


def announce(lse: Tensor) -> None:
    """For attention functions of several kernels: tell whoever listens the row log-sum-exp (B, H, T) of the whole."""
    for listener in _open.listeners:
        listener.value = lse.detach()


@torch.no_grad()
def fused_mass(query: Tensor, key: Tensor, visible: Tensor | None, scale: float, lse: Tensor, weights: Tensor) -> Tensor | None:
    """Mass (H, R) on one key set with ``weights`` (V,) in (0, 1], None where no fused kernel takes these tensors."""
    rows, group = query.shape[1], len(query) // len(key)
    bias = _bias(weights, visible, query.dtype)
    if bias is not None:
        bias = bias.expand(group, rows, -1).reshape(1, 1, group * rows, -1) if len(bias) > 1 else bias.expand(1, 1, group * rows, -1)
    with LogSumExp() as kernel:
        # Query heads that share a key head are stacked as rows, so grouped keys are never repeated; the output is not wanted.
        scaled_dot_product_attention(query.reshape(1, len(key), group * rows, -1), key[None], key[None], attn_mask=bias, scale=scale)
    return None if kernel.value is None else torch.exp(kernel.value.reshape(len(query), rows) - lse)


def _bias(weights: Tensor, visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What to add to the scores (1 or R, V) so that keys count by their weight and invisible ones not at all."""
    bias = None if bool((weights == 1).all()) else weights.log()[None]
    if visible is not None:
        hidden = torch.where(visible, 0.0, -torch.inf) if visible.dtype == torch.bool else visible
        bias = hidden if bias is None else hidden + bias
    # Finite, because kernels disagree about rows that see nothing; half the minimum, so that adding a score cannot overflow.
    return None if bias is None else bias.clamp(min=torch.finfo(dtype).min / 2).to(dtype)


def tiled_mass(
    query: Tensor, key: Tensor, visible: Tensor | None, scale: float, softcap: float | None, lse: Tensor, weights: Tensor
) -> Tensor:
    """Mass (H, R) on one key set with ``weights`` (V,)."""
    mass = query.new_zeros(query.shape[:2])
    for h, r, scores in score_tiles(query, key, visible, scale, softcap, lse):
        mass[h, r] = scores.exp_() @ weights.to(scores.dtype)
    return mass


def mean_attention(query: Tensor, key: Tensor, visible: Tensor | None, scale: float, softcap: float | None, lse: Tensor) -> Tensor:
    """Attention of every row on every key, averaged over heads: (R, V)."""
    total = query.new_zeros(query.shape[1], key.shape[1])
    for _, r, scores in score_tiles(query, key, visible, scale, softcap, lse):
        total[r] += scores.exp_().sum(dim=0)
    return total / len(query)


def row_logsumexp(query: Tensor, key: Tensor, visible: Tensor | None, scale: float, softcap: float | None = None) -> Tensor:
    """Log-sum-exp (H, R) of the scores over all keys, for attention functions that do not give it."""
    lse = query.new_empty(query.shape[:2])
    for h, r, scores in score_tiles(query, key, visible, scale, softcap):
        lse[h, r] = scores.logsumexp(dim=-1)
    return lse


def score_tiles(
    query: Tensor, key: Tensor, visible: Tensor | None, scale: float, softcap: float | None = None, lse: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Masked scores, less each row's log-sum-exp ``lse`` (H, R) where it is given, as (heads, rows, scores (h, r, V)).

    visible: (R, V) bool, or a bias to add; None where every row sees every key.
    """
    (heads, rows, width), (key_heads, columns, _) = query.shape, key.shape
    group = heads // key_heads
    for r in _slices(rows, _TILE // (group * max(1, columns))):
        for n in _slices(key_heads, _TILE // (group * (r.stop - r.start) * max(1, columns))):
            h, shape = slice(n.start * group, n.stop * group), ((n.stop - n.start) * group, r.stop - r.start, columns)
            q = query[h, r].reshape(n.stop - n.start, group * shape[1], width)
            # One pass fewer over the tile than scaling and subtracting afterwards.
            base = query.new_zeros(()) if lse is None or softcap else lse[h, r].reshape(*q.shape[:2], 1)
            scores = torch.baddbmm(base, q, key[n].transpose(1, 2), beta=-1, alpha=scale).view(shape)
            if softcap:
                scores = softcap * torch.tanh(scores / softcap) - (0 if lse is None else lse[h, r, None])
            if visible is not None:
                scores = scores.masked_fill_(~visible[r], -torch.inf) if visible.dtype == torch.bool else scores + visible[r]
            yield h, r, scores


def _slices(length: int, step: int) -> Iterator[slice]:
    step = max(1, step)
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def chosen_heads(query: Tensor, key: Tensor, heads: list[int] | None) -> tuple[Tensor, Tensor]:
    """Queries and keys of the chosen query heads."""
    if heads is None:
        return query, key
    group = len(query) // len(key)
    return query[heads], key[[head // group for head in heads]]


def full_precision(tensor: Tensor) -> Tensor:
    """At least float32: scores are exponentiated, and half precision would cost them percents."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def visible_keys(mask: Any, causal: bool, sample: int, rows: Tensor, columns: Tensor) -> Tensor | None:
    """What the attention mask lets query ``rows`` (R,) see of the key ``columns`` (V,): (R, V) bool or bias, None if everything.

    mask: what transformers hands to an attention function: None (``causal`` decides), a 4-D bool or additive mask, or a flex BlockMask.
    """
    if mask is None:
        found = columns <= rows[:, None] if causal else None
    elif isinstance(mask, Tensor):
        if mask.dim() != 4 or mask.shape[1] != 1:
            raise ValueError(f"expected an attention mask (batch, 1, length, length), got {tuple(mask.shape)}")
        found = mask[sample % len(mask), 0][rows][:, columns]
    else:
        zero = torch.zeros((), dtype=torch.long, device=rows.device)
        found = mask.mask_mod(zero + sample, zero, rows[:, None], columns[None, :]).expand(len(rows), len(columns))
    if found is None or (found.dtype == torch.bool and bool(found.all())):
        return None
    return found
