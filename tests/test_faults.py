"""A judge endpoint that misbehaves, seen from a whole build: no row is lost, no annotation is invented, nothing hangs.

A fault at first is survived or costs the rows that it hit; a lasting one costs every row, each with its reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import build
from pipelines.building.models import Models, load_annotator
from pipelines.config import BuildConfig
from pipelines.dataset import store
from tests.conftest import fake_models, record, write_rows
from tests.judge_server import Answer, Server, completion, failure

JSON = {"Content-Type": "application/json"}
SQUARE = {"kind": "object", "statement": "There is a red square.", "phrase": "red square", "quote": "red square"}
TRUNCATED = json.dumps({"facts": [SQUARE]})[:-20]


def facts(*found: dict[str, str]) -> Answer:
    return completion(json.dumps({"facts": list(found)}))


def slow(n: int, body: dict[str, Any]) -> Answer:
    time.sleep(1)
    return facts(SQUARE)


def dripping(n: int, body: dict[str, Any]) -> Answer:
    def pieces() -> Iterator[str]:
        for character in json.dumps({"facts": [SQUARE]}):
            time.sleep(0.1)
            yield character

    return 200, JSON, pieces()


def reset(n: int, body: dict[str, Any]) -> Answer:
    raise ConnectionResetError


def no_schema(n: int, body: dict[str, Any]) -> Answer:
    return failure(400, "response_format json_schema is not supported") if "response_format" in body else facts(SQUARE)


def answering(answer: Answer) -> Callable[[int, dict[str, Any]], Answer]:
    return lambda n, body: answer


FAULTS: dict[str, Callable[[int, dict[str, Any]], Answer]] = {
    "429": answering(failure(429)),
    "429 with Retry-After": answering(failure(429, **{"Retry-After": "0.1"})),
    "500": answering(failure(500)),
    "503": answering(failure(503)),
    "timeout": slow,
    "slow drip": dripping,
    "connection reset": reset,
    "invalid JSON": answering(completion("{facts: many}")),
    "truncated JSON": answering(completion(TRUNCATED)),
    "cut off by the limit": answering(completion(TRUNCATED, finish="length")),
    "white space without end": answering(completion(" \n" * 100, finish="length")),
    "refusal": answering(completion(None, refusal="I cannot help with that")),
    "content filter": answering(completion("", finish="content_filter")),
    "no choices": answering((200, JSON, json.dumps({"id": "x", "object": "chat.completion", "choices": []}))),
    "no message": answering((200, JSON, json.dumps({"id": "x", "choices": [{"index": 0, "finish_reason": "stop"}]}))),
    "empty text": answering(completion("")),
    "wrong fields": answering(facts({"id": "f9", "present": "true"})),
    "wrong kind": answering(facts({**SQUARE, "kind": "dream"})),
    "a list": answering(completion("[1, 2]")),
    "HTML error page": answering((502, {"Content-Type": "text/html"}, "<html><h1>Bad gateway</h1></html>")),
    "HTML for a reply": answering((200, {"Content-Type": "text/html"}, "<html>login</html>")),
    "broken body": answering((200, JSON, '{"id": "x", "choices": [')),
    "a rate limit in a 200": answering((200, JSON, json.dumps({"choices": None, "error": {"message": "slow down", "code": 429}}))),
    "an error in a 200": answering((200, JSON, json.dumps({"error": "it broke"}))),
    "a reply that ends with an error": answering(completion("Well", finish="error")),
    "thoughts alone": answering(completion([{"type": "thinking", "thinking": "hm"}])),
    "context too short": answering(failure(400, "maximum context length is 4096 tokens")),
    "half an emoji in an error": answering(failure(400, "no \ud83d")),
    "half an emoji in a wrong form": answering(completion("no \ud83d")),
    "key refused": answering(failure(401, "invalid key")),
}
HARMLESS: dict[str, Callable[[int, dict[str, Any]], Answer]] = {
    "no schema": no_schema,
    "no schema, as a server error": lambda n, body: failure(500, "no json_schema") if "response_format" in body else facts(SQUARE),
    "another name for the limit": lambda n, body: failure(400, "use max_completion_tokens") if "max_tokens" in body else facts(SQUARE),
    "parts": answering(completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": json.dumps({"facts": [SQUARE]})}])),
    "thoughts that the template began": answering(completion(f"A set {{x}}.\n</think>\n{json.dumps({'facts': [SQUARE]})}")),
    "facts of no use": answering(facts(SQUARE, {**SQUARE, "statement": "\u200b"}, {**SQUARE, "phrase": "\ud83d"})),
    "invented quotes": answering(facts(SQUARE, {**SQUARE, "quote": "a purple elephant"}, {**SQUARE, "quote": ""})),
    "the same fact again": answering(facts(SQUARE, SQUARE, SQUARE)),
    "prose around it": answering(completion(f"Here you are:\n```json\n{json.dumps({'facts': [SQUARE]})}\n```\nAnything else?")),
    "thoughts before it": answering(completion(f"<think>Hm, a square.</think>\n{json.dumps({'facts': [SQUARE]})}")),
}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[BuildConfig, dict[str, Any]]]:
    def make(url: str) -> tuple[BuildConfig, dict[str, Any]]:
        judge = {"model": "judge", "base_url": url, "retries": 1, "timeout": 0.5, "concurrency": 4}
        source = write_rows(tmp_path, [record(name) for name in "abc"])
        config = BuildConfig(source=str(source), out=tmp_path / "out", shard_size=2, annotator=judge)
        fakes = fake_models()
        models = Models(load_annotator(config.annotator, config.out / ".work" / "replies.sqlite"), fakes.locators, fakes.segmenter)
        monkeypatch.setattr(build, "load_models", lambda config: models)
        return config, build.build(config)

    return make


def check(config: BuildConfig, manifest: dict[str, Any]) -> None:
    """Rows in = rows out + rejects, each with a reason; every annotation is one that the judge gave and the trace holds."""
    rejects = store.read_rejects(config.out)
    assert manifest["rows"] + len(rejects) == manifest["counts"]["rows_in"] == 3
    assert all((r.stage, r.reason) == ("annotate", "the judge failed") and r.detail for r in rejects)
    for row in store.read_rows(config.out):
        (annotation,) = row["annotations"]
        (trace,) = row["traces"]
        assert (annotation["statement"], annotation["quote"]) == (SQUARE["statement"], SQUARE["quote"])
        assert trace["text"][annotation["start"] : annotation["end"]] == SQUARE["quote"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_costs_every_row_and_invents_nothing(fault: str, built: Callable[..., Any]) -> None:
    started = time.monotonic()
    with Server(FAULTS[fault]).running() as server:
        config, manifest = built(server.url)
    check(config, manifest)
    assert manifest["rows"] == 0
    assert sum(count for name, count in manifest["counts"].items() if name.startswith("judge_failed: ")) == 3
    assert time.monotonic() - started < 15  # two shards, two attempts of half a second each, on a busy machine


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_costs_the_row_that_it_hit_at_most(fault: str, built: Callable[..., Any]) -> None:
    with Server(lambda n, body: FAULTS[fault](n, body) if n == 0 else facts(SQUARE)).running() as server:
        config, manifest = built(server.url)
    check(config, manifest)
    assert manifest["rows"] >= 2


@pytest.mark.parametrize("oddity", HARMLESS)
def test_what_is_odd_but_usable_costs_nothing(oddity: str, built: Callable[..., Any]) -> None:
    with Server(HARMLESS[oddity]).running() as server:
        config, manifest = built(server.url)
    check(config, manifest)
    assert manifest["rows"] == 3
