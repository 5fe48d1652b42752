"""A recipe: a paper's values for everything that a run can be told. Light, so that ``--help``
answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rewardlib.templates import Template
from train.rewards import Weights

Correction = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none"]
LossName = Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "sapo"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Weights):
    """Rewards by weight (0: not used), methods, loss, sampling and optimisation."""

    methods: tuple[str, ...] = ()
    """what papers change of GRPO itself, in this order (docs/methods.md)"""
    template: Template = "think-answer"
    """how a response is to be laid out: what the prompt asks for, and the format reward looks at"""
    window: tuple[int, int] | None = None
    """fewest and most tokens of a response that earns the whole format reward"""
    share: float = 0.3
    """the share of a response's tokens, the most uncertain first, whose attention the contrast is
    taken of: SAYO's 0.3; 1 takes all, which also reach where a trace looks (docs/efficacy.md)
    """
    layers: tuple[int, ...] | None = (-1,)
    """the layers whose attention is rewarded; negative numbers count from the last; None: all"""
    freeze_vision: bool = False
    """leave the vision tower as it is"""
    filter_groups: bool = False
    """draw other prompts instead of those whose text rewards are all equal (DAPO's dynamic
    sampling)
    """
    scale: Literal["group", "none"] = "group"
    """divide advantages by the standard deviation of the prompt's rewards, or by nothing (Dr. GRPO)
    """
    loss: LossName = "dapo"
    """how the tokens' objectives are clipped and averaged (docs/training.md)"""
    clip_low: float = 0.2
    """a token whose probability has fallen to less than 1 minus this share is no longer pushed down
    """
    clip_high: float = 0.2
    """a token whose probability has risen to more than 1 plus this share is no longer pushed up"""
    kl: float = 0.0
    """weight in the loss of the divergence from the model at the start"""
    num_generations: Annotated[int, tyro.conf.arg(aliases=["--group"])] = 8
    """completions sampled for each prompt, at least 2, since each is compared with the others"""
    max_tokens: int = 512
    """most tokens of a completion"""
    temperature: float = 1.0
    """what logits are divided by, when completions are sampled and when they are scored"""
    top_p: float = 1.0
    """the share of the probability that tokens are sampled from"""
    num_iterations: Annotated[int, tyro.conf.arg(aliases=["--updates"])] = 1
    """optimizer steps on each batch of completions"""
    learning_rate: float = 1e-6
    """step size of AdamW, at its highest"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate falls to zero by the end of the run"""
    warmup: float = 0
    """steps over which the learning rate rises first; a number below 1 is a share of all steps"""
    weight_decay: float = 0.01
    """weight decay of AdamW"""
    max_grad_norm: float = 1.0
    """a longer gradient is scaled down to this length"""
