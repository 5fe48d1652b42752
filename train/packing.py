"""A group's completions behind one shared prompt, as a single row that the model sees as separate
sequences.

    [ prompt | c1 | c2 | ... | cG ]

Each completion sees the prompt and itself, and its positions go on where the prompt's end: the
numbers are those of G separate sequences, while the image and the prompt are encoded once. Several
such rows, one behind the other, are one as well (``join``): they do not see each other. Pure
functions on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from train.shared_prefix import SharedPrefix, SharedPrefixes


@dataclass(frozen=True)
class Packed:
    """One packed row. N is the number of completion tokens, in order: all of c1, all of c2, ..."""

    ids: Tensor  # (1, T)
    positions: Tensor  # (3, 1, T), time, height and width of mRoPE
    tokens: Tensor  # (N,) where the completion tokens are
    predictors: Tensor  # (N,) the positions whose output predicts them
    completion_index: Tensor  # (N,) which completion each token belongs to
    shape: SharedPrefix | SharedPrefixes  # who sees whom

    @cached_property
    def separate(self) -> Separate:
        """The same completions as sequences of their own."""
        return separate(self)


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
        completion_index=completion_index,
        shape=SharedPrefix(length, completion_index),
    )


def join(rows: Sequence[Packed]) -> list[Packed]:
    """Packed rows as parts of one row [ prompt 1 | its completions | prompt 2 | ... ].

    All of the results have the ids, positions and shape of the whole; each has its own tokens and
    predictors, where they are in it.
    """
    if len(rows) == 1:
        return list(rows)
    ids = torch.cat([row.ids for row in rows], dim=1)
    positions = torch.cat([row.positions for row in rows], dim=2)
    shape = SharedPrefixes([row.shape for row in rows if isinstance(row.shape, SharedPrefix)])
    return [
        replace(
            row,
            ids=ids,
            positions=positions,
            tokens=row.tokens + start,
            predictors=row.predictors + start,
            shape=shape,
        )
        for row, start in zip(rows, shape.starts, strict=True)
    ]


@dataclass(frozen=True)
class Separate:
    """A packed row's completions, each behind a prompt of its own, padded to the longest."""

    ids: Tensor  # (G, W); the padding holds some token of a completion
    positions: Tensor  # (3, G, W)
    real: Tensor  # (G, W) bool: what is not padding
    prompt: int  # tokens of the prompt
    sequence: (
        Tensor  # (T,) the sequence of every position of the packed row; the prompt's: the first
    )
    place: Tensor  # (T,) and where in it

    def flat(self, values: Tensor) -> Tensor:
        """(G, W, ...) as the packed row has them, (T, ...)."""
        return values[self.sequence, self.place]

    def spread(self, values: Tensor) -> Tensor:
        """What holds for the packed row (T,), for every sequence: (G, W), zeros in the padding."""
        found = values.new_zeros(self.ids.shape)
        found[:, : self.prompt] = values[: self.prompt]
        own = slice(self.prompt, None)
        found[self.sequence[own], self.place[own]] = values[own]
        return found


def separate(packed: Packed) -> Separate:
    """A packed row's completions as sequences of their own."""
    assert isinstance(packed.shape, SharedPrefix)  # joined rows are of models that share
    prompt, index = packed.shape.prompt, packed.completion_index
    lengths = index.bincount()
    step = torch.arange(len(index), device=index.device) - (lengths.cumsum(0) - lengths)[index]
    first = torch.arange(prompt, device=index.device)
    count, width = len(lengths), prompt + int(lengths.max())
    ids = packed.ids[0, -1].repeat(count, width)
    ids[:, :prompt] = packed.ids[0, :prompt]
    ids[index, prompt + step] = packed.ids[0, prompt:]
    positions = packed.positions.new_zeros(3, count, width)
    positions[:, :, :prompt] = packed.positions[:, :, :prompt]
    positions[:, index, prompt + step] = packed.positions[:, 0, prompt:]
    return Separate(
        ids=ids,
        positions=positions,
        real=torch.arange(width, device=index.device) < prompt + lengths[:, None],
        prompt=prompt,
        sequence=torch.cat([torch.zeros_like(first), index]),
        place=torch.cat([first, prompt + step]),
    )
