"""What all models that transformers loads have in common: where they run, and in which numbers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor

DTYPES = ("float32", "float16", "bfloat16")


def model_type(name: str, revision: str | None = None) -> str:
    """The architecture that a checkpoint's ``config.json`` names: "grounding-dino", "sam2", ..."""
    return str(AutoConfig.from_pretrained(name, revision=revision).model_type)


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


def dtype_name(model: Any) -> str:
    """The dtype of a model's weights as ``load`` takes it."""
    return str(model.dtype).removeprefix("torch.")
