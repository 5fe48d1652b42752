"""Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --recipe sayo --model Qwen/Qwen2.5-VL-3B-Instruct

One step: take prompts, sample a group of completions for each, reward them, turn rewards into advantages, and step the optimizer on the sum
of the groups' gradients. The image and prompt of a group are encoded once for all its completions (``train.rollout``, ``train.packing``).
Recipes (``train.settings``) say which rewards count and how: grpo, sayo, perception-r1, faithful-mr1, vgpo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train.settings import Settings, from_command_line


def train(settings: Settings) -> Path:
    """Run the settings to their end and return the folder of the trained model."""
    import torch

    from train.checkpoint import latest, restore, save
    from train.data import load_rows
    from train.group import learn, sample_group
    from train.policy import load_policy

    rewards = make_rewards(settings)
    rows = load_rows(settings.data, settings.template)
    policy = load_policy(settings)
    text, measured = [r for r in rewards if not r.needs], [r for r in rewards if r.needs]
    weights = {reward.name: getattr(settings, reward.name) for reward in rewards}
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    start = restore(policy, optimizer, found, settings) if (found := latest(settings.out)) else 0

    for step in range(start, settings.steps):
        began = time.perf_counter()
        # ---- sample
        chosen = prompt_indices(len(rows), settings.prompts, step, settings.seed)
        groups = [sample_group(policy, rows[i], settings, seed=seed_of(settings.seed, step, n)) for n, i in enumerate(chosen)]
        # ---- reward the texts, all at once, so that a judge is asked about many
        samples = [sample for group in groups for sample in group.samples]
        for reward in text:
            column = reward(samples)
            for n, group in enumerate(groups):
                group.scores[reward.name] = column[n * settings.group : (n + 1) * settings.group]
        # ---- measure, reward, learn
        tokens = sum(group.tokens for group in groups)
        shown = [learn(policy, group, measured, weights, settings, completions=len(samples), tokens=tokens) for group in groups]
        # ---- update
        norm = torch.nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm).item()
        skipped = not torch.isfinite(torch.tensor(norm))
        if not skipped:
            optimizer.step()
        optimizer.zero_grad()
        # ---- report
        seconds = time.perf_counter() - began
        log(
            settings.out, step, _mean(shown) | _by_reward(groups) | _about(groups, seconds) | {"grad_norm": norm, "skipped": float(skipped)}
        )
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            save(policy, optimizer, step + 1, settings)
    return settings.out


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


def prompt_indices(rows: int, count: int, step: int, seed: int) -> list[int]:
    """The rows of a step: every epoch visits all of them once, in an order of its own, which follows from the seed alone."""
    import torch

    found = []
    for position in range(step * count, (step + 1) * count):
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed_of(seed, position // rows)))
        found.append(int(order[position % rows]))
    return found


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same on every machine."""
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")


def log(out: Path, step: int, metrics: Mapping[str, float]) -> None:
    """A line of JSON in ``metrics.jsonl``, and a short one for the eye."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")
    print(
        f"step {step}  reward {metrics['reward']:.3f}  length {metrics['completions/mean_length']:.0f}  {metrics['time/step_s']:.1f} s",
        flush=True,
    )


def _mean(shown: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the groups; the loss is a sum of parts."""
    names = shown[0].keys()
    return {name: sum(s[name] for s in shown) / (1 if name == "loss" else len(shown)) for name in names}


def _by_reward(groups: Sequence[Any]) -> dict[str, float]:
    found = {}
    for name in groups[0].scores:
        scores = [score for group in groups for score in group.scores[name]]
        known = [score for score in scores if score is not None]
        found[f"rewards/{name}/mean"] = sum(known) / len(known) if known else float("nan")
        found[f"rewards/{name}/missing"] = 1 - len(known) / len(scores)
    return found


def _about(groups: Sequence[Any], seconds: float) -> dict[str, float]:
    tokens, count = sum(group.tokens for group in groups), sum(len(group.completions) for group in groups)
    return {"completions/mean_length": tokens / count, "time/step_s": seconds, "perf/tokens_per_s": tokens / seconds}


def main() -> None:
    settings = from_command_line()
    from pipelines.console import failing_clearly, quiet_libraries

    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "settings.json").write_text(json.dumps(asdict(settings), indent=1, default=str) + "\n")
        train(settings)


if __name__ == "__main__":
    main()
