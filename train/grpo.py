"""Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --recipe sayo --model Qwen/Qwen2.5-VL-3B-Instruct
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe sayo

One step: take prompts, sample a group of completions for each, reward them, turn rewards into advantages, and step the optimizer on the sum
of the groups' gradients. The image and prompt of a group are encoded once for all its completions (``train.rollout``, ``train.packing``).
Recipes (``train.settings``) say which rewards count and how: grpo, sayo, perception-r1, faithful-mr1, vgpo. A killed run goes on where it
was when the same command is given again. The folder given by --out has report.html, to look at.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.settings import Settings, from_command_line

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from rewardlib.sample import Reward
    from train.checkpoint import Progress
    from train.data import Rows
    from train.parallel import World
    from train.policy import Policy
    from train.record import Record


def train(settings: Settings) -> Path:
    """Run the settings to their end and return the folder of the trained model."""
    from train.group import Lesson, Whole, assess, learn
    from train.missing import heed
    from train.prompts import draw_groups
    from train.record import summarise, tally

    run = start(settings)
    policy, rewards, world = run.policy, run.rewards, run.world
    weights = {reward.name: getattr(settings, reward.name) for reward in rewards}
    drawn, skipped = run.progress.prompts, 0

    for step in range(run.progress.step, settings.steps):
        began = time.perf_counter()
        rate = learning_rate(step, settings)
        # ---- sample, and reward the texts
        text_rewards = [r for r in rewards if not r.needs]
        groups, drawn = draw_groups(policy, run.rows, text_rewards, settings, world, drawn)
        silent = heed(groups, text_rewards, settings, world, step)
        whole = Whole(world.total(sum(len(g.completions) for g in groups)), world.total(sum(g.tokens for g in groups)))
        lessons: list[Lesson] = []
        shown, norms = [], []
        for update in range(settings.updates):
            # ---- measure, reward, turn into advantages; learn
            for n, group in enumerate(groups):
                live = None
                if update == 0:
                    lesson, live = assess(policy, group, rewards, weights, settings)
                    lessons.append(lesson)
                shown.append(learn(policy, group, lessons[n], settings, whole, live))
            # ---- update
            norms.append(run.update(rate))
            skipped = 0 if math.isfinite(norms[-1]) else skipped + 1
            if skipped >= settings.max_skipped:
                raise ValueError(f"{skipped} updates in a row had a gradient that is not finite: lower --learning-rate (now {rate:g})")
        # ---- report
        tallies = world.gather([tally(group, policy) for group in groups])
        figures = summarise(world.gather(shown), tallies, time.perf_counter() - began, settings.updates)
        run.record.step(step, figures | silent | update_figures(norms) | {"learning_rate": rate})
        last = step + 1 == settings.steps
        if last or step % settings.show_every == 0:
            run.record.completions(step, groups, lessons, policy)
        if last or (step + 1) % settings.save_every == 0:
            run.record.left_out(run.rows)
            run.save(step + 1, drawn)
    run.record.close()
    return settings.out


@dataclass
class Run:
    """What a run works with."""

    settings: Settings
    rewards: list[Reward]
    rows: Rows
    world: World
    policy: Policy
    optimizer: Optimizer
    record: Record
    progress: Progress  # at the start

    def update(self, rate: float) -> float:
        """Step the optimizer on the gradients of all processes, unless they are not finite; returns their norm."""
        from train.sharding import let_go

        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.world.add_gradients(trained)
        norm = self.world.clip_gradients(trained, self.settings.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        let_go(self.policy.model)
        return norm

    def save(self, steps: int, prompts: int) -> None:
        """A checkpoint, and the report so far."""
        from train.checkpoint import Progress, save
        from train.report import write_report

        save(self.policy, self.optimizer, Progress(steps, prompts), self.settings, self.world)
        if self.world.main:
            write_report(self.settings.out)


def start(settings: Settings) -> Run:
    """Load everything, and go on from the newest checkpoint if there is one."""
    from pipelines.console import say
    from train.checkpoint import restore
    from train.data import load_rows
    from train.parallel import World
    from train.policy import load_policy
    from train.record import Record
    from train.sharding import shard

    refuse(settings)
    rewards, world = make_rewards(settings), World(settings)
    if settings.shard and (settings.filter_groups or settings.prompts % world.size or settings.lora):
        raise ValueError(f"--shard wants --prompts to be a multiple of the {world.size} processes, --no-filter-groups and no --lora")
    rows = load_rows(settings.data, settings.template)
    rows.speaks = world.main
    lacking = check(rows, rewards)
    for label, count in lacking.items() if world.main else ():
        say(f"{count} of {len(rows)} rows have no {label}: their completions are not scored by the rewards that need it")
    rows.speaks = True  # from here on every process leaves out rows of its own
    policy = load_policy(settings, world.device)
    for line in template_advice(policy, settings) if world.main else ():
        say(line)
    if settings.shard and world.size > 1:
        shard(policy, world.size)
    optimizer = make_optimizer([p for p in policy.model.parameters() if p.requires_grad], settings)
    progress = restore(policy, optimizer, settings)
    return Run(settings, rewards, rows, world, policy, optimizer, Record(settings, world, progress.step), progress)


def template_advice(policy: Policy, settings: Settings) -> list[str]:
    """What is worth knowing, before the first step, of the format reward with this model's chat template."""
    if not settings.format or settings.template not in ("think-answer", "perception-r1"):
        return []
    if policy.opening:
        return ["the model's chat template opens <think>, which counts as the response's"]
    remedy = "take --template boxed or answer, or --format 0"
    if "</think>" in policy.generation_prompt:
        closed = "the model's chat template closes <think></think> in the prompt"
        return [f"{closed}, so --template {settings.template} can hardly be kept to: {remedy}"]
    if policy.model.config.model_type.startswith("qwen3_vl"):
        return [
            "Qwen3-VL-Instruct models do not write <think> of their own accord, and one that never does never earns the format reward of "
            f"--template {settings.template}: {remedy}, or take a Thinking model"
        ]
    return []


def update_figures(norms: Sequence[float]) -> dict[str, float]:
    """What a step's updates did, from their gradients' norms: the mean of the finite ones, each by itself, and how many were skipped."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    figures = {"grad_norm": sum(finite) / len(finite) if finite else math.nan, "skipped": float(len(norms) - len(finite))}
    each = {f"updates/{n}/grad_norm": norm for n, norm in enumerate(norms)} if len(norms) > 1 else {}
    return figures | {name: norm if math.isfinite(norm) else math.nan for name, norm in each.items()}


def refuse(settings: Settings) -> None:
    """``ValueError`` for settings under which nothing could be learnt."""
    if settings.group < 2:
        raise ValueError(
            f"--group {settings.group}: an advantage is a completion's reward against the others of its prompt, and one alone has none, "
            "so nothing would be learnt; give 2 or more, usually 8"
        )


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> Optimizer:
    """AdamW; sharded weights, which no kernel takes together with whole ones, in a group of their own."""
    import torch
    from torch.distributed.tensor import DTensor

    groups = [[p for p in parameters if isinstance(p, DTensor) == sharded] for sharded in (False, True)]
    chosen = [{"params": group} for group in groups if group]
    return torch.optim.AdamW(chosen, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def check(rows: Rows, rewards: Sequence[Reward]) -> dict[str, int]:
    """How many rows lack what a reward needs, by label; ``DataError`` where all do."""
    from train.data import require

    names = {reward.name for reward in rewards}
    return require(
        rows,
        answer="accuracy" in names,
        regions=bool(names & {"attention_contrast", "causal_attention"}),
        counterfactuals="causal_attention" in names,
        annotations="perception" in names,
    )


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
    warmup = settings.warmup if settings.warmup >= 1 else round(settings.warmup * settings.steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    done = max(0.0, (step - warmup) / max(1, settings.steps - warmup))
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
    return settings.learning_rate * rise * fall


def main() -> None:
    settings = from_command_line()
    from pipelines.console import failing_clearly, quiet_libraries, say

    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        out = train(settings)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first
        from train.report import findings_of

        for finding in findings_of(out):
            say(f"- {finding.what}\n  {finding.remedy}")
        say(f"report   {out / 'report.html'}")


if __name__ == "__main__":
    main()
