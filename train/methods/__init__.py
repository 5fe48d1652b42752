"""What papers change of GRPO, one file each. Adding one touches its file, and its line here.

    METHODS["papo"]            the class; its fields are the flags --papo.FIELD
    RECIPES["papo"]            the paper's values, for --recipe papo

A recipe that changes only rewards and values, and no maths, is a line of ``RECIPES`` alone.
"""

from __future__ import annotations

from train.methods.base import Method
from train.methods.papo import PAPO
from train.methods.vgpo import VGPO
from train.methods.vppo import VPPO
from train.recipe import Recipe

METHODS: dict[str, type[Method]] = {method.name: method for method in (VGPO, PAPO, VPPO)}

RECIPES: dict[str, Recipe] = {
    "grpo": Recipe(),
    # Released code: attention and format with weight 1, no accuracy.
    "sayo": Recipe(
        accuracy=0.0, format=1.0, attention_contrast=1.0, template="answer", window=(60, 100), group=16, max_tokens=110, top_p=0.9,
        kl=0.001, learning_rate=5e-6, schedule="linear", max_grad_norm=0.8,
    ),
    "perception-r1": Recipe(
        perception=0.7, repetition=1.0, template="perception-r1", clip_high=0.3, max_tokens=4096, weight_decay=1e-3, warmup=0.05,
    ),
    # Its weights are not public; these are ours.
    "faithful-mr1": Recipe(causal_attention=0.5),
    **{name: method.recipe for name, method in METHODS.items()},
}  # fmt: skip


def field_of(name: str) -> str:
    """The name of a method's settings among those of a run: in_doubt of in-doubt."""
    return name.replace("-", "_")
