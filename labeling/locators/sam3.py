"""SAM 3 through transformers: a phrase in, every instance of it with its box and its mask out.

    locator = Sam3Locator.from_pretrained("facebook/sam3")
    found = locator.locate([image], [[Sought("black square"), Sought("red circle")]])[0]
    found[0].mask  # bool (image height, width)

The model answers a phrase at a time, and says besides whether the image shows it at all: this
presence is multiplied into every score, so that a phrase which is not there has no high ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Sam3Model, Sam3Processor

from labeling.ahead import ahead
from labeling.batching import batches, fill
from labeling.checkpoints import require_numbers
from labeling.locators.prompts import encode_phrases
from labeling.locators.zero_shot import Look, ZeroShotLocator

PHRASES_AT_ONCE = 4
FEATURES = ("fpn_hidden_states", "fpn_position_encoding")
ANSWERS = ("pred_logits", "pred_boxes", "pred_masks", "presence_logits")


class Sam3Locator(ZeroShotLocator):
    """An image is encoded once, and its phrases are asked about in chunks.

    A phrase longer than the text encoder reads, 32 tokens with its two ends, is cut there.
    """

    # Of SAM 3's own processor (confidence_threshold=0.5) and of transformers' examples.
    thresholds: ClassVar[dict[str, float]] = {"sam3": 0.5}
    model_class: ClassVar[Any] = Sam3Model
    processor_class: ClassVar[Any] = Sam3Processor  # not the video's, which SAM 3's files name

    def _look(
        self,
        images: Sequence[Image.Image],
        phrases: Sequence[Sequence[str]],
        threshold: float,
    ) -> Iterator[Look]:
        distinct = sorted({phrase for wanted in phrases for phrase in wanted})
        length = self.model.config.text_config.max_position_embeddings
        encoded = encode_phrases(self.processor.tokenizer, distinct, length)
        known = [[p for p in wanted if p in encoded] for wanted in phrases]

        def prepare(batch: list[int]) -> tuple[list[int], Tensor]:
            return batch, self._pixels([images[i] for i in batch])

        some = [i for i, wanted in enumerate(known) if wanted]
        for batch, pixels in ahead(prepare, batches(some, self.batch_size)):
            seen = self._encode(pixels)
            for row, i in enumerate(batch):
                for chunk in batches(known[i], PHRASES_AT_ONCE):
                    out = self._ask(seen, row, [encoded[phrase] for phrase in chunk])
                    yield from self._answers(out, i, images[i].size, chunk, threshold)

    @torch.inference_mode()
    def _encode(self, pixels: Tensor) -> Any:
        return self.model.get_vision_features(pixels.to(self.model.device, self.model.dtype))

    @torch.inference_mode()
    def _ask(self, seen: Any, row: int, texts: Sequence[tuple[Tensor, Tensor]]) -> Any:
        """The model's answers, in float32, about an image (a ``row`` of what was seen) and some
        phrases; with a row for each of ``PHRASES_AT_ONCE``."""
        device, count = self.model.device, PHRASES_AT_ONCE
        ids = fill(torch.stack([ids for ids, _ in texts]), count).to(device)
        mask = fill(torch.stack([mask for _, mask in texts]), count).to(device)
        one = {k: tuple(fill(m[row : row + 1], count) for m in seen[k]) for k in FEATURES}
        out = self.model(vision_embeds=type(seen)(**one), input_ids=ids, attention_mask=mask)
        answers = {name: out[name].float().cpu() for name in ANSWERS}
        require_numbers(answers["pred_logits"], self.model)  # before a threshold drops what is none
        return type(out)(**answers)

    def _answers(
        self,
        out: Any,
        image: int,
        size: tuple[int, int],
        phrases: Sequence[str],
        threshold: float,
    ) -> Iterator[Look]:
        sizes = [(size[1], size[0])] * PHRASES_AT_ONCE
        results = self.processor.post_process_instance_segmentation(
            out,
            threshold=threshold,
            target_sizes=sizes,
        )
        for phrase, result in zip(phrases, results, strict=False):
            boxes = np.clip(result["boxes"].numpy(), 0, np.array([*size, *size], np.float32))
            masks = result["masks"].numpy().astype(bool)
            yield Look(image, (phrase,), boxes, result["scores"].numpy()[:, None], masks)
