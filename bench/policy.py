"""Does the demo's policy see, does it look, and does what it looks at decide what it answers?

On labelled rows of every task (``demo.tasks``) that it was not taught on:

- greedy: the share of right answers; of right traces, which name all the evidence as well; and what erasing the evidence, or a control
  of the same shape, costs of the right answers;
- sampled, eight completions a row: the same shares, and how the attention contrast and naming the evidence go with being right, as
  correlations within groups, for several choices of layers and tokens.

    python -m bench.policy [--rows 40]                         # of the seeing and of the careless policy
    python -m bench.policy --model runs/grpo/checkpoint-40     # of another; writes no results

Writes bench/results/policy.json, and ends with it as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from demo.tasks import KINDS, Task, write_rows
from pipelines.build import build
from pipelines.config import BuildConfig
from rewardlib import Accuracy
from rewardlib.attention import attention_contrast, top_entropy
from rewardlib.console import console, table
from rewardlib.sample import VisualAttention
from train.data import Row, load_rows
from train.engines import Sampling
from train.engines.local import LocalEngine, greedy
from train.evaluate import EvaluateSettings
from train.evaluation import evaluate
from train.forward import forward
from train.loading import load_model
from train.measures import ImageAttention, Inputs, Reading, watch_attention
from train.policy import Policy
from train.sampling import texts

ROOT = Path(__file__).parents[1]
POLICY = ROOT / "demo" / "checkpoints" / "policy"
SEEING = ROOT / "demo" / "checkpoints" / "policy-seeing"  # what the careless policy was made of
RESULTS = ROOT / "bench" / "results" / "policy.json"
GROUP = 8
# Layers (None: all) and the share of tokens, most uncertain first. The first is SAYO's.
CHOICES: dict[str, tuple[int | None, float]] = {
    "last layer, 30 %": (-1, 0.3),
    "last layer": (-1, 1.0),
    "second layer": (1, 1.0),
    "all layers, 30 %": (None, 0.3),
    "all layers": (None, 1.0),
}


def labelled(out: Path, task: Task, rows: int, seed: int) -> Path:
    """A dataset of a task, as the pipeline labels it; an earlier one is used again."""
    if not (out / "manifest.json").exists():
        source = write_rows(out.with_name(f"{out.name}-scenes"), rows, seed, task)
        build(BuildConfig(source=str(source), out=out, shard_size=25))
    return out


@dataclass(frozen=True)
class LayersAttention:
    """Attention (N, L, 2) on the labelled region and on all image tokens, of every layer."""

    name: ClassVar[str] = "layers_attention"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        keys = {"region": inputs.prompt.region, "image": inputs.prompt.image}
        with watch_attention(inputs, inputs.packed.tokens, keys, None) as mass:
            yield lambda hidden: mass.values.mean(dim=2)[:, 0].transpose(0, 1)


@torch.no_grad()
def sampled(policy: Policy, row: Row, seed: int, count: int = GROUP) -> dict[str, NDArray[np.float64]]:
    """What a group's completions are worth, (G,) each; attention NaN where the row has no region.

    ``right``; ``named``: all the evidence is; the contrasts of ``CHOICES``; ``pointing``: most of the attention lies on an image token in
    the evidence; ``late_looking``: the attention on the image of the last third of a response, as a share of the first third's.
    """
    prompt = policy.encode(row.messages, row.images, row.region)
    (completions,) = LocalEngine(policy).generate([prompt], count, Sampling(96), [seed])
    output = forward(policy, prompt, completions, measures=[LayersAttention(), ImageAttention(None)])
    said = texts(policy, completions)
    samples = [replace(row.sample, response=text) for text in said]
    found: dict[str, list[float]] = {"right": [float(score or 0) for score in Accuracy()(samples)], "named": []}
    found |= {name: [] for name in [*CHOICES, "pointing", "late_looking"]}
    inside = (prompt.region[prompt.image] > 0).numpy()
    sizes = float(prompt.region.sum()), float(prompt.image.sum())
    for i, text in enumerate(said):
        own = output.completion_index == i
        attention, entropy = output.measured["layers_attention"][own].numpy(), output.entropy[own].numpy()
        found["named"].append(float(names_evidence(row, text)))
        for name, (layer, share) in CHOICES.items():
            on = attention.mean(axis=1) if layer is None else attention[:, layer]
            found[name].append(attention_contrast(VisualAttention(on[:, 0], on[:, 1], *sizes), top_entropy(entropy, share)))
        maps = output.measured["image_attention"][own].numpy()
        found["pointing"].append(float(inside[maps.mean(axis=0).argmax()]))
        third = max(1, len(maps) // 3)
        found["late_looking"].append(float(maps[-third:].sum(axis=1).mean() / maps[:third].sum(axis=1).mean()))
    return {name: np.array(values) for name, values in found.items()}


def names_evidence(row: Row, response: str) -> bool:
    """Whether a response names everything that the answer rests on."""
    return all(f"{region['phrase']}." in response for region in row.sample.regions)


def within_groups(groups: Sequence[dict[str, NDArray[np.float64]]], one: str, other: str) -> float:
    """The correlation of two figures within groups that have both: of their deviations from their groups' means."""
    known = [group for group in groups if not np.isnan(group[one] + group[other]).any()]
    a, b = (np.concatenate([group[name] - group[name].mean() for group in known]) for name in (one, other))
    return float((a * b).sum() / max(1e-12, np.sqrt((a * a).sum() * (b * b).sum())))


def examine(model: str, out: Path, rows: int) -> dict[str, Any]:
    """The figures of every task, and of all together."""
    policy = load_model(model, "cpu")
    tasks: dict[str, Any] = {}
    everything: list[dict[str, NDArray[np.float64]]] = []
    for task in KINDS:
        data = labelled(out / task, task, rows, 77)
        settings = EvaluateSettings(data=str(data), model=model, out=out / f"{task}-evaluation", max_tokens=96, device="cpu")
        told = evaluate(settings)
        loaded = load_rows(str(data), "think-answer")
        known = [loaded[n] for n in range(len(loaded))]
        answers = _responses(policy, known)
        right = [named and score for named, score in answers]
        groups = [sampled(policy, row, n) for n, row in enumerate(known)]
        tasks[task] = _figures(groups) | {
            "rows": len(known),
            "accuracy": told["accuracy"]["value"],
            "right_traces": sum(right) / len(right),
            "drop_evidence": told["drop_without_evidence"]["value"],
            "drop_control": told["drop_without_control"]["value"],
        }
        everything += groups
    means = {name: float(np.mean([each[name] for each in tasks.values()])) for name in next(iter(tasks.values()))}
    return {"tasks": tasks, "all": means | _figures(everything)}


def _responses(policy: Policy, rows: Sequence[Row]) -> list[tuple[bool, bool]]:
    """Of the likeliest responses: whether they name the evidence, and are right."""
    prompts = [policy.encode(row.messages, row.images, row.region) for row in rows]
    said = texts(policy, greedy(policy, prompts, 96))
    scores = Accuracy()([replace(row.sample, response=text) for row, text in zip(rows, said, strict=True)])
    return [(names_evidence(row, text), bool(score)) for row, text, score in zip(rows, said, scores, strict=True)]


def _figures(groups: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, float]:
    sampled_figures = {f"sampled_{name}": float(np.concatenate([group[name] for group in groups]).mean()) for name in ("right", "named")}
    correlations = {"naming_with_right": within_groups(groups, "named", "right")}
    for name in CHOICES:
        correlations[f"{name} with right"] = within_groups(groups, name, "right")
        correlations[f"{name} with naming"] = within_groups(groups, name, "named")
    return sampled_figures | correlations


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
