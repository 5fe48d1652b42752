"""OWLv2 and OWL-ViT through transformers: one query per phrase, no text that phrases share.

    locator = Owlv2Locator.from_pretrained("google/owlv2-base-patch16-ensemble")
    found = locator.locate([image], [[Sought("black square"), Sought("red circle")]])[0]

OWLv2's boxes are relative to the square that its processor pads an image to, at the bottom and at
the right; OWL-ViT's to the image, which its processor squeezes into a square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from labeling.ahead import ahead
from labeling.batching import batches, fill
from labeling.locators.prompts import encode_phrases
from labeling.locators.zero_shot import Look, ZeroShotLocator, to_pixels

PHRASES_AT_ONCE = 16


class Owlv2Locator(ZeroShotLocator):
    """An image is encoded once, and so is a phrase, however many images it is sought in.

    A phrase longer than the text encoder reads, 16 tokens with its two ends, is cut there: its
    first words, which name the thing, decide.
    """

    # transformers' examples and its post_process_grounded_object_detection.
    thresholds: ClassVar[dict[str, float]] = {"owlv2": 0.1, "owlvit": 0.1}

    def _look(
        self,
        images: Sequence[Image.Image],
        phrases: Sequence[Sequence[str]],
        threshold: float,
    ) -> Iterator[Look]:
        queries = self._embed(sorted({phrase for wanted in phrases for phrase in wanted}))
        known = [tuple(p for p in wanted if p in queries) for wanted in phrases]

        def prepare(batch: list[int]) -> tuple[list[int], Tensor]:
            return batch, self._pixels([images[i] for i in batch])

        some = [i for i, wanted in enumerate(known) if wanted]
        for batch, pixels in ahead(prepare, batches(some, self.batch_size)):
            features, boxes = self._encode(pixels)
            for i, image_features, cxcywh in zip(batch, features, boxes, strict=False):
                scores = self._score(image_features, torch.stack([queries[p] for p in known[i]]))
                frame = self._frame(images[i].size)
                yield Look(i, known[i], to_pixels(cxcywh, frame, images[i].size), scores)

    def _frame(self, size: tuple[int, int]) -> tuple[int, int]:
        side = max(size)
        return (side, side) if self.name == "owlv2" else size

    @torch.inference_mode()
    def _embed(self, phrases: Sequence[str]) -> dict[str, Tensor]:
        """The query (channels,) of every phrase that has a token."""
        encoder = getattr(self.model, self.model.base_model_prefix)
        length = self.model.config.text_config.max_position_embeddings
        encoded = encode_phrases(self.processor.tokenizer, phrases, length)
        queries: dict[str, Tensor] = {}
        for batch in batches(encoded, PHRASES_AT_ONCE):
            ids = fill(torch.stack([encoded[p][0] for p in batch]), PHRASES_AT_ONCE)
            mask = fill(torch.stack([encoded[p][1] for p in batch]), PHRASES_AT_ONCE)
            sent = {"input_ids": ids.to(self.model.device)}
            sent["attention_mask"] = mask.to(self.model.device)
            queries.update(
                zip(batch, encoder.get_text_features(**sent).pooler_output, strict=False),
            )
        return queries

    @torch.inference_mode()
    def _encode(self, pixels: Tensor) -> tuple[Tensor, Any]:
        """Features (rows, patches, channels) and boxes (rows, patches, 4), cxcywh in [0, 1]."""
        grid, _ = self.model.image_embedder(pixels.to(self.model.device, self.model.dtype))
        features = grid.flatten(1, 2)
        boxes = self.model.box_predictor(features, grid)
        return features, boxes.float().cpu().numpy()

    @torch.inference_mode()
    def _score(self, features: Tensor, queries: Tensor) -> Any:
        """Scores (patches, phrases) of one image's features and its phrases' queries."""
        logits, _ = self.model.class_predictor(features[None], queries[None])
        return logits[0].float().sigmoid().cpu().numpy()
