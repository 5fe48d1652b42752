"""A judge for the shapes world that needs no LLM, behind the protocol that every judge speaks: the perception reward works offline with it.

    python -m demo.judge --port 8765
    python -m train.grpo --recipe perception-r1 --judge rules --judge-url http://127.0.0.1:8765/v1 ...

It reads the objects out of the facts and out of the response (``labeling.rules``), and calls a fact stated if the response states its
object, in the same place if both name one. It knows nothing beyond plain descriptive English.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demo.scenes import STRIP_BOXES
from labeling.rules import facts_of

_PLACE = re.compile(rf"\b({'|'.join(STRIP_BOXES)}) box\b", re.I)


def judge(facts: list[dict[str, str]], response: str) -> dict[str, Any]:
    """A verdict for every fact."""
    stated = objects(response)
    return {"verdicts": [{"id": fact["id"], "present": _is_stated(objects(fact["fact"]), stated)} for fact in facts]}


def objects(text: str) -> set[tuple[bool, str, str]]:
    """What a text says is there or is not, as (whether it is, object, box); the box is empty where none is named."""
    found: set[tuple[bool, str, str]] = set()
    for fact in facts_of(text):
        place = _PLACE.search(fact.statement)
        named = fact.phrase or fact.statement.lower()  # an absence has nothing to find
        found.add((fact.kind != "absence", named, place[1].lower() if place else ""))
    return found


def _is_stated(wanted: set[tuple[bool, str, str]], stated: set[tuple[bool, str, str]]) -> bool:
    def same(one: tuple[bool, str, str], other: tuple[bool, str, str]) -> bool:
        return one[:2] == other[:2] and (one[2] == other[2] or not one[2] or not other[2])

    return bool(wanted) and all(any(same(one, other) for other in stated) for one in wanted)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = json.loads(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": json.dumps(judge(asked["facts"], asked["response"]))}
        reply = {"id": "judge", "object": "chat.completion", "created": 0, "model": body["model"]}
        reply |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """The judge's URL while it serves; port 0 takes a free one."""
    server = _Server(("127.0.0.1", port), _Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the shapes world's rule-based judge.")
    parser.add_argument("--port", type=int, default=8765)
    with serving(parser.parse_args().port) as url:
        print(f"judging at {url}; stop with Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
