"""A real ``vllm serve`` on the CPU, which can be killed and started again at the same port."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from train.serve import ENVIRONMENT, command_of

QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
FLAGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--host", "127.0.0.1")
IMAGES = ("--limit-mm-per-prompt", '{"image": 3}')


class VLLM:
    """One server of a model; ``more`` are further flags."""

    def __init__(self, model, log, more=()):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.more = more
        self.url, self.model, self.log, self.process = f"http://127.0.0.1:{self.port}", model, Path(log), None

    def start(self):
        vllm = Path(sys.executable).with_name("vllm")
        command = [str(vllm), *command_of(str(self.model), self.port, [*FLAGS, *IMAGES, *self.more])[1:]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | ENVIRONMENT | QUIET, stdout=log, stderr=log, start_new_session=True)
        return self

    def wait(self, seconds=300):
        given_up = time.monotonic() + seconds
        while time.monotonic() < given_up:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=1).is_success:
                    return self
            except httpx.TransportError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def kill(self):
        """At once, with all that it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
