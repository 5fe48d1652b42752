"""Answerers: a policy on this machine, or one behind an endpoint that gives log-probabilities of a
prompt.

The right answer is put into the policy's mouth, as ``<answer>...</answer>`` behind the question,
and the log-probabilities of its tokens are read off. No word of the traces is given: an answer that
follows from what a trace says would not need the image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from typing import Any

import httpx
import torch
from openai import OpenAI, OpenAIError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from labeling.collect import data_url
from labeling.info import ModelInfo
from rewardlib.judge import JudgeError
from rewardlib.measure import Measurer
from rewardlib.rows.choices import with_choices
from rewardlib.rows.images import png
from rewardlib.sample import Sample

BEFORE, AFTER = "<answer>", "</answer>"
INSTRUCTION = "Give the final answer inside <answer> </answer>."


class PolicyAnswerer:
    """Any image-text-to-text model of transformers, with its processor's chat template."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 8,
        name: str = "custom",
        revision: str | None = None,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.name, self.revision = name, revision
        self._measure = Measurer(model, processor, batch_size=batch_size)

    @classmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> PolicyAnswerer:
        model = AutoModelForImageTextToText.from_pretrained(
            name, revision=revision, dtype=getattr(torch, dtype)
        ).to(device)
        processor = AutoProcessor.from_pretrained(name, revision=revision)
        known = revision or getattr(model.config, "_commit_hash", None)
        return cls(model, processor, name=name, revision=known)

    def info(self) -> ModelInfo:
        return ModelInfo(self.name, self.revision, {"instruction": INSTRUCTION})

    def log_probabilities(
        self, images: Sequence[Image.Image], question: str, choices: Sequence[str], answer: str
    ) -> list[float]:
        """The log-probability of ``answer`` (nats) given each of the images."""
        tokenizer = self.processor.tokenizer
        before = tokenizer(BEFORE, add_special_tokens=False)["input_ids"]
        said = tokenizer(answer, add_special_tokens=False)["input_ids"]
        after = tokenizer(AFTER, add_special_tokens=False)["input_ids"]
        chat = messages(question, choices)
        samples = [
            Sample(
                prompt=chat,
                response=BEFORE + answer,
                response_ids=(*before, *said, *after),
                images=(image,),
            )
            for image in images
        ]
        measured = self._measure(samples, needs={"counterfactual"})
        told = [sample.counterfactual for sample in measured]
        # The closing tag tells "1" from "10".
        return [
            float(values.original[len(before) :].sum()) for values in told if values is not None
        ]


def messages(question: str, choices: Sequence[str]) -> list[dict[str, Any]]:
    """The chat that an answerer is shown."""
    text = f"{with_choices(question, choices)}\n{INSTRUCTION}"
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


class EndpointAnswerer:
    """A policy behind an endpoint of vLLM, which gives the log-probabilities of a prompt's tokens
    (``prompt_logprobs``).

    The chat ends in the beginning of an answer that is to be gone on with
    (``continue_final_message``), so that the gold answer is a part of the prompt.
    """

    def __init__(
        self, model: str, url: str, *, concurrency: int = 8, timeout: float = 120.0
    ) -> None:
        self.name, self.url, self.concurrency, self.timeout = model, url, concurrency, timeout

    def info(self) -> ModelInfo:
        return ModelInfo(
            self.name, settings={"instruction": INSTRUCTION, "endpoint": "prompt_logprobs"}
        )

    def log_probabilities(
        self, images: Sequence[Image.Image], question: str, choices: Sequence[str], answer: str
    ) -> list[float] | JudgeError:
        """The log-probability of ``answer`` (nats) given each of the images."""
        try:
            with ThreadPoolExecutor(self.concurrency) as pool:
                asked = [
                    pool.submit(self._ask, image, question, choices, answer) for image in images
                ]
                return [future.result() for future in asked]
        except JudgeError as error:
            return error

    def _ask(self, image: Image.Image, question: str, choices: Sequence[str], answer: str) -> float:
        (asked,) = messages(question, choices)
        shown = {"type": "image_url", "image_url": {"url": data_url(png(image))}}
        told = {"role": "user", "content": [shown, asked["content"][1]]}
        begun = {"role": "assistant", "content": f"{BEFORE}{answer}{AFTER}"}
        body = {
            "model": self.name,
            "messages": [told, begun],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        try:
            reply = self._client.post("/chat/completions", body=body, cast_to=httpx.Response)
            return answer_in(reply.json().get("prompt_logprobs"))
        except OpenAIError as error:
            raise JudgeError("answerer", f"{self.url} did not answer: {error}") from None
        except (ValueError, AttributeError, TypeError, KeyError, StopIteration) as error:
            raise JudgeError(
                "no_logprobs",
                f"{self.url} gave no log-probabilities of the prompt ({error}): serve with vLLM, "
                "which knows prompt_logprobs, or give --answerer a Hub id or a folder",
            ) from None

    @cached_property
    def _client(self) -> OpenAI:
        key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
        return OpenAI(api_key=key, base_url=self.url, timeout=self.timeout, max_retries=4)


def answer_in(prompt: Any) -> float:
    """The log-probability (nats) of the answer that a prompt ends in, from vLLM's
    ``prompt_logprobs``.

    That is a list with, for every token of the prompt but the first, its id with ``logprob`` and
    ``decoded_token``. ``ValueError`` where no answer begins there.
    """
    tokens = [next(iter(token.values())) for token in prompt or [] if token]
    texts = [str(token["decoded_token"]) for token in tokens]
    start = "".join(texts).rfind(BEFORE)
    if start < 0:
        raise ValueError(f"no {BEFORE} among the {len(tokens)} tokens of the prompt")
    ends = accumulate(map(len, texts))
    said = [token for token, end in zip(tokens, ends, strict=True) if end > start + len(BEFORE)]
    return float(sum(token["logprob"] for token in said))
