"""Sampling on vLLM in the trainer's own process, where the environment has it.

    python -m train.grpo --data dataset --engine vllm

On a GPU it sleeps while the trainer learns. Its weights are replaced in place.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from train.engines.base import Completion, Processes, Sampling
from train.engines.vllm import (
    check_prompt,
    checkpoint_weights,
    collapsed,
    completion,
    parameters,
)
from train.policy import Policy, Prompt

SHARE = 0.4  # of the GPU's memory


class ColocatedVLLM:
    """vLLM's ``LLM`` beside the policy."""

    def __init__(
        self, policy: Policy, world: Processes, model: str, longest: int, seed: int
    ) -> None:
        """model: a Hub id or folder with the model's configuration and processor. longest: most
        tokens of a prompt with its response. seed: of vLLM's random numbers.
        """
        self.policy, self.asleep = policy, False
        self.on_gpu = policy.device.type == "cuda"
        self.vllm = load_vllm()
        self.llm = self.vllm.LLM(model, **self._options(world, longest, seed))
        self.sync()

    def _options(self, world: Processes, longest: int, seed: int) -> dict[str, Any]:
        options = {
            "dtype": "bfloat16" if self.on_gpu else "float32",
            "max_model_len": longest,
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            "seed": seed + world.rank,
            "disable_log_stats": True,
        }
        if not self.on_gpu:
            return options | {"enforce_eager": True}
        return options | {
            "gpu_memory_utilization": SHARE,
            "enable_sleep_mode": True,
            "distributed_executor_backend": "external_launcher" if world.size > 1 else None,
        }

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """As ``Engine`` says; vLLM draws with its own random numbers, whatever the seeds are."""
        self._wake()
        asked = []
        for prompt in prompts:
            pictures = {"multi_modal_data": {"image": list(prompt.pictures)}}
            shown = pictures if prompt.pictures else {}
            asked.append({"prompt_token_ids": collapsed(self.policy, prompt), **shown})
        wanted = self.vllm.SamplingParams(**parameters(self.policy, count, sampling))
        replies = self.llm.generate(asked, wanted, use_tqdm=False)
        found = []
        for prompt, reply in zip(prompts, replies, strict=True):
            check_prompt(prompt, reply.prompt_token_ids)
            found.append([self._completion(each) for each in reply.outputs])
        if self.on_gpu:
            self.llm.sleep(level=1)
            self.asleep = True
        return found

    def _completion(self, output: Any) -> Completion:
        ids = list(output.token_ids)
        told = zip(ids, output.logprobs, strict=True)
        return completion(ids, [by_id[token].logprob for token, by_id in told], self.policy.device)

    def sync(self) -> None:
        """As ``Engine`` says."""
        self._wake()
        weights = iter(list(checkpoint_weights(self.policy)))
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def _wake(self) -> None:
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False


def load_vllm() -> Any:
    """The package; ``ValueError`` where this environment has none."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that weights need no pickling
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise ValueError(
            f"--engine vllm, but vLLM cannot be imported here ({error}): install it into this "
            "environment, or start a server in another and give its --engine-url"
        ) from error
