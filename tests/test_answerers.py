"""Answerers: the log-probability of the right answer, from a model here and from an endpoint."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from labeling.answerers import AFTER, BEFORE, EndpointAnswerer, PolicyAnswerer, answer_in, messages  # noqa: E402
from rewardlib.judge import JudgeError  # noqa: E402
from tests.judge_server import Answer, Server, failure  # noqa: E402
from tests.tiny_models import PROCESSORS, model, qwen2_5_vl  # noqa: E402

CHOICES = ("red", "blue")


def picture(seed: int, size: tuple[int, int] = (60, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def answerer() -> PolicyAnswerer:
    return PolicyAnswerer(model(qwen2_5_vl()), PROCESSORS["qwen2_5_vl"](), batch_size=2)


@torch.no_grad()
def test_the_log_probability_is_that_of_one_forward(answerer: PolicyAnswerer) -> None:
    image = picture(0)
    (found,) = answerer.log_probabilities([image], "Which?", CHOICES, "red")
    processor, tokenizer = answerer.processor, answerer.processor.tokenizer
    text = processor.apply_chat_template(messages("Which?", CHOICES), add_generation_prompt=True, tokenize=False)
    prompt = dict(processor(text=[text], images=[[image]], return_tensors="pt"))
    before, said, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (BEFORE, "red", AFTER))
    response = torch.tensor([[*before, *said, *after]])
    length = prompt["input_ids"].shape[1]
    prompt["input_ids"] = torch.cat([prompt["input_ids"], response], 1)
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    if "mm_token_type_ids" in prompt:
        prompt["mm_token_type_ids"] = torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, response.shape[1]))
    scores = torch.log_softmax(answerer.model(**prompt).logits[0, length - 1 : -1].float(), -1)
    each = scores.gather(1, response.T)[:, 0]
    assert found == pytest.approx(each[len(before) :].sum().item(), abs=1e-4)


def test_batches_change_nothing(answerer: PolicyAnswerer) -> None:
    images = [picture(n, (40 + 20 * n, 60)) for n in range(3)]
    together = answerer.log_probabilities(images, "Which?", CHOICES, "blue")
    alone = [answerer.log_probabilities([image], "Which?", CHOICES, "blue")[0] for image in images]
    assert together == pytest.approx(alone, abs=1e-4)


# ------------------------------------------------------------------------------------ endpoints


def tokens(*told: tuple[str, float]) -> list[Any]:
    """As vLLM tells a prompt: the first token has no probability."""
    return [None, *({str(n): {"logprob": p, "rank": 1, "decoded_token": text}} for n, (text, p) in enumerate(told))]


def test_the_answer_is_what_follows_its_opening_tag() -> None:
    prompt = tokens(
        ("What", -9.0), ("<answer>", -7.0), ("old", -5.0), ("<ans", -1.0), ("wer>", -2.0), ("re", -0.5), ("d", -0.25), ("</answer>", -0.125)
    )
    assert answer_in(prompt) == -0.875
    with pytest.raises(ValueError, match="no <answer>"):
        answer_in(tokens(("What", -1.0)))


def serve(n: int, body: dict[str, Any]) -> Answer:
    shown, begun = body["messages"]
    assert (body["prompt_logprobs"], body["continue_final_message"], body["add_generation_prompt"]) == (0, True, False)
    assert shown["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert begun["content"] == "<answer>red</answer>"
    reply = {"choices": [], "prompt_logprobs": tokens(("<answer>", -3.0), ("red", -0.5), ("</answer>", -0.25))}
    return 200, {"Content-Type": "application/json"}, json.dumps(reply)


def test_an_endpoint_tells_the_prompts_log_probabilities() -> None:
    with Server(serve).running() as server:
        found = EndpointAnswerer("policy", server.url).log_probabilities([picture(0), picture(1)], "Which?", CHOICES, "red")
    assert found == [-0.75, -0.75]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [(failure(404), "answerer"), ((200, {}, '{"choices": []}'), "no_logprobs"), ((200, {}, "hello"), "no_logprobs")],
)
def test_an_endpoint_that_cannot_is_an_error(reply: Answer, reason: str) -> None:
    with Server(lambda n, body: reply).running() as server:
        found = EndpointAnswerer("policy", server.url).log_probabilities([picture(0)], "Which?", CHOICES, "red")
    assert isinstance(found, JudgeError)
    assert found.reason == reason
