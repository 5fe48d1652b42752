"""Load the policy of a run: from a Hub id, a folder or a checkpoint, with an adapter, with a frozen
reference; and the engine that samples from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from rewardlib.console import say
from train.distributed import World, pick_device
from train.engines import Engine
from train.engines.ahead import Ahead
from train.engines.local import LocalEngine
from train.engines.transport import ByBroadcast, ByFolder, Way
from train.engines.vllm_colocated import ColocatedVLLM
from train.engines.vllm_server import VLLMServer
from train.folders import find_model, latest
from train.policy import Policy
from train.settings import Settings


def load_policy(settings: Settings, device: torch.device | None = None) -> Policy:
    """The settings' model, or the newest checkpoint of the run; with a frozen copy of the former
    where a divergence from it counts.

    Weights that are trained are kept in float32, since bfloat16 would round small updates away;
    frozen ones in bfloat16 on a GPU.
    """
    checkpoint, device = latest(settings.out), device or pick_device(settings.device)
    starts_from = settings.model if settings.lora or checkpoint is None else checkpoint
    policy = load_model(str(starts_from), device, trained=not settings.lora)
    if settings.freeze_vision:
        policy.family.tower.requires_grad_(False)
    reference = None
    if settings.lora:
        policy.model = _with_adapter(policy, settings.lora, checkpoint, settings.seed)
    elif settings.has_reference:
        reference = load_model(settings.model, device)
        reference.model.requires_grad_(False)
    if settings.checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        # Tower and decoder checkpoint in training mode only; no dropout is left in these models.
        policy.model.train()
    return Policy(policy.model, policy.processor, reference)


def load_engine(settings: Settings, policy: Policy, world: World) -> Engine:
    """What the settings sample with, with the policy's weights. Adding an engine touches its file,
    and its line in ``ENGINES``.
    """
    return ENGINES[settings.engine](settings, policy, world)


def load_servers(
    urls: Sequence[str], policy: Policy, world: World, out: Path, way: Way = "folder"
) -> VLLMServer | None:
    """vLLM servers with the policy's weights, which go over by a folder in ``out`` or by broadcast;
    None for no URLs.
    """
    if not urls:
        return None
    by_folder = way == "folder"
    transport = ByFolder(policy, world, out / "engine") if by_folder else ByBroadcast(policy, world)
    return VLLMServer(policy, world, urls, transport, say)


def _local(settings: Settings, policy: Policy, world: World) -> Engine:
    return LocalEngine(policy)


def _vllm(settings: Settings, policy: Policy, world: World) -> Engine:
    way = settings.engine_weights
    servers = load_servers(settings.engine_url, policy, world, settings.out, way)
    if servers is not None:
        return Ahead(servers) if settings.ahead else servers
    checkpoint = None if settings.lora else latest(settings.out)
    longest = settings.max_prompt + settings.max_tokens
    model = str(checkpoint or find_model(settings.model))
    return ColocatedVLLM(policy, world, model, longest, settings.seed)


ENGINES: dict[str, Callable[[Settings, Policy, World], Engine]] = {"local": _local, "vllm": _vllm}


def _with_adapter(policy: Policy, rank: int, checkpoint: Path | None, seed: int) -> Any:
    """The model with a LoRA adapter on the language model, new or from a checkpoint. Without it, it
    is its own reference.
    """
    if checkpoint is not None:
        return PeftModel.from_pretrained(policy.model, checkpoint, is_trainable=True)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=policy.family.lora_targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the same in every process, and of every run of this seed
        return get_peft_model(policy.model, config)


def load_model(name: str, device: torch.device | str = "auto", *, trained: bool = False) -> Policy:
    """A model and its processor from a Hub id, a folder, or the folder of a run: bfloat16 on a GPU
    unless it is ``trained``, float32 otherwise. ``ValueError`` where its processor asks for a
    package that is not there.
    """
    name = find_model(name)
    device = pick_device(device) if isinstance(device, str) else device
    dtype = torch.float32 if device.type == "cpu" or trained else torch.bfloat16
    try:
        processor = AutoProcessor.from_pretrained(name)
    except ImportError as error:
        raise ValueError(f"the processor of {name} cannot be loaded: {error}") from error
    model = AutoModelForImageTextToText.from_pretrained(
        name, dtype=dtype, attn_implementation="sdpa"
    ).to(device)
    return Policy(model, processor)
