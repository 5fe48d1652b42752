"""How far a policy has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kl_to_reference(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) for every token: exp(d) - d - 1 with d =
    ref_logprobs - logprobs.
    """
    difference = ref_logprobs - logprobs
    return difference.exp() - difference - 1
