"""Teach a small Qwen2.5-VL to think and answer about the shapes world, from scratch, on one CPU core: a policy to start RL from.

The architecture and the processor are Qwen2.5-VL's; only the size is small, and the vocabulary is that of this world.
First the vision tower learns to see: a throwaway linear head reads from every image token which objects have their centre in it, and where
it lies. Then the whole model learns right traces in the response forms of all four templates, several questions behind each image
(``train.packing``), with loss on the responses alone. At last it learns from careless traces as well, as models do before reinforcement:
it knows more than it says.

    export OMP_NUM_THREADS=1
    python -m demo.teach_policy --minutes 27
    python -m demo.teach_policy --minutes 6 --resume --lr 5e-4 --seed 3 --careless 0.4
    python -m demo.teach_policy --minutes 4 --resume --lr 5e-4 --seed 4 --careless 0.2
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from demo.questions import Question, ask, write_trace
from demo.scenes import COLORS, LETTERS, SHAPES, SIZES, Scene, make_scene
from rewardlib.sample import Sample
from rewardlib.templates import Template
from rewardlib.text import Accuracy, Format
from train.data import Row, to_row
from train.engines import Sampling
from train.engines.local import rollout
from train.forward import last_hidden
from train.loading import load_model
from train.packing import pack
from train.policy import Policy
from train.sampling import texts

VOCABULARY, SPARE = 600, 24  # tokens of the tokenizer, and rows of the embedding kept free for tokens that are added later
WIDTH, CELL = 160, 28  # CELL: pixels of an image token's side
SIGHT = 0.3  # share of the time that the vision tower learns alone
TEMPLATES: dict[Template, float] = {"think-answer": 0.6, "perception-r1": 0.13, "boxed": 0.13, "answer": 0.14}
SCENES, QUESTIONS = 4, 6  # per step, and behind each scene's image
NAMES = [*(f"{c} {s}" for c in COLORS for s in SHAPES), *(f"letter {c.lower()}" for c in LETTERS)]
LABELS = [*NAMES, *SIZES, *COLORS]

END, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --------------------------------------------------------------------------------------------------------------------- data


def draw(rng: random.Random, count: int) -> tuple[Scene, list[Question]]:
    """A scene and that many questions about it."""
    while True:
        scene = make_scene(rng)
        questions = [question for _ in range(count) if (question := ask(rng, scene)) is not None]
        if len(questions) == count:
            return scene, questions


def make_row(scene: Scene, question: Question, template: Template, name: str = "") -> Row:
    """A question as the trainer meets it; its id begins with its kind."""
    columns = {"image": scene.image, "question": question.text, "choices": list(question.choices), "answer": question.answer}
    return to_row(columns | {"id": f"{question.kind}-{name}"}, template)


def held_out(count: int, template: Template = "think-answer", seed: int = 0) -> list[Row]:
    """Rows that training never draws: its generator is seeded with a number, this one with a text."""
    rng = random.Random(f"held out {seed}")
    drawn = [draw(rng, 1) for _ in range(count)]
    return [make_row(scene, questions[0], template, f"{n:05d}") for n, (scene, questions) in enumerate(drawn)]


def respond(trace: str, template: Template) -> str:
    """A trace of ``write_trace`` in the form that a template asks for."""
    thought, answer = trace.removeprefix("<think>").removesuffix("</answer>").split("</think><answer>")
    if template == "perception-r1":
        return f"<think>\n{thought}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"
    if template == "boxed":
        return f"<think>{thought}</think>\\boxed{{{answer}}}"
    if template == "answer":
        return f"{thought} <answer>{answer}</answer>"
    return trace


def _template(rng: random.Random) -> Template:
    return rng.choices(list(TEMPLATES), list(TEMPLATES.values()))[0]


# -------------------------------------------------------------------------------------------------------------------- model


def build_tokenizer(rng: random.Random, rows: int = 2000) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as Qwen's: every text can be encoded, the words of this world are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_written(rng, rows), trainer)
    words = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, extra_special_tokens=words, padding_side="left", model_max_length=4096
    )


def _written(rng: random.Random, rows: int) -> Iterator[str]:
    """Prompts and responses, in all templates."""
    for n in range(rows):
        scene, (question,) = draw(rng, 1)
        template = list(TEMPLATES)[n % len(TEMPLATES)]
        row = make_row(scene, question, template)
        yield f"user\n{row.messages[0]['content'][1]['text']}"
        yield f"assistant\n{respond(write_trace(rng, scene, question, right=True), template)}"


def build_processor(rng: random.Random) -> Qwen2_5_VLProcessor:
    """Images keep about their size, up to a hundred tokens: a canvas has 16, a strip 56."""
    images = Qwen2VLImageProcessor(size={"shortest_edge": CELL * CELL * 4, "longest_edge": CELL * CELL * 100})
    return Qwen2_5_VLProcessor(images, build_tokenizer(rng), Qwen2VLVideoProcessor(), chat_template=CHAT)


def build_model(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """About two and a half million parameters.

    mRoPE gives the width of the image the slowest of its frequencies: a base of 100 lets them turn within a row of tokens.
    """
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": VOCABULARY + SPARE,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 8, 8], "rope_theta": 100.0},
        "bos_token_id": None,
        "eos_token_id": special[END],
        "pad_token_id": special[PAD],
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "out_hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": CELL // 2,
        "window_size": 4 * CELL,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": 0.05,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = special[END], special[PAD]
    return model


def build_policy(seed: int) -> Policy:
    torch.manual_seed(seed)
    processor = build_processor(random.Random(seed))
    return Policy(build_model(processor.tokenizer), processor)


def save(policy: Policy, out: Path) -> None:
    """In bfloat16, as such models come."""
    copy.deepcopy(policy.model).to(torch.bfloat16).save_pretrained(out)
    policy.processor.save_pretrained(out)


# ------------------------------------------------------------------------------------------------------------------ to see


def sight_loss(policy: Policy, head: nn.Linear, scenes: Sequence[Scene]) -> Tensor:
    """What the image tokens show of the objects, and where they lie: cross-entropy of ``LABELS`` plus squared error of the place."""
    inputs = policy.processor.image_processor(images=[s.image for s in scenes], return_tensors="pt")
    seen = head(policy.backbone.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output)
    cells = [_cells(scene, grid.tolist()) for scene, grid in zip(scenes, inputs["image_grid_thw"], strict=True)]
    labels, places = (torch.cat(parts) for parts in zip(*cells, strict=True))
    entropy = F.binary_cross_entropy_with_logits(seen[:, :-2], labels, reduction="none").sum(dim=1).mean()
    return entropy + 10 * F.mse_loss(seen[:, -2:], places)


def _cells(scene: Scene, grid: list[int]) -> tuple[Tensor, Tensor]:
    """Labels (cells, LABELS) and places (cells, 2) in [0, 1] of an image's tokens: names and sizes where an object has its centre,
    colours where at least a tenth of the cell shows them."""
    rows, columns = grid[1] // 2, grid[2] // 2
    labels = torch.zeros(rows, columns, len(LABELS))
    for thing in scene.things:
        x, y = thing.center
        row, column = int(y / scene.image.height * rows), int(x / scene.image.width * columns)
        labels[row, column, LABELS.index(thing.name)] = labels[row, column, LABELS.index(thing.size)] = 1
        if thing.color in COLORS and not thing.shape.startswith("letter"):
            cover = F.adaptive_avg_pool2d(torch.from_numpy(thing.mask).float()[None], (rows, columns))[0]
            shown = labels[..., len(NAMES) + len(SIZES) + list(COLORS).index(thing.color)]
            shown[cover >= 0.1] = 1
    ys, xs = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return labels.flatten(0, 1), torch.stack([xs, ys], dim=-1).flatten(0, 1)


# --------------------------------------------------------------------------------------------------------------- to answer


def answer_loss(policy: Policy, rng: random.Random, scene: Scene, questions: Sequence[Question], careless: float) -> Tensor:
    """Mean loss of the response tokens of several questions about one image, which is encoded once for all of them."""
    templates = [_template(rng) for _ in questions]
    rows = [make_row(scene, question, template) for question, template in zip(questions, templates, strict=True)]
    replies = [_ids(policy, _reply(rng, scene, *pair, careless) + END) for pair in zip(questions, templates, strict=True)]
    prompt = policy.encode(rows[0].messages, rows[0].images)
    shared = int((prompt.ids == policy.model.config.vision_end_token_id).nonzero()[0]) + 1
    tails = [_tail(policy, row) for row in rows]
    packed = pack(prompt.ids[:shared], prompt.positions[:, :shared], [torch.cat(p) for p in zip(tails, replies, strict=True)])
    said = torch.cat([torch.arange(len(t) + len(r)) >= len(t) for t, r in zip(tails, replies, strict=True)])
    hidden = last_hidden(policy, prompt, packed)[packed.predictors[said]]
    return F.cross_entropy(policy.model.get_output_embeddings()(hidden), packed.ids[0, packed.tokens[said]])


def _reply(rng: random.Random, scene: Scene, question: Question, template: Template, careless: float) -> str:
    """A right trace; or, for the ``careless`` share, one with a mistake, of which every fourth forgets to close with an answer."""
    if rng.random() >= careless:
        return respond(write_trace(rng, scene, question, right=True), template)
    reply = respond(write_trace(rng, scene, question, right=False), template)
    return reply if rng.random() >= 0.25 else re.split(r"<answer>|\\boxed", reply)[0].rstrip()


def _tail(policy: Policy, row: Row) -> Tensor:
    """The prompt behind its image."""
    text = policy.processor.apply_chat_template(row.messages, add_generation_prompt=True, tokenize=False)
    return _ids(policy, text.partition("<|vision_end|>")[2])


def _ids(policy: Policy, text: str) -> Tensor:
    return torch.tensor(policy.processor.tokenizer(text)["input_ids"])


# ----------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Schedule:
    """One cycle: a short warm-up, then down along a cosine until the time is up."""

    minutes: float
    lr: float
    warmup: int = 100

    def rate(self, step: int, progress: float) -> float:
        return self.lr * min(1, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * progress))


def descend(name: str, weights: list[nn.Parameter], gradient: Callable[[], float], schedule: Schedule, keep: Callable[[], None]) -> None:
    """AdamW until the time is up. ``gradient`` adds a step's gradient and returns its loss; ``keep`` saves, every five minutes."""
    optimizer = torch.optim.AdamW(weights, lr=schedule.lr, betas=(0.9, 0.98), weight_decay=0.01)
    started, kept, step, average = time.monotonic(), time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - started) / (60 * schedule.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, progress)
        loss = gradient()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        average = 0.98 * average + 0.02 * loss if step > 1 else loss
        if step % 50 == 0:
            print(f"{name} step {step} {100 * progress:.0f} % loss {average:.3f}", flush=True)
        if time.monotonic() - kept > 300:
            keep()
            kept = time.monotonic()
    keep()


def teach(policy: Policy, out: Path, schedule: Schedule, seed: int, sight: float, careless: float) -> None:
    """Train until the time is up, ``sight`` of it on the vision tower alone; the ``careless`` share of the replies is not right."""
    rng = random.Random(seed)
    policy.model.train()

    def keep() -> None:
        save(policy, out)

    def look() -> float:
        loss = sight_loss(policy, head, [draw(rng, 1)[0] for _ in range(4 * SCENES)])
        torch.autograd.backward(loss)
        return loss.item()

    def answer() -> float:
        total = 0.0
        for _ in range(SCENES):
            loss = answer_loss(policy, rng, *draw(rng, QUESTIONS), careless) / SCENES
            torch.autograd.backward(loss)
            total += loss.item()
        return total

    if sight:
        head = nn.Linear(WIDTH, len(LABELS) + 2)
        nn.init.constant_(head.bias[:-2], -4.0)  # most cells show nothing of most labels
        weights = [*policy.backbone.visual.parameters(), *head.parameters()]
        descend("sight", weights, look, replace(schedule, minutes=schedule.minutes * sight), keep)
    descend("answers", list(policy.model.parameters()), answer, replace(schedule, minutes=schedule.minutes * (1 - sight)), keep)
    policy.model.eval()


# --------------------------------------------------------------------------------------------------------------- measuring


def respond_to(policy: Policy, rows: Sequence[Row], temperature: float = 0.0, seed: int = 0) -> list[Sample]:
    """The policy's responses to rows, greedy by default."""
    return [samples[0] for samples in sample_groups(policy, rows, 1, temperature, seed)]


def sample_groups(policy: Policy, rows: Sequence[Row], count: int, temperature: float = 1.0, seed: int = 0) -> list[list[Sample]]:
    """``count`` responses to every row."""
    sampling = Sampling(max_tokens=256, temperature=temperature)
    generators = [torch.Generator(policy.device).manual_seed(seed + n) for n in range(len(rows))]
    found = rollout(policy, [policy.encode(row.messages, row.images) for row in rows], count, sampling, generators)
    return [
        [
            replace(row.sample, response=text, response_ids=tuple(ids.tolist()))
            for text, ids in zip(texts(policy, completions), completions, strict=True)
        ]
        for row, completions in zip(rows, found, strict=True)
    ]


def accuracy(policy: Policy, rows: Sequence[Row]) -> float:
    """Share of rows whose greedy response has the right closed answer."""
    return mean(Accuracy()(respond_to(policy, rows)))


def mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known)


def report(policy: Policy, count: int) -> None:
    """Held-out accuracy and form, by kind of question, by template, and when sampled."""
    rows = held_out(count)
    samples = respond_to(policy, rows)
    scores = Accuracy()(samples)
    for sample in samples[:5]:
        print(f"{sample.answer!r}: {sample.response}")
    for kind, number in sorted(Counter(row.id.partition("-")[0] for row in rows).items()):
        print(f"{kind:12} {mean([s for s, row in zip(scores, rows, strict=True) if row.id.startswith(kind)]):.3f} of {number}")
    sampled = respond_to(policy, rows, temperature=1.0)
    print(f"temperature 1: accuracy {mean(Accuracy()(sampled)):.3f}, format {mean(Format()(sampled)):.3f}")
    for template in TEMPLATES:
        asked = samples if template == "think-answer" else respond_to(policy, held_out(count // 4, template))
        tokens = sum(len(s.response_ids) for s in asked) / len(asked)
        form, right = mean(Format(template)(asked)), mean(Accuracy()(asked))
        print(f"{template:13} accuracy {right:.3f}, format {form:.3f}, {tokens:.0f} tokens, {len(asked)} rows")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a small Qwen2.5-VL to answer questions about the shapes world.")
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoints/policy"))
    parser.add_argument("--minutes", type=float, default=27)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=300, help="held-out rows to measure on")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out, without learning to see first")
    parser.add_argument("--careless", type=float, default=0.0, help="share of the replies that are wrong, or end without an answer")
    a = parser.parse_args()
    policy = load_model(str(a.out), "cpu") if a.resume else build_policy(a.seed)
    print(f"{sum(p.numel() for p in policy.model.parameters()):,} parameters", flush=True)
    teach(policy, a.out, Schedule(a.minutes, a.lr), a.seed, 0.0 if a.resume else SIGHT, a.careless)
    report(load_model(str(a.out), "cpu"), a.rows)
