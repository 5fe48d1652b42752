"""Read exact attention masses from a transformers model while its fused kernel keeps doing the forward.

``mass[t, S] = sum over keys j in S of softmax(scale * q_t . k)_j`` for chosen query rows t and named key sets S, for every layer and head.
The fused kernel already computes each row's log-sum-exp; with it, a mass costs one product of the chosen rows with the chosen keys, in
tiles: no T x T map exists at any time, and the forward's own numbers do not change by a bit.

    probe = AttentionProbe(model)
    with probe.watch(rows=completion_mask, keys={"region": region, "image": image}) as mass:
        logits = model(**inputs).logits
    mass["region"]          # (layers, batch, heads, rows)
    mass.mean()["region"]   # (batch, rows): averaged over layers and heads

Works with ``sdpa`` (CPU, CUDA flash, memory-efficient and cuDNN kernels), ``flex_attention`` and ``eager``, under padding, grouped-query
attention, 4-D masks, sliding windows and packed rows, because it reads the very mask that the model's own attention receives.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rewardlib import masses


class AttentionMass:
    """What a probe has read. Rows are in sequence order; a sample with fewer rows than the widest is padded with zeros on the right."""

    def __init__(self, names: Sequence[str], layers: Sequence[int], reading: _Reading) -> None:
        self.names, self.layers, self._reading = tuple(names), tuple(layers), reading

    @property
    def values(self) -> Tensor:
        """All masses, float32: (layers, batch, heads, rows, key sets)."""
        if missing := [layer for layer in self.layers if layer not in self._reading.masses]:
            raise RuntimeError(f"layers {missing} were not run: call the whole model once inside `with probe.watch(...)`")
        return torch.stack([self._reading.masses[layer] for layer in self.layers])

    @property
    def counts(self) -> list[int]:
        """How many rows each sample has."""
        return [len(plan.rows) for plan in self._reading.plans]

    def __getitem__(self, name: str) -> Tensor:
        """Mass on the key set ``name``: (layers, batch, heads, rows)."""
        if name not in self.names:
            raise KeyError(f"no key set {name!r}; this probe watched {', '.join(self.names)}")
        return self.values[..., self.names.index(name)]

    def mean(self) -> dict[str, Tensor]:
        """Mass of every key set averaged over layers and heads: name -> (batch, rows)."""
        return dict(zip(self.names, self.values.mean(dim=(0, 2)).unbind(-1), strict=True))

    @property
    def maps(self) -> list[Tensor]:
        """Per sample (R_b, V_b): the attention on each key of the mapped set, averaged over layers and heads."""
        return [total / len(self.layers) for total in self._reading.maps]


class JoinedMass:
    """What a probe has read of a batch, as if its samples' rows were those of one sample, one after the other."""

    def __init__(self, mass: AttentionMass) -> None:
        self._mass = mass

    @property
    def values(self) -> Tensor:
        """All masses, float32: (layers, 1, heads, all rows, key sets)."""
        parts = zip(self._mass.values.unbind(1), self._mass.counts, strict=True)
        return torch.cat([values[:, :, :count] for values, count in parts], dim=2)[:, None]

    @property
    def maps(self) -> list[Tensor]:
        """One map (all rows, V), where the mapped set has as many keys in every sample."""
        return [torch.cat(self._mass.maps)]


class AttentionProbe:
    """Measures attention in chosen layers and heads of a model. The model itself is never changed.

    layers: indices to measure, negative ones count from the end; None measures all that have softmax attention.
    heads: query heads to keep; None keeps all.
    differentiable: keep the autograd graph from the masses to the weights (for anchoring losses). Costs one softmax over all keys for each
        chosen row, so choose few rows. With gradient checkpointing, use the non-reentrant kind and call backward inside `watch`.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None, *, differentiable: bool = False
    ) -> None:
        self._modules = attention_layers(model)
        self.layers = _chosen(layers, self._modules)
        self.heads = None if heads is None else list(heads)
        self.differentiable = differentiable

    @contextmanager
    def watch(self, rows: Tensor, keys: Mapping[str, Tensor], maps: str | None = None) -> Iterator[AttentionMass]:
        """Measure the one forward that runs inside.

        rows: (B, T) bool, the query positions to measure.
        keys: name -> (B, T) bool or weights in [0, 1], the key sets. T is the length that the model sees, padding included.
        maps: name of a key set whose attention is also kept key by key (R x V per sample, averaged over layers and heads).
        """
        rows = rows.bool()
        if maps is not None and maps not in keys:
            raise ValueError(f"maps={maps!r} is not a key set; there are {', '.join(keys)}")
        mapped = None if maps is None else list(keys).index(maps)
        reading = _Reading(_plans(rows, keys), rows.shape[1], self.heads, mapped, self.differentiable)
        chosen = {self._modules[layer]: reading for layer in self.layers}
        with _listening(chosen, _implementation(next(iter(chosen)))):
            yield AttentionMass(tuple(keys), self.layers, reading)


def attention_layers(model: nn.Module) -> dict[int, nn.Module]:
    """The softmax-attention modules of a model's text decoder that dispatch through transformers' attention interface, by layer index."""
    decoder: Any = model
    if hasattr(model, "get_decoder"):
        decoder = decoder.get_decoder()
    found: dict[int, nn.Module] = {}
    for module in decoder.modules():
        if isinstance(index := getattr(module, "layer_idx", None), int) and _dispatches(module):
            found[index] = module
    if not found:
        raise ValueError(f"{type(model).__name__} has no attention layer that dispatches through transformers' attention interface")
    return dict(sorted(found.items()))


def _dispatches(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def _chosen(layers: Sequence[int] | None, modules: Mapping[int, nn.Module]) -> tuple[int, ...]:
    if layers is None:
        return tuple(modules)
    count = max(modules) + 1
    chosen = tuple(layer + count if layer < 0 else layer for layer in layers)
    wrong = [asked for asked, layer in zip(layers, chosen, strict=True) if layer not in modules]
    if wrong or not chosen:
        raise ValueError(f"layers {wrong or list(layers)} have no softmax attention to read; layers that have: {list(modules)}")
    return chosen


def _implementation(module: Any) -> str:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = str(module.config._attn_implementation)
    if name not in ("sdpa", "eager", "flex_attention") and not _announces(ALL_ATTENTION_FUNCTIONS.get(name)):
        raise ValueError(
            f"AttentionProbe reads sdpa, flex_attention and eager attention, not {name!r}: call model.set_attn_implementation('sdpa') "
            "for the measured forward (on CUDA it runs the same flash kernel)"
        )
    return name


def _announces(function: Any) -> bool:
    """Whether a custom attention function says the log-sum-exp of its rows (``masses.announce``)."""
    return getattr(function, "announces", False)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Listening: the attention functions of transformers are wrapped while a probe is open, and pass every module through that is not watched.

_lock = threading.Lock()
_watched: WeakKeyDictionary[nn.Module, list[_Reading]] = WeakKeyDictionary()
_wrapped: dict[str, tuple[int, Any]] = {}  # implementation -> (open probes, entry to restore)


@contextmanager
def _listening(readings: Mapping[nn.Module, _Reading], implementation: str) -> Iterator[None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    functions = ALL_ATTENTION_FUNCTIONS

    with _lock:
        here = threading.get_ident()
        if any(other.thread != here for module in readings for other in _watched.get(module, ())):
            raise RuntimeError("this model is already being watched by an open probe of another thread")
        count, original = _wrapped.get(implementation) or (0, functions._local_mapping.get(implementation))
        if count == 0:
            functions[implementation] = _listener(implementation, functions.get(implementation))
        _wrapped[implementation] = (count + 1, original)
        for module, reading in readings.items():
            _watched.setdefault(module, []).append(reading)
    try:
        yield
    finally:
        with _lock:
            for module, reading in readings.items():
                _watched[module] = [other for other in _watched[module] if other is not reading]
            count, original = _wrapped[implementation]
            _wrapped[implementation] = (count - 1, original)
            if count == 1:
                del functions[implementation], _wrapped[implementation]
                if original is not None:
                    functions[implementation] = original


def _listener(implementation: str, function: Callable[..., Any] | None) -> Callable[..., Any]:
    """The attention function ``function`` (None: the module's own eager one) that also takes the readings of watched modules."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        run = function or sys.modules[type(module).__module__].eager_attention_forward
        readings = _watched.get(module)
        if not readings:
            return run(module, query, key, value, attention_mask, **kwargs)
        # sdpa's kernels are aten operators that can be listened to; for flex and eager the rows' log-sum-exp is computed.
        kernel = masses.LogSumExp()
        with kernel if implementation == "sdpa" or _announces(run) else nullcontext():
            result = run(module, query, key, value, attention_mask, **kwargs)
        layer = _Layer.of(module, query, key, attention_mask, kernel.value, kwargs)
        for reading in readings:
            reading.take(module.layer_idx, layer)
        return result

    vars(attend)["announces"] = _announces(function)  # for a second probe of the same model
    return attend


# ---------------------------------------------------------------------------------------------------------------------------------------
# Measuring


@dataclass(frozen=True)
class _Plan:
    """Which rows and keys of one sample are measured: query positions (R,), and of every key set its positions and weights (V,)."""

    rows: Tensor
    columns: list[Tensor]
    weights: list[Tensor]

    def of_rows(self, values: Tensor) -> Tensor:
        """The rows' part of (H, T, ...)."""
        return values[:, _adjacent(self.rows)]

    def of_keys(self, values: Tensor, k: int) -> Tensor:
        """Key set k's part of (H, T, D)."""
        return values[:, _adjacent(self.columns[k])]


def _adjacent(index: Tensor) -> Tensor | slice:
    """Neighbouring positions as a slice, which copies nothing."""
    if not len(index):
        return slice(0, 0)
    first, last = int(index[0]), int(index[-1])
    return slice(first, last + 1) if last - first + 1 == len(index) else index


def _plans(rows: Tensor, keys: Mapping[str, Tensor]) -> list[_Plan]:
    if not keys:
        raise ValueError("no key sets: pass keys={'image': (batch, length) mask, ...}")
    for name, weight in keys.items():
        if weight.shape != rows.shape or rows.dim() != 2:
            raise ValueError(f"rows {tuple(rows.shape)} and keys[{name!r}] {tuple(weight.shape)} must both be (batch, length)")
    plans = []
    for b in range(len(rows)):
        columns = [weight[b].nonzero().squeeze(-1) for weight in keys.values()]
        weights = [weight[b, c].float() for weight, c in zip(keys.values(), columns, strict=True)]
        plans.append(_Plan(rows[b].nonzero().squeeze(-1), columns, weights))
    return plans


@dataclass(frozen=True)
class _Layer:
    """What one attention module was called with, and the log-sum-exp (B, H, T) that its kernel gave, if any."""

    query: Tensor  # (B, H, T, D)
    key: Tensor  # (B, H_kv, T, D)
    mask: Any
    lse: Tensor | None
    causal: bool
    scale: float
    softcap: float | None
    sinks: Tensor | None  # (H,) learned logits that take part in the softmax without being a key

    @classmethod
    def of(cls, module: Any, query: Tensor, key: Tensor, mask: Any, lse: Tensor | None, options: Mapping[str, Any]) -> _Layer:
        if options.get("position_bias") is not None:
            raise ValueError("AttentionProbe does not support attention with a position bias")
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        mask = options.get("block_mask", mask)  # of attention functions that are told who sees whom by a rule
        return cls(query, key, mask, lse, causal, scale, options.get("softcap"), options.get("s_aux"))


@dataclass
class _Reading:
    """Collects one forward's masses."""

    plans: list[_Plan]
    length: int
    heads: list[int] | None
    mapped: int | None  # the key set whose attention is kept key by key
    differentiable: bool
    thread: int = field(default_factory=threading.get_ident)
    masses: dict[int, Tensor] = field(default_factory=dict)  # layer -> (B, H, R, K)
    maps: list[Tensor] = field(default_factory=list)  # per sample: sum over layers of (R_b, V_b)
    _visible: dict[tuple[int, int | None, bool], tuple[Any, Tensor | None]] = field(default_factory=dict)

    def take(self, index: int, layer: _Layer) -> None:
        """Measure one layer."""
        if layer.query.shape[2] != self.length or layer.key.shape[2] != self.length:
            raise ValueError(
                f"the model attends from {layer.query.shape[2]} to {layer.key.shape[2]} positions, the probe was told {self.length}: score "
                "finished sequences with one full forward (use_cache=False); their attention is the same as while generating"
            )
        # Scores are exponentiated: half precision would cost them percents.
        full_precision = torch.autocast(layer.query.device.type, enabled=False)
        with full_precision, torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            taken = [self._sample(b, layer) for b in range(len(self.plans))]
        if index in self.masses:
            return  # gradient checkpointing runs the layer again during backward, and wants the same operations to be there
        width = max(len(plan.rows) for plan in self.plans)
        self.masses[index] = torch.stack([nn.functional.pad(mass, (0, 0, 0, width - mass.shape[1])) for mass, _ in taken])
        images = [image for _, image in taken if image is not None]
        self.maps = [total + image for total, image in zip(self.maps, images, strict=True)] if self.maps else images

    def _sample(self, b: int, layer: _Layer) -> tuple[Tensor, Tensor | None]:
        """Masses (H, R_b, K) of sample ``b``, and the mapped set's attention per key averaged over heads (R_b, V)."""
        query, key = self.plans[b].of_rows(layer.query[b]), layer.key[b]
        lse = self._row_lse(b, layer, query)
        found = [self._mass(b, k, layer, query, key, lse) for k in range(len(self.plans[b].columns))]
        image = None
        if self.mapped is not None:
            chosen = self._operands(query, self.plans[b].of_keys(key, self.mapped))
            image = masses.mean_attention(*chosen, self._seen(b, self.mapped, layer), layer.scale, layer.softcap, lse)
        return torch.stack(found, dim=-1), image

    def _row_lse(self, b: int, layer: _Layer, query: Tensor) -> Tensor:
        """Log-sum-exp (H, R) over all keys: the kernel's own, else computed; computed too where a gradient must flow through it."""
        heads = slice(None) if self.heads is None else self.heads
        if layer.lse is not None and not self.differentiable:
            return self.plans[b].of_rows(layer.lse[b][heads])
        lse = masses.row_logsumexp(*self._operands(query, layer.key[b]), self._seen(b, None, layer), layer.scale, layer.softcap)
        return lse if layer.sinks is None else torch.logaddexp(lse, layer.sinks[heads, None])

    def _mass(self, b: int, k: int, layer: _Layer, query: Tensor, key: Tensor, lse: Tensor) -> Tensor:
        """Mass (H, R) on key set ``k``."""
        weights, keys = self.plans[b].weights[k], self.plans[b].of_keys(key, k)
        if not len(weights) or not query.shape[1]:
            return lse.new_zeros(lse.shape)
        visible = self._seen(b, k, layer)
        if layer.lse is not None and not self.differentiable:
            mass = masses.fused_mass(*masses.chosen_heads(query, keys, self.heads), visible, layer.scale, lse, weights)
            if mass is not None:
                return mass
        exact = self._operands(query, keys)
        return masses.tiled_mass(*exact, visible, layer.scale, layer.softcap, lse, weights)

    def _operands(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        query, key = masses.chosen_heads(query, key, self.heads)
        return masses.full_precision(query), masses.full_precision(key)

    def _seen(self, b: int, k: int | None, layer: _Layer) -> Tensor | None:
        """``visible_keys`` of key set ``k`` (None: all keys), remembered, since most layers receive the same mask."""
        known = self._visible.get((b, k, layer.causal))
        if known is None or known[0] is not layer.mask:
            rows = self.plans[b].rows
            columns = torch.arange(self.length, device=rows.device) if k is None else self.plans[b].columns[k]
            known = layer.mask, masses.visible_keys(layer.mask, layer.causal, b, rows, columns)
            self._visible[b, k, layer.causal] = known
        return known[1]
