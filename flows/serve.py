"""A Prefect server, this project's deployments, and a worker, in one command on one machine.

    make serve                         # or: python -m flows.serve [--port 4200]

Then, in another terminal:

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    prefect deployment run build-dataset/local --watch -p source=rows.jsonl -p out=dataset -p options='{"license": "cc-by-4.0"}'
    prefect deployment run publish-dataset/local --watch -p out=dataset -p repo=me/shapes

Ctrl-C stops the worker and the server. A server that already answers on the port is used and left running.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serve(port: int, seconds: float = 120) -> None:
    """Run until interrupted."""
    api = f"http://127.0.0.1:{port}/api"
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment = {**os.environ, **quiet, "PREFECT_API_URL": api}
    prefect = [sys.executable, "-m", "prefect"]
    server = None
    if not healthy(api):
        server = subprocess.Popen([*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)], env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + seconds
        while not healthy(api):
            if time.monotonic() > deadline or (server is not None and server.poll() is not None):
                sys.exit(f"the Prefect server did not start on port {port}; its messages are above. Is the port taken? Try --port 4201")
            time.sleep(0.5)
        subprocess.run(
            [*prefect, "work-pool", "create", "local", "--type", "process", "--overwrite"], env=environment, cwd=ROOT, check=True
        )
        subprocess.run([*prefect, "--no-prompt", "deploy", "--all"], env=environment, cwd=ROOT, check=True)
        print(f"ready: export PREFECT_API_URL={api}; prefect deployment run build-dataset/local --watch", flush=True)
        subprocess.run([*prefect, "worker", "start", "--pool", "local"], env=environment, cwd=ROOT, check=True)
    except KeyboardInterrupt:
        pass
    finally:
        if server is not None:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the deployments on this machine.")
    parser.add_argument("--port", type=int, default=4200)
    serve(parser.parse_args().port)
