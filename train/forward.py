"""One forward of a packed group, or of several, and all that rewards, methods and losses want from
it.

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
from train.packing import Packed, join, pack
from train.policy import Policy, Prompt
from train.separate import separate_hidden
from train.shared_prefix import SharedPrefixes


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
    (output,) = forward_all(
        policy,
        [(prompt, completions)],
        measures=measures,
        temperature=temperature,
        entropy_gradient=entropy_gradient,
        watched=watched,
    )
    return output


def forward_all(
    policy: Policy,
    rows: Sequence[tuple[Prompt, Sequence[Tensor]]],
    *,
    measures: Sequence[Measure] = (),
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    watched: ExitStack | None = None,
) -> list[ForwardOutput]:
    """``forward`` of several prompts with their completions in one pass of the model. Of several,
    all images are encoded anew.
    """
    parts = join([pack(prompt.ids, prompt.positions, tokens) for prompt, tokens in rows])
    prompts = [prompt for prompt, _ in rows]
    inputs = [
        Inputs(policy, prompt.behind(start) if start else prompt, part, temperature)
        for prompt, part, start in zip(prompts, parts, _starts(parts), strict=True)
    ]
    with nullcontext(watched) if watched is not None else ExitStack() as stack:
        readings = [
            {measure.name: stack.enter_context(measure.watch(each)) for measure in measures}
            for each in inputs
        ]
        with policy.precision():
            hidden = last_hidden(policy, prompts, parts[0])
    logprobs, entropy = token_logprobs(
        policy,
        hidden[torch.cat([part.predictors for part in parts])],
        parts[0].ids[0, torch.cat([part.tokens for part in parts])],
        temperature,
        entropy_gradient,
    )
    counts = [len(part.tokens) for part in parts]
    split = torch.split(logprobs, counts), torch.split(entropy, counts)
    said = zip(parts, *split, readings, strict=True)
    return [
        ForwardOutput(
            part.completion_index,
            own_logprobs,
            own_entropy,
            {name: reading(hidden) for name, reading in own.items()},
        )
        for part, own_logprobs, own_entropy, own in said
    ]


def _starts(parts: Sequence[Packed]) -> Sequence[int]:
    """Where each part begins in the row that they are of."""
    shape = parts[0].shape
    return shape.starts if isinstance(shape, SharedPrefixes) else [0]


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


def last_hidden(policy: Policy, prompts: Sequence[Prompt], packed: Packed) -> Tensor:
    """Last hidden states (T, D) of a packed row of these prompts."""
    if not policy.family.shares_prefix:
        (prompt,) = prompts
        return separate_hidden(policy, prompt, packed)
    output = policy.backbone(
        input_ids=packed.ids,
        position_ids=policy.family.position_ids(packed.positions),
        block_mask=packed.shape,
        use_cache=False,
        **policy.inputs_of(prompts),
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
