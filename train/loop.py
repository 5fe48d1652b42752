"""The training loop: sample, reward, turn into advantages, learn, update, report.

It knows no method by name: what papers change is in ``train.methods``, and ``train.step`` asks them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from pipelines.console import say
from rewardlib import Accuracy, AttentionContrast, CausalAttention, Format, JudgeEndpoint, Perception, Repetition
from rewardlib.sample import Reward
from train.advice import template_advice
from train.batch import Normalizer, Signal
from train.checkpoint import Progress, restore, save
from train.data import Rows, by_reason, load_rows, require
from train.limits import ABOVE_ZERO, COUNT, FINITE, FROM_ZERO, NOT_NEGATIVE, POSITIVE, SHARE, SOME, within
from train.methods import METHODS, field_of
from train.methods.base import Method
from train.missing import heed
from train.parallel import World
from train.policy import Policy, load_policy
from train.record import Record, summarise, tally
from train.report import write_report
from train.sampling import draw_groups
from train.settings import Settings
from train.sharding import let_go, shard
from train.step import Plan, step

PATIENCE = 10  # steps without a prompt after which a run that has learnt nothing stops


def train(settings: Settings) -> Path:
    """Run the settings to their end and return the folder of the trained model."""
    run = start(settings)
    try:
        _learn(run, settings)
    except ValueError:  # it is told why; what is known of the rows stays
        run.record.left_out(run.rows, together=False)
        if run.world.main:
            with suppress(ValueError, OSError):  # there may be no step to report
                write_report(settings.out)
        raise
    run.record.close()
    return settings.out


def _learn(run: Run, settings: Settings) -> None:
    policy, world = run.policy, run.world
    plan = Plan(settings, run.rewards, make_methods(settings), Across(world))
    text_rewards = [reward for reward in run.rewards if not reward.needs]
    drawn, skipped, learnt = run.progress.prompts, 0, run.progress.step > 0

    for number in range(run.progress.step, settings.steps):
        began = time.perf_counter()
        rate = learning_rate(number, settings)
        # ---- sample, and reward the texts
        groups, drawn = draw_groups(policy, run.rows, text_rewards, settings, world, drawn)
        silent = heed(groups, text_rewards, settings, world, number)
        completions, tokens = sum(len(g.completions) for g in groups), sum(g.tokens for g in groups)
        normalizer = Normalizer(world.total(completions), world.total(tokens))
        signals: list[Signal] | None = None
        figures, norms = [], []
        for _ in range(settings.updates):
            # ---- measure, reward, turn into advantages; learn
            signals, told = step(policy, groups, plan, normalizer, signals)
            figures += told
            # ---- update
            norms.append(run.update(rate))
            skipped = 0 if math.isfinite(norms[-1]) else skipped + 1
            if skipped >= settings.max_skipped:
                raise ValueError(f"{skipped} updates in a row had a gradient that is not finite: lower --learning-rate (now {rate:g})")
        # ---- report
        tallies = world.gather([tally(group, policy) for group in groups])
        summary = summarise(world.gather(figures), tallies, time.perf_counter() - began, settings.updates)
        run.record.step(number, summary | silent | update_figures(norms) | {"learning_rate": rate})
        learnt = learnt or bool(tallies) or settings.filter_groups
        if not learnt and number + 1 >= min(PATIENCE, settings.steps):
            why = by_reason(run.rows) or "the other processes say why"
            raise ValueError(f"none of the first {number + 1} steps drew a row that can be asked, so nothing was learnt: {why}")
        last = number + 1 == settings.steps
        if last or number % settings.show_every == 0:
            run.record.completions(number, groups, signals or [], policy)
        if last or (number + 1) % settings.save_every == 0:
            run.record.left_out(run.rows)
            run.save(number + 1, drawn)


@dataclass(frozen=True)
class Across:
    """What all processes have together."""

    world: World

    def __call__(self, values: Sequence[float]) -> list[float]:
        return [sum(column) for column in zip(*self.world.gather([list(values)]), strict=True)]

    def lowest(self, values: Sequence[float]) -> float:
        return min(self.world.gather(list(values)), default=math.inf)

    def highest(self, values: Sequence[float]) -> float:
        return max(self.world.gather(list(values)), default=-math.inf)


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

        save(self.policy, self.optimizer, Progress(steps, prompts), self.settings, self.world)
        if self.world.main:
            write_report(self.settings.out)


def start(settings: Settings) -> Run:
    """Load everything, and go on from the newest checkpoint if there is one."""

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


def update_figures(norms: Sequence[float]) -> dict[str, float]:
    """What a step's updates did, from their gradients' norms: the mean of the finite ones, each by itself, and how many were skipped."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    figures = {"grad_norm": sum(finite) / len(finite) if finite else math.nan, "skipped": float(len(norms) - len(finite))}
    each = {f"updates/{n}/grad_norm": norm for n, norm in enumerate(norms)} if len(norms) > 1 else {}
    return figures | {name: norm if math.isfinite(norm) else math.nan for name, norm in each.items()}


REWARDS = ("accuracy", "format", "repetition", "perception", "attention_contrast", "causal_attention")
_COUNTS = ("steps", "prompts", "max_tokens", "max_prompt", "updates", "micro_batch", "save_every", "show_every", "max_skipped")
_PENALTIES = ("kl", "warmup", "weight_decay", "lora")


def refuse(settings: Settings) -> None:
    """``ValueError`` for settings under which nothing could be learnt."""
    if settings.group < 2:
        raise ValueError(
            f"--group {settings.group}: an advantage is a completion's reward against the others of its prompt, and one alone has none, "
            "so nothing would be learnt; give 2 or more, usually 8"
        )
    within(settings, **dict.fromkeys(_COUNTS, COUNT), **dict.fromkeys(_PENALTIES, NOT_NEGATIVE), **dict.fromkeys(REWARDS, FINITE))
    within(settings, temperature=POSITIVE, top_p=SHARE, learning_rate=POSITIVE, max_grad_norm=ABOVE_ZERO, layers=SOME)
    within(settings, clip_low=FROM_ZERO, clip_high=FROM_ZERO)
    if settings.window and not 0 <= settings.window[0] <= settings.window[1]:
        raise ValueError("--window {} {}: give the fewest tokens, and then the most".format(*settings.window))
    if not any(getattr(settings, name) for name in REWARDS):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in REWARDS)
        raise ValueError(f"no reward has a weight, so nothing would be learnt; give one of {flags}")


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> Optimizer:
    """AdamW; sharded weights, which no kernel takes together with whole ones, in a group of their own."""

    groups = [[p for p in parameters if isinstance(p, DTensor) == sharded] for sharded in (False, True)]
    chosen = [{"params": group} for group in groups if group]
    return torch.optim.AdamW(chosen, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def check(rows: Rows, rewards: Sequence[Reward]) -> dict[str, int]:
    """How many rows lack what a reward needs, by label; ``DataError`` where all do."""

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


def make_methods(settings: Settings) -> list[Method]:
    """The methods that the settings name, each with its own settings; ``ValueError`` for one that nobody knows."""
    if unknown := [name for name in settings.methods if name not in METHODS]:
        raise ValueError(f"--methods {unknown[0]}: there are {', '.join(METHODS)}")
    if len(set(settings.methods)) < len(settings.methods):
        raise ValueError(f"--methods {' '.join(settings.methods)}: each method counts once")
    return [getattr(settings.method, field_of(name)) for name in settings.methods]


def learning_rate(step: int, settings: Settings) -> float:
    """The learning rate of a step."""
    warmup = settings.warmup if settings.warmup >= 1 else round(settings.warmup * settings.steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    done = max(0.0, (step - warmup) / max(1, settings.steps - warmup))
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
    return settings.learning_rate * rise * fall
