"""The judge client and the trace collector against a server that nobody here wrote: ``transformers serve`` with the tiny policy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from labeling.collect import Question, Trace, TraceCollector
from rewardlib.judge import JudgeClient, JudgeEndpoint, JudgeError, JudgeRequest
from tests.conftest import ROOT, encode, scene

POLICY = str(ROOT / "demo" / "checkpoints" / "policy")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address; it takes its time to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", POLICY, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def endpoint(url: str, **changes: object) -> JudgeEndpoint:
    return JudgeEndpoint(**{"model": POLICY, "base_url": url, "retries": 0, "timeout": 60, "max_tokens": 64, "concurrency": 2, **changes})


def test_a_vision_model_writes_traces_about_an_image(url: str) -> None:
    client = JudgeClient(endpoint(url, max_tokens=512))  # of what it was never asked it says nonsense, at length
    questions = [Question("What color is the square?", ("red", "blue"), encode(scene(color))) for color in ("red", "blue")]
    found = TraceCollector(client, 2).collect(questions)
    assert [len(traces) for traces in found] == [2, 2]
    for trace in (trace for traces in found for trace in traces):
        assert isinstance(trace, Trace)
        assert trace.text
        assert trace.prompt_tokens > trace.completion_tokens > 0
    assert (client.usage.requests, client.usage.failed) == (4, 0)


def test_a_model_that_cannot_judge_gives_errors_and_no_verdicts(url: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    client = JudgeClient(endpoint(url))
    replies = client.ask_all([JudgeRequest("Reply with JSON.", f"Question {n}: which number?", schema) for n in range(3)])
    assert {type(reply) for reply in replies} == {JudgeError}
    assert {reply.reason for reply in replies if isinstance(reply, JudgeError)} <= {"invalid", "empty", "length"}
    assert client.usage.failed == 3


@pytest.mark.parametrize(("path", "reason"), [("/nowhere", "http_404"), ("/../models", "http_4")])
def test_a_wrong_address_is_said(url: str, path: str, reason: str) -> None:
    (reply,) = JudgeClient(endpoint(url + path)).ask_all([JudgeRequest("s", "u", None)])
    assert isinstance(reply, JudgeError)
    assert reply.reason.startswith(reason)
