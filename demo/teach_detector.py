"""Teach a small Grounding DINO the shapes world, from scratch, on two CPU cores.

The architecture is transformers' ``GroundingDinoForObjectDetection``; only its size is small. The training loss is ours, for two reasons.
transformers' ``GroundingDinoImageLoss`` (5.23) offsets each row's label map by that row's own length, so the class targets of any batch
larger than one are wrong. And a detector taught from scratch in an hour needs a denser signal than Hungarian matching: the two-stage
proposals are trained with CenterNet's penalty-reduced focal loss, one positive token per object (arXiv 1904.07850, eq. 1), the
decoder with DETR's matching (arXiv 2005.12872) and a per-token sigmoid focal loss.

    python -m demo.teach_detector --out labeling/embedded/detector --minutes 65
    python -m demo.teach_detector --minutes 25 --resume --canvases 0.65 --batch 6 --lr 4e-4 --seed 22
    python -m demo.teach_detector --minutes 18 --resume --canvases 0.5 --batch 6 --lr 2.5e-4 --seed 23
    python -m demo.teach_detector --minutes 40 --resume --canvases 0.5 --batch 6 --lr 2.5e-4 --seed 24
    python -m demo.teach_detector --minutes 18 --resume --canvases 0.4 --batch 6 --lr 2.5e-4 --seed 25 --average
    python -m demo.teach_detector --minutes 45 --resume --canvases 0.5 --batch 6 --lr 3e-4 --seed 26

The embedded weights saw JPEGs from the last but one on, and then found the same in an image that was moved by a pixel and saved as JPEG,
but more of what is not there. Only the last were also asked for nothing but absent things, which is what somebody asks who is mistaken;
since then they say so (``bench.grounding``).
"""

from __future__ import annotations

import argparse
import io
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss
from transformers import (
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from demo.scenes import CANVAS_SIZE, COLORS, LETTERS, SHAPES, SIZES, STRIP_SIZE, Scene, Thing, make_scene
from labeling.locators.grounding_dino import image_share
from labeling.locators.prompts import Prompt, build_prompts

MAX_TEXT = 128
ALL_ABSENT = 0.15  # of prompts name nothing that is there
ABREAST = 4  # canvases of the usual size that make a strip's shape
WORDS = [*COLORS, *SHAPES, *SIZES, "letter", "shape", "object", "block", "box", "tower", "the", "a", "of", "in", "on", "with"]


# -------------------------------------------------------------------------------------------------------------------- model


def build_tokenizer() -> BertTokenizerFast:
    """A WordPiece vocabulary of the world's words and all ASCII pieces, with BERT's ids where Grounding DINO hard-codes them."""
    fixed = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    characters = [chr(c) for c in range(33, 127) if chr(c) not in ".?" and not chr(c).isupper()]
    free = (i for i in range(1, 1100) if i not in fixed.values())
    vocab = fixed | {piece: next(free) for piece in dict.fromkeys([*WORDS, *characters, *(f"##{c}" for c in characters)])}
    return BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=MAX_TEXT)


def build_processor() -> GroundingDinoProcessor:
    """Every image is padded to a strip's size: boxes are shares of what the model sees, and nothing in the
    architecture tells it how large that is. With strips and canvases as they are, it has to guess, and its boxes are
    loose."""
    width, height = STRIP_SIZE
    image_processor = GroundingDinoImageProcessor(
        size={"max_height": height, "max_width": width},
        pad_size={"height": height, "width": width},
        do_pad=True,
    )
    return GroundingDinoProcessor(image_processor, build_tokenizer())


def build_model() -> GroundingDinoForObjectDetection:
    """About two million parameters; feature strides 4, 8 and 16, since NLVR's smallest objects are 10 pixels wide."""
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [1, 2, 2, 1],
            "num_heads": [1, 2, 4, 8],
            "window_size": 5,
            "drop_path_rate": 0.0,
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": 1100,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": MAX_TEXT,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        d_model=64,
        num_feature_levels=3,
        num_queries=60,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=2,
        decoder_n_points=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_text_len=MAX_TEXT,
        dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
    )
    model = GroundingDinoForObjectDetection(config)
    _start_with_small_logits(model)
    return model


def _start_with_small_logits(model: GroundingDinoForObjectDetection) -> None:
    """Query-token products start near -4, a prior of 2 %: otherwise the first losses are in the hundreds."""
    text_norms = [model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after]
    query_norms = [model.model.enc_output_norm, model.model.decoder.layer_norm]
    for norms, offset in ((text_norms, 2.0), (query_norms, -2.0)):
        for norm in norms:
            torch.nn.init.constant_(norm.weight, 0.5)
            with torch.no_grad():
                norm.weight[0], norm.bias[0] = 0.0, offset


# --------------------------------------------------------------------------------------------------------------------- data


@dataclass
class Batch:
    inputs: dict[str, Tensor]
    boxes: list[Tensor]  # per image (objects, 4), cxcywh in [0, 1]
    targets: list[Tensor]  # per image (objects, MAX_TEXT) bool: the tokens of every phrase that names the object
    text_mask: Tensor  # (images, MAX_TEXT) bool: tokens of phrases, the only ones that carry a target


def names_of(thing: Thing) -> list[str]:
    """Every phrase of the world that is true of an object."""
    if thing.shape.startswith("letter"):
        return [thing.name]
    return [thing.name, thing.shape, f"{thing.size} {thing.name}", f"{thing.color} object"]


def choose_phrases(rng: random.Random, scene: Scene) -> list[str]:
    """What an annotator might ask for: mostly colour and shape, some or all of the scene's kinds, and some that are absent."""
    style = rng.choices(range(4), weights=(8, 1, 1, 1))[0]
    present = {names[style if style < len(names) else 0] for names in map(names_of, scene.things)}
    absent = {_decoy(rng, scene) for _ in range(rng.randint(1, 4))}
    if rng.random() < 0.3:
        absent.add(f"letter {rng.choice(LETTERS).lower()}")
    if rng.random() < ALL_ABSENT:
        present = set()
    elif rng.random() < 0.5 and len(present) > 1:
        present = set(rng.sample(sorted(present), rng.randint(1, len(present))))
    phrases = sorted(present | absent)
    rng.shuffle(phrases)
    return phrases[:16]


def _decoy(rng: random.Random, scene: Scene) -> str:
    """A colour and a shape, seldom together in the scene: mostly one of the two is some object's, and mostly the colour, since shapes
    of ten pixels are what is told apart worst."""
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    plain = [t for t in scene.things if not t.shape.startswith("letter")]
    if plain and rng.random() < 0.75:
        thing = rng.choice(plain)
        color, shape = (thing.color, shape) if rng.random() < 0.75 else (color, thing.shape)
    return f"{color} {shape}"


def as_stored(rng: random.Random, image: Image.Image) -> Image.Image:
    """As it is, or as a JPEG, whose colours run: small objects are found in either."""
    if rng.random() < 0.5:
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(60, 95))
    return Image.open(file).convert("RGB")


def make_batch(rng: random.Random, processor: GroundingDinoProcessor, kind: str, count: int) -> Batch:
    scenes = [draw(rng, kind) for _ in range(count)]
    prompts = [build_prompts(processor.tokenizer, choose_phrases(rng, s), MAX_TEXT)[0] for s in scenes]
    pixels = processor.image_processor([as_stored(rng, s.image) for s in scenes], return_tensors="pt")
    inputs = {"pixel_values": pixels["pixel_values"], **pad_prompts(prompts)}
    named = [[(t, _token_target(t, p)) for t in s.things] for s, p in zip(scenes, prompts, strict=True)]
    named = [[(t, target) for t, target in row if target.any()] for row in named]
    text_mask = torch.stack([_mark(p.spans) for p in prompts])
    shares = [image_share(mask) for mask in pixels["pixel_mask"]]
    boxes = [
        _boxes([t for t, _ in row], scene) * torch.tensor(share).repeat(2) for row, scene, share in zip(named, scenes, shares, strict=True)
    ]
    targets = [torch.stack([target for _, target in row]) if row else torch.zeros(0, MAX_TEXT, dtype=torch.bool) for row in named]
    return Batch(inputs, boxes, targets, text_mask)


def draw(rng: random.Random, kind: str) -> Scene:
    """A strip; or a canvas, of the demo's size more often than not; or, as often, a sheet of four canvases: as many
    objects as a strip has, in as many pixels."""
    if kind == "strip":
        return make_scene(rng, "strip")
    if rng.random() < 0.5:
        return abreast([make_scene(rng, "canvas", CANVAS_SIZE) for _ in range(ABREAST)])
    if rng.random() < 0.7:
        return make_scene(rng, "canvas", CANVAS_SIZE)
    return make_scene(rng, "canvas", (rng.randint(100, 160), rng.randint(100, 160)))


def abreast(scenes: list[Scene]) -> Scene:
    """Scenes of one height side by side. The objects' masks stay those of their own scenes: a detector needs none."""
    image = Image.fromarray(np.concatenate([np.asarray(s.image) for s in scenes], 1))
    lefts = np.cumsum([0, *(s.image.width for s in scenes)]).tolist()
    things = [
        replace(t, bbox=(t.bbox[0] + x, t.bbox[1], t.bbox[2] + x, t.bbox[3])) for s, x in zip(scenes, lefts, strict=False) for t in s.things
    ]
    return Scene("canvas", image, tuple(things))


def pad_prompts(prompts: list[Prompt]) -> dict[str, Tensor]:
    length = max(len(p.input_ids) for p in prompts)
    ids = torch.tensor([[*p.input_ids, *[0] * (length - len(p.input_ids))] for p in prompts])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}


def _mark(spans: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> Tensor:
    mask = torch.zeros(MAX_TEXT, dtype=torch.bool)
    for start, end in spans:
        mask[start:end] = True
    return mask


def _token_target(thing: Thing, prompt: Prompt) -> Tensor:
    names = set(names_of(thing))
    return _mark([span for phrase, span in zip(prompt.phrases, prompt.spans, strict=True) if phrase in names])


def _boxes(things: list[Thing], scene: Scene) -> Tensor:
    width, height = scene.image.size
    xyxy = torch.tensor([t.bbox for t in things], dtype=torch.float32).reshape(-1, 4) / torch.tensor([width, height, width, height])
    return box_convert(xyxy, "xyxy", "cxcywh")


# --------------------------------------------------------------------------------------------------------------------- loss


def detection_loss(outputs, batch: Batch, strides: tuple[int, ...] = (4, 8, 16)) -> tuple[Tensor, dict[str, float]]:
    """Dense loss on the encoder's proposals plus matched losses on each decoder layer, normalised by the number of objects."""
    objects = max(1, sum(len(b) for b in batch.boxes))
    size = torch.tensor(batch.inputs["pixel_values"].shape[:1:-1], dtype=torch.float32)  # (width, height) of the model's input
    shapes = feature_shapes(int(size[1]), int(size[0]), strides)
    parts: dict[str, Tensor] = {"dense_class": torch.zeros(()), "dense_box": torch.zeros(())}
    for i, (boxes, targets) in enumerate(zip(batch.boxes, batch.targets, strict=True)):
        logits = outputs.enc_outputs_class[i][:, batch.text_mask[i]]
        classes, positions, owners = proposal_targets(boxes, targets[:, batch.text_mask[i]], shapes, size)
        parts["dense_class"] += penalty_reduced_focal(logits, classes)
        parts["dense_box"] += box_loss(outputs.enc_outputs_coord_logits[i][positions].sigmoid(), boxes[owners]) / 5
    for layer in range(outputs.intermediate_hidden_states.shape[1]):
        logits, boxes_hat = decoder_predictions(outputs, layer, batch)
        for name, value in matched_loss(logits, boxes_hat, batch).items():
            parts[f"{name}_{layer}"] = value
    parts = {name: value / objects for name, value in parts.items()}
    return sum(parts.values(), torch.zeros(())), {name: value.item() for name, value in parts.items()}


def feature_shapes(height: int, width: int, strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Feature-map sizes of the backbone: patches and merges round up one after another."""
    return [(-(-height // s), -(-width // s)) for s in strides]


def proposal_targets(boxes: Tensor, targets: Tensor, shapes: list[tuple[int, int]], size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CenterNet targets over the flattened multi-scale tokens.

    Each object belongs to the level whose stride fits its size; its centre token is the positive (target 1), the neighbours fall off as a
    Gaussian. Returns classes (tokens, text) in [0, 1], and for box regression the positions of centre tokens and their neighbours with
    the index of the object that owns each.
    """
    classes = torch.zeros(sum(h * w for h, w in shapes), targets.shape[1])
    positions, owners = [], []
    starts = np.cumsum([0, *(h * w for h, w in shapes)])
    for n, box in enumerate(boxes):
        side = float((box[2:] * size).max())
        level = 0 if side < 26 else 1 if side < 64 else 2
        h, w = shapes[level]
        cx, cy = float(box[0]) * w - 0.5, float(box[1]) * h - 0.5
        sigma = max(0.4, side * w / float(size[0]) / 6)
        rows, cols = torch.arange(h)[:, None], torch.arange(w)[None, :]
        x, y = min(max(round(cx), 0), w - 1), min(max(round(cy), 0), h - 1)
        heat = torch.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).flatten()
        block = classes[starts[level] : starts[level + 1]]
        block[:, targets[n]] = torch.maximum(block[:, targets[n]], heat[:, None])
        near = [(r, c) for r in (y - 1, y, y + 1) for c in (x - 1, x, x + 1) if 0 <= r < h and 0 <= c < w]
        near = [(r, c) for r, c in near if 0.012 < (c + 0.5) / w < 0.988 and 0.012 < (r + 0.5) / h < 0.988]  # the model drops the rim
        positions += [starts[level] + r * w + c for r, c in near]
        owners += [n] * len(near)
    return classes, torch.tensor(positions, dtype=torch.long), torch.tensor(owners, dtype=torch.long)


def penalty_reduced_focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet eq. 1 with alpha 2 and beta 4, summed."""
    p = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    positive = heat == 1
    loss = torch.where(positive, (1 - p) ** 2 * p.log(), (1 - heat) ** 4 * p**2 * (1 - p).log())
    return -loss.sum()


def box_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Size-relative L1 plus generalised IoU, summed; boxes are cxcywh."""
    scale = target[:, 2:].repeat(1, 2).clamp(min=1e-3)
    l1 = F.smooth_l1_loss(predicted / scale, target / scale, beta=0.05, reduction="none").sum()
    giou = generalized_box_iou_loss(box_convert(predicted, "cxcywh", "xyxy"), box_convert(target, "cxcywh", "xyxy")).sum()
    return l1 + 2 * giou


def decoder_predictions(outputs, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (images, queries, text) and boxes (images, queries, 4) of one decoder layer."""
    hidden = outputs.intermediate_hidden_states[:, layer]
    if layer + 1 == outputs.intermediate_hidden_states.shape[1]:
        return outputs.logits, outputs.pred_boxes
    logits = hidden @ outputs.encoder_last_hidden_state_text.transpose(-1, -2)
    logits = F.pad(logits, (0, MAX_TEXT - logits.shape[-1]), value=-20.0)
    return logits, outputs.intermediate_reference_points_with_grad[:, layer]


def matched_loss(logits: Tensor, boxes_hat: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Hungarian matching, then sigmoid focal loss per text token and box loss on the matched queries."""
    classes, boxes_sum = torch.zeros(()), torch.zeros(())
    for i, (boxes, targets) in enumerate(zip(batch.boxes, batch.targets, strict=True)):
        mask = batch.text_mask[i]
        row, goal = logits[i][:, mask], torch.zeros(logits.shape[1], int(mask.sum()))
        if len(boxes):
            queries, objects = match(row.detach(), boxes_hat[i].detach(), boxes, targets[:, mask].float())
            goal[queries] = targets[objects][:, mask].float()
            boxes_sum = boxes_sum + box_loss(boxes_hat[i][queries], boxes[objects])
        classes = classes + focal(row, goal)
    return {"class": classes, "box": boxes_sum}


def focal(logits: Tensor, goal: Tensor, alpha: float = 0.25) -> Tensor:
    """Sigmoid focal loss (arXiv 1708.02002, eq. 5) with gamma 2, summed."""
    p = logits.sigmoid()
    p_t = p * goal + (1 - p) * (1 - goal)
    weight = alpha * goal + (1 - alpha) * (1 - goal)
    return (weight * (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(logits, goal, reduction="none")).sum() * 2


def match(logits: Tensor, boxes_hat: Tensor, boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One query per object, by class probability and box overlap; the indices of the queries and of their objects."""
    probability = logits.sigmoid() @ targets.T / targets.sum(1)
    l1 = (boxes_hat[:, None] - boxes[None]).abs().div(boxes[None, :, 2:].repeat(1, 1, 2)).sum(-1)
    giou = generalized_box_iou(box_convert(boxes_hat, "cxcywh", "xyxy"), box_convert(boxes, "cxcywh", "xyxy"))
    queries, objects = linear_sum_assignment((-2 * probability + l1.clamp(max=10) - 2 * giou).numpy())
    return torch.as_tensor(queries), torch.as_tensor(objects)


def forward(model: GroundingDinoForObjectDetection, batch: Batch):
    """The model's forward, with the first decoder layers' boxes kept on the graph (the model itself detaches them)."""
    outputs = model(**batch.inputs)
    refined = []
    reference = outputs.init_reference_points
    for layer in range(outputs.intermediate_hidden_states.shape[1]):
        delta = model.bbox_embed[layer](outputs.intermediate_hidden_states[:, layer])
        refined.append((delta + torch.special.logit(reference, eps=1e-5)).sigmoid())
        reference = outputs.intermediate_reference_points[:, layer]
    outputs["intermediate_reference_points_with_grad"] = torch.stack(refined, 1)
    return outputs


# ----------------------------------------------------------------------------------------------------------------- training


def teach(out: Path, minutes: float, images: int, canvases: float, lr: float, seed: int, resume: bool, average_in: bool) -> None:
    """Train until the time is up, with the learning rate falling to zero over it; save every five minutes.

    ``canvases`` is the share of steps that look at canvases. ``average_in``: save the mean of the weights at the start and at the end.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    processor = build_processor()
    model = GroundingDinoForObjectDetection.from_pretrained(out) if resume else build_model()
    model.train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4, betas=(0.9, 0.98))
    started, saved, step = time.monotonic(), time.monotonic(), 0
    average: dict[str, float] = {}
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 200) * (1 - max(0.0, progress - 0.3) / 0.7)
        kind = "canvas" if rng.random() < canvases else "strip"
        batch = make_batch(rng, processor, kind, images)
        loss, parts = detection_loss(forward(model, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        average = {k: 0.98 * average.get(k, v) + 0.02 * v for k, v in parts.items()}
        if step % 50 == 0:
            shown = " ".join(f"{k} {v:.3f}" for k, v in average.items())
            print(f"step {step} {100 * progress:.0f} % loss {sum(average.values()):.3f} {shown}", flush=True)
        if time.monotonic() - saved > 300:
            _save(model, processor, out)
            saved = time.monotonic()
    if average_in:
        ended = model.state_dict()
        means = {name: (weight + ended[name]) / 2 for name, weight in before.items() if weight.is_floating_point()}
        model.load_state_dict(ended | means)
    _save(model, processor, out)


def _save(model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, out: Path) -> None:
    model.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a small Grounding DINO the shapes world.")
    parser.add_argument("--out", type=Path, default=Path("labeling/embedded/detector"))
    parser.add_argument("--minutes", type=float, default=65)
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--canvases", type=float, default=0.3, help="the share of steps that look at canvases")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument("--average", action="store_true", help="save the mean of the weights at the start and at the end")
    a = parser.parse_args()
    teach(a.out, a.minutes, a.batch, a.canvases, a.lr, a.seed, a.resume, a.average)
