"""Sample a group's completions: the prompt runs once, its keys and values serve all of them.

All completions start at the same position, so decoding needs no mask and no padding; those that have ended write tokens that are dropped.
The random numbers of a group depend on its generator alone, not on what else is sampled or on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rewardlib.measure import evaluating
from train.policy import Policy, Prompt


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all


@torch.no_grad()
def rollout(policy: Policy, prompt: Prompt, count: int, sampling: Sampling, generator: torch.Generator) -> list[Tensor]:
    """``count`` completions of a prompt, each (n,) token ids, n >= 1, with the end token where the model ended."""
    with evaluating(policy.model):
        tokens = _decode(policy, prompt, count, sampling, generator)
    return [_until_end(row, policy.ends) for row in torch.stack(tokens, dim=1)]


def _decode(policy: Policy, prompt: Prompt, count: int, sampling: Sampling, generator: torch.Generator) -> list[Tensor]:
    """The tokens (count,) of every step, until all completions have ended."""
    decoder, head = policy.model.get_decoder(), policy.model.get_output_embeddings()
    hidden, cache = _prefill(policy, prompt, count, sampling.max_tokens)
    logits = head(hidden).expand(count, -1)
    tokens: list[Tensor] = []
    ended = torch.zeros(count, dtype=torch.bool, device=hidden.device)
    for step in range(sampling.max_tokens):
        token = sample(logits, policy.suppressed, sampling, generator)
        tokens.append(token)
        ended |= torch.isin(token, policy.ends)
        if step + 1 == sampling.max_tokens or bool(ended.all()):
            break
        position = torch.full((3, count, 1), prompt.next_position + step, device=hidden.device)
        embedded = policy.model.get_input_embeddings()(token[:, None])
        output = decoder(inputs_embeds=embedded, position_ids=position, past_key_values=cache, use_cache=True)
        logits = head(output.last_hidden_state[:, -1])
    return tokens


def sample(logits: Tensor, suppressed: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token (B,) from logits (B, V); suppressed ids are never drawn."""
    scores = logits.float().index_fill(1, suppressed, -torch.inf)
    if sampling.temperature == 0:
        return scores.argmax(dim=-1)
    scores = scores / sampling.temperature
    if sampling.top_k:
        scores = scores.masked_fill(scores < scores.topk(min(sampling.top_k, scores.shape[1])).values[:, -1:], -torch.inf)
    probabilities = scores.softmax(dim=-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(descending=True, stable=True)
        kept = ranked.cumsum(dim=-1) - ranked < sampling.top_p
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ranked * kept)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _until_end(row: Tensor, ends: Tensor) -> Tensor:
    found = torch.isin(row, ends).nonzero()
    return row[: int(found[0]) + 1] if len(found) else row


def _prefill(policy: Policy, prompt: Prompt, count: int, room: int) -> tuple[Tensor, Cache]:
    """Last hidden state (1, D) of the prompt, and its cache for ``count`` completions of up to ``room`` tokens."""
    cache = DynamicCache()
    output = policy.backbone(
        input_ids=prompt.ids[None], position_ids=prompt.positions[:, None], past_key_values=cache, use_cache=True, **prompt.images
    )
    return output.last_hidden_state[:, -1], Cache(layers=[_Shared(layer, count, room) for layer in cache.layers])


class _Shared(DynamicLayer):
    """One layer's keys and values of a prompt, repeated for its completions, with room for them: growing copies nothing."""

    def __init__(self, prompt: Any, count: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(prompt.keys, prompt.values)
        self.length = prompt.keys.shape[2]
        self.buffers = [_with_room(states, count, room) for states in (prompt.keys, prompt.values)]
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = states
        self.length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values


def _with_room(states: Tensor, count: int, room: int) -> Tensor:
    _, heads, length, width = states.shape
    buffer = states.new_empty(count, heads, length + room, width)
    buffer[:, :, :length] = states
    return buffer


def texts(policy: Policy, completions: Iterable[Tensor]) -> list[str]:
    """Completions as text, without special tokens."""
    return [policy.processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in completions]
