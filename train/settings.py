"""What a training run is: the recipe of a method, and where it runs. Imports nothing heavy, so that ``--help`` answers at once.

A recipe is data: reward weights, how advantages are shaped, the loss, and the paper's own settings where they are known. Every value is a
flag, so recipes combine: ``--recipe vgpo --attention-contrast 0.5`` is VGPO with SAYO's reward.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from train.methods import METHODS, RECIPES, field_of
from train.recipe import Recipe

if TYPE_CHECKING:
    MethodSettings = Any
    Name = str
else:
    Name = Literal[tuple(RECIPES)]
    # A field for every method, under its name.
    MethodSettings = make_dataclass(
        "MethodSettings", [(field_of(name), method, field(default=method())) for name, method in METHODS.items()], frozen=True, kw_only=True
    )

HELP = """Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --model Qwen/Qwen2.5-VL-3B-Instruct --recipe sayo --lora 16
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe grpo --shard

The same command goes on with a run that was stopped. Recipes, whose values are the defaults of all other flags (add --help to see them):

    grpo            accuracy and format
    sayo            attention on the labelled regions, and format
    perception-r1   accuracy, and visual facts that a judge finds in the response (--judge, --judge-url)
    faithful-mr1    accuracy, and attention where erasing the evidence matters (start from train.anchor's model)
    vgpo            accuracy, with advantages re-weighted by how much each token looks
    papo            accuracy and format, and tokens that depend on the image
    vppo            accuracy, learnt from the tokens and trajectories that depend on the image

--methods says what papers change of GRPO itself; methods combine, each with its own flags: --methods vgpo papo --papo.perception-kl 0.02
"""


@dataclass(frozen=True, kw_only=True)
class Settings(Recipe):
    """A run: the data, the model, and a recipe whose every value can be overridden."""

    data: str
    """a folder made by flows.build_dataset, Parquet or JSON files, or a Hub id"""
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """the policy: a Hub id or a folder, Qwen2.5-VL or Qwen3-VL"""
    out: Path = Path("runs/grpo")
    """where metrics, completions, checkpoints and the report go; a run found there goes on"""
    method: Annotated[MethodSettings, tyro.conf.arg(name="")] = field(default_factory=MethodSettings)
    recipe: Name = "grpo"
    """whose settings the others start from"""
    steps: int = 200
    """batches of prompts"""
    prompts: int = 4
    """prompts per step, over all processes"""
    layers: tuple[int, ...] = (-1,)
    """whose attention is rewarded; negative ones count from the end"""
    judge: str = ""
    """model name of the judge"""
    judge_url: str | None = None
    """its OpenAI-compatible endpoint"""
    lora: int = 0
    """rank of the LoRA adapters on all linear layers of the language model; 0 trains all weights"""
    freeze_vision: bool = False
    """leave the vision tower as it is"""
    checkpointing: bool = False
    """activation checkpointing: less memory, more time"""
    micro_batch: int | None = None
    """completions per forward and backward, for less memory; all of a group's by default. Changes no result"""
    shard: bool = False
    """with several processes: spread weights, gradients and optimizer state over them (FSDP2)"""
    max_prompt: int = 4096
    """longest prompt, in tokens; longer ones are left out and counted"""
    max_skipped: int = 10
    """non-finite updates in a row after which the run stops"""
    missing: Literal["stop", "warn"] = "stop"
    """what to do in a step in which a reward scored nothing that it should have scored, say because its judge is down"""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save_every: int = 50
    """steps between checkpoints, each with a report"""
    show_every: int = 10
    """steps between those whose completions are kept, with attention maps"""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """where metrics go besides metrics.jsonl"""


def from_command_line(arguments: list[str] | None = None) -> Settings:
    """The settings of a command line: the named recipe's values, then the flags."""
    given = sys.argv[1:] if arguments is None else arguments
    flags = [part for argument in given for part in argument.split("=", 1)]
    name = ["grpo", *(value for flag, value in pairwise(flags) if flag == "--recipe")][-1]
    defaults: dict[str, Any] = values_of(RECIPES.get(name, RECIPES["grpo"])) | {"recipe": name, "data": tyro.MISSING}
    return tyro.cli(Settings, args=given, default=Settings(**defaults), description=HELP)


def values_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe's values by name."""
    return {each.name: getattr(recipe, each.name) for each in fields(recipe)}
