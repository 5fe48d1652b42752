"""Anchoring, the first stage of Faithful-MR1: a ``<Focus>`` token whose attention is taught to lie
on the evidence.

    python -m train.anchor --data dataset --model Qwen/Qwen2.5-VL-3B-Instruct --out runs/anchor
    python -m train.grpo --data dataset --model runs/anchor --recipe faithful-mr1
    torchrun --nproc-per-node 8 -m train.anchor --data dataset --out runs/anchor

Every correct trace of a row becomes a response that begins with the new token. The loss is that of
the language model on the response, plus ``weight`` times the KL divergence from the region's share
of each image token to the token's attention (``rewardlib.anchor``). The paper's own loss is not
public; see ``docs/rewards.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from rewardlib.program import program
from rewardlib.templates import Template

FOCUS = "<Focus>"


@dataclass(frozen=True, kw_only=True)
class AnchorSettings:
    """An anchoring run."""

    data: str
    """what to learn from: a folder made by flows.build_dataset, Parquet or JSON files, a Hub id"""
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """what to teach: a Hub id or a folder (docs/models.md)"""
    out: Path = Path("runs/anchor")
    """where metrics and the model go"""
    steps: int = 200
    """optimizer steps"""
    rows: int = 8
    """rows that each step learns from"""
    weight: float = 1.0
    """weight of the anchor beside the language-model loss"""
    layers: tuple[int, ...] | None = None
    """the layers whose attention is anchored; all of them by default"""
    learning_rate: float = 5e-6
    """step size of AdamW"""
    template: Template = "think-answer"
    """how the prompt asks a response to be laid out"""
    max_prompt: int = 4096
    """most tokens of a prompt with its images; rows with longer ones are left out"""
    save_every: int = 50
    """steps between checkpoints, from which the same command goes on when it was stopped"""
    seed: int = 0
    """what the order of rows follows from"""
    device: str = "auto"
    """where to compute; auto is the GPU if there is one"""


def main() -> None:
    settings = tyro.cli(
        AnchorSettings,
        prog=program(),
        description="Teach a <Focus> token to attend to the evidence (Faithful-MR1, stage 1).",
    )
    from train.anchoring import command  # loads torch, which --help does without

    command(settings)


if __name__ == "__main__":
    main()
