"""One forward of a packed group, and all that rewards, methods and losses want from it.

Log-probabilities carry the gradient. Logits are made in chunks, and again in the backward pass, so
that memory does not grow with vocabulary times length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from train.measures import CHUNK, Inputs, Measure
from train.packing import Packed, pack
from train.policy import Policy, Prompt
from train.separate import separate_hidden


@dataclass(frozen=True)
class ForwardOutput:
    """What a forward says of N completion tokens."""

    completion_index: Tensor  # (N,)
    logprobs: Tensor  # (N,) of the tokens, with gradient where it is on
    entropy: Tensor  # (N,) nats
    measured: Mapping[str, Tensor]  # (N, ...) by measure


def forward(
    policy: Policy,
    prompt: Prompt,
    completions: Sequence[Tensor],
    *,
    measures: Sequence[Measure] = (),
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    watched: ExitStack | None = None,
) -> ForwardOutput:
    """Log-probability and entropy of completions, each (n,) token ids, and what ``measures`` tell
    of them.

    temperature: that of the sampling.
    entropy_gradient: whether the entropy carries a gradient too.
    watched: where measures with a gradient stay open until the backward pass, for under activation
        checkpointing it runs layers again.
    """
    packed = pack(prompt.ids, prompt.positions, completions)
    inputs = Inputs(policy, prompt, packed, temperature)
    with nullcontext(watched) if watched is not None else ExitStack() as stack:
        readings = {}
        for measure in measures:
            readings[measure.name] = stack.enter_context(measure.watch(inputs))
        with policy.precision():
            hidden = last_hidden(policy, prompt, packed)
    tokens = packed.ids[0, packed.tokens]
    logprobs, entropy = token_logprobs(
        policy, hidden[packed.predictors], tokens, temperature, entropy_gradient
    )
    measured = {name: reading(hidden) for name, reading in readings.items()}
    return ForwardOutput(packed.completion_index, logprobs, entropy, measured)


def joined(parts: Sequence[ForwardOutput], completion_index: Tensor) -> ForwardOutput:
    """Forwards of consecutive completions as one of them all."""
    if len(parts) == 1:
        return parts[0]
    return ForwardOutput(
        completion_index,
        torch.cat([part.logprobs for part in parts]),
        torch.cat([part.entropy for part in parts]),
        {name: torch.cat([part.measured[name] for part in parts]) for name in parts[0].measured},
    )


def last_hidden(policy: Policy, prompt: Prompt, packed: Packed) -> Tensor:
    """Last hidden states (T, D) of a packed row."""
    if not policy.family.shares_prefix:
        return separate_hidden(policy, prompt, packed)
    output = policy.backbone(
        input_ids=packed.ids,
        position_ids=policy.family.position_ids(packed.positions),
        block_mask=packed.shape,
        use_cache=False,
        **prompt.inputs,
    )
    return output.last_hidden_state[0]


def token_logprobs(
    policy: Policy,
    hidden: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy (N,) of tokens (N,) from the hidden states (N, D) that predict
    them.
    """
    head = policy.model.get_output_embeddings()

    def chunk(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        with policy.precision():
            logits = head(states)
        scores = torch.log_softmax(logits.float() / temperature, dim=-1)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(scores.exp() * scores).sum(dim=-1)
        return scores.gather(1, wanted[:, None])[:, 0], entropy

    if len(tokens) <= CHUNK:
        return chunk(hidden, tokens)
    starts = range(0, len(tokens), CHUNK)
    parts = [
        checkpoint(
            chunk, hidden[start : start + CHUNK], tokens[start : start + CHUNK], use_reentrant=False
        )
        for start in starts
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat(
        [entropy for _, entropy in parts]
    )
