"""Sample completions of several prompts at once: each prompt runs once, its keys and values serve
all of its completions.

A prompt's keys are kept once and attended to by all of its completions at once (see
``train.shared_prefix``). All completions are equally long at any time, so decoding needs no mask
and no padding; those that have ended are dropped from time to time. Prompts are taken up in chunks,
so that memory does not grow with their number. The random numbers of a prompt's completions come
from its own generator, whatever else is sampled and however many processes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from rewardlib.measure import evaluating
from train.engines.base import Completion, Engine, Sampling
from train.policy import Policy, Prompt
from train.separate import SeparateStep
from train.shared_prefix import SharedPrompts

Prefix = list[tuple[Tensor, Tensor]]  # the prompt's keys and values (1, H_kv, P, D) of every layer

AT_ONCE = 256  # completions that are decoded together, if one prompt has no more
ENDED = 0.125  # the share of these that have ended, from which on they are dropped: it takes a copy


class LocalEngine:
    """The policy's own decoder, on the training process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """As ``Engine`` says."""
        generators = [torch.Generator(self.policy.device).manual_seed(seed) for seed in seeds]
        drawn = rollout(self.policy, prompts, count, sampling, generators)
        return [[Completion(ids) for ids in completions] for completions in drawn]

    def sync(self) -> None:
        """Nothing to do: it is the policy itself that samples."""


def greedy(
    policy: Policy, prompts: Sequence[Prompt], max_tokens: int, engine: Engine | None = None
) -> list[Tensor]:
    """The most likely response (n,) to every prompt, token by token; by the policy's own decoder,
    unless another engine is given.
    """
    engine, sampling = engine or LocalEngine(policy), Sampling(max_tokens, temperature=0)
    completions = engine.generate(prompts, 1, sampling, [0] * len(prompts))
    return [completion.ids for (completion,) in completions]


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Sequence[Prompt],
    count: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[list[Tensor]]:
    """``count`` completions of every prompt, each (n,) token ids, n >= 1, with the end token where
    the model ended.
    """
    found: list[Tensor] = []
    at_once = max(1, AT_ONCE // count) if policy.family.shares_prefix else 1
    with evaluating(policy.model), policy.precision():
        for start in range(0, len(prompts), at_once):
            chunk = slice(start, start + at_once)
            found += _decode(policy, prompts[chunk], count, sampling, generators[chunk])
    return [found[start : start + count] for start in range(0, len(found), count)]


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    count: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """The completions (n,) of some prompts, one prompt's after another's."""
    head = policy.model.get_output_embeddings()
    step: _Step | SeparateStep
    if policy.family.shares_prefix:
        step = _Step(policy, prompts, count, sampling.max_tokens)
    else:
        step = SeparateStep(policy, prompts[0], count)
    logits = head(step.hidden).repeat_interleave(count, dim=0)
    tokens = policy.ends.new_zeros(len(logits), sampling.max_tokens)
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)  # of ``step.rows``
    for n in range(sampling.max_tokens):
        token = sample(logits, policy.suppressed, sampling, generators, count, step.rows)
        tokens[step.rows, n] = token
        ended |= torch.isin(token, policy.ends)
        over = float(ended.float().mean())
        if n + 1 == sampling.max_tokens or over == 1:
            break
        if over >= ENDED:
            kept = (~ended).nonzero()[:, 0]
            token, ended = token[kept], ended[kept]
            step.keep(kept)
        logits = head(step(token, n))
    return [_until_end(row, policy.ends) for row in tokens]


class _Step:
    """The decoder's layers for one more token of every completion: their own forward, without the
    model's preparations for any input.
    """

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], count: int, room: int) -> None:
        hidden, prefixes = zip(*(_prefill(policy, prompt) for prompt in prompts), strict=True)
        self.hidden = torch.cat(hidden)  # (prompts, D) at the prompts' ends
        starts = [prompt.next_position for prompt in prompts]
        self.decoder, self.embed = policy.model.get_decoder(), policy.model.get_input_embeddings()
        self.count, self.prefixes = count, prefixes
        positions = torch.tensor(starts, device=policy.device)[:, None] + torch.arange(
            room, device=policy.device
        )
        # cosines and sines (prompts, room, D)
        self.rotary = policy.family.rotary(prefixes[0][0][0], positions)
        self.cache = _Cache()
        # (B,) which of all completions are decoded
        self.rows = torch.arange(len(prefixes) * count, device=policy.device)
        self.prompt, self.shared = self._shared()

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the completions (k,), by their places among the present ones."""
        self.rows = self.rows[kept]
        self.prompt, self.shared = self._shared()
        self.cache.keep(kept)

    def _shared(self) -> tuple[Tensor, SharedPrompts]:
        """The prompt (B,) of every completion, and what it sees of it."""
        prompt = self.rows // self.count
        counts = prompt.bincount(minlength=len(self.prefixes)).tolist()
        still = [prefix for prefix, count in zip(self.prefixes, counts, strict=True) if count]
        layers = list(zip(*still, strict=True))
        return prompt, SharedPrompts(layers, [count for count in counts if count])

    def __call__(self, token: Tensor, n: int) -> Tensor:
        """Hidden states (B, D) after the n-th tokens (B,)."""
        hidden = self.embed(token[:, None])
        rotary = tuple(part[self.prompt, n : n + 1] for part in self.rotary)
        for layer in self.decoder.layers:
            hidden = layer(
                hidden,
                attention_mask=None,
                position_embeddings=rotary,
                past_key_values=self.cache,
                use_cache=True,
                prefix=self.shared,
            )
        return self.decoder.norm(hidden)[:, 0]


def sample(
    logits: Tensor,
    suppressed: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    count: int | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """One token (B,) from logits (B, V); suppressed ids are never drawn.

    generators: each draws for ``count`` rows. rows: (B,) which of all these the logits are of; all,
        if left out. What is drawn for one does not depend on which others there are.
    """
    scores = logits.float().index_fill(1, suppressed, -torch.inf)
    if sampling.temperature == 0:
        return scores.argmax(dim=-1)
    scores = scores / sampling.temperature
    if sampling.top_k:
        scores = scores.masked_fill(
            scores < scores.topk(min(sampling.top_k, scores.shape[1])).values[:, -1:], -torch.inf
        )
    probabilities = scores.softmax(dim=-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(descending=True, stable=True)
        kept = ranked.cumsum(dim=-1) - ranked < sampling.top_p
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ranked * kept)
    # The first arrival of exponential clocks with these rates, which is what multinomial draws,
    # several times faster.
    count = count or len(logits) // len(generators)
    rows = torch.arange(len(logits), device=logits.device) if rows is None else rows
    clocks = [
        torch.empty(count, logits.shape[1], device=logits.device)
        .exponential_(generator=generator)
        .index_select(0, rows[rows // count == n] - n * count)
        for n, generator in enumerate(generators)
    ]
    return (probabilities / torch.cat(clocks)).argmax(dim=-1)


def _until_end(row: Tensor, ends: Tensor) -> Tensor:
    end = torch.isin(row, ends).nonzero()
    return row[: int(end[0]) + 1] if len(end) else row


def _prefill(policy: Policy, prompt: Prompt) -> tuple[Tensor, Prefix]:
    """Last hidden state (1, D) of the prompt, and its keys and values by layer."""
    cache = DynamicCache()
    output = policy.backbone(
        input_ids=prompt.ids[None],
        position_ids=policy.family.position_ids(prompt.positions[:, None]),
        past_key_values=cache,
        use_cache=True,
        **prompt.inputs,
    )
    return output.last_hidden_state[:, -1], [(layer.keys, layer.values) for layer in cache.layers]


class _Cache:
    """The completions' own keys and values by layer, in buffers that double."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[int, list[Tensor]]] = {}

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any) -> tuple[Tensor, ...]:
        """Add states (G, H_kv, 1, D); all states so far (G, H_kv, t, D)."""
        length, buffers = self.layers.get(layer) or (0, [_room(x, 128) for x in (key, value)])
        if length == buffers[0].shape[2]:
            buffers = [torch.cat([buffer, torch.empty_like(buffer)], dim=2) for buffer in buffers]
        for buffer, states in zip(buffers, (key, value), strict=True):
            buffer[:, :, length : length + 1] = states
        self.layers[layer] = length + 1, buffers
        return tuple(buffer[:, :, : length + 1] for buffer in buffers)

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the completions (k,)."""
        for layer, (length, buffers) in self.layers.items():
            self.layers[layer] = length, [buffer[kept] for buffer in buffers]


def _room(states: Tensor, length: int) -> Tensor:
    return states.new_empty(*states.shape[:2], length, states.shape[3])
