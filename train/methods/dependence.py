"""How much a token depends on the image: the divergence between its probabilities with and without
parts of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def k3(logprobs: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate (N,) of the divergence of tokens' probabilities from those under another
    view, at most 10.

    exp(d) - d - 1 with d = other - logprobs, d within 20, as the released code of PAPO and VPPO has
    it.
    """
    difference = (other - logprobs).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1).clamp(max=10.0)
