"""``flows.serve`` takes what it has started with it when it is told to go; a stand-in plays Prefect."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.paths import RelativePath, is_relative, refuse_relative
from tests.conftest import ROOT

PREFECT = """
import http.server, os, pathlib, signal, sys, time

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

command = sys.argv[1]
if command in ("server", "worker"):
    pathlib.Path(os.environ["PIDS"], command).write_text(str(os.getpid()))
if command == "server":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Answers).serve_forever()
elif command == "worker":
    if "stubborn" in os.environ["PIDS"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
"""


@pytest.fixture(params=["obedient", "stubborn"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A served worker and its server, and the folder that knows their numbers."""
    pids = tmp_path / request.param
    pids.mkdir()
    (tmp_path / "prefect.py").write_text(PREFECT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = f"import flows.serve as s, sys; s.PREFECT = (sys.executable, {str(tmp_path / 'prefect.py')!r}); s.GRACE = 1; s.serve({port})"
    process = subprocess.Popen([sys.executable, "-c", start], cwd=ROOT, env={**os.environ, "PIDS": str(pids)})
    try:
        deadline = time.monotonic() + 60
        while not (pids / "worker").exists() or not (pids / "worker").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, pids
    finally:
        process.kill()
        for name in pids.iterdir():
            if is_alive(int(name.read_text())):
                os.kill(int(name.read_text()), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_server_and_worker_end_with_it(served: tuple[subprocess.Popen[bytes], Path], sign: signal.Signals) -> None:
    process, pids = served
    process.send_signal(sign)
    assert process.wait(30) == 0
    assert not any(is_alive(int(name.read_text())) for name in pids.iterdir())
    assert {name.name for name in pids.iterdir()} == {"server", "worker"}


@pytest.mark.parametrize(
    "paths", [{"out": "dataset"}, {"source": "rows.jsonl"}, {"source": "./rows"}, {"source": "a/b/c"}, {"source": "a/b.parquet"}]
)
def test_a_deployment_refuses_paths_that_mean_another_place_to_the_worker(paths: dict[str, str]) -> None:
    ((name, path),) = paths.items()
    with pytest.raises(RelativePath, match=re.escape(f"-p {name}=$PWD/{path}")):
        refuse_relative(**paths)


def test_absolute_paths_and_hub_ids_mean_the_same_to_everybody() -> None:
    assert not is_relative("source", "/data/rows.jsonl")
    assert not is_relative("source", "hiyouga/geometry3k")
    assert not is_relative("out", "/data/dataset")
    assert is_relative("out", "hiyouga/geometry3k")
