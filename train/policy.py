"""The model in training and its processor: Qwen2.5-VL and Qwen3-VL, from a Hub id or a folder.

Knows how a prompt becomes tokens, positions and image features, which tokens may never be sampled, and where the images' tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardlib.rows import RowError
from rewardlib.text import opening_of
from rewardlib.tokens import Weights, image_mask, image_tiles, token_weights
from train.attention import SHARED_PREFIX
from train.settings import Settings

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt of P tokens."""

    ids: Tensor  # (P,)
    positions: Tensor  # (3, P)
    images: dict[str, Tensor]  # pixel_values, image_grid_thw
    image: Tensor  # (P,) bool: the image tokens
    region: Tensor  # (P,) how much of each image token's patch lies in the labelled region
    features: Any = None  # what the vision tower made of the images, where it is kept (``Policy.look``)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model's forward is given of the images."""
        return self.images if self.features is None else {"mm_encoder_outputs": {"image": self.features}}

    @property
    def again(self) -> Prompt:
        """The prompt for another forward: features that carry a gradient serve one backward and the weights that they are of."""
        trained = self.features is not None and self.features.pooler_output[0].requires_grad
        return replace(self, features=None) if trained else self

    @property
    def bare(self) -> Prompt:
        """The prompt for another model."""
        return replace(self, features=None)

    @property
    def next_position(self) -> int:
        return int(self.positions.max()) + 1


class Policy:
    """A model with its processor. ``suppressed`` are token ids that are never sampled, ``ends`` those that end a completion.

    ``reference`` is a frozen copy of the model at the start, where a divergence from it counts.
    """

    def __init__(self, model: Any, processor: Any, reference: Policy | None = None) -> None:
        config = model.config
        if config.model_type not in FAMILIES:
            raise ValueError(f"policies of type {config.model_type!r} are not supported; supported are {', '.join(FAMILIES)}")
        self.model, self.processor, self.reference = model, processor, reference
        self.backbone.language_model.set_attn_implementation(SHARED_PREFIX)
        vision = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
        self.ends = torch.tensor(_ends(model, processor.tokenizer), device=self.device)
        unused = range(len(processor.tokenizer), model.get_input_embeddings().weight.shape[0])
        never = {*vision, *unused, processor.tokenizer.pad_token_id} - {*self.ends.tolist()}
        self.suppressed = torch.tensor(sorted(never), device=self.device)
        tokenizer = processor.tokenizer
        self.special_texts = {*tokenizer.all_special_tokens, *tokenizer.convert_ids_to_tokens(vision)}

    @cached_property
    def generation_prompt(self) -> str:
        """What the chat template writes between a question and the model's response."""
        asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        told, open_ended = (self.processor.apply_chat_template(asked, add_generation_prompt=add, tokenize=False) for add in (False, True))
        return str(open_ended).removeprefix(str(told))

    @property
    def opening(self) -> str:
        """What the chat template has begun of every response: ``<think>`` for thinking models, else nothing."""
        return opening_of(self.generation_prompt)

    @property
    def backbone(self) -> Any:
        """The model without its language head, under whatever wraps it."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def merge(self) -> int:
        """Patches to one image token, along a side."""
        return int(self.model.config.vision_config.spatial_merge_size)

    def precision(self) -> Any:
        """The context of every forward: bfloat16 arithmetic on a GPU, whatever the weights are kept in."""
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    def encode(
        self, messages: Sequence[dict[str, Any]], images: Sequence[Any], region: Weights | None = None, limit: int | None = None
    ) -> Prompt:
        """A chat prompt with its images (PIL) and the labelled region of the first one (``rewardlib.tokens.draw``).

        ``RowError`` if it has more than ``limit`` tokens, or this model cannot be shown it.
        """
        self._refuse_special_tokens(messages)
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        pictures = {"images": [list(images)]} if images else {}
        sizes = ", ".join(f"{image.width}x{image.height}" for image in images) or "none"
        try:
            inputs = self.processor(text=[text], return_tensors="pt", **pictures)
        except ValueError as error:  # such as an image of 240:1
            raise RowError("prompt cannot be encoded", f"{error}, with images of {sizes}; change the row, or drop it") from error
        length = inputs["input_ids"].shape[1]
        if limit is not None and length > limit:
            raise RowError(
                "prompt too long",
                f"its prompt has {length} tokens, more than {limit}, with images of {sizes}: shrink them, or raise --max-prompt",
            )
        tiles = image_tiles(self.processor, inputs, [[image.size for image in images]])[0] if images else []
        weights = np.zeros(length, np.float32) if region is None or not tiles else token_weights(tiles[0], region, length)
        return Prompt(
            ids=inputs["input_ids"][0].to(self.device),
            positions=self._positions(inputs).to(self.device),
            images={name: inputs[name].to(self.device) for name in ("pixel_values", "image_grid_thw") if name in inputs},
            image=torch.from_numpy(image_mask(tiles, length)).to(self.device),
            region=torch.from_numpy(weights).to(self.device),
        )

    def _refuse_special_tokens(self, messages: Sequence[dict[str, Any]]) -> None:
        """A word that is a token of the chat's own would be an image that is not there, or the end of the question."""
        for message in messages:
            for part in message["content"]:
                token = next((token for token in self.special_texts if token in part.get("text", "")), None)
                if token is not None:
                    raise RowError(
                        "special token in a text",
                        f"the text holds {token}, which this model's tokenizer takes for a sign of its own; write it otherwise, or "
                        "drop the row",
                    )

    def look(self, prompt: Prompt) -> Prompt:
        """The prompt with its images encoded, for several forwards of the same weights, one of which may have a gradient."""
        if not prompt.images or "mm_encoder_outputs" not in signature(self.backbone.forward).parameters:
            return prompt
        with self.precision():
            return replace(prompt, features=self.backbone.get_image_features(**prompt.images, return_dict=True))

    @property
    def tower_is_frozen(self) -> bool:
        return not any(p.requires_grad for p in self.backbone.visual.parameters())

    def _positions(self, inputs: Any) -> Tensor:
        positions, _ = self.backbone.get_rope_index(
            inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs.get("image_grid_thw")
        )
        return positions[:, 0]


def load_policy(settings: Settings, device: torch.device | None = None) -> Policy:
    """The settings' model, or the newest checkpoint of the run; with a frozen copy of the former where a divergence from it counts.

    Weights that are trained are kept in float32, since bfloat16 would round small updates away; frozen ones in bfloat16 on a GPU.
    """
    from train.checkpoint import latest

    checkpoint, where = latest(settings.out), device or pick_device(settings.device)
    policy = load_model(str(settings.model if settings.lora or checkpoint is None else checkpoint), where, trained=not settings.lora)
    if settings.freeze_vision:
        policy.backbone.visual.requires_grad_(False)
    reference = None
    if settings.lora:
        policy.model = _with_adapter(policy.model, settings.lora, checkpoint)
    elif settings.kl:
        reference = load_model(settings.model, where)
        reference.model.requires_grad_(False)
    if settings.checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()  # the tower and the decoder checkpoint in training mode only; no dropout is left in these models
    return Policy(policy.model, policy.processor, reference)


def pick_device(name: str) -> torch.device:
    """``auto``: the GPU, if there is one. ``ValueError`` where a GPU is wanted and there is none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}, but torch {torch.__version__} sees no GPU: check nvidia-smi, or take --device cpu")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _with_adapter(model: Any, rank: int, checkpoint: Path | None) -> Any:
    """A LoRA adapter on the language model, new or from a checkpoint. Without it, the model is its own reference."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if checkpoint is not None:
        return PeftModel.from_pretrained(model, checkpoint, is_trainable=True)
    linear = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear))


def load_model(name: str, device: torch.device | str = "auto", *, trained: bool = False) -> Policy:
    """A model and its processor from a Hub id or a folder: bfloat16 on a GPU unless it is ``trained``, float32 otherwise."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    device = pick_device(device) if isinstance(device, str) else device
    dtype = torch.float32 if device.type == "cpu" or trained else torch.bfloat16
    model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, attn_implementation="sdpa").to(device)
    return Policy(model, AutoProcessor.from_pretrained(name))


def _ends(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None})
