"""A group's completions behind one shared prompt, as a single row that the model sees as separate
sequences.

    [ prompt | c1 | c2 | ... | cG ]

Each completion sees the prompt and itself, and its positions go on where the prompt's end: the
numbers are those of G separate sequences, while the image and the prompt are encoded once. Pure
functions on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.shared_prefix import SharedPrefix


@dataclass(frozen=True)
class Packed:
    """One packed row. N is the number of completion tokens, in order: all of c1, all of c2, ..."""

    ids: Tensor  # (1, T)
    positions: Tensor  # (3, 1, T), time, height and width of mRoPE
    tokens: Tensor  # (N,) where the completion tokens are
    predictors: Tensor  # (N,) the positions whose output predicts them
    shape: SharedPrefix  # who sees whom

    @property
    def completion_index(self) -> Tensor:
        """(N,) which completion each token belongs to."""
        return self.shape.completion_index


def pack(prompt_ids: Tensor, prompt_positions: Tensor, completions: Sequence[Tensor]) -> Packed:
    """prompt_ids: (P,). prompt_positions: (3, P). completions: each (n,) token ids, n >= 1."""
    length, device = len(prompt_ids), prompt_ids.device
    counts = torch.tensor([len(c) for c in completions], device=device)
    completion_index = torch.repeat_interleave(
        torch.arange(len(completions), device=device), counts
    )
    starts = length + counts.cumsum(0) - counts
    tokens = torch.arange(length, length + int(counts.sum()), device=device)
    step = tokens - starts[completion_index]
    positions = torch.cat(
        [prompt_positions, (prompt_positions.max() + 1 + step).expand(3, -1)], dim=1
    )
    # The first token of each completion is predicted from the prompt's last position.
    predictors = torch.where(step == 0, length - 1, tokens - 1)
    return Packed(
        ids=torch.cat([prompt_ids, *completions])[None],
        positions=positions[:, None],
        tokens=tokens,
        predictors=predictors,
        shape=SharedPrefix(length, completion_index),
    )
