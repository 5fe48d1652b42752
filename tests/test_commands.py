"""The commands as a user types them: a build from end to end, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from demo.questions import write_rows
from flows.build_command import parse
from pipelines.config import BuildOptions
from tests.conftest import run_module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve scenes, labelled by the embedded models through the real command."""
    folder = tmp_path_factory.mktemp("built")
    source = write_rows(folder / "scenes", 12, seed=5)
    status, _, errors = run_module("flows.build_dataset", "--source", source, "--out", folder / "dataset", "--shard-size", "5")
    assert status == 0, errors
    return source, folder / "dataset"


def test_a_build_leaves_everything_a_user_needs(built: tuple[Path, Path]) -> None:
    _, dataset = built
    names = {p.relative_to(dataset).as_posix() for p in dataset.rglob("*") if p.is_file() and ".work" not in p.parts}
    shards = {f"data/train-{n:05d}.parquet" for n in range(3)}
    assert names == shards | {"rejects.parquet", "manifest.json", "gallery.html", "README.md"}


def test_it_keeps_its_promises_and_scores(built: tuple[Path, Path]) -> None:
    source, dataset = built
    status, last, _ = run_module("pipelines.validate", dataset)
    assert (status, json.loads(last)["valid"]) == (0, True)
    status, last, _ = run_module("pipelines.score", dataset, "--gold", source)
    figures = json.loads(last)
    assert status == 0
    assert figures["answer_agreement"] == 1
    assert figures["recall"] > 0.6
    assert figures["precision"] > 0.6


def test_a_build_that_keeps_no_row_is_no_success(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "scenes", 2, seed=5)
    rows = [{**json.loads(line), "traces": []} for line in source.read_text().splitlines()]
    bare = source.with_name("bare.jsonl")
    bare.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, _ = run_module("flows.build_dataset", "--source", bare, "--out", tmp_path / "dataset")
    assert status == 1
    assert (tmp_path / "dataset" / "rejects.parquet").exists()


def test_the_same_command_again_changes_nothing(built: tuple[Path, Path]) -> None:
    source, dataset = built
    before = {p: p.read_bytes() for p in dataset.rglob("*.parquet")}
    assert run_module("flows.build_dataset", "--source", source, "--out", dataset, "--shard-size", "5")[0] == 0
    assert {p: p.read_bytes() for p in dataset.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("flows.build_dataset", ["--source", "gone.jsonl", "--out", "OUT"], "there is no such file or folder"),
        ("flows.build_dataset", ["--source", "EMPTY", "--out", "OUT"], "no rows"),
        ("flows.build_dataset", ["--source", "ROWS", "--out", "OUT", "--detector.threshold", "7"], "less than 1"),
        ("flows.build_dataset", ["--source", "ROWS", "--out", "OUT", "--detector.name", "no/such-model"], "cannot load the detector"),
        ("flows.build_dataset", ["--source", "ROWS"], "--out"),
        ("pipelines.validate", ["OUT"], "there is no folder"),
        ("pipelines.score", ["OUT", "--gold", "gone.jsonl"], "there is no folder"),
    ],
)
def test_mistakes_get_a_sentence_not_a_traceback(
    module: str, arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty.jsonl").write_text("")
    places = {"ROWS": write_rows(tmp_path / "scenes", 1, seed=0), "EMPTY": tmp_path / "empty.jsonl", "OUT": tmp_path / "out"}
    status, _, errors = run_module(module, *[places.get(a, a) for a in arguments])
    assert status == 2
    assert expected in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors


def test_settings_come_from_yaml_and_flags_come_on_top(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"source": "a.jsonl", "detector": {"threshold": 0.4, "batch_size": 2}, "shard_size": 9}))
    config = parse(["--config", str(file), "--out", "here", "--detector.threshold", "0.2"])
    assert (config.source, config.out, config.shard_size) == ("a.jsonl", Path("here"), 9)
    assert (config.detector.threshold, config.detector.batch_size) == (0.2, 2)


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="treshold"):
        BuildOptions.model_validate({"detector": {"treshold": 0.4}})
