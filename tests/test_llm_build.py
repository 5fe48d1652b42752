"""A build whose judge is a language model behind an endpoint: good days, bad days, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.summary import print_summary
from pipelines import build
from pipelines.building.models import Models, load_annotator
from pipelines.config import BuildConfig
from pipelines.dataset import store
from rewardlib.cache import ReplyCache
from rewardlib.judge import BudgetSpent
from tests.conftest import fake_models, record, write_rows
from tests.judge_server import Answer, Server, completion, failure


def _facts(body: dict[str, Any]) -> Answer:
    trace = json.loads(body["messages"][1]["content"])["trace"]
    quote = trace[trace.index("a ") + 2 : trace.index(" square") + 7]
    fact = {"kind": "object", "statement": f"There is a {quote}.", "phrase": quote, "quote": quote}
    return completion(json.dumps({"facts": [fact, {**fact, "quote": "an invented quote"}]}))


def _build(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, **annotator: Any) -> tuple[BuildConfig, dict[str, Any]]:
    settings = {"model": "judge", "base_url": url, "retries": 0, "timeout": 5, "price_in": 2.0, "price_out": 8.0} | annotator
    rows = [record(n, question=f"Which colour is the square in {n}?") for n in "abc"]
    config = BuildConfig(source=str(write_rows(tmp_path, rows)), out=tmp_path / "out", shard_size=2, annotator=settings)
    fakes = fake_models()
    models = Models(load_annotator(config.annotator, config.out / ".work" / "replies.sqlite"), fakes.locators, fakes.segmenter)
    monkeypatch.setattr(build, "load_models", lambda config: models)
    return config, build.build(config)


def test_a_judge_labels_and_is_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: _facts(body)).running() as server:
        _, manifest = _build(tmp_path, server.url, monkeypatch)
    counts = manifest["counts"]
    assert (manifest["rows"], counts["annotations"], counts["annotations_dropped: quote not in trace"]) == (3, 3, 3)
    assert (counts["judge_prompt_tokens"], counts["judge_completion_tokens"]) == (300, 30)
    assert manifest["cost"]["dollars"] == pytest.approx((300 * 2 + 30 * 8) / 1e6)
    assert manifest["models"]["annotator"]["name"] == "judge"


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


def account(manifest: dict[str, Any]) -> tuple[int, int, int, float]:
    (line,) = manifest["cost"]["models"]
    return line["requests"], line["prompt_tokens"], line["completion_tokens"], line["dollars"]


def test_replies_that_were_of_no_use_are_in_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: completion("- kind: object")).running() as server:
        config, manifest = _build(tmp_path, server.url, monkeypatch)
    dollars = 3 * 2 * (100 * 2 + 10 * 8) / 1e6  # a reply and its repair
    assert account(manifest) == (3, 600, 60, pytest.approx(dollars))
    (spent,) = ReplyCache(config.out / ".work" / "replies.sqlite").spending()
    assert (spent["requests"], spent["dollars"]) == (3, pytest.approx(dollars))
    with Server(lambda n, body: _facts(body)).running() as server:
        config, again = _build(tmp_path, server.url, monkeypatch)
    assert again == manifest  # a form that the judge does not keep to is not asked for again
    assert server.requests == []


def test_a_shard_that_is_built_anew_keeps_what_was_paid_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more after a limit that was too short, then after a lost shard: all of it was paid, and none of it twice."""
    cut = completion("{", finish="length")  # three formats, three times
    with Server(lambda n, body: cut if n < 9 else _facts(body)).running() as server:
        config, first = _build(tmp_path, server.url, monkeypatch, concurrency=1)
        assert (first["rows"], account(first)[:3]) == (0, (3, 900, 90))
        second = build.build(config)
        assert (second["rows"], account(second)[:3]) == (3, (6, 1200, 120))
        store.data_path(config.out, "train-00000").unlink()
        assert build.build(config) == second
    (spent,) = ReplyCache(config.out / ".work" / "replies.sqlite").spending()
    assert account(second)[:3] == (spent["requests"], spent["prompt_tokens"], spent["completion_tokens"])


def test_failed_replies_count_towards_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda n, body: completion("no")).running() as server:
        settings = {"model": "judge", "base_url": server.url, "retries": 0, "price_in": 2.0, "price_out": 8.0, "concurrency": 1}
        source = write_rows(tmp_path, [record(n) for n in "abc"])
        each = 2 * (100 * 2 + 10 * 8) / 1e6
        config = BuildConfig(source=str(source), out=tmp_path / "out", annotator=settings, max_cost=1.5 * each)
        fakes = fake_models()
        replies = config.out / ".work" / "replies.sqlite"
        models = Models(load_annotator(config.annotator, replies, config.max_cost), fakes.locators, fakes.segmenter)
        monkeypatch.setattr(build, "load_models", lambda config: models)
        with pytest.raises(BudgetSpent):
            build.build(config)
        assert len(server.requests) == 4


PASSING = {
    "a context too short": failure(400, "This model's maximum context length is 4096 tokens."),
    "a wrong key": failure(401, "invalid key"),
    "a wrong name": failure(404, "The model `judge` does not exist"),
    "no money": failure(402, "insufficient balance"),
    "a reply cut off": completion("{", finish="length"),
    "an empty reply": completion(""),
    "no schema service": failure(400, "schema service is down"),
    "an error in a 200": (200, {"Content-Type": "application/json"}, json.dumps({"error": {"message": "later", "code": 429}})),
    "a page": (200, {"Content-Type": "text/html"}, "<html>login</html>"),
    "a setting": failure(400, "Unsupported value: 'temperature' does not support 0"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_was_put_right_is_asked_again_by_the_same_command(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [False]
    with Server(lambda n, body: _facts(body) if right[0] else PASSING[fault]).running() as server:
        config, manifest = _build(tmp_path, server.url, monkeypatch)
        assert manifest["rows"] == 0
        right[0] = True
        assert build.build(config)["rows"] == 3
        asked = len(server.requests)
        assert build.build(config)["rows"] == 3
        assert len(server.requests) == asked


def test_facts_that_cannot_be_seen_or_stored_cost_themselves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"kind": "object", "statement": "There is a red square.", "phrase": "red square", "quote": "red square"}
    odd = [{**good, "statement": "a red square \ud83d"}, {**good, "phrase": "\ude00"}, {**good, "statement": "\u200b"}]
    odd += [{**good, "statement": f"It is {n}.", "phrase": blank} for n, blank in enumerate("\u2060\u00ad\u2800\u200b\ufeff\u3164")]
    noted = {**good, "note": "\ud83d"}
    with Server(lambda n, body: completion(json.dumps({"facts": [*odd, noted]}))).running() as server:
        config, manifest = _build(tmp_path, server.url, monkeypatch)
    assert manifest["counts"]["annotations_dropped: half a character"] == 6
    assert manifest["counts"]["annotations_dropped: no statement"] == 3
    for row in store.read_rows(config.out):
        assert [a["phrase"] for a in row["annotations"]] == [""] * 6 + ["red square"]
        assert [region["phrase"] for region in row["regions"]] == ["red square"]


def test_a_build_without_rows_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(lambda n, body: failure(400, "no \x1b[2J such thing")).running() as server:
        config, manifest = _build(tmp_path, server.url, monkeypatch)
    print_summary(manifest, config.out, 1.0)
    said = " ".join(capsys.readouterr().out.split())
    assert "NO ROWS: all 3 were dropped" in said
    assert "a: the judge failed: t0: the endpoint answered 400: no" in said
    assert "asks again" in said
    assert "\x1b[2J" not in said
