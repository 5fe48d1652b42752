"""One forward of a packed group, and all that rewards and losses want from it.

Log-probabilities carry the gradient; entropy, attention masses and visual focus come out of the same pass and carry none. Logits are made
in chunks, and again in the backward pass, so that memory does not grow with vocabulary times length.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from rewardlib.probe import AttentionMass, AttentionProbe
from rewardlib.sample import VisualAttention
from rewardlib.vgpo import focus_score
from train.packing import Packed, pack
from train.policy import Policy, Prompt

CHUNK = 1024  # tokens whose logits exist at once


@dataclass(frozen=True)
class Scored:
    """A packed group of N completion tokens after its forward."""

    packed: Packed
    logprobs: Tensor  # (N,) of the tokens, with gradient where it is on
    entropy: Tensor  # (N,) nats
    attention: list[VisualAttention] | None = None  # per completion
    maps: list[Tensor] | None = None  # per completion (V,): mean attention of its tokens on each image token
    visual_focus: Tensor | None = None  # (N,) VGPO's score


def score(
    policy: Policy,
    prompt: Prompt,
    completions: Sequence[Tensor],
    *,
    needs: Collection[str] = (),
    layers: Sequence[int] | None = (-1,),
    temperature: float = 1.0,
) -> Scored:
    """Score completions, each (n,) token ids. ``temperature`` is that of the sampling.

    needs: any of "attention", "maps" (with it), and "visual_focus"; each fills the field of its name.
    """
    packed = pack(prompt.ids, prompt.positions, completions)
    rows = torch.zeros(packed.ids.shape, dtype=torch.bool, device=packed.ids.device)
    rows[0, packed.tokens] = True
    beyond = (0, rows.shape[1] - len(prompt.ids))
    keys = {"region": pad(prompt.region, beyond)[None], "image": pad(prompt.image, beyond)[None]}
    watched = "attention" in needs
    maps = "image" if "maps" in needs else None
    with policy.precision(), AttentionProbe(policy.model, layers).watch(rows, keys, maps) if watched else nullcontext() as mass:
        hidden = last_hidden(policy, prompt, packed)
    logprobs, entropy = token_logprobs(policy, hidden[packed.predictors], packed.ids[0, packed.tokens], temperature)
    attention = _attention(mass, prompt, packed.owner) if mass is not None else None
    images = [mass.maps[0][mine].mean(dim=0) for mine in _own(packed.owner)] if mass is not None and maps else None
    focus = _focus(hidden.detach(), prompt, packed.tokens) if "visual_focus" in needs else None
    return Scored(packed, logprobs, entropy, attention, images, focus)


def joined(parts: Sequence[Scored]) -> Scored:
    """Forwards of consecutive completions as one of them all (``packed`` is that of the first)."""
    if len(parts) == 1:
        return parts[0]
    return Scored(
        parts[0].packed,
        torch.cat([part.logprobs for part in parts]),
        torch.cat([part.entropy for part in parts]),
        _chained([part.attention for part in parts]),
        _chained([part.maps for part in parts]),
        None if parts[0].visual_focus is None else torch.cat([p.visual_focus for p in parts if p.visual_focus is not None]),
    )


def _chained(lists: Sequence[list[Any] | None]) -> list[Any] | None:
    return None if lists[0] is None else [item for part in lists for item in part or []]


def last_hidden(policy: Policy, prompt: Prompt, packed: Packed) -> Tensor:
    """Last hidden states (T, D) of a packed row."""
    output = policy.backbone(input_ids=packed.ids, position_ids=packed.positions, block_mask=packed.shape, use_cache=False, **prompt.inputs)
    return output.last_hidden_state[0]


def token_logprobs(policy: Policy, hidden: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy (N,) of tokens (N,) from the hidden states (N, D) that predict them."""
    head = policy.model.get_output_embeddings()

    def chunk(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        with policy.precision():
            logits = head(states)
        scores = torch.log_softmax(logits.float() / temperature, dim=-1)
        with torch.no_grad():
            entropy = -(scores.exp() * scores).sum(dim=-1)
        return scores.gather(1, wanted[:, None])[:, 0], entropy

    if len(tokens) <= CHUNK:
        return chunk(hidden, tokens)
    parts = [
        checkpoint(chunk, hidden[start : start + CHUNK], tokens[start : start + CHUNK], use_reentrant=False)
        for start in range(0, len(tokens), CHUNK)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _attention(mass: AttentionMass, prompt: Prompt, owner: Tensor) -> list[VisualAttention]:
    """Every completion's attention on the prompt's region and images."""
    region, image = (mass.mean()[name][0].cpu() for name in ("region", "image"))
    sizes = float(prompt.region.sum()), float(prompt.image.sum())
    return [VisualAttention(region[mine].numpy(), image[mine].numpy(), *sizes) for mine in _own(owner.cpu())]


def _own(owner: Tensor) -> list[Tensor]:
    return [owner == i for i in range(int(owner.max()) + 1)]


def _focus(hidden: Tensor, prompt: Prompt, tokens: Tensor) -> Tensor:
    """Visual focus score (N,) of completion tokens; 1/2, which says nothing, without an image."""
    image = hidden[: len(prompt.image)][prompt.image]
    if not len(image):
        return torch.full((len(tokens),), 0.5, device=hidden.device)
    return focus_score(hidden[tokens][None], image.float().mean(dim=0)[None])[0]
