"""Traces from a vision model: asked for where a row has none, checked like any other, paid for once, and never beyond the limit."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.build_dataset import main
from pipelines import build
from pipelines.building.estimate import estimate
from pipelines.building.ingest import source_of
from pipelines.building.models import Models, load_annotator, load_collector
from pipelines.collect import CollectSettings, collect
from pipelines.config import BuildConfig
from pipelines.dataset import store
from rewardlib.judge import BudgetSpent
from rewardlib.rows import DatasetRow
from tests.conftest import COLORS, encode, fake_models, record, run_module, scene, write_rows
from tests.judge_server import Answer, Server, completion, failure

LOOKING = {"model": "looker", "retries": 0, "timeout": 5, "price_in": 1.0, "price_out": 10.0}
EACH = (100 * 1.0 + 10 * 10.0) / 1e6  # dollars that a reply of the loopback server costs


def look(n: int, body: dict[str, Any]) -> Answer:
    """A vision model that sees colours, and is wrong in every second draw."""
    url = body["messages"][1]["content"][0]["image_url"]["url"]
    pixel = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB").getpixel((10, 10))
    color = next(name for name, rgb in COLORS.items() if rgb == pixel) if body["seed"] % 2 == 0 else "purple"
    return completion(f"<think>There is a {color} square.</think><answer>{color}</answer>")


def configure(tmp_path: Path, url: str, rows: list[dict[str, Any]], **changes: Any) -> BuildConfig:
    pictures = {f"{row['id']}.png": scene(row["answer"]) for row in rows}
    settings = {"collector": {**LOOKING, "base_url": url, "draws": 2, "concurrency": 1}, "shard_size": 2} | changes
    source = write_rows(tmp_path, rows, {name: encode(image) for name, image in pictures.items()})
    return BuildConfig(source=str(source), out=tmp_path / "out", **settings)


@pytest.fixture
def with_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def models(config: BuildConfig) -> Models:
        replies, fakes = config.out / ".work" / "replies.sqlite", fake_models()
        annotator = load_annotator(config.annotator, replies, config.max_cost) if config.annotator.model != "rules" else fakes.annotator
        return Models(annotator, fakes.locators, fakes.segmenter, load_collector(config.collector, replies, config.max_cost))

    monkeypatch.setattr(build, "load_models", models)


BARE = [record(name, color, traces=None) for name, color in (("a", "red"), ("b", "blue"), ("c", "green"))]


@pytest.mark.usefixtures("with_fakes")
def test_rows_without_traces_get_some(tmp_path: Path) -> None:
    with Server(look).running() as server:
        config = configure(tmp_path, server.url, [*BARE, record("d", "red")])
        manifest = build.build(config)
        rows = list(store.read_rows(config.out))
    assert [[(t["trace_id"], t["model"], t["answer"], t["correct"]) for t in row["traces"]] for row in rows[:2]] == [
        [("t0", "looker", "red", True), ("t1", "looker", "purple", False)],
        [("t0", "looker", "blue", True), ("t1", "looker", "purple", False)],
    ]
    assert [t["model"] for t in rows[3]["traces"]] == ["writer"]  # it had one
    assert [region["phrase"] for region in rows[1]["regions"]] == ["blue square"]
    assert (manifest["counts"]["traces_collected"], len(server.requests)) == (6, 6)
    assert manifest["models"]["collector"]["name"] == "looker"
    assert manifest["cost"]["dollars"] == pytest.approx(6 * EACH)


@pytest.mark.usefixtures("with_fakes")
def test_a_vision_model_that_fails_loses_rows_with_a_reason_and_is_asked_again(tmp_path: Path) -> None:
    down = [True]
    with Server(lambda n, body: failure(503) if down[0] and n >= 2 else look(n, body)).running() as server:
        config = configure(tmp_path, server.url, BARE)
        manifest = build.build(config)
        assert (manifest["rows"], manifest["rejects"]) == (1, [{"stage": "collect", "reason": "no trace could be collected", "rows": 2}])
        assert manifest["counts"]["collector_failed: http_503"] == 4
        assert "503" in store.read_rejects(config.out)[0].detail
        down[0] = False
        assert build.build(config)["rows"] == 3
        assert len(server.requests) == 2 + 4 + 4  # what was answered is not asked again


@pytest.mark.usefixtures("with_fakes")
def test_a_build_stops_at_its_limit_and_goes_on_under_a_higher_one(tmp_path: Path) -> None:
    with Server(look).running() as server:
        config = configure(tmp_path, server.url, BARE, max_cost=2.5 * EACH)
        whole = build.build(config.model_copy(update={"out": tmp_path / "whole", "max_cost": 1.0}))
        server.requests.clear()
        with pytest.raises(BudgetSpent, match="--max-cost"):
            build.build(config)
        assert len(server.requests) == 3
        assert build.build(config.model_copy(update={"max_cost": 1.0})) == whole
        assert len(server.requests) == 6


def test_a_limit_needs_prices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prices of looker.*--collector.price-in"):
        configure(tmp_path, "http://127.0.0.1:9/v1", BARE, max_cost=1.0, collector={"model": "looker"})


def test_an_estimate_asks_nobody_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotator = {"model": "judge", "price_in": 2.0, "price_out": 8.0}
    config = configure(tmp_path, "http://127.0.0.1:9/v1", [*BARE, record("d", "red", image="not there.png")], annotator=annotator)
    found = estimate(config)
    collector, judge = found.account["models"]
    assert (found.rows, found.sampled, found.rejects, found.paid) == (4, 4, {"missing image": 1}, 0)
    assert (collector["requests"], judge["requests"]) == (6, 6)
    assert collector["dollars"] == pytest.approx((collector["prompt_tokens"] * 1 + 6 * 400 * 10) / 1e6)
    assert found.account["dollars"] == pytest.approx(collector["dollars"] + judge["dollars"])
    assert main(["--source", config.source, "--out", str(config.out), "--dry-run", "--collector.model", "looker"]) == {}
    assert "looker" in capsys.readouterr().out
    assert not config.out.exists()


def test_an_estimate_counts_the_looks_for_what_the_question_names(tmp_path: Path) -> None:
    """A trace that says its answer only sends a locator after what the question names."""
    silent = [{"text": "<answer>red</answer>", "answer": None, "correct": None}]
    rows = [
        record("told", "red"),
        record("asked", "red", question="What is beside the red square?", traces=silent),
        record("neither", "red", question="Which is it?", traces=silent),
    ]
    url = "http://127.0.0.1:9/v1"
    config = configure(tmp_path, url, rows, collector={}, boxes={"model": "pointer", "base_url": url})
    (boxes,) = estimate(config).account["models"]
    assert boxes["requests"] == 2 * 4  # on the image, and on the images without evidence, something else, and context


@pytest.mark.usefixtures("with_fakes")
def test_an_estimate_learns_from_what_was_paid(tmp_path: Path) -> None:
    with Server(look).running() as server:
        config = configure(tmp_path, server.url, BARE)
        build.build(config)
    found = estimate(config)
    assert found.paid == 6
    assert found.account["models"][0]["completion_tokens"] == 60


@pytest.mark.usefixtures("with_fakes")
def test_collected_traces_are_read_by_the_judge_and_both_are_paid(tmp_path: Path) -> None:
    def both(n: int, body: dict[str, Any]) -> Answer:
        if body["model"] == "looker":
            return look(n, body)
        trace = json.loads(body["messages"][1]["content"])["trace"]
        quote = trace[trace.index("a ") + 2 : trace.index(" square") + 7]
        fact = {"kind": "object", "statement": f"There is a {quote}.", "phrase": quote, "quote": quote}
        return completion(json.dumps({"facts": [fact]}))

    with Server(both).running() as server:
        judge = {"model": "judge", "base_url": server.url, "price_in": 2.0, "price_out": 8.0, "retries": 0}
        config = configure(tmp_path, server.url, BARE, annotator=judge)
        manifest = build.build(config)
    assert (manifest["rows"], manifest["counts"]["annotations"]) == (3, 3)
    assert [(m["model"], m["requests"]) for m in manifest["cost"]["models"]] == [("looker", 6), ("judge", 3)]
    assert manifest["cost"]["dollars"] == pytest.approx(6 * EACH + 3 * (100 * 2 + 10 * 8) / 1e6)


@pytest.mark.usefixtures("with_fakes")
def test_a_trace_that_cannot_be_stored_is_dropped_and_paid_for(tmp_path: Path) -> None:
    def half(n: int, body: dict[str, Any]) -> Answer:
        status, headers, text = look(n, body)
        assert isinstance(text, str)
        return status, headers, text.replace("There is", "\\ud83d There is") if body["seed"] % 2 else text

    with Server(half).running() as server:
        config = configure(tmp_path, server.url, BARE)
        manifest = build.build(config)
    assert (manifest["rows"], manifest["counts"]["traces_dropped: half a character"]) == (3, 3)
    assert manifest["cost"]["dollars"] == pytest.approx(6 * EACH)


@pytest.mark.usefixtures("with_fakes")
def test_a_collectors_settings_are_named_by_its_own_flags(tmp_path: Path) -> None:
    with Server(lambda n, body: failure(400, "Unrecognized request argument: seed")).running() as server:
        config = configure(tmp_path, server.url, BARE)
        build.build(config)
    assert "--collector.seed None" in store.read_rejects(config.out)[0].detail


def test_the_command_writes_rows_with_traces_for_a_build(tmp_path: Path) -> None:
    """Right traces stay, wrong ones too; rows without a right one are left out by name; asked again, nobody is asked."""
    rows = [*BARE, record("d", "red"), record("e", "red", traces=None, image="gone.jpg")]
    with Server(look).running() as server:
        config = configure(tmp_path, server.url, rows)
        names = ("source", "out", "collector", "shard_size")
        settings = CollectSettings(**{name: getattr(config, name) for name in names})
        figures = collect(settings)
        assert figures == {
            "rows in": 5,
            "rows asked about": 3,
            "traces collected": 6,
            "rows with a right trace": 4,
            "rows left out": 1,
        }
        assert collect(settings) == figures
        assert len(server.requests) == 6
    (left,) = [json.loads(line) for line in (config.out / "left_out.jsonl").read_text().splitlines()]
    assert (left["id"], left["reason"]) == ("e", "missing image")
    again = BuildConfig(source=str(config.out), out=tmp_path / "built", license="mit")
    source = source_of(again)
    found = [DatasetRow(source.read(n)) for n in range(len(source))]
    assert [row.id for row in found] == ["a", "b", "c", "d"]
    assert [len(row.traces) for row in found] == [2, 2, 2, 1]
    assert found[1].correct_traces == ("<think>There is a blue square.</think><answer>blue</answer>",)


def test_the_command_without_anybody_to_ask_says_so(tmp_path: Path) -> None:
    code, _, stderr = run_module("pipelines.collect", "--source", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    assert code == 2
    assert "--collector.model" in stderr
