"""Grounding DINO through transformers: where are the things that a phrase names?

Also MM-Grounding-DINO and LLMDet, which have the same interface. What it does differently from the
published pipelines: each phrase is scored over its own token span (the mean of the span's
probabilities, as Grounding DINO's COCO evaluation and mmdetection do), never by decoding text; long
phrase lists are chunked, never cut; a phrase that is not in the image yields nothing instead of the
whole image.

    locator = GroundingDinoLocator.from_pretrained("IDEA-Research/grounding-dino-base")
    found = locator.locate([image], [[Sought("black square"), Sought("red circle")]])[0]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_transforms import get_size_with_aspect_ratio

from labeling.ahead import ahead
from labeling.batching import batches, fill
from labeling.locators.prompts import Prompt, build_prompts
from labeling.locators.zero_shot import Look, ZeroShotLocator, to_pixels

Job = tuple[int, Prompt]  # an image's index, and some of its phrases
Share = tuple[float, float]  # of the width and of the height
TEXT_STEP = 64  # texts are padded to multiples of it, so that their length is their own


class GroundingDinoLocator(ZeroShotLocator):
    """Any checkpoint with contrastive text tokens: Grounding DINO, MM-Grounding-DINO, LLMDet."""

    # grounding-dino: GroundingDINO's and transformers' examples. mm-grounding-dino: mmdetection's
    # demo/image_demo.py (--pred-score-thr 0.3), which means over a span, too; its scores have a
    # learned bias, and so another scale.
    thresholds: ClassVar[dict[str, float]] = {"grounding-dino": 0.25, "mm-grounding-dino": 0.3}

    def _look(
        self,
        images: Sequence[Image.Image],
        phrases: Sequence[Sequence[str]],
        threshold: float,
    ) -> Iterator[Look]:
        tokenizer, longest = self.processor.tokenizer, self.model.config.max_text_len
        jobs: list[Job] = []
        for i, wanted in enumerate(phrases):
            if not self._can_see(images[i].size):
                continue
            jobs += [(i, prompt) for prompt in build_prompts(tokenizer, list(wanted), longest)]

        def alike(job: Job) -> tuple[tuple[int, int], int]:
            return self._processed_size(images[job[0]].size), self._text_length(job[1])

        def prepare(batch: list[Job]) -> tuple[list[Job], dict[str, Tensor], list[Share]]:
            shown = [images[i] for i, _ in batch]
            return batch, *self._inputs(shown, [prompt for _, prompt in batch])

        for batch, inputs, shares in ahead(prepare, batches(jobs, self.batch_size, alike)):
            scores, boxes = self._forward(inputs)
            rows = zip(batch, scores, boxes, shares, strict=False)
            for (i, prompt), row, cxcywh, (across, down) in rows:
                of_phrases = np.stack([row[:, start:end].mean(1) for start, end in prompt.spans], 1)
                width, height = images[i].size
                frame = width / across, height / down
                pixels = to_pixels(cxcywh, frame, (width, height))
                yield Look(i, prompt.phrases, pixels, of_phrases)

    @property
    def _frame(self) -> Any:
        """The size that the processor pads every image to; None where it pads none by itself."""
        return getattr(self.processor.image_processor, "pad_size", None)

    def _processed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """What the image processor makes of an image's size (width, height): many sizes become
        the same. Where its rule is another than shortest and longest edge, the size itself."""
        if self._frame:
            return int(self._frame["width"]), int(self._frame["height"])
        rule = self.processor.image_processor.size
        shortest, longest = rule["shortest_edge"], rule["longest_edge"]
        if not shortest or not longest:
            return size
        height, width = get_size_with_aspect_ratio((size[1], size[0]), shortest, longest)
        return width, height

    def _can_see(self, size: tuple[int, int]) -> bool:
        """Whether anything is left of an image of a size (width, height) where the processor makes
        it fit into a frame: of one that is a hundred times as long as wide, perhaps not."""
        rule = self.processor.image_processor.size
        if not rule["max_height"] or not rule["max_width"]:
            return True
        scale = min(rule["max_width"] / size[0], rule["max_height"] / size[1])
        return int(min(size) * scale) >= 1

    def _text_length(self, prompt: Prompt) -> int:
        steps = -(-len(prompt.input_ids) // TEXT_STEP)
        return int(min(steps * TEXT_STEP, self.model.config.max_text_len))

    def _inputs(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
    ) -> tuple[dict[str, Tensor], list[Share]]:
        """The arguments of a forward, with ``batch_size`` rows, and how much of each is image. One
        image at a time goes through the processor, which may treat several at once differently
        from one. A model that is shown all images in a frame is not told where they end."""
        prepare, length = self.processor.image_processor, self._text_length(prompts[0])
        seen = [prepare(image.convert("RGB"), return_tensors="pt") for image in images]
        names = ("pixel_values",) if self._frame else ("pixel_values", "pixel_mask")
        inputs = {name: torch.cat([one[name] for one in seen]) for name in names}
        shares = [image_share(one["pixel_mask"][0]) for one in seen]
        filled = {k: fill(v, self.batch_size) for k, v in (inputs | pad(prompts, length)).items()}
        return filled, shares

    @torch.inference_mode()
    def _forward(self, inputs: dict[str, Tensor]) -> tuple[Any, Any]:
        """Scores (rows, queries, tokens) and boxes (rows, queries, 4), cxcywh in [0, 1]."""
        sent = {name: value.to(self.model.device) for name, value in inputs.items()}
        sent["pixel_values"] = sent["pixel_values"].to(self.model.dtype)
        out = self.model(**sent)
        return out.logits.float().sigmoid().cpu().numpy(), out.pred_boxes.float().cpu().numpy()


def image_share(pixel_mask: Tensor) -> Share:
    """How much of the width and of the height of a model's input is image; ``pixel_mask`` (height,
    width) is 0 elsewhere. All of it, but where a processor pads: boxes are shares of its frame."""
    height, width = pixel_mask.shape
    return float(pixel_mask.any(0).sum()) / width, float(pixel_mask.any(1).sum()) / height


def pad(prompts: Sequence[Prompt], length: int) -> dict[str, Tensor]:
    """The text arguments of a forward, each (prompts, length)."""
    ids = [[*p.input_ids, *[0] * (length - len(p.input_ids))] for p in prompts]
    mask = [[1] * len(p.input_ids) + [0] * (length - len(p.input_ids)) for p in prompts]
    zeros = torch.zeros(len(prompts), length, dtype=torch.long)
    texts = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    return texts | {"token_type_ids": zeros}
