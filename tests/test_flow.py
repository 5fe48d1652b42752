"""The same build through Prefect: as a flow in this process, and by a worker from a deployment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.questions import write_rows
from flows import own_server
from pipelines.build import build
from pipelines.config import BuildConfig, BuildOptions
from pipelines.dataset import store
from tests.conftest import ROOT, folder_bytes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("scenes"), 8, seed=6)


def test_the_flow_and_the_plain_build_agree(source: Path, tmp_path: Path) -> None:
    from prefect.testing.utilities import prefect_test_harness

    from flows.build_dataset import build_dataset

    with prefect_test_harness(server_startup_timeout=120):
        out = build_dataset(source=str(source), out=str(tmp_path / "flow"), options=BuildOptions(shard_size=3, workers=2))
    plain = tmp_path / "plain"
    build(BuildConfig(source=str(source), out=plain, shard_size=3))
    flowed = folder_bytes(Path(out))
    assert {name: flowed.get(name) for name in folder_bytes(plain)} == folder_bytes(plain)


def test_tables_are_made_once_and_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "count"
    script = "import sys, time; file = open(sys.argv[1], 'a'); time.sleep(0.2); file.write('x'); file.close()"
    monkeypatch.setattr(own_server, "UPGRADE", (sys.executable, "-c", "raise SystemExit(1)"))
    own_server.make_tables(tmp_path / "home")  # what fails is tried again
    monkeypatch.setattr(own_server, "UPGRADE", (sys.executable, "-c", script, str(count)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(own_server.make_tables, [tmp_path / "home"] * 3))
    assert count.read_text() == "x"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """``make serve`` on a free port; yields the environment of a client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"}
    environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    log = (tmp_path / "serve.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while "Worker" not in (tmp_path / "serve.log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "serve.log").read_text()
            time.sleep(1)
        yield environment
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_deployment_builds_on_a_worker(server: dict[str, str], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "deployed"
    command = [sys.executable, "-m", "prefect", "deployment", "run", "build-dataset/local", "--watch", "--watch-timeout", "300"]
    parameters = ["-p", f"source={source}", "-p", f"out={out}", "-p", 'options={"shard_size": 3}']
    done = subprocess.run([*command, *parameters], cwd=ROOT, env=server, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert store.read_manifest(out)["rows"] > 0
    keys = {artifact["key"] for artifact in asked(server, "artifacts/latest")}
    assert keys >= {"build-dataset-progress", "build-dataset-rows", "build-dataset-rejects"}


@pytest.mark.slow
def test_paths_of_deployments_mean_what_the_caller_sees(server: dict[str, str]) -> None:
    own = {
        deployment["name"]: deployment["parameters"] for deployment in asked(server, "deployments") if "source" in deployment["parameters"]
    }
    assert {parameters["source"] for parameters in own.values()} == {f"{ROOT}/demo_out/scenes/rows.jsonl"}
    assert {parameters["out"] for parameters in own.values()} == {f"{ROOT}/demo_out/dataset"}
    command = [sys.executable, "-m", "prefect", "deployment", "run", "build-dataset/local", "--watch", "--watch-timeout", "300"]
    done = subprocess.run([*command, "-p", "source=mine.jsonl", "-p", "out=there"], cwd=ROOT, env=server, capture_output=True, timeout=400)
    assert done.returncode != 0
    (run,) = asked(server, "flow_runs")
    assert run["state"]["type"] == "FAILED"
    assert "give -p source=$PWD/mine.jsonl" in run["state"]["message"]


def asked(server: dict[str, str], what: str) -> list[dict[str, Any]]:
    """All that the server has of something."""
    address = f"{server['PREFECT_API_URL']}/{what}/filter"
    with urllib.request.urlopen(urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})) as reply:
        return list(json.load(reply))


TWICE = """
import sys
from flows.build_dataset import build_dataset

build_dataset(source=sys.argv[1], out=sys.argv[2])
"""


@pytest.mark.slow
def test_two_builds_at_once_each_have_a_server_and_say_nothing_of_it(source: Path, tmp_path: Path) -> None:
    """From Python, without a Prefect server, on a machine on which Prefect has never run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_") and name != "DO_NOT_TRACK"}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect")}
    outs = [tmp_path / "one", tmp_path / "other"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWICE, str(source), str(out)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for out in outs
    ]
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for text in said:
        assert not any(word in text.lower() for word in ("traceback", "telemetry", "locked", "error")), text
    assert folder_bytes(outs[0] / "data") == folder_bytes(outs[1] / "data")
