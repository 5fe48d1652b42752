"""Does the model answer, does it look, and does it look because it must?

    python -m train.evaluate --data dataset --model BASE --out runs/before
    python -m train.evaluate --data dataset --model runs/grpo/checkpoint-200 --out runs/after \
        --against runs/before

For every row, one greedy response, and from it: accuracy, format, length; SAYO's attention
contrast; the pointing game (does the image token that the response attends to most lie in the
labelled region?); and how much accuracy falls when the evidence is erased from the image, and when
something else of the same shape is. ``--against`` compares with another evaluation of the same rows
by McNemar's exact test. Writes evaluation.json, responses.parquet and evaluation.html, a page to
look at, and prints a table.

The same command goes on with an evaluation that was stopped; torchrun spreads it over processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from rewardlib.program import program
from rewardlib.templates import Template


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """An evaluation."""

    data: str
    """rows that were not trained on: a folder made by flows.build_dataset, Parquet or JSON files,
    or a Hub id
    """
    split: str | None = None
    """which split of the data; if left out, the only one that there is, or train"""
    model: str
    """what to evaluate: a Hub id, a folder, or a checkpoint of a run"""
    out: Path = Path("runs/evaluation")
    """where figures and responses go"""
    template: Template = "think-answer"
    """how the prompt asks a response to be laid out"""
    max_tokens: int = 512
    """most tokens of a response"""
    max_prompt: int = 4096
    """most tokens of a prompt with its images; rows with longer ones are left out"""
    share: float = 0.3
    """the share of a response's tokens, the most uncertain first, whose attention the contrast is
    taken of
    """
    layers: tuple[int, ...] | None = (-1,)
    """the layers whose attention is measured; negative numbers count from the last; None: all"""
    rows: int | None = None
    """how many rows to evaluate, from the first; all by default"""
    batch: int = 16
    """how many rows are answered at once"""
    engine_url: tuple[str, ...] = ()
    """vLLM servers that answer (train.serve), instead of the model's own decoder"""
    against: Path | None = None
    """the folder of another evaluation of the same rows, to compare with"""
    device: str = "auto"
    """where to compute; auto is the GPU if there is one"""


def main() -> None:
    settings = tyro.cli(
        EvaluateSettings,
        prog=program(),
        description="Evaluate a model's answers, and where it looks for them.",
    )
    from train.evaluation import command  # loads torch, which --help does without

    command(settings)


if __name__ == "__main__":
    main()
