"""A Prefect server, this project's deployments, and a worker, in one command on one machine.

    make serve                         # or: python -m flows.serve [--port 4200]

Then, in another terminal:

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    prefect deployment run build-dataset/local --watch -p source=$PWD/rows.jsonl -p out=$PWD/dataset -p options='{"license": "cc-by-4.0"}'
    prefect deployment run publish-dataset/local --watch -p out=$PWD/dataset -p repo=me/shapes

Ctrl-C stops the worker and the server, and so does SIGTERM, as service managers send it. A server that already answers on the port is used
and left running.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from rewardlib.program import program

ROOT = Path(__file__).resolve().parents[1]
PREFECT = (sys.executable, "-m", "prefect")
GRACE = 10  # seconds for a process to end by itself


def healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serve(port: int, seconds: float = 120) -> None:
    """Run until interrupted or terminated; what was started here ends here."""
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_API_URL": api, "PWD": str(ROOT)}  # what prefect.yaml's paths start from
    signal.signal(signal.SIGTERM, _interrupt)
    children: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        # In a session of its own: a terminal's Ctrl-C reaches this process alone, which ends the others in their order.
        children.append(subprocess.Popen([*PREFECT, *command], env=environment, cwd=ROOT, start_new_session=True))
        return children[-1]

    try:
        server = None if healthy(api) else start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        deadline = time.monotonic() + seconds
        while not healthy(api):
            if time.monotonic() > deadline or (server is not None and server.poll() is not None):
                sys.exit(f"the Prefect server did not start on port {port}; its messages are above. Is the port taken? Try --port 4201")
            time.sleep(0.5)
        for command in (("work-pool", "create", "local", "--type", "process", "--overwrite"), ("--no-prompt", "deploy", "--all")):
            subprocess.run([*PREFECT, *command], env=environment, cwd=ROOT, check=True)
        print(f"ready: export PREFECT_API_URL={api}; prefect deployment run build-dataset/local --watch", flush=True)
        if status := start("worker", "start", "--pool", "local").wait():
            sys.exit(f"the worker ended with status {status}; its messages are above")
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is being done
        for child in reversed(children):  # the worker first: without a server it would wait for one
            _end(child)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started; after ``GRACE`` seconds by force."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(program(), description="Serve the deployments on this machine.")
    parser.add_argument("--port", type=int, default=4200)
    serve(parser.parse_args().port)
