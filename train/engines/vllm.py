"""What both ways of sampling on vLLM share: how a prompt is asked, what is never sampled, and the
weights by the names of their checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from train.engines.base import Completion, Sampling
from train.policy import Policy, Prompt
from train.sharding import full_state

BANNED = -100.0  # added to the logits of what is never sampled: the most that vLLM takes


def parameters(policy: Policy, count: int, sampling: Sampling) -> dict[str, Any]:
    """vLLM's SamplingParams: as the local decoder samples, and the log-probabilities of what was
    drawn.
    """
    return {
        "n": count,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "logprobs": 0,
        "logit_bias": dict.fromkeys(policy.suppressed.tolist(), BANNED),
        "stop_token_ids": policy.ends.tolist(),
        "ignore_eos": True,  # what ends a completion is said above
        "detokenize": False,
    }


def collapsed(policy: Policy, prompt: Prompt) -> list[int]:
    """The prompt's ids as the chat template has written it, with one sign for each image. vLLM puts
    an image's tokens in its place; it would put them in once more behind what is there already.
    """
    if not prompt.pictures:
        return prompt.ids.tolist()
    ids: list[int] = policy.processor.tokenizer(prompt.text)["input_ids"]
    return ids


def check_prompt(prompt: Prompt, asked: Sequence[int] | None) -> None:
    """``ValueError`` unless vLLM has asked what we are going to learn from."""
    ours = prompt.ids.tolist()
    if asked is not None and list(asked) != ours:
        place = next((n for n, (a, b) in enumerate(zip(asked, ours, strict=False)) if a != b), None)
        raise ValueError(
            f"vLLM asks another prompt than the trainer: {len(asked)} tokens against {len(ours)}, "
            f"the first difference at {place}. Start it from the same model folder, with the same "
            "processor settings"
        )


def completion(ids: Sequence[int], logprobs: Sequence[float], device: torch.device) -> Completion:
    """A completion of tokens and their log-probabilities."""
    return Completion(
        torch.tensor(list(ids), device=device),
        torch.tensor(list(logprobs), dtype=torch.float32, device=device),
    )


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """All weights by the names that released checkpoints have, which are those that vLLM knows.

    Sharded processes call it together.
    """
    model: Any = policy.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    yield from revert_weight_conversion(base, dict(weights_of(policy))).items()


def weights_of(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """All weights by the names that transformers' model has, an adapter merged into a copy.

    Sharded processes call it together.
    """
    model: Any = policy.model
    if not hasattr(model, "get_base_model"):
        yield from full_state(model.state_dict()).items()
        return
    base = model.get_base_model()
    adapted = {n: m for n, m in base.named_modules() if hasattr(m, "get_delta_weight")}
    for name, weight in base.state_dict().items():
        owner, _, kind = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if not owner:
            yield name, weight
            continue
        # not merge_adapter: what it adds and takes away again leaves its rounding in the weights
        layer: Any = adapted[owner]
        merged = weight + layer.get_delta_weight("default") if kind == "weight" else weight
        yield f"{owner}.{kind}", merged
