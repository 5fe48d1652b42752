"""What a training run is: the recipe of a method, and where it runs. Imports nothing heavy, so that ``--help`` answers at once.

A recipe is data: reward weights, how advantages are shaped, the loss, and the paper's own settings where they are known. Every value is a
flag, so recipes combine: ``--recipe vgpo --attention-contrast 0.5`` is VGPO with SAYO's reward.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from rewardlib.text import Template

Loss = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"]
Name = Literal["grpo", "sayo", "perception-r1", "faithful-mr1", "vgpo"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Rewards by weight (0: not used), advantages, loss, sampling and optimisation."""

    accuracy: float = 0.9
    """weight of the closed final answer being right"""
    format: float = 0.1
    """weight of keeping to the template"""
    repetition: float = 0.0
    """weight of the 20-gram penalty"""
    perception: float = 0.0
    """weight of stating the row's visual annotations; needs a judge"""
    attention_contrast: float = 0.0
    """weight of SAYO's attention on the region"""
    causal_attention: float = 0.0
    """weight of attention where masking the evidence matters"""
    template: Template = "think-answer"
    """the response's template"""
    window: tuple[int, int] | None = None
    """tokens that a response should have, as part of the format"""
    visual_reweighting: bool = False
    """VGPO: re-weight advantages by token and trajectory"""
    filter_groups: bool = False
    """DAPO: draw other prompts instead of those whose text rewards are all equal"""
    scale: Literal["group", "none"] = "group"
    """what advantages are divided by"""
    loss: Loss = "dapo"
    """how the tokens' objectives are averaged and clipped (docs/training.md)"""
    clip_low: float = 0.2
    """how far below 1 a token's probability ratio has a gradient"""
    clip_high: float = 0.2
    """how far above"""
    kl: float = 0.0
    """weight of the divergence from the model at the start"""
    group: int = 8
    """completions per prompt, at least 2: a completion is compared with the others of its prompt"""
    max_tokens: int = 512
    """longest completion"""
    temperature: float = 1.0
    """of sampling, and of the log-probabilities"""
    top_p: float = 1.0
    """share of the probability that is sampled from"""
    updates: int = 1
    """optimizer steps on each batch of completions"""
    learning_rate: float = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate falls to zero"""
    warmup: float = 0
    """steps over which the learning rate rises first; below 1, a share of all steps"""
    weight_decay: float = 0.01
    """AdamW's"""
    max_grad_norm: float = 1.0
    """longest gradient; longer ones are scaled down"""


RECIPES: dict[str, Recipe] = {
    "grpo": Recipe(),
    # Released code: attention and format with weight 1, no accuracy.
    "sayo": Recipe(
        accuracy=0.0, format=1.0, attention_contrast=1.0, template="answer", window=(60, 100), group=16, max_tokens=110, top_p=0.9,
        kl=0.001, learning_rate=5e-6, schedule="linear", max_grad_norm=0.8,
    ),
    "perception-r1": Recipe(
        perception=0.7, repetition=1.0, template="perception-r1", clip_high=0.3, max_tokens=4096, weight_decay=1e-3, warmup=0.05,
    ),
    # Its weights are not public; these are ours.
    "faithful-mr1": Recipe(causal_attention=0.5),
    "vgpo": Recipe(
        accuracy=1.0, format=0.0, template="boxed", visual_reweighting=True, filter_groups=True, clip_high=0.28, max_tokens=2048,
        top_p=0.99,
    ),
}  # fmt: skip


HELP = """Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --model Qwen/Qwen2.5-VL-3B-Instruct --recipe sayo --lora 16
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe grpo --shard

The same command goes on with a run that was stopped. Recipes, whose values are the defaults of all other flags (add --help to see them):

    grpo            accuracy and format
    sayo            attention on the labelled regions, and format
    perception-r1   accuracy, and visual facts that a judge finds in the response (--judge, --judge-url)
    faithful-mr1    accuracy, and attention where erasing the evidence matters (start from train.anchor's model)
    vgpo            accuracy, with advantages re-weighted by how much each token looks
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
    import sys

    import tyro

    given = sys.argv[1:] if arguments is None else arguments
    flags = [part for argument in given for part in argument.split("=", 1)]
    name = ["grpo", *(value for flag, value in pairwise(flags) if flag == "--recipe")][-1]
    defaults: dict[str, Any] = asdict(RECIPES.get(name, RECIPES["grpo"])) | {"recipe": name, "data": tyro.MISSING}
    return tyro.cli(Settings, args=given, default=Settings(**defaults), description=HELP)
