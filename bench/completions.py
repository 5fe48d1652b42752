"""What a policy samples for labelled rows: whether it is right, names the evidence, and looks at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.tasks import Task, write_rows
from pipelines.build import build
from pipelines.config import BuildConfig
from rewardlib import Accuracy
from rewardlib.attention import attention_contrast, top_entropy
from rewardlib.sample import Sample, VisualAttention
from rewardlib.vgpo import compensate
from train.data import Row, load_rows
from train.engines import Sampling
from train.engines.local import LocalEngine
from train.forward import forward
from train.measures import ImageAttention, Inputs, Reading, watch_attention
from train.methods.vgpo import VisualFocus
from train.policy import Policy
from train.sampling import texts

MAX_TOKENS = 96
AT_ONCE = 20  # rows whose completions are sampled together
# Layers (None: all) and the share of tokens, most uncertain first. The first is SAYO's.
CHOICES: dict[str, tuple[int | None, float]] = {
    "last layer, 30 %": (-1, 0.3),
    "last layer": (-1, 1.0),
    "second layer": (1, 1.0),
    "all layers, 30 %": (None, 0.3),
    "all layers": (None, 1.0),
}
Figures = dict[str, NDArray[np.float64]]  # of a group's completions (G,), by name


def labelled(out: Path, task: Task, rows: int, seed: int) -> Path:
    """A dataset of a task, as the pipeline labels it; an earlier one is used again."""
    if not (out / "manifest.json").exists():
        source = write_rows(out.with_name(f"{out.name}-scenes"), rows, seed, task)
        build(BuildConfig(source=str(source), out=out, shard_size=25))
    return out


def rows_of(dataset: Path) -> list[Row]:
    """The rows in which the evidence was located. The others tell nothing of where somebody looks."""
    rows = load_rows(str(dataset), "think-answer")
    return [row for row in map(rows.__getitem__, range(len(rows))) if row.region is not None]


@dataclass(frozen=True)
class LayersAttention:
    """Attention (N, L, 2) on the labelled region and on all image tokens, of every layer."""

    name: ClassVar[str] = "layers_attention"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        keys = {"region": inputs.prompt.region, "image": inputs.prompt.image}
        with watch_attention(inputs, inputs.packed.tokens, keys, None) as mass:
            yield lambda hidden: mass.values.mean(dim=2)[:, 0].transpose(0, 1)


def sampled(policy: Policy, rows: Sequence[Row], count: int) -> list[list[Tensor]]:
    """``count`` sampled completions of every row."""
    return completions_of(policy, rows, [row.images[0] for row in rows], count, temperature=1.0)


def figures_of(policy: Policy, rows: Sequence[Row], groups: Sequence[Sequence[Tensor]]) -> list[Figures]:
    """What completions of rows are worth, by where this policy looks, whoever has sampled them.

    ``right``; ``named``: all the evidence is; the contrasts of ``CHOICES``; ``pointing``: most of the attention lies on an image token in
    the evidence; ``late_looking``: the attention on the image of the last third of a response, as a share of the first third's;
    ``vgpo_weight``: what VGPO weighs a response by; ``focus_with_attention``: how its focus goes with the attention on the image, token by
    token.
    """
    return [_figures(policy, row, completions) for row, completions in zip(rows, groups, strict=True)]


def accuracy_without(policy: Policy, rows: Sequence[Row], role: Literal["evidence", "control"], count: int) -> float:
    """The share of ``count`` sampled completions that are right where the evidence, or its control, has been erased from the image."""
    images = [getattr(row.sample, f"{role}_image") for row in rows]
    groups = completions_of(policy, rows, images, count, temperature=1.0)
    return float(np.mean([rightness(answered(policy, row, group)) for row, group in zip(rows, groups, strict=True)]))


def completions_of(
    policy: Policy, rows: Sequence[Row], images: Sequence[Image.Image], count: int, temperature: float
) -> list[list[Tensor]]:
    """``count`` completions (n,) of every row, with an image in place of its own; a row's seed is its number."""
    engine = LocalEngine(policy)
    groups: list[list[Tensor]] = []
    for start in range(0, len(rows), AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, len(rows)))
        prompts = [policy.encode(rows[n].messages, [images[n]], rows[n].region) for n in numbers]
        drawn = engine.generate(prompts, count, Sampling(MAX_TOKENS, temperature), list(numbers))
        groups += [[completion.ids for completion in group] for group in drawn]
    return groups


def answered(policy: Policy, row: Row, completions: Sequence[Tensor]) -> list[Sample]:
    """A row's samples, with the completions as responses."""
    return [replace(row.sample, response=text) for text in texts(policy, completions)]


def rightness(samples: Sequence[Sample]) -> list[float]:
    """1 for every right answer, else 0. Every row of a task has a gold answer."""
    scores = Accuracy()(samples)
    assert None not in scores
    return [float(score or 0) for score in scores]


def names_evidence(sample: Sample) -> bool:
    """Whether a response names everything that the answer rests on."""
    return all(f"{region['phrase']}." in sample.response for region in sample.regions)


@torch.no_grad()
def _figures(policy: Policy, row: Row, completions: Sequence[Tensor]) -> Figures:
    prompt = policy.encode(row.messages, row.images, row.region)
    output = forward(policy, prompt, completions, measures=[LayersAttention(), ImageAttention(None), VisualFocus()])
    samples = answered(policy, row, completions)
    found: dict[str, list[float]] = {"right": rightness(samples), "named": [float(names_evidence(sample)) for sample in samples]}
    found |= {name: [] for name in [*CHOICES, "pointing", "late_looking", "vgpo_weight", "focus_with_attention"]}
    inside = (prompt.region[prompt.image] > 0).numpy()
    sizes = float(prompt.region.sum()), float(prompt.image.sum())
    for i in range(len(completions)):
        own = output.completion_index == i
        attention, entropy = output.measured["layers_attention"][own].numpy(), output.entropy[own].numpy()
        for name, (layer, share) in CHOICES.items():
            on = attention.mean(axis=1) if layer is None else attention[:, layer]
            found[name].append(attention_contrast(VisualAttention(on[:, 0], on[:, 1], *sizes), top_entropy(entropy, share)))
        maps = output.measured["image_attention"][own].numpy()
        found["pointing"].append(float(inside[maps.mean(axis=0).argmax()]))
        third = max(1, len(maps) // 3)
        found["late_looking"].append(float(maps[-third:].sum(axis=1).mean() / maps[:third].sum(axis=1).mean()))
        focus = output.measured[VisualFocus.name][own]
        found["vgpo_weight"].append(float(compensate(focus[None], torch.ones(1, len(focus))).sum()))
        found["focus_with_attention"].append(float(np.corrcoef(focus.numpy(), maps.sum(axis=1))[0, 1]))
    return {name: np.array(values) for name, values in found.items()}


def within_groups(groups: Sequence[Figures], one: str, other: str) -> float:
    """The correlation of two figures within groups: of their deviations from their groups' means."""
    a, b = (np.concatenate([group[name] - group[name].mean() for group in groups]) for name in (one, other))
    return float((a * b).sum() / max(1e-12, np.sqrt((a * a).sum() * (b * b).sum())))
