"""A vLLM server of a small model on this machine's CPU, for as long as it is wanted."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from train.serve import ENVIRONMENT, command_of

FLAGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--host", "127.0.0.1")
LONGEST = 600  # seconds that a server may take to start


@contextmanager
def serving(vllm: str, model: Path) -> Iterator[str]:
    """A server of a model, ready; its URL.

    vllm: the command of an environment that has vLLM.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = os.environ | ENVIRONMENT | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    command = [vllm, *command_of(str(model), port, FLAGS)[1:]]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        try:
            _wait(port, server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait(port: int, server: subprocess.Popen[bytes], log: Any) -> None:
    given_up = time.monotonic() + LONGEST
    while time.monotonic() < given_up:
        if server.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"vLLM ended: {log.read()[-2000:].decode(errors='replace')}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise RuntimeError(f"vLLM was not ready after {LONGEST} seconds")
