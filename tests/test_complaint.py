"""What servers say when they do not answer, as they were seen to say it: whose fault it is, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rewardlib.complaint import complaint_inside, read_complaint

SENT = {"model", "messages", "response_format", "max_tokens", "temperature", "seed"}
NO = 'response_format type must be one of "text" or "json_object", but got: json_schema'

# Kind -> status, body, the parameter that is to blame
REFUSALS: dict[str, tuple[int, Any, str | None]] = {
    "an object": (400, {"error": {"message": NO}}, "response_format"),
    "a string": (400, {"error": NO}, "response_format"),
    "FastAPI": (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'"}]}, "response_format"),
    "FastAPI in one string": (422, {"detail": NO}, "response_format"),
    "a bare message": (400, {"message": NO}, "response_format"),
    "a message of parts": (422, {"object": "error", "message": {"detail": [{"loc": ["body", "response_format"]}]}}, "response_format"),
    "a list of errors": (400, {"errors": [{"message": NO}]}, "response_format"),
    "a list": (400, [{"error": {"message": "Invalid JSON payload", "status": NO}}], "response_format"),
    "an answer quoted by a proxy": (502, {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps({"error": NO})}}},
                                    "response_format"),
    "the parameter alone": (400, {"error": {"message": "Unrecognized request argument supplied", "param": "response_format"}},
                            "response_format"),
    "the parameter and its path": (400, {"error": {"message": "Unsupported", "param": "response_format.json_schema"}}, "response_format"),
    "plain text": (400, NO, "response_format"),
    "a page": (501, f"<html><head><title>501</title><style>seed</style></head><h1>Not implemented</h1><p>{NO}</p></html>",
               "response_format"),
    "a server error": (500, {"error": {"code": 500, "message": NO, "type": "server_error"}}, "response_format"),
    "not found": (404, {"error": {"message": "No endpoints found that can handle the requested parameters."}}, "response_format"),
    "unavailable": (503, {"error": "structured output is not available"}, "response_format"),
    "media type": (415, {"message": "JSON mode is not supported"}, "response_format"),
    "a grammar": (500, {"error": {"message": "Failed to compile grammar"}}, "response_format"),
    "DeepSeek": (400, {"error": {"message": "This response_format type is unavailable now"}}, "response_format"),
    "Groq": (400, {"error": {"message": "This model does not support response format `json_schema`."}}, "response_format"),
    "without a word": (400, "", "response_format"),
    "the status again": (422, {"error": "Unprocessable Entity"}, "response_format"),
    "a list of what is known": (400, {"error": "Unknown parameter 'seed', expected one of model, messages, response_format"}, "seed"),
    "max_tokens": (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                                              "Use 'max_completion_tokens' instead.", "param": "max_tokens"}}, "max_tokens"),
    "max_tokens in a string": (400, {"error": "max_tokens is deprecated; use max_completion_tokens"}, "max_tokens"),
    "max_tokens by name": (400, {"error": {"message": "Unsupported parameter.", "param": "max_tokens"}}, "max_tokens"),
    "max_tokens in FastAPI": (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}, "max_tokens"),
    "max_tokens too large": (400, {"error": {"message": "max_tokens is too large: 4096", "param": "max_tokens"}}, None),
    "max_tokens of vLLM": (400, {"message": "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context "
                                            "length is 2048 tokens"}, None),
    "temperature": (400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model."}}, "temperature"),
    "temperature of TGI": (422, {"error": "Input validation error: `temperature` must be strictly positive"}, "temperature"),
    "seed": (400, {"error": {"message": "Unrecognized request argument: seed"}}, "seed"),
    "seed of a strict reader": (400, {"error": {"message": 'json: unknown field "seed"'}}, "seed"),
    "another part of the request": (400, {"error": {"message": "Too many images in the request"}}, None),
    "in Chinese": (400, {"error": {"message": "参数response_format不支持"}}, "response_format"),
    "max_tokens in Chinese": (400, {"error": {"message": "参数max_tokens不支持，请使用max_completion_tokens"}}, "max_tokens"),
    "the other name alone": (400, {"error": {"message": "max_tokens: this model expects max_completion_tokens"}}, "max_tokens"),
    "seed in Chinese": (400, {"error": {"message": "不支持seed参数"}}, "seed"),
    "a model of two words": (404, {"error": {"message": "Model Seed OSS not found"}}, None),
    "a model of two words, wrongly": (400, {"error": {"message": "unknown model Seed OSS 36B"}}, None),
    "a model of that name": (404, {"error": {"message": "The model `seed-oss-36b` does not exist"}}, None),
    "the request quoted": (422, {"detail": [{"loc": ["body", "model"], "msg": "Field required",
                                             "input": {"response_format": {"type": "json_schema"}, "seed": 0}}]}, None),
    "context": (400, {"error": {"message": "This model's maximum context length is 4096 tokens, your schema and messages have 6000"}},
                None),
    "a server error of another kind": (500, {"error": {"message": "CUDA out of memory"}}, None),
    "a server error without a word": (500, "", None),
    "the key": (401, {"error": {"message": "Invalid API key for structured output"}}, None),
    "the rate": (429, {"error": {"message": "Rate limit for json_schema requests"}}, None),
}  # fmt: skip


def as_text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


@pytest.mark.parametrize(("status", "body", "parameter"), REFUSALS.values(), ids=REFUSALS)
def test_whose_fault_it_is(status: int, body: Any, parameter: str | None) -> None:
    complaint = read_complaint(status, as_text(body))
    assert complaint.blames(SENT) == parameter
    assert complaint.blames(set()) is None  # what was not sent is not to blame


UNEXPLAINED: dict[str, tuple[int, Any, bool]] = {
    "no words that explain": (400, {"error": {"message": "Validation of the payload failed"}}, True),
    "none at all": (422, {"error": {"message": "nope"}}, True),
    "busy": (400, {"error": {"message": "Server busy"}}, False),
    "busy for machines": (400, {"message": "failed", "code": "rate_limit_exceeded"}, False),
    "a gateway": (501, {"error": {"message": "upstream connect error"}}, False),
    "busy in Chinese": (400, {"error": {"message": "系统繁忙，请稍后再试"}}, False),
    "the context for machines": (400, {"message": "failed", "code": "context_length_exceeded"}, False),
    "the model": (400, {"error": {"message": "adapter lora-1 does not exist"}}, False),
    "the picture": (400, {"error": {"message": "Could not decode the picture"}}, False),
    "the place": (400, {"error": {"message": "User location is not supported for the API use."}}, False),
    "another status": (403, {"error": {"message": "nope"}}, False),
}


@pytest.mark.parametrize(("status", "body", "unexplained"), UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_what_explains_nothing(status: int, body: Any, unexplained: bool) -> None:
    assert read_complaint(status, as_text(body)).is_unexplained == unexplained


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no", "type": "error", "code": None}}, "no"),
        ({"error": {"message": "no", "param": "seed"}}, "no; seed"),
        (
            {"detail": [{"type": "missing", "loc": ["body", 0, "x"], "msg": "Field required", "input": {"a": "b"}}]},
            "Field required; body.0.x",
        ),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "Too Many Requests"}}},
            "Provider returned error; Too Many Requests",
        ),
        ("<!doctype html><script>x()</script><h1>Bad\n gateway</h1>", "Bad gateway"),
        ("  plain  \n words ", "plain words"),
        ("", ""),
        ("{broken", "{broken"),
        ([], ""),
    ],
)
def test_the_words(body: Any, words: str) -> None:
    assert read_complaint(400, as_text(body)).words == words


INSIDE: dict[str, tuple[Any, int | None]] = {
    "OpenRouter": ({"choices": None, "error": {"message": "Provider returned error", "code": 429}}, 429),
    "an error alone": ({"error": {"message": "Upstream", "code": "503"}}, 503),
    "words alone": ({"error": "Rate limit exceeded"}, 429),
    "an unknown kind": ({"error": "Something went wrong"}, 0),
    "in the choice": ({"choices": [{"error": {"message": "Timed out", "code": 504}, "message": {"content": ""}}]}, 504),
    "an ending": ({"choices": [{"finish_reason": "error", "message": {"content": "Well, th"}}]}, 0),
    "no choices": ({"code": 429, "msg": "slow down"}, 429),
    "a status in a part": ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429),
    "a string beside its code": ({"error": "slow down", "code": 429}, 429),
    "the context": ({"error": {"message": "context_length_exceeded"}}, 400),
    "a reply": ({"choices": [{"message": {"content": "error"}, "finish_reason": "stop"}], "error": None}, None),
    "a reply beside an empty error": ({"choices": [{"message": {"content": "x"}}], "error": {"message": ""}}, None),
    "nothing at all": ({"id": "x", "choices": []}, None),
    "a page": ("<html>", None),
    "a list": ([1], None),
}


@pytest.mark.parametrize(("body", "status"), INSIDE.values(), ids=INSIDE)
def test_errors_inside_a_200(body: Any, status: int | None) -> None:
    complaint = complaint_inside(as_text(body))
    assert (None if complaint is None else complaint.status) == status
    assert complaint is None or complaint.words


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"message": "Please try again in 1.5s."}}, 1.5),
        ({"error": {"message": "Please retry after 20 seconds"}}, 20),
        ({"error": {"message": "try again in 300ms"}}, 0.3),
        ({"error": {"message": "busy", "metadata": {"retry_after_seconds": 3}}}, 3),
        ({"error": {"metadata": {"headers": {"Retry-After": "7"}}}}, 7),
        ({"error": {"details": [{"retryDelay": "13s"}]}}, 13),
        ({"error": {"message": "try again later"}}, None),
    ],
)
def test_the_pause_that_is_asked_for(body: Any, seconds: float | None) -> None:
    assert read_complaint(429, as_text(body)).wait == seconds
