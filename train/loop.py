"""The training loop: sample, reward, turn into advantages, learn, update, report.

It knows no method by name: what papers change is in ``train.methods``, and ``train.step`` asks
them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from rewardlib.console import failing_clearly, quiet_libraries, say, tell
from train.advice import template_advice
from train.batch import Normalizer, Signal
from train.checkpoint import Progress, computed, restore, save
from train.data import Rows, by_reason, load_rows, require
from train.distributed import World
from train.engines import Engine
from train.labels import Need
from train.limits import (
    ABOVE_ZERO,
    COUNT,
    FINITE,
    FROM_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SOME,
    all_within,
    within,
)
from train.loading import load_engine, load_policy
from train.methods import METHODS, PAPERS, field_of
from train.methods.base import Method
from train.missing import heed
from train.plan import Plan
from train.policy import Policy
from train.portrait import first_rows, portrait
from train.record import Record, summarise, tally
from train.reporting import findings_of, write_report
from train.rewards import REWARDS, make_rewards, needs_of
from train.sampling import Sampler
from train.settings import Settings
from train.sharding import reshard, shard
from train.step import gather_weights, in_batches, stand_in, step

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


def command(settings: Settings) -> None:
    """``train``, as a command: errors are sentences, and what is worth saying of the run is said
    when it is done.
    """
    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        out = train(settings)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first
        findings = findings_of(out)
        for finding in findings:
            say(f"- {finding.what}\n  {finding.remedy}")
        say(f"report   {out / 'report.html'}")
        tell({"out": out, "steps": settings.steps, "findings": [f.what for f in findings]})


def _learn(run: Run, settings: Settings) -> None:
    policy, world = run.policy, run.world
    drawn, skipped, learnt = run.progress.prompts, 0, run.progress.step > 0
    if not run.progress.step:
        run.portray("before", 0)

    for number in range(run.progress.step, settings.steps):
        began = time.perf_counter()
        rate = learning_rate(number, settings)
        plan = run.plan.at(number / settings.steps)
        sampler = Sampler(policy, run.engine, plan)
        # ---- sample, and reward the texts
        groups, drawn, spare = sampler.draw_groups(run.rows, world, drawn)
        passes = len(in_batches(groups, settings.tokens_per_forward))
        missing = max(world.gather_objects([passes])) - passes if settings.shard else 0
        silent = heed(groups, sampler.text_rewards, settings, world, number)
        if settings.ahead and number + 1 < settings.steps:
            sampler.begin(run.rows, world, drawn)
        completions, tokens = sum(len(g.completions) for g in groups), sum(g.tokens for g in groups)
        normalizer = Normalizer(world.total(completions), world.total(tokens))
        signals: list[Signal] | None = None
        figures, norms = [], []
        for _ in range(settings.num_iterations):
            # ---- score, reward, turn into advantages; learn
            signals, told = step(policy, groups, plan, normalizer, signals)
            figures += told
            for _ in range(missing):
                stand_in(policy, spare, plan)
            # ---- update
            norms.append(run.update(rate))
            skipped = 0 if math.isfinite(norms[-1]) else skipped + 1
            if skipped >= settings.max_skipped:
                raise ValueError(
                    f"{skipped} updates in a row had a gradient that is not finite: lower "
                    f"--learning-rate (now {rate:g})"
                )
        run.engine.sync()
        # ---- report
        tallies = world.gather_objects([tally(group, policy) for group in groups])
        summary = summarise(
            world.gather_objects(figures),
            tallies,
            time.perf_counter() - began,
            settings.num_iterations,
        )
        run.record.step(number, summary | silent | update_figures(norms) | {"learning_rate": rate})
        learnt = learnt or bool(tallies) or settings.filter_groups
        if not learnt and number + 1 >= min(PATIENCE, settings.steps):
            raise _nothing_learnt(run.rows, number + 1)
        last = number + 1 == settings.steps
        if last or number % settings.show_every == 0:
            if settings.shard and world.size > 1:
                gather_weights(policy, spare)
            run.record.completions(number, groups, signals or [], policy)
        if last:  # before the checkpoint: a run that is killed meanwhile does both again
            run.portray("after", number + 1)
        if last or (number + 1) % settings.save_every == 0:
            run.record.left_out(run.rows)
            run.save(number + 1, drawn)


def _nothing_learnt(rows: Rows, steps: int) -> ValueError:
    why = by_reason(rows) or "the other processes say why"
    return ValueError(
        f"none of the first {steps} steps drew a row that can be asked, so nothing was learnt: "
        f"{why}"
    )


@dataclass
class Run:
    """What a run works with."""

    settings: Settings
    plan: Plan
    rows: Rows
    world: World
    policy: Policy
    engine: Engine
    optimizer: Optimizer
    record: Record
    progress: Progress  # of the checkpoint that it goes on from

    def update(self, rate: float) -> float:
        """Step the optimizer on the gradients of all processes, unless they are not finite; returns
        their norm.
        """

        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.world.add_gradients(trained)
        norm = self.world.clip_gradients(trained, self.settings.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        reshard(self.policy.model)
        return norm

    def portray(self, moment: str, steps: int) -> None:
        """Keep what the policy answers and looks at now, on the rows that the report shows
        ``before`` and ``after``.

        The main process does it alone. Sharded processes, whose forwards need all of them, leave it
        out.
        """
        sharded = self.settings.shard and self.world.size > 1
        if self.world.main and not sharded:
            numbers = first_rows(self.policy, self.rows, self.settings)
            rows = portrait(self.policy, self.rows, numbers, self.settings)
            self.record.portrait(moment, steps, rows)

    def save(self, steps: int, prompts: int) -> None:
        """A checkpoint, and the report so far."""

        settings, progress = self.settings, Progress(steps, prompts)
        save(self.policy, self.optimizer, progress, settings.out, computed(settings), self.world)
        if self.world.main:
            write_report(self.settings.out)


def start(settings: Settings) -> Run:
    """Load everything, and go on from the newest checkpoint if there is one."""

    refuse(settings)
    rewards, methods, world = make_rewards(settings), make_methods(settings), World.of(settings)
    plan = Plan(settings, rewards, methods, world)
    if settings.shard and settings.prompts % world.size:
        raise ValueError(f"--shard wants --prompts to be a multiple of the {world.size} processes")
    needs = needs_of(rewards) + method_needs(methods)
    answered = any(need.label == "answer" for need in needs)
    rows = load_rows(settings.data, settings.template, answered=answered)
    rows.speaks = world.main
    rows.with_foreign = "foreign" in plan.needs
    lacking = require(rows, needs)
    for label, count in lacking.items() if world.main else ():
        say(
            f"{count} of {len(rows)} rows have no {label.replace('_', ' ')}: what needs it does "
            "without them"
        )
    if settings.shard and world.size > 1 and rows.without_image and not settings.freeze_vision:
        raise ValueError(
            f"{rows.without_image} of {len(rows)} rows have no image, and with --shard all "
            "processes have to make equally many passes through the vision tower: leave these rows "
            "out, or give --freeze-vision"
        )
    rows.speaks = True  # from here on every process leaves out rows of its own
    policy = load_policy(settings, world.device)
    if settings.tokens_per_forward and not policy.family.shares_prefix:
        raise ValueError(
            f"--tokens-per-forward: the completions of {policy.family.model_type} are sequences of "
            "their own, which no forward takes with another prompt's; leave it out"
        )
    for line in template_advice(policy, settings) if world.main else ():
        say(line)
    if settings.shard and world.size > 1:
        shard(policy, world.size)
    optimizer = make_optimizer([p for p in policy.model.parameters() if p.requires_grad], settings)
    progress = restore(policy, optimizer, settings.out, computed(settings))
    record = Record(settings, world, progress.step)
    return Run(
        settings,
        plan,
        rows,
        world,
        policy,
        load_engine(settings, policy, world),
        optimizer,
        record,
        progress,
    )


def update_figures(norms: Sequence[float]) -> dict[str, float]:
    """What a step's updates did, from their gradients' norms: the mean of the finite ones, each by
    itself, and how many were skipped.
    """
    finite = [norm for norm in norms if math.isfinite(norm)]
    figures = {
        "grad_norm": sum(finite) / len(finite) if finite else math.nan,
        "skipped": float(len(norms) - len(finite)),
    }
    each = (
        {f"updates/{n}/grad_norm": norm for n, norm in enumerate(norms)} if len(norms) > 1 else {}
    )
    return figures | {
        name: norm if math.isfinite(norm) else math.nan for name, norm in each.items()
    }


_COUNTS = (
    "steps",
    "prompts",
    "max_tokens",
    "max_prompt",
    "num_iterations",
    "micro_batch",
    "tokens_per_forward",
    "save_every",
    "show_every",
    "max_skipped",
)
_AT_LEAST_ZERO = ("kl", "warmup", "weight_decay", "lora")


def refuse(settings: Settings) -> None:
    """``ValueError`` for settings under which nothing could be learnt."""
    if settings.num_generations < 2:
        raise ValueError(
            f"--num-generations {settings.num_generations}: an advantage is a completion's reward "
            "against the others of its prompt, "
            "and one alone has none, so nothing would be learnt; give 2 or more, usually 8"
        )
    within(settings, **dict.fromkeys(_COUNTS, COUNT), **dict.fromkeys(_AT_LEAST_ZERO, NOT_NEGATIVE))
    within(settings, **dict.fromkeys((reward.name for reward in REWARDS), FINITE))
    within(
        settings,
        temperature=POSITIVE,
        top_p=SHARE,
        share=SHARE,
        learning_rate=POSITIVE,
        max_grad_norm=ABOVE_ZERO,
        layers=SOME,
    )
    within(settings, clip_low=FROM_ZERO, clip_high=FROM_ZERO, correction_cap=ABOVE_ZERO)
    if settings.ahead and not settings.engine_url:
        raise ValueError("--ahead samples while it learns, which takes servers: give --engine-url")
    if settings.engine_url and settings.engine != "vllm":
        raise ValueError("--engine-url names vLLM servers: give --engine vllm too")
    if settings.engine_weights == "broadcast" and not settings.engine_url:
        raise ValueError("--engine-weights broadcast is for servers: give --engine-url too")
    if settings.micro_batch and settings.tokens_per_forward:
        raise ValueError(
            "--micro-batch takes a prompt's completions apart, --tokens-per-forward puts several "
            "prompts together: give one of them"
        )
    if settings.window and not 0 <= settings.window[0] <= settings.window[1]:
        raise ValueError(
            "--window {} {}: give the fewest tokens, and then the most".format(*settings.window)
        )


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> Optimizer:
    """AdamW; sharded weights, which no kernel takes together with whole ones, in a group of their
    own.
    """

    groups = [
        [p for p in parameters if isinstance(p, DTensor) == sharded] for sharded in (False, True)
    ]
    chosen = [{"params": group} for group in groups if group]
    return torch.optim.AdamW(
        chosen, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def method_needs(methods: Sequence[Method]) -> list[Need]:
    """What rows must hold for these methods."""
    return [
        Need(label, f"--methods {method.name}", "leave the method out")
        for method in methods
        for label in sorted(method.requires)
    ]


def make_methods(settings: Settings) -> list[Method]:
    """The methods that the settings name, each with its own settings; ``ValueError`` for one that
    nobody knows.
    """
    for name in settings.methods:
        if name in PAPERS and name not in METHODS:
            raise ValueError(
                f"--methods {name}: it changes rewards and values alone; take --recipe {name}"
            )
    if unknown := [name for name in settings.methods if name not in METHODS]:
        raise ValueError(f"--methods {unknown[0]}: there are {', '.join(METHODS)}")
    if len(set(settings.methods)) < len(settings.methods):
        raise ValueError(f"--methods {' '.join(settings.methods)}: each method counts once")
    methods: list[Method] = [getattr(settings.method, field_of(name)) for name in settings.methods]
    for method in methods:
        all_within(method, method.limits, f"{method.name}.")
    for method in methods[1:]:
        if method.replaces_advantages:
            raise ValueError(
                f"--methods {' '.join(settings.methods)}: {method.name} makes advantages anew, so "
                f"what {methods[0].name} did to them "
                "would be lost; name it first"
            )
    return methods


def learning_rate(step: int, settings: Settings) -> float:
    """The learning rate of a step."""
    warmup = settings.warmup if settings.warmup >= 1 else round(settings.warmup * settings.steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    done = max(0.0, (step - warmup) / max(1, settings.steps - warmup))
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
        settings.schedule
    ]
    return settings.learning_rate * rise * fall
