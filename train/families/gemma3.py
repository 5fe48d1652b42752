"""Gemma 3 (``google/gemma-3-4b-it``): an image's tokens see each other, and most layers see no
further than a window, so completions cannot share a prompt.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from train.families.llava import Llava


class Gemma3(Llava):
    """Writes boxes in thousandths of the image's sides."""

    model_type: ClassVar[str] = "gemma3"
    box_side: ClassVar[float | None] = 1000.0
    shares_prefix: ClassVar[bool] = False

    @property
    def image_tokens(self) -> list[int]:
        tokenizer = self.processor.tokenizer
        words = [tokenizer.boi_token, tokenizer.eoi_token]
        return [self.image_token, *tokenizer.convert_tokens_to_ids(words)]

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        """Which tokens are an image's, and see each other."""
        return {"token_type_ids": (ids == self.image_token).long()}
