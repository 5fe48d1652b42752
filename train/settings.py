"""What a training run is: the recipe of a method, and where it runs. Imports nothing heavy, so that
``--help`` answers at once.

A recipe is data: reward weights, how advantages are shaped, the loss, and the paper's own settings
where they are known. Every value is a flag, so recipes combine: ``--recipe vgpo
--attention-contrast 0.5`` is VGPO with SAYO's reward.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rewardlib.program import program
from train.methods import METHODS, PAPERS, field_of
from train.recipe import Correction, Recipe

if TYPE_CHECKING:
    MethodSettings = Any
    Name = str
else:
    Name = Literal[tuple(PAPERS)]
    # A field for every method, under its name.
    MethodSettings = make_dataclass(
        "MethodSettings",
        [(field_of(name), method, field(default=method())) for name, method in METHODS.items()],
        frozen=True,
        kw_only=True,
    )

HELP = """Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --model Qwen/Qwen2.5-VL-3B-Instruct --recipe sayo --lora 16
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe grpo --shard

The same command goes on with a run that was stopped. A recipe has a paper's values, which are the
defaults of all other flags (add --help to see them):

{recipes}

--methods says what papers change of GRPO itself. Methods combine, each with flags of its own, which
are shown where it is used:

    python -m train.grpo --methods vgpo papo --help
"""


def help_text() -> str:
    """What ``--help`` begins with: how to start, and every recipe in a line."""
    width = max(map(len, PAPERS))
    lines = [f"    {name:<{width}}  {paper.about}" for name, paper in PAPERS.items()]
    return HELP.format(recipes="\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Settings(Recipe):
    """A run: the data, the model, and a recipe whose every value can be overridden."""

    data: str
    """what to train on: a folder made by flows.build_dataset, Parquet or JSON files, or a Hub id"""
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """what to train: a Hub id or a folder (docs/models.md)"""
    out: Path = Path("runs/grpo")
    """where metrics, completions, checkpoints and the report go; a run found there goes on"""
    method: Annotated[MethodSettings, tyro.conf.arg(name="")] = field(
        default_factory=MethodSettings
    )
    recipe: Name = "grpo"
    """the paper whose values all other flags start from"""
    steps: int = 200
    """length of the run, in batches of prompts"""
    prompts: int = 4
    """prompts per step, over all processes"""
    engine: Literal["local", "vllm"] = "local"
    """what samples: the policy's own decoder, or vLLM (docs/engines.md)"""
    engine_url: tuple[str, ...] = ()
    """the vLLM servers to sample on (train.serve); without one, vLLM runs in this process"""
    engine_weights: Literal["folder", "broadcast"] = "folder"
    """how the servers get new weights: a checkpoint that both sides see, or straight into their
    memory (train.serve --weights broadcast)
    """
    ahead: bool = False
    """sample the next step's completions on the servers while this step is learnt from, by weights
    that are one update old
    """
    correction: Correction = "token_truncate"
    """what a token's objective is multiplied by where something else than the policy sampled: the
    ratio of both probabilities, of the token or of its completion, cut down to the cap or masked
    above it
    """
    correction_cap: float = 2.0
    """the largest such ratio"""
    judge: str = ""
    """the judge of the perception reward, by its name at the endpoint"""
    judge_url: str | None = None
    """the judge's OpenAI-compatible endpoint; without one, OpenAI's own"""
    lora: int = 0
    """rank of the LoRA adapters on all linear layers of the language model; 0 trains all weights"""
    checkpointing: bool = False
    """activation checkpointing: less memory, more time"""
    micro_batch: int | None = None
    """completions per forward and backward, for less memory; all of a group's by default. Changes
    no result
    """
    tokens_per_forward: int | None = None
    """several prompts with their completions in one forward, as many as have that many tokens
    together, to fill a GPU with short answers; one prompt by default. Changes no result
    """
    shard: bool = False
    """with several processes: spread weights, gradients and optimizer state over them (FSDP2)"""
    max_prompt: int = 4096
    """most tokens of a prompt with its images; rows with longer ones are left out and counted"""
    max_skipped: int = 10
    """the run stops after so many updates in a row whose gradient is not finite"""
    missing: Literal["stop", "warn"] = "stop"
    """what to do in a step in which a reward scored nothing that it should have scored, say because
    its judge is down
    """
    seed: int = 0
    """what the order of rows and all random numbers follow from"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto is the GPU if there is one"""
    save_every: int = 50
    """steps between checkpoints, each with a report"""
    show_every: int = 10
    """steps between those whose completions are kept, with attention maps"""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """where metrics go besides metrics.jsonl"""

    @property
    def has_reference(self) -> bool:
        """Whether the model at the start is needed."""
        return bool(self.kl) or any(
            METHODS[name].reference for name in self.methods if name in METHODS
        )


def from_command_line(arguments: list[str] | None = None) -> Settings:
    """The settings of a command line: the named recipe's values, then the flags; of methods those
    that are used.
    """
    given = sys.argv[1:] if arguments is None else arguments
    named = [*values_given(given, "--recipe"), "grpo"][0]
    name = named if named in PAPERS else "grpo"  # of another, tyro says what there is
    recipe = PAPERS[name].recipe
    used = [
        method for method in values_given(given, "--methods") or recipe.methods if method in METHODS
    ]
    asked = _with_methods(used)
    defaults: dict[str, Any] = values_of(recipe) | {"recipe": name, "data": tyro.MISSING}
    told = values_of(
        tyro.cli(
            asked, args=given, default=asked(**defaults), prog=program(), description=help_text()
        )
    )
    return Settings(**told | {"method": MethodSettings(**values_of(told["method"]))})


def values_given(arguments: Sequence[str], flag: str) -> list[str]:
    """The values behind a flag, the last time that it is given."""
    parts = [part for argument in arguments for part in argument.split("=", 1)]
    values: list[str] = []
    for place, part in enumerate(parts):
        if part == flag:
            values = [*takewhile(lambda value: not value.startswith("--"), parts[place + 1 :])]
    return values


def _with_methods(names: Sequence[str]) -> type[Any]:
    """Settings with the flags of some methods alone, since every flag takes time to make."""
    chosen = dict.fromkeys(names)
    fields_of = [(field_of(n), METHODS[n], field(default=METHODS[n]())) for n in chosen]
    some = make_dataclass("MethodSettings", fields_of, frozen=True, kw_only=True)
    method = ("method", Annotated[some, tyro.conf.arg(name="")], field(default_factory=some))
    return make_dataclass("Settings", [method], bases=(Settings,), frozen=True, kw_only=True)


def flags_of(settings: Settings) -> dict[str, Any]:
    """All values by their flags' names, in a flat table; of methods those that the run has."""
    flags = values_of(settings)
    methods = flags.pop("method")
    for name in settings.methods:
        values = values_of(getattr(methods, field_of(name)))
        flags |= {
            f"{name}.{field}": value for field, value in values.items() if field != "progress"
        }
    return flags


def values_of(recipe: Any) -> dict[str, Any]:
    """A dataclass's values by name."""
    return {each.name: getattr(recipe, each.name) for each in fields(recipe)}
