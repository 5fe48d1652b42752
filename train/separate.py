"""Completions as sequences of their own, for models whose layers cannot share a prompt: those with
linear attention, which carry a state, and those whose image tokens see each other or whose windows
slide.

The numbers are those of a packed row; what it costs is that the prompt is run once for every
completion, and what is short is padded. Images are encoded once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from train.packing import Packed
from train.policy import Policy, Prompt


def separate_hidden(policy: Policy, prompt: Prompt, packed: Packed) -> Tensor:
    """Last hidden states (T, D), as of a packed row."""
    rows = packed.separate
    shown = policy.encode_images(prompt) if prompt.features is None else prompt
    features = _repeated(shown.features, len(rows.ids)) if shown.images else {}
    output = policy.backbone(
        input_ids=rows.ids,
        attention_mask=rows.real.long(),
        position_ids=policy.family.position_ids(rows.positions),
        use_cache=False,
        **policy.family.token_types(rows.ids),
        **features,
    )
    return rows.flat(output.last_hidden_state)


def _repeated(features: dict[str, Any] | None, count: int) -> dict[str, Any]:
    """The features of a prompt's images for ``count`` sequences with the same images."""
    found = {}
    for name, outputs in (features or {}).items():
        image = outputs["image"]
        pooled = image.pooler_output
        many = (
            pooled.repeat(count, *[1] * (pooled.dim() - 1))
            if isinstance(pooled, Tensor)
            else tuple(pooled) * count
        )
        found[name] = {"image": type(image)(pooler_output=many)}
    return found


class SeparateStep:
    """The decoder for one more token of every completion of one prompt, as ``train.engines.local``
    steps.
    """

    def __init__(self, policy: Policy, prompt: Prompt, count: int) -> None:
        self.policy, self.next = policy, prompt.next_position
        self.cache: Any = DynamicCache(config=policy.model.get_decoder().config)
        output = policy.backbone(
            input_ids=prompt.ids[None],
            position_ids=policy.family.position_ids(prompt.positions[:, None]),
            past_key_values=self.cache,
            use_cache=True,
            **policy.family.token_types(prompt.ids[None]),
            **prompt.inputs,
        )
        self.hidden = output.last_hidden_state[:, -1]  # (1, D) at the prompt's end
        self.rows = torch.arange(count, device=policy.device)
        # By the one way of beam search, which caches of every kind of layer know.
        self.cache.reorder_cache(torch.zeros_like(self.rows))

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the completions (k,), by their places among the present ones."""
        self.rows = self.rows[kept]
        self.cache.reorder_cache(kept)

    def __call__(self, token: Tensor, n: int) -> Tensor:
        """Hidden states (B, D) after the n-th tokens (B,)."""
        positions = token.new_full((3, len(token), 1), self.next + n)
        output = self.policy.model.get_decoder()(
            inputs_embeds=self.policy.model.get_input_embeddings()(token[:, None]),
            position_ids=self.policy.family.position_ids(positions),
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, 0]
