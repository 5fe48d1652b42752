"""The build by Ray's workers: the same bytes as by one process, also when workers are killed, and a sentence where Ray cannot help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from demo.questions import write_rows
from flows import runners, shards
from pipelines.build import build
from pipelines.building.code import code_version
from pipelines.building.ingest import Shard
from pipelines.building.models import ModelError
from pipelines.config import BuildConfig, BuildOptions
from tests.conftest import ROOT, folder_bytes

needs_ray = pytest.mark.skipif(find_spec("prefect_ray") is None, reason="prefect-ray is not installed")


def _start(source: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command with two Ray workers; its Prefect server and its Ray are its own."""
    settings = {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(out.parent / "prefect")}
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | settings
    command = [sys.executable, "-m", "flows.build_dataset", "--source", str(source), "--out", str(out), "--runner", "ray", "--workers", "2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, **streams)


def _kill_a_worker(driver: subprocess.Popen[str]) -> bool:
    """``kill -9`` for one process that is labelling a shard; whether there was any."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::label-shard"]:
                process.send_signal(signal.SIGKILL)
                return True
        except psutil.Error:  # gone meanwhile
            continue
    return False


def _assert_plain(source: Path, out: Path, shard_size: int) -> None:
    """The dataset is that of a build in one process."""
    plain = out.parent / "plain"
    build(BuildConfig(source=str(source), out=plain, shard_size=shard_size))
    made = folder_bytes(out)
    assert {name: made.get(name) for name in folder_bytes(plain)} == folder_bytes(plain)


@needs_ray
@pytest.mark.slow
def test_two_ray_workers_and_the_plain_build_agree(tmp_path: Path) -> None:
    source, out = write_rows(tmp_path / "scenes", 4, seed=6), tmp_path / "ray"
    process = _start(source, out, "--shard-size", "2")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    _assert_plain(source, out, shard_size=2)


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    source, out = write_rows(tmp_path / "scenes", 24, seed=6), tmp_path / "ray"
    process, kills = _start(source, out, "--shard-size", "2"), 0
    while process.poll() is None:
        done = len(list((out / ".work").glob("*.json")))  # a shard is done: the models are loaded and workers are in the middle of the next
        kills += done > kills < 3 and _kill_a_worker(process)
        time.sleep(0.01)
    assert process.returncode == 0, process.communicate()[0]
    assert kills == 3
    _assert_plain(source, out, shard_size=2)


@needs_ray
@pytest.mark.slow
def test_a_shard_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "scenes", 2, seed=6)
    process, kills = _start(source, tmp_path / "ray"), 0
    while process.poll() is None:
        kills += _kill_a_worker(process)
        time.sleep(0.2)
    output, _ = process.communicate()
    assert (process.returncode, kills) == (2, 1 + runners.RETRIES), output
    assert "no worker lived to finish shard train-00000" in output


def test_without_prefect_ray_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    with pytest.raises(runners.RunnerError, match="needs prefect-ray, which is not installed here; pip install"):
        runners.check(BuildConfig(source="rows.jsonl", out="out", runner="ray"))


@needs_ray
def test_a_cluster_needs_a_prefect_server() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    config = BuildConfig(source="rows.jsonl", out="out", runner="ray", ray_address="10.0.0.1:6379")
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(runners.RunnerError, match="set PREFECT_API_URL"):
        runners.check(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"runner": "ray", "device": "cuda:1"}, "deals out the GPUs itself"), ({"ray_address": "10.0.0.1:6379"}, "is for runner 'ray'")],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BuildOptions(**options)


def test_the_runner_is_not_part_of_the_labels() -> None:
    ray = BuildConfig(source="rows.jsonl", out="out", runner="ray", ray_address="10.0.0.1:6379")
    assert ray.sha256() == BuildConfig(source="rows.jsonl", out="out").sha256()


def test_the_plain_build_does_not_pretend_to_run_on_ray() -> None:
    with pytest.raises(ValueError, match="needs Prefect"):
        build(BuildConfig(source="rows.jsonl", out="out", runner="ray"))


@pytest.mark.parametrize(
    ("folder", "out", "code", "message"),
    [
        ("gone", "out", code_version(), "has no folder"),
        (".", "other", code_version(), "does not see the flow's folder"),
        (".", "out", "sha256:0", "install the same version"),
        (".", "out", code_version(), None),
    ],
)
def test_a_machine_that_cannot_take_part_says_why(
    folder: str, out: str, code: str, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / ".work").mkdir(parents=True)
    (tmp_path / "out" / ".work" / "lock").touch()
    monkeypatch.chdir(ROOT)  # where the test goes back to
    home = shards.Home("elsewhere", 1, tmp_path / folder, code)
    if message is None:
        home.settle(Path(out))
        assert Path.cwd() == tmp_path
    else:
        with pytest.raises(runners.RunnerError, match=message):
            home.settle(Path(out))


class _Hands:
    """Takes shards as a task runner does, and remembers how many it had at a time."""

    def __init__(self, work: Callable[[Shard], str]) -> None:
        self.pool, self.work, self.busy, self.most = ThreadPoolExecutor(8), work, 0, 0

    def submit(self, task: object, parameters: dict[str, Any]) -> _Promise:
        self.busy += 1
        self.most = max(self.most, self.busy)
        return _Promise(self, self.pool.submit(self.work, parameters["shard"]))


class _Promise:
    def __init__(self, hands: _Hands, future: Future[str]) -> None:
        self.hands, self.future = hands, future

    def add_done_callback(self, call: Callable[[_Promise], None]) -> None:
        self.future.add_done_callback(lambda _: call(self))

    def result(self, raise_on_failure: bool) -> str | BaseException:
        self.hands.busy -= 1
        return self.future.exception() or self.future.result()


def _labelled(work: Callable[[Shard], str], workers: int) -> tuple[dict[str, Any], int]:
    config = BuildConfig(source="rows.jsonl", out="out", workers=workers)
    hands, plan = _Hands(work), [Shard(f"train-{n:05d}", "train", (n,), {}) for n in range(9)]
    outcomes = [(shard.name, outcome) for shard, outcome in shards.label_all(hands, plan, config)]
    assert len(outcomes) == len(dict(outcomes)) == len(plan)
    return dict(outcomes), hands.most


def test_every_shard_is_given_out_once_and_no_more_than_workers_at_a_time() -> None:
    def work(shard: Shard) -> str:
        time.sleep(0.02 if shard.indices[0] == 0 else 0.001)
        return shard.name

    outcomes, most = _labelled(work, workers=3)
    assert all(name == outcome for name, outcome in outcomes.items())
    assert most == 3


def test_an_error_of_one_shard_leaves_the_others() -> None:
    def work(shard: Shard) -> str:
        if shard.indices[0] == 4:
            raise OSError("disk full")
        return shard.name

    outcomes, _ = _labelled(work, workers=2)
    assert [name for name, outcome in outcomes.items() if isinstance(outcome, OSError)] == ["train-00004"]


def test_models_that_do_not_load_stop_the_build_at_once() -> None:
    asked = []

    def work(shard: Shard) -> str:
        asked.append(shard)
        raise ModelError("cannot load the detector")

    with pytest.raises(ModelError):
        _labelled(work, workers=2)
    assert len(asked) <= 2
