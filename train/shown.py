"""What a policy is shown of a row, and how it is shown something else instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewardlib.rows import RowError
from train.data import Row
from train.policy import Policy, Prompt
from train.views import View

Pixels = NDArray[np.float64]  # (H, W, 3) in [0, 1]


@dataclass(frozen=True)
class Shown:
    """A row as it is shown to a policy."""

    policy: Policy
    row: Row
    prompt: Prompt
    limit: int  # most tokens of a prompt

    def under(self, view: View, generator: np.random.Generator) -> Prompt | None:
        """The prompt that a view shows; None where the row has none such, or cannot be asked so."""
        try:
            return view.prompt(self, generator)
        except RowError:
            return None

    def with_images(self, images: Sequence[Any]) -> Prompt:
        """The same chat with other images."""
        return self.policy.encode(self.row.messages, images, limit=self.limit)

    def without_images(self) -> Prompt:
        """The same chat with its images left out, as if it had never had any."""
        messages = []
        for message in self.row.messages:
            texts = [part for part in message["content"] if part["type"] != "image"]
            messages.append({**message, "content": texts})
        return self.policy.encode(messages, (), limit=self.limit)

    @property
    def pixels(self) -> list[Pixels]:
        """The row's images in the sizes in which the policy sees them."""
        pixels = []
        sizes = (
            self.policy.family.sizes_seen(self.prompt.images, self.row.images)
            if self.row.images
            else []
        )
        for image, size in zip(self.row.images, sizes, strict=True):
            resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            pixels.append(np.asarray(resized, np.float64) / 255)
        return pixels

    def with_pixels(self, pixels: Sequence[Pixels]) -> Prompt:
        """The same chat with these images, which are cut off at black and white."""
        images = [Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)) for image in pixels]
        return self.with_images(images)
