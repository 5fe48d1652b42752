"""What each model family has of its own, one file each. Adding one touches its file, and its line
here.
"""

from __future__ import annotations

from typing import Any

from train.families.base import Family
from train.families.gemma3 import Gemma3
from train.families.internvl import InternVL
from train.families.llava_onevision import LlavaOnevision
from train.families.qwen2_5_vl import Qwen2_5VL
from train.families.qwen2_vl import Qwen2VL
from train.families.qwen3_5 import Qwen3_5
from train.families.qwen3_vl import Qwen3VL
from train.families.smolvlm import SmolVLM

FAMILIES: dict[str, type[Family]] = {
    family.model_type: family
    for family in (
        Qwen2VL,
        Qwen2_5VL,
        Qwen3VL,
        Qwen3_5,
        InternVL,
        LlavaOnevision,
        Gemma3,
        SmolVLM,
    )
}


def family_of(model: Any, processor: Any) -> Family:
    """The family of a model that is not wrapped; ``ValueError`` for one that cannot be trained
    here.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ValueError(
            f"policies of type {kind!r} are not supported; supported are {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind](model, processor)
