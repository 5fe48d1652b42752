"""Teach a small SAM the shapes world, from scratch, on two CPU cores.

The architecture is transformers' ``SamModel``; only its size is small. Each step prompts every object with its jittered box and learns its
visible mask: binary cross-entropy against the mask's area coverage plus dice (arXiv 2304.02643, sec. 3), and the predicted IoU by
regression.

    python -m demo.teach_segmenter --out labeling/embedded/segmenter --minutes 22
    python -m demo.teach_segmenter --minutes 15 --resume --lr 8e-4 --seed 30
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

from demo.scenes import CANVAS_SIZE, Scene, Thing, make_scene

SIDE, PATCH, MASK_SIDE, WIDTH = 200, 8, 100, 64
PROMPTS = 6  # boxes per image and step


def build_processor() -> SamProcessor:
    return SamProcessor(
        SamImageProcessor(
            size={"longest_edge": SIDE},
            pad_size={"height": SIDE, "width": SIDE},
            mask_size={"longest_edge": MASK_SIDE},
            mask_pad_size={"height": MASK_SIDE, "width": MASK_SIDE},
        )
    )


def build_model() -> SamModel:
    """Half a million parameters. Scenes are about a hundred pixels high, so that a cell of the mask grid is about one pixel of theirs."""
    vision = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "output_channels": WIDTH,
        "mlp_dim": 2 * WIDTH,
        "window_size": SIDE // PATCH,
        "global_attn_indexes": [0, 1, 2],
        "num_pos_feats": WIDTH // 2,
        "scale": 2.0,  # of the random Fourier features; transformers' default of WIDTH / 2 codes neighbouring pixels as if unrelated
    }
    prompt = {
        "hidden_size": WIDTH,
        "image_size": SIDE,
        "patch_size": PATCH,
        "image_embedding_size": SIDE // PATCH,
        "mask_input_channels": 8,
    }
    decoder = {
        "hidden_size": WIDTH,
        "mlp_dim": 2 * WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "iou_head_hidden_dim": WIDTH,
    }
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))


def make_batch(rng: random.Random, processor: SamProcessor, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Model inputs and coverage targets (images, PROMPTS, MASK_SIDE, MASK_SIDE) in [0, 1]."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        size = CANVAS_SIZE if rng.random() < 0.5 else (rng.randint(100, 160), rng.randint(100, 160))
        scene = make_scene(rng, size=size)
        scene = crop(rng, scene) if scene.kind == "strip" else scene
        if scene.things:
            scenes.append(scene)
    chosen = [rng.choices(s.things, k=PROMPTS) for s in scenes]
    boxes = [[_jitter(rng, t) for t in things] for things in chosen]
    inputs = processor(images=[s.image for s in scenes], input_boxes=boxes, return_tensors="pt")
    reshaped = inputs["reshaped_input_sizes"]
    targets = torch.stack([_coverage(things, reshaped[i]) for i, things in enumerate(chosen)])
    return {"pixel_values": inputs["pixel_values"], "input_boxes": inputs["input_boxes"].float()}, targets


def crop(rng: random.Random, scene: Scene) -> Scene:
    """A square piece of a strip with the objects that lie in it whole: what ``labeling.segmenters`` prompts the model with."""
    side = scene.image.height
    left = rng.randint(0, scene.image.width - side)
    inside = [t for t in scene.things if t.bbox[0] >= left and t.bbox[2] <= left + side]
    moved = [
        replace(t, bbox=(t.bbox[0] - left, t.bbox[1], t.bbox[2] - left, t.bbox[3]), mask=t.mask[:, left : left + side]) for t in inside
    ]
    return Scene("canvas", scene.image.crop((left, 0, left + side, side)), tuple(moved))


def _jitter(rng: random.Random, thing: Thing) -> list[float]:
    """A box as a detector would give it: each edge up to a tenth of the side away."""
    x0, y0, x1, y1 = thing.bbox
    dx, dy = 0.1 * (x1 - x0), 0.1 * (y1 - y0)
    return [x0 + rng.uniform(-dx, dx), y0 + rng.uniform(-dy, dy), x1 + rng.uniform(-dx, dx), y1 + rng.uniform(-dy, dy)]


def _coverage(things: list[Thing], reshaped: Tensor) -> Tensor:
    height, width = (int(v) for v in reshaped)
    masks = torch.from_numpy(np.stack([t.mask for t in things])).float()[None]
    masks = F.interpolate(masks, size=(height, width), mode="bilinear", antialias=True)
    masks = F.pad(masks, (0, SIDE - width, 0, SIDE - height))
    return F.avg_pool2d(masks, SIDE // MASK_SIDE)[0]


def segmentation_loss(logits: Tensor, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss over prompts and mean IoU; ``logits`` and ``target`` (prompts, MASK_SIDE, MASK_SIDE), ``scores`` (prompts,).

    Objects cover a hundredth of the image: most of the loss looks at the object and as much again around it, a tenth at everything else.
    """
    near = F.max_pool2d(target[:, None], 25, stride=1, padding=12)[:, 0] > 0
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross_entropy = (entropy * near).sum((1, 2)) / near.sum((1, 2)).clamp(min=1) + 0.1 * entropy.mean((1, 2))
    p = logits.sigmoid() * near
    dice = 1 - (2 * (p * target).sum((1, 2)) + 1) / (p.sum((1, 2)) + target.sum((1, 2)) + 1)
    seen, truth = (logits > 0) & near, target > 0.5
    iou = (seen & truth).sum((1, 2)) / (seen | truth).sum((1, 2)).clamp(min=1)
    return (cross_entropy + dice + (scores - iou) ** 2).mean(), iou.mean()


def teach(out: Path, minutes: float, batch: int, lr: float, seed: int, resume: bool) -> None:
    """Train until the time is up, with the learning rate falling to zero over it; save every five minutes."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    processor = build_processor()
    model = SamModel.from_pretrained(out) if resume else build_model()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    started, saved, step, average = time.monotonic(), time.monotonic(), 0, [0.0, 0.0]
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * (1 - max(0.0, progress - 0.3) / 0.7)
        inputs, target = make_batch(rng, processor, batch)
        outputs = model(**inputs, multimask_output=False)
        loss, iou = segmentation_loss(outputs.pred_masks[:, :, 0].flatten(0, 1), outputs.iou_scores.flatten(), target.flatten(0, 1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        average = [0.98 * a + 0.02 * v.item() if step > 1 else v.item() for a, v in zip(average, (loss, iou), strict=True)]
        if step % 50 == 0:
            print(f"step {step} {100 * progress:.0f} % loss {average[0]:.3f} IoU {average[1]:.3f}", flush=True)
        if time.monotonic() - saved > 300:
            _save(model, processor, out)
            saved = time.monotonic()
    _save(model, processor, out)


def _save(model: SamModel, processor: SamProcessor, out: Path) -> None:
    model.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a small SAM the shapes world.")
    parser.add_argument("--out", type=Path, default=Path("labeling/embedded/segmenter"))
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    a = parser.parse_args()
    teach(a.out, a.minutes, a.batch, a.lr, a.seed, a.resume)
