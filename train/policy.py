"""The model in training and its processor.

Knows how a prompt becomes tokens, positions and image features, which tokens may never be sampled,
and where the images' tokens are. What differs between model families is asked of
``train.families``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardlib.rows import RowError
from rewardlib.text import opening_of
from rewardlib.tokens import Tile, Weights, image_mask, image_tiles, token_weights
from train.families import family_of
from train.image_inputs import ImageInputs
from train.shared_prefix import SHARED_PREFIX


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt of P tokens."""

    text: str  # as the chat template has written it, with one sign for each image
    ids: Tensor  # (P,)
    positions: Tensor  # (3, P)
    # what the processor has made of the images, on the CPU: a step's would fill a GPU; and ...
    images: Mapping[str, Tensor]
    # ... what the tower has made of that, where it is kept (``Policy.encode_images``)
    features: dict[str, Any] | None
    pictures: tuple[Any, ...]  # the images (PIL) that the tokens stand for
    tiles: tuple[Tile, ...]  # where the first image's tokens are, and what each shows
    image: Tensor  # (P,) bool: the image tokens
    region: Tensor  # (P,) how much of each image token's patch lies in the labelled region
    boxes: tuple[
        tuple[float, float, float, float], ...
    ] = ()  # of the labelled region, in shares of the first image's sides

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model's forward is given of the images."""
        if self.features is not None:
            return self.features
        return {name: values.to(self.ids.device) for name, values in self.images.items()}

    @property
    def next_position(self) -> int:
        """The position of a completion's first token."""
        return int(self.positions.max()) + 1

    def without_features(self) -> Prompt:
        """The prompt for another model, or after an update of the tower."""
        return replace(self, features=None)

    def behind(self, tokens: int) -> Prompt:
        """The prompt as it stands in a row behind that many other tokens."""
        image, region = (pad(values, (tokens, 0)) for values in (self.image, self.region))
        return replace(self, image=image, region=region)


class Policy:
    """A model with its processor. ``suppressed`` are token ids that are never sampled, ``ends``
    those that end a completion.

    ``reference`` is a frozen copy of the model at the start, where a divergence from it counts.
    """

    def __init__(self, model: Any, processor: Any, reference: Policy | None = None) -> None:
        self.model, self.processor, self.reference = model, processor, reference
        self.family = family_of(_unwrapped(model), processor)
        if self.family.shares_prefix:
            _unwrapped(model).get_decoder().set_attn_implementation(SHARED_PREFIX)
        tokenizer, image_tokens = processor.tokenizer, self.family.image_tokens
        self.ends = torch.tensor(_ends(model, tokenizer), device=self.device)
        unused = range(len(tokenizer), model.get_input_embeddings().weight.shape[0])
        never = {*image_tokens, *unused, tokenizer.pad_token_id} - {*self.ends.tolist()}
        self.suppressed = torch.tensor(sorted(never), device=self.device)
        self.special_texts = {
            *tokenizer.all_special_tokens,
            *tokenizer.convert_ids_to_tokens(image_tokens),
        }

    @cached_property
    def generation_prompt(self) -> str:
        """What the chat template writes between a question and the model's response."""
        asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        told, open_ended = (
            self.processor.apply_chat_template(asked, add_generation_prompt=add, tokenize=False)
            for add in (False, True)
        )
        return str(open_ended).removeprefix(str(told))

    @property
    def opening(self) -> str:
        """What the chat template has begun of every response: ``<think>`` for thinking models, else
        nothing.
        """
        return opening_of(self.generation_prompt)

    @property
    def backbone(self) -> Any:
        """The model without its language head, under whatever wraps it."""
        return self.family.backbone

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def precision(self) -> Any:
        """The context of every forward: bfloat16 arithmetic on a GPU, whatever the weights are kept
        in.
        """
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    def encode(
        self,
        messages: Sequence[dict[str, Any]],
        images: Sequence[Any],
        region: Weights | None = None,
        limit: int | None = None,
    ) -> Prompt:
        """A chat prompt with its images (PIL) and the labelled region of the first one
        (``rewardlib.tokens.draw``).

        ``RowError`` if it has more than ``limit`` tokens, or this model cannot be shown it.
        """
        self._refuse_special_tokens(messages)
        text = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        pictures = {"images": [list(images)]} if images else {}
        sizes = ", ".join(f"{image.width}x{image.height}" for image in images) or "none"

        def process() -> dict[str, Tensor]:
            made: dict[str, Tensor] = self.processor(text=[text], return_tensors="pt", **pictures)
            return made

        try:
            inputs = process()
        except ValueError as error:  # such as an image of 240:1
            raise RowError(
                "prompt cannot be encoded",
                f"{error}, with images of {sizes}; change the row, or drop it",
            ) from error
        length = inputs["input_ids"].shape[1]
        if limit is not None and length > limit:
            raise RowError(
                "prompt too long",
                f"its prompt has {length} tokens, more than {limit}, with images of {sizes}: "
                "shrink them, or raise --max-prompt",
            )
        tiles = (
            image_tiles(self.processor, inputs, [[image.size for image in images]])[0]
            if images
            else []
        )
        weights = (
            np.zeros(length, np.float32)
            if region is None or not tiles
            else token_weights(tiles[0], region, length)
        )
        return Prompt(
            text=text,
            ids=inputs["input_ids"][0].to(self.device),
            positions=self.family.positions(inputs).to(self.device),
            images=ImageInputs(inputs, self.family.image_inputs, process),
            features=None,
            pictures=tuple(images),
            tiles=tuple(tiles[0]) if tiles else (),
            image=torch.from_numpy(image_mask(tiles, length)).to(self.device),
            region=torch.from_numpy(weights).to(self.device),
        )

    def _refuse_special_tokens(self, messages: Sequence[dict[str, Any]]) -> None:
        """A word that is a token of the chat's own would be an image that is not there, or the end
        of the question.
        """
        for message in messages:
            for part in message["content"]:
                token = next(
                    (token for token in self.special_texts if token in part.get("text", "")), None
                )
                if token is not None:
                    raise RowError(
                        "special token in a text",
                        f"the text holds {token}, which this model's tokenizer takes for a sign of "
                        "its own; write it otherwise, or "
                        "drop the row",
                    )

    def inputs_of(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What the model's forward is given of the images of prompts that stand in one row."""
        if len(prompts) == 1:
            return prompts[0].inputs
        joint = self.family.join_images([prompt.images for prompt in prompts])
        return {name: values.to(self.device) for name, values in joint.items()}

    def encode_images(self, prompt: Prompt) -> Prompt:
        """The prompt with its images encoded, for several forwards of the same weights, one of
        which may have a gradient.
        """
        if not prompt.images or not self.family.takes_features:
            return prompt
        with self.precision():
            features = self.family.encode_images(prompt.without_features().inputs)
        return replace(prompt, features=self.family.feature_inputs(features))

    def for_another_forward(self, prompt: Prompt) -> Prompt:
        """The prompt without features that carry a gradient: they serve one backward, and the
        weights that made them.
        """
        return prompt if self.tower_is_frozen else prompt.without_features()

    @property
    def tower_is_frozen(self) -> bool:
        return not any(p.requires_grad for p in self.family.tower.parameters())


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _ends(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None})
