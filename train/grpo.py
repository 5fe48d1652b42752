"""Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --recipe sayo --model Qwen/Qwen2.5-VL-3B-Instruct
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe sayo

One step: take prompts, sample a group of completions for each, reward them, turn rewards into advantages, and step the optimizer on the sum
of the groups' gradients. The image and prompt of a group are encoded once for all its completions (``train.rollout``, ``train.packing``).
Recipes (``train.settings``) say which rewards count and how: grpo, sayo, perception-r1, faithful-mr1, vgpo. A killed run goes on where it
was when the same command is given again. The folder given by --out has report.html, to look at.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.settings import Settings, from_command_line

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from rewardlib.sample import Reward
    from train.data import Rows


def train(settings: Settings) -> Path:
    """Run the settings to their end and return the folder of the trained model."""
    from train.checkpoint import Progress, restore, save
    from train.data import load_rows
    from train.group import Lesson, Whole, assess, learn
    from train.parallel import World
    from train.policy import load_policy
    from train.prompts import draw_groups
    from train.record import Record, summarise, tally
    from train.report import write_report
    from train.sharding import let_go, shard

    rewards = make_rewards(settings)
    weights = {reward.name: getattr(settings, reward.name) for reward in rewards}
    world = World(settings)
    if settings.shard and (settings.filter_groups or settings.prompts % world.size or settings.lora):
        raise ValueError(f"--shard wants --prompts to be a multiple of the {world.size} processes, no --filter-groups and no --lora")
    rows = load_rows(settings.data, settings.template)
    check(rows, rewards, settings)
    policy = load_policy(settings, world.device)
    if settings.shard and world.size > 1:
        shard(policy, world.size)
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trainable, settings)
    progress = restore(policy, optimizer, settings)
    record = Record(settings, world, progress.step)
    skipped = 0

    for step in range(progress.step, settings.steps):
        began = time.perf_counter()
        # ---- sample, and reward the texts
        groups, drawn = draw_groups(policy, rows, [r for r in rewards if not r.needs], settings, world, progress.prompts)
        whole = Whole(world.total(sum(len(g.completions) for g in groups)), world.total(sum(g.tokens for g in groups)))
        for group_settings in optimizer.param_groups:
            group_settings["lr"] = learning_rate(step, settings)
        lessons: list[Lesson] = []
        for update in range(settings.updates):
            # ---- measure, reward, advantage; learn
            shown = []
            for n, group in enumerate(groups):
                live = None
                if update == 0:
                    lesson, live = assess(policy, group, rewards, weights, settings)
                    lessons.append(lesson)
                shown.append(learn(policy, group, lessons[n], settings, whole, live))
            # ---- update
            world.add_gradients(trainable)
            norm = world.clip_gradients(trainable, settings.max_grad_norm)
            skipped = 0 if math.isfinite(norm) else skipped + 1
            if not skipped:
                optimizer.step()
            optimizer.zero_grad()
            let_go(policy.model)
            if skipped >= settings.max_skipped:
                raise ValueError(
                    f"{skipped} updates in a row had a gradient that is not finite: lower --learning-rate, or look at {settings.out}"
                )
        # ---- report
        progress = Progress(step + 1, drawn)
        about = {"grad_norm": norm, "skipped": float(skipped > 0), "learning_rate": learning_rate(step, settings)}
        tallies = [tally(group, policy) for group in groups]
        record.step(step, summarise(world.gather(shown), world.gather(tallies), time.perf_counter() - began) | about)
        if step % settings.show_every == 0 or step + 1 == settings.steps:
            record.completions(step, groups, lessons, policy)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            save(policy, optimizer, progress, settings, world)
            if world.main:
                write_report(settings.out)
    record.close()
    return settings.out


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> Optimizer:
    """AdamW; sharded weights, which no kernel takes together with whole ones, in a group of their own."""
    import torch
    from torch.distributed.tensor import DTensor

    groups = [[p for p in parameters if isinstance(p, DTensor) == sharded] for sharded in (False, True)]
    chosen = [{"params": group} for group in groups if group]
    return torch.optim.AdamW(chosen, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def check(rows: Rows, rewards: Sequence[Reward], settings: Settings) -> None:
    """Stop where no row has what a reward needs, and say where some lack it."""
    from pipelines.console import say
    from train.data import require

    names = {reward.name for reward in rewards}
    looking = bool(names & {"attention_contrast", "causal_attention"})
    lacking = require(
        rows,
        answer="accuracy" in names,
        regions=looking,
        counterfactuals="causal_attention" in names,
        annotations="perception" in names,
    )
    for label, count in lacking.items():
        say(f"{count} of {len(rows)} rows have no {label}: their completions are not scored by the rewards that need it")


def make_rewards(settings: Settings) -> list[Any]:
    """The rewards that the settings give a weight."""
    from rewardlib import Accuracy, AttentionContrast, CausalAttention, Format, JudgeEndpoint, Perception, Repetition

    if settings.perception and not settings.judge:
        raise ValueError("the perception reward needs a judge: give --judge MODEL --judge-url URL, or --perception 0")
    made: dict[str, Any] = {
        "accuracy": lambda: Accuracy(),
        "format": lambda: Format(settings.template, settings.window),
        "repetition": lambda: Repetition(),
        "perception": lambda: Perception(JudgeEndpoint(settings.judge, settings.judge_url), settings.out / "judge.sqlite"),
        "attention_contrast": lambda: AttentionContrast(),
        "causal_attention": lambda: CausalAttention(),
    }
    return [make() for name, make in made.items() if getattr(settings, name)]


def learning_rate(step: int, settings: Settings) -> float:
    """The learning rate of a step."""
    rise = min(1.0, (step + 1) / (settings.warmup + 1))
    done = max(0.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
    return settings.learning_rate * rise * fall


def main() -> None:
    settings = from_command_line()
    from pipelines.console import failing_clearly, quiet_libraries, say

    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "settings.json").write_text(json.dumps(asdict(settings), indent=1, default=str) + "\n")
        say(f"report   {train(settings) / 'report.html'}")


if __name__ == "__main__":
    main()
