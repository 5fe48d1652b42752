"""A build whose judge is a language model behind an endpoint: good days, bad days, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import build, store
from pipelines.config import BuildConfig
from pipelines.models import Models, load_annotator
from tests.conftest import fake_models, record, write_rows
from tests.judge_server import Answer, Server, completion, failure


def _facts(body: dict[str, Any]) -> Answer:
    trace = json.loads(body["messages"][1]["content"])["trace"]
    quote = trace[trace.index("a ") + 2 : trace.index(" square") + 7]
    fact = {"kind": "object", "statement": f"There is a {quote}.", "phrase": quote, "quote": quote}
    return completion(json.dumps({"facts": [fact, {**fact, "quote": "an invented quote"}]}))


def _build(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, **annotator: Any) -> tuple[BuildConfig, dict[str, Any]]:
    settings = {"model": "judge", "base_url": url, "retries": 0, "timeout": 5, "price_in": 2.0, "price_out": 8.0} | annotator
    rows = [record(n) for n in "abc"]
    config = BuildConfig(source=str(write_rows(tmp_path, rows)), out=tmp_path / "out", shard_size=2, annotator=settings)
    fakes = fake_models()
    models = Models(load_annotator(config.annotator, config.out / ".work" / "replies.sqlite"), fakes.detector, fakes.segmenter)
    monkeypatch.setattr(build, "load_models", lambda config: models)
    return config, build.build(config)


def test_a_judge_labels_and_is_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: _facts(body)).running() as server:
        _, manifest = _build(tmp_path, server.url, monkeypatch)
    counts = manifest["counts"]
    assert (manifest["rows"], counts["annotations"], counts["annotations_dropped: quote not in trace"]) == (3, 3, 3)
    assert (counts["judge_prompt_tokens"], counts["judge_completion_tokens"]) == (300, 30)
    assert manifest["cost"]["dollars"] == pytest.approx((300 * 2 + 30 * 8) / 1e6)
    assert manifest["models"]["annotator"]["judge"] == "judge"


def test_a_failing_judge_loses_rows_with_a_reason_and_invents_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: failure(500) if n == 0 else _facts(body)).running() as server:
        config, manifest = _build(tmp_path, server.url, monkeypatch, concurrency=1)
        rejects = store.read_rejects(config.out)
        assert (manifest["rows"], [(r.stage, r.reason) for r in rejects]) == (2, [("annotate", "the judge failed")])
        assert "500" in rejects[0].detail
        assert manifest["counts"]["judge_failed: http_500"] == 1


def test_a_lost_shard_is_not_paid_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: _facts(body)).running() as server:
        config, first = _build(tmp_path, server.url, monkeypatch)
        paid = len(server.requests)
        store.data_path(config.out, "train-00000").unlink()
        assert build.build(config) == first
        assert len(server.requests) == paid
