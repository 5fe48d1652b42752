"""What all models that transformers loads have in common: where they run, and in which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from transformers import AutoProcessor, PreTrainedConfig

DTYPES = ("float32", "float16", "bfloat16")


def model_type(name: str, revision: str | None = None) -> str:
    """The architecture that a checkpoint's ``config.json`` names: "grounding-dino", "sam2", ...;
    empty where it names none. Whether transformers knows it is another question."""
    config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    return str(config.get("model_type", ""))


class FromCheckpoint:
    """What runs one model with its processor, and can be loaded."""

    model_class: ClassVar[Any]
    processor_class: ClassVar[Any] = AutoProcessor

    def __init__(
        self, model: Any, processor: Any, *, checkpoint: str, revision: str | None
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.checkpoint, self.revision = checkpoint, revision

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        **settings: Any,
    ) -> Self:
        """Of the Hub or a local folder; ``settings`` are those of ``__init__``.

        dtype: of the weights and of what the model computes, one of ``DTYPES``. "float32" is the
        one for a CPU; the halves are meant for GPUs. Boxes and scores are made in float32 whatever
        it is.
        """
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
        numbers = getattr(torch, dtype)
        model = cls.model_class.from_pretrained(name, revision=revision, dtype=numbers).to(device)
        processor = cls.processor_class.from_pretrained(name, revision=revision)
        found = revision or getattr(model.config, "_commit_hash", None)
        return cls(model, processor, checkpoint=name, revision=found, **settings)


T = TypeVar("T", bound=FromCheckpoint)


def of_family(
    families: Mapping[str, type[T]],
    name: str,
    revision: str | None,
    what: str,
) -> type[T]:
    """The class for a checkpoint, by the architecture that it names; ``ValueError`` where none of
    them is: ``what`` says what such a model cannot do."""
    kind = model_type(name, revision)
    if kind not in families:
        raise ValueError(
            f"{name} is a {kind!r} model, which {what}; expected {', '.join(families)}"
        )
    return families[kind]


def require_numbers(values: Any, model: Any) -> None:
    """``OverflowError`` where a model computed what is no number (an array or a tensor of scores):
    it has not said that nothing is there."""
    if not np.isfinite(np.asarray(values)).all():
        message = "the model computes no numbers in {}; load it in bfloat16 or float32"
        raise OverflowError(message.format(dtype_name(model)))


def dtype_name(model: Any) -> str:
    """The dtype of a model's weights as ``load`` takes it."""
    return str(model.dtype).removeprefix("torch.")
