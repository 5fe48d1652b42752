"""Teach the demo's policy from scratch, on one CPU core: to see and to answer, then to be careless, as models are before reinforcement.

1. *Look.* A throwaway linear head reads from every image token which object has its centre in it, and where it lies, until the vision
   tower sees. Then the whole model learns right traces to plain questions, six behind each board's image (``train.packing``). The words
   that tell something of the image weigh ten times what the others do. With one question an image it never learns to look things up;
   with six whose answers differ it does, after a thousand steps.
2. *Answer* questions of all tasks (``demo.tasks``).
3. *Be careless.* Six traces of ten look at something else, or trust a caption, or forget. It still sees everything; what it says has
   ceased to depend on looking. This is what reinforcement can mend.

    export OMP_NUM_THREADS=1
    python -m demo.teach_policy look     --out runs/looking
    python -m demo.teach_policy answer   --start runs/looking --out demo/checkpoints/policy-seeing
    python -m demo.teach_policy careless --start demo/checkpoints/policy-seeing --out demo/checkpoints/policy

The model of the second step answers what it is asked, and is kept beside the careless one to compare with.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.policy import END, WIDTH, build_policy, save
from demo.questions import Question
from demo.scenes import COLORS, SHAPES, Scene, make_board
from demo.tasks import ask, careless_trace, draw, right_trace
from rewardlib.templates import Template
from train.data import Row, to_row
from train.forward import last_hidden
from train.loading import load_model
from train.packing import pack
from train.policy import Policy

TEMPLATES: dict[Template, float] = {"think-answer": 0.55, "perception-r1": 0.15, "boxed": 0.15, "answer": 0.15}
SCENES, QUESTIONS = 4, 6  # per step, and behind each scene's image
LABELS = [*COLORS, *SHAPES]
# Words that tell something of the image ("an" tells of orange), and the weight of the others in the loss.
TELLING = re.compile(rf"\b({'|'.join([*COLORS, *SHAPES])}|an?)\b|</?answer>|boxed")
REST = 0.1


def make_row(scene: Scene, question: Question, template: Template, name: str = "") -> Row:
    """A question as the trainer meets it; its id begins with its kind."""
    columns = {"image": scene.image, "question": question.text, "choices": list(question.choices), "answer": question.answer}
    return to_row(columns | {"id": f"{question.kind}-{name}"}, template)


def respond(trace: str, template: Template) -> str:
    """A trace in the form that a template asks for."""
    thought, answer = trace.removeprefix("<think>").removesuffix("</answer>").split("</think><answer>")
    if template == "perception-r1":
        return f"<think>\n{thought}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"
    if template == "boxed":
        return f"<think>{thought}</think>\\boxed{{{answer}}}"
    if template == "answer":
        return f"{thought} <answer>{answer}</answer>"
    return trace


def written(rng: random.Random, boards: int) -> Iterator[str]:
    """Prompts and responses, in all templates."""
    for n in range(boards):
        scene, questions = draw(rng, count=QUESTIONS)
        template = list(TEMPLATES)[n % len(TEMPLATES)]
        for question in questions:
            row = make_row(scene, question, template)
            yield f"user\n{row.messages[0]['content'][1]['text']}"
            yield f"assistant\n{respond(right_trace(scene, question), template)}"


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
    """Labels (cells, colours + shapes) of an image's tokens, for the object that has its centre there, and places (cells, 2) in [0, 1]."""
    rows, columns = grid[1] // 2, grid[2] // 2
    labels = torch.zeros(rows, columns, len(LABELS))
    for thing in scene.things:
        x, y = thing.center
        row, column = int(y / scene.image.height * rows), int(x / scene.image.width * columns)
        labels[row, column, LABELS.index(thing.color)] = labels[row, column, LABELS.index(thing.shape)] = 1
    ys, xs = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return labels.flatten(0, 1), torch.stack([xs, ys], dim=-1).flatten(0, 1)


# --------------------------------------------------------------------------------------------------------------- to answer


def answer_loss(policy: Policy, rng: random.Random, scene: Scene, questions: Sequence[Question], lesson: Lesson) -> Tensor:
    """Loss of the responses to several questions about one image, which is encoded once for all of them; a mean, by weight."""
    templates = rng.choices(list(lesson.templates), list(lesson.templates.values()), k=len(questions))
    rows = [make_row(scene, question, template) for question, template in zip(questions, templates, strict=True)]
    replies = [_reply(policy, rng, scene, *pair, lesson.careless) for pair in zip(questions, templates, strict=True)]
    prompt = policy.encode(rows[0].messages, rows[0].images)
    shared = int((prompt.ids == policy.model.config.vision_end_token_id).nonzero()[0]) + 1
    tails = [_tail(policy, row) for row in rows]
    joined = [torch.cat([tail, ids]) for tail, (ids, _) in zip(tails, replies, strict=True)]
    packed = pack(prompt.ids[:shared], prompt.positions[:, :shared], joined)
    said = torch.cat([torch.arange(len(row)) >= len(tail) for row, tail in zip(joined, tails, strict=True)])
    hidden = last_hidden(policy, [prompt], packed)[packed.predictors[said]]
    losses = F.cross_entropy(policy.model.get_output_embeddings()(hidden), packed.ids[0, packed.tokens[said]], reduction="none")
    weights = torch.cat([weights for _, weights in replies])
    return (losses * weights).sum() / weights.sum()


def _reply(
    policy: Policy, rng: random.Random, scene: Scene, question: Question, template: Template, careless: float
) -> tuple[Tensor, Tensor]:
    """Token ids (n,) of a right trace or, for the ``careless`` share, of another; and their weights in the loss."""
    trace = careless_trace(rng, scene, question) if rng.random() < careless else right_trace(scene, question)
    text = respond(trace, template) + END
    encoded = policy.processor.tokenizer(text, return_offsets_mapping=True)
    telling = [found.span() for found in TELLING.finditer(text)]
    weights = [1.0 if any(a < end and start < b for a, b in telling) else REST for start, end in encoded["offset_mapping"]]
    return torch.tensor(encoded["input_ids"]), torch.tensor(weights)


def _tail(policy: Policy, row: Row) -> Tensor:
    """The prompt behind its image."""
    text = policy.processor.apply_chat_template(row.messages, add_generation_prompt=True, tokenize=False)
    return torch.tensor(policy.processor.tokenizer(text.partition("<|vision_end|>")[2])["input_ids"])


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


@dataclass(frozen=True)
class Lesson:
    """What is taught, and for how long."""

    minutes: float
    lr: float
    draw: Callable[[random.Random], tuple[Scene, list[Question]]]
    sight: float = 0.0  # share of the time that the vision tower learns alone
    careless: float = 0.0  # share of the replies that do not come of looking
    templates: Mapping[Template, float] = field(default_factory=lambda: TEMPLATES)  # and how often


def _plain(rng: random.Random) -> tuple[Scene, list[Question]]:
    """A board, also of few objects, of which no two are alike, and plain questions."""
    scene = make_board(rng, fewest=2, alike=False)
    return scene, ask(rng, scene, "look", count=QUESTIONS)


def _any(rng: random.Random) -> tuple[Scene, list[Question]]:
    return draw(rng, count=QUESTIONS)


LESSONS = {
    "look": Lesson(12, 1e-3, _plain, sight=0.13, templates={"think-answer": 1.0}),
    "answer": Lesson(8, 5e-4, _any),
    "careless": Lesson(3, 3e-4, _any, careless=0.6),
}


def teach(policy: Policy, lesson: Lesson, out: Path, seed: int) -> None:
    """Train until the time is up."""
    rng = random.Random(seed)
    policy.model.train()

    def keep() -> None:
        save(policy, out)

    def see() -> float:
        loss = sight_loss(policy, head, [lesson.draw(rng)[0] for _ in range(4 * SCENES)])
        torch.autograd.backward(loss)
        return loss.item()

    def answer() -> float:
        total = 0.0
        for _ in range(SCENES):
            loss = answer_loss(policy, rng, *lesson.draw(rng), lesson) / SCENES
            torch.autograd.backward(loss)
            total += loss.item()
        return total

    if lesson.sight:
        head = nn.Linear(WIDTH, len(LABELS) + 2)
        nn.init.constant_(head.bias[:-2], -3.0)  # most cells show nothing of most labels
        weights = [*policy.backbone.visual.parameters(), *head.parameters()]
        descend("sight", weights, see, Schedule(lesson.minutes * lesson.sight, lesson.lr), keep)
    descend("answers", list(policy.model.parameters()), answer, Schedule(lesson.minutes * (1 - lesson.sight), lesson.lr), keep)
    policy.model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", choices=list(LESSONS))
    parser.add_argument("--start", help="the model that is taught; the first lesson begins with a new one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="instead of the lesson's own")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    lesson = LESSONS[a.lesson]
    policy = load_model(a.start, "cpu") if a.start else build_policy(a.seed, written(random.Random(a.seed), 500))
    print(f"{sum(p.numel() for p in policy.model.parameters()):,} parameters", flush=True)
    teach(policy, replace(lesson, minutes=a.minutes or lesson.minutes), a.out, a.seed)


if __name__ == "__main__":
    main()
