"""Sample completions of several prompts at once: each prompt runs once, its keys and values serve
all of its completions.

A prompt's keys are kept once and attended to by all of its completions at once (see
``train.shared_prefix``). All completions are equally long at any time, so decoding needs no mask
and no padding; those that have ended write tokens that are dropped. The random numbers of a
prompt's completions come from its own generator, whatever else is sampled and however many
processes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from rewardlib.measure import evaluating
from train.engines import Sampling
from train.policy import Policy, Prompt

Prefix = list[tuple[Tensor, Tensor]]  # the prompt's keys and values (1, H_kv, P, D) of every layer


class LocalEngine:
    """The policy's own decoder, on the training process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Tensor]]:
        """As ``Engine`` says."""
        generators = [torch.Generator(self.policy.device).manual_seed(seed) for seed in seeds]
        return rollout(self.policy, prompts, count, sampling, generators)

    def sync(self) -> None:
        """Nothing to do: it is the policy itself that samples."""


def greedy(policy: Policy, prompts: Sequence[Prompt], max_tokens: int) -> list[Tensor]:
    """The most likely response (n,) to every prompt, token by token."""
    sampling = Sampling(max_tokens, temperature=0)
    completions = LocalEngine(policy).generate(prompts, 1, sampling, [0] * len(prompts))
    return [ids for (ids,) in completions]


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
    with evaluating(policy.model), policy.precision():
        rows = torch.stack(_decode(policy, prompts, count, sampling, generators), dim=1)
    completions = [_until_end(row, policy.ends) for row in rows]
    return [completions[start : start + count] for start in range(0, len(completions), count)]


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    count: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """The tokens (prompts * count,) of every step, until all completions have ended."""
    head = policy.model.get_output_embeddings()
    hidden, prefixes = zip(*(_prefill(policy, prompt) for prompt in prompts), strict=True)
    logits = head(torch.cat(hidden)).repeat_interleave(count, dim=0)
    step = _Step(
        policy, prefixes, [prompt.next_position for prompt in prompts], count, sampling.max_tokens
    )
    tokens: list[Tensor] = []
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for n in range(sampling.max_tokens):
        token = sample(logits, policy.suppressed, sampling, generators)
        tokens.append(token)
        ended |= torch.isin(token, policy.ends)
        if n + 1 == sampling.max_tokens or bool(ended.all()):
            break
        logits = head(step(token, n))
    return tokens


class _Step:
    """The decoder's layers for one more token of every completion: their own forward, without the
    model's preparations for any input.
    """

    def __init__(
        self,
        policy: Policy,
        prefixes: Sequence[Prefix],
        starts: Sequence[int],
        count: int,
        room: int,
    ) -> None:
        self.decoder, self.embed, self.count = (
            policy.model.get_decoder(),
            policy.model.get_input_embeddings(),
            count,
        )
        self.prefix = list(zip(*prefixes, strict=True))  # by layer, then by prompt
        positions = torch.tensor(starts, device=policy.device)[:, None] + torch.arange(
            room, device=policy.device
        )
        # cosines and sines (prompts, room, D)
        self.rotary = policy.family.rotary(prefixes[0][0][0], positions)
        self.cache = _Cache()

    def __call__(self, token: Tensor, n: int) -> Tensor:
        """Hidden states (prompts * count, D) after the n-th tokens (prompts * count,)."""
        hidden = self.embed(token[:, None])
        rotary = tuple(
            part[:, n : n + 1].repeat_interleave(self.count, dim=0) for part in self.rotary
        )
        for layer in self.decoder.layers:
            hidden = layer(
                hidden,
                attention_mask=None,
                position_embeddings=rotary,
                past_key_values=self.cache,
                use_cache=True,
                prefix=self.prefix,
            )
        return self.decoder.norm(hidden)[:, 0]


def sample(
    logits: Tensor, suppressed: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]
) -> Tensor:
    """One token (B,) from logits (B, V); suppressed ids are never drawn. Each generator draws for
    an equal part of the rows.
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
    parts = torch.empty_like(probabilities).chunk(len(generators))
    clocks = torch.cat(
        [
            part.exponential_(generator=generator)
            for part, generator in zip(parts, generators, strict=True)
        ]
    )
    return (probabilities / clocks).argmax(dim=-1)


def _until_end(row: Tensor, ends: Tensor) -> Tensor:
    end = torch.isin(row, ends).nonzero()
    return row[: int(end[0]) + 1] if len(end) else row


def _prefill(policy: Policy, prompt: Prompt) -> tuple[Tensor, Prefix]:
    """Last hidden state (1, D) of the prompt, and its keys and values by layer."""
    cache = DynamicCache()
    output = policy.backbone(
        input_ids=prompt.ids[None],
        position_ids=prompt.positions[:, None],
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


def _room(states: Tensor, length: int) -> Tensor:
    return states.new_empty(*states.shape[:2], length, states.shape[3])
