"""Does the demo's policy see, does it look, and does what it looks at decide what it answers?

On labelled rows of every task (``demo.tasks``) that it was not taught on:

- greedy: the share of right answers; of right traces, which name all the evidence as well; and what erasing the evidence, or a control
  of the same shape, costs of the right answers;
- sampled, eight completions a row: the same shares, and how the attention contrast and naming the evidence go with being right, as
  correlations within groups, for several choices of layers and tokens; the same of looking late and of VGPO's weight of a response, and
  how VGPO's focus goes with attention on the image, token by token.

    python -m bench.policy [--rows 40]                         # of the seeing and of the careless policy
    python -m bench.policy --model runs/grpo/checkpoint-40     # of another; writes no results

Writes bench/results/policy.json, and ends with it as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.completions import (
    CHOICES,
    MAX_TOKENS,
    Figures,
    answered,
    completions_of,
    figures_of,
    labelled,
    names_evidence,
    rightness,
    rows_of,
    sampled,
    within_groups,
)
from demo.tasks import KINDS
from rewardlib.console import console, table
from train.data import Row
from train.evaluate import EvaluateSettings
from train.evaluation import evaluate
from train.loading import load_model
from train.policy import Policy

ROOT = Path(__file__).parents[1]
POLICY = ROOT / "demo" / "checkpoints" / "policy"
SEEING = ROOT / "demo" / "checkpoints" / "policy-seeing"  # what the careless policy was made of
RESULTS = ROOT / "bench" / "results" / "policy.json"
GROUP = 8
LOOKING = ("late_looking", "vgpo_weight")


def examine(model: str, out: Path, rows: int) -> dict[str, Any]:
    """The figures of every task, and of all together."""
    policy = load_model(model, "cpu")
    tasks: dict[str, Any] = {}
    everything: list[Figures] = []
    for task in KINDS:
        data = labelled(out / task, task, rows, 77)
        settings = EvaluateSettings(data=str(data), model=model, out=out / f"{task}-evaluation", max_tokens=MAX_TOKENS, device="cpu")
        told = evaluate(settings)
        known = rows_of(data)
        groups = figures_of(policy, known, sampled(policy, known, GROUP))
        tasks[task] = _figures(groups) | {
            "rows": len(known),
            "accuracy": told["accuracy"]["value"],
            "right_traces": _right_traces(policy, known),
            "drop_evidence": told["drop_without_evidence"]["value"],
            "drop_control": told["drop_without_control"]["value"],
        }
        everything += groups
    means = {name: float(np.mean([each[name] for each in tasks.values()])) for name in next(iter(tasks.values()))}
    return {"tasks": tasks, "all": means | _figures(everything)}


def _right_traces(policy: Policy, rows: Sequence[Row]) -> float:
    """Of the likeliest responses the share that are right and name the evidence."""
    groups = completions_of(policy, rows, [row.images[0] for row in rows], 1, temperature=0.0)
    samples = [sample for row, group in zip(rows, groups, strict=True) for sample in answered(policy, row, group)]
    right = rightness(samples)
    return float(np.mean([score * names_evidence(sample) for score, sample in zip(right, samples, strict=True)]))


def _figures(groups: Sequence[Figures]) -> dict[str, float]:
    shares = {f"sampled_{name}": float(np.concatenate([group[name] for group in groups]).mean()) for name in ("right", "named")}
    correlations = {"naming_with_right": within_groups(groups, "named", "right")}
    for name in (*CHOICES, *LOOKING):
        correlations[f"{name} with right"] = within_groups(groups, name, "right")
        correlations[f"{name} with naming"] = within_groups(groups, name, "named")
    tokens = np.concatenate([group["focus_with_attention"] for group in groups])
    return shares | correlations | {"VGPO's focus with attention on the image, of tokens": float(np.nanmean(tokens))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="another than the demo's")
    parser.add_argument("--out", type=Path, default=Path("runs/policy"))
    parser.add_argument("--rows", type=int, default=40)
    a = parser.parse_args()
    models = {a.model: a.model} if a.model else {"seeing": str(SEEING), "careless": str(POLICY)}
    found = {name: examine(model, a.out, a.rows) for name, model in models.items()}
    for name, figures in found.items():
        columns = {**figures["tasks"], "all": figures["all"]}
        lines = [[figure.replace("_", " "), *(f"{each[figure]:.2f}" for each in columns.values())] for figure in figures["all"]]
        console.print(table(name, ["", *columns], lines))
    if not a.model:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
