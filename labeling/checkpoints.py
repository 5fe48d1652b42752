"""What all models that transformers loads have in common: where they run, and in which numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, PreTrainedConfig

DTYPES = ("float32", "float16", "bfloat16")


def model_type(name: str, revision: str | None = None) -> str:
    """The architecture that a checkpoint's ``config.json`` names: "grounding-dino", "sam2", ...;
    empty where it names none. Whether transformers knows it is another question."""
    config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    return str(config.get("model_type", ""))


def load(
    model_class: Any,
    name: str,
    *,
    processor_class: Any = AutoProcessor,
    revision: str | None,
    device: str,
    dtype: str,
) -> tuple[Any, Any, str | None]:
    """A checkpoint's model, its processor, and the revision that was found.

    dtype: of the weights and of what the model computes, one of ``DTYPES``. "float32" is the one
    for a CPU; the halves are meant for GPUs. Boxes and scores are made in float32 whatever it is.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    numbers = getattr(torch, dtype)
    model = model_class.from_pretrained(name, revision=revision, dtype=numbers).to(device).eval()
    processor = processor_class.from_pretrained(name, revision=revision)
    return model, processor, revision or getattr(model.config, "_commit_hash", None)


def require_numbers(values: Any, model: Any) -> None:
    """``OverflowError`` where a model computed what is no number (an array or a tensor of scores):
    it has not said that nothing is there."""
    if not np.isfinite(np.asarray(values)).all():
        message = "the model computes no numbers in {}; load it in bfloat16 or float32"
        raise OverflowError(message.format(dtype_name(model)))


def dtype_name(model: Any) -> str:
    """The dtype of a model's weights as ``load`` takes it."""
    return str(model.dtype).removeprefix("torch.")
