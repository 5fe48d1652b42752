"""The same build through Prefect: as a flow in this process, and by a worker from a deployment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.questions import write_rows
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
    with urllib.request.urlopen(
        urllib.request.Request(
            server["PREFECT_API_URL"] + "/artifacts/latest/filter", data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
        )
    ) as reply:
        artifacts = reply.read().decode()
    assert all(key in artifacts for key in ("build-dataset-progress", "build-dataset-rows", "build-dataset-rejects"))
