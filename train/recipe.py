"""A recipe: a paper's values for everything that a run can be told. Light, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rewardlib.text import Template

LossName = Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "sapo"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Rewards by weight (0: not used), methods, loss, sampling and optimisation."""

    accuracy: float = 0.9
    """weight of the closed final answer being right"""
    format: float = 0.1
    """weight of keeping to the template"""
    repetition: float = 0.0
    """weight of the 20-gram penalty"""
    perception: float = 0.0
    """weight of stating the row's visual annotations; needs a judge"""
    attention_contrast: float = 0.0
    """weight of SAYO's attention on the region"""
    causal_attention: float = 0.0
    """weight of attention where masking the evidence matters"""
    methods: tuple[str, ...] = ()
    """what papers change of GRPO itself, in this order: any of vgpo, papo, vppo"""
    template: Template = "think-answer"
    """the response's template"""
    window: tuple[int, int] | None = None
    """tokens that a response should have, as part of the format"""
    filter_groups: bool = False
    """DAPO: draw other prompts instead of those whose text rewards are all equal"""
    scale: Literal["group", "none"] = "group"
    """what advantages are divided by"""
    loss: LossName = "dapo"
    """how the tokens' objectives are averaged and clipped (docs/training.md)"""
    clip_low: float = 0.2
    """how far below 1 a token's probability ratio has a gradient"""
    clip_high: float = 0.2
    """how far above 1 a token's probability ratio has a gradient"""
    kl: float = 0.0
    """weight of the divergence from the model at the start"""
    group: int = 8
    """completions per prompt, at least 2: a completion is compared with the others of its prompt"""
    max_tokens: int = 512
    """longest completion"""
    temperature: float = 1.0
    """of sampling, and of the log-probabilities"""
    top_p: float = 1.0
    """share of the probability that is sampled from"""
    updates: int = 1
    """optimizer steps on each batch of completions"""
    learning_rate: float = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate falls to zero"""
    warmup: float = 0
    """steps over which the learning rate rises first; below 1, a share of all steps"""
    weight_decay: float = 0.01
    """weight decay of AdamW"""
    max_grad_norm: float = 1.0
    """longest gradient; longer ones are scaled down"""
