"""A judge for the shapes world that needs no LLM, behind the protocol that every judge speaks: what asks one works offline with it.

    python -m demo.judge --port 8765
    python -m train.grpo --recipe perception-r1 --judge rules --judge-url http://127.0.0.1:8765/v1 ...
    python -m flows.build_dataset --annotator.model reader --annotator.base-url http://127.0.0.1:8765/v1 ...

It knows the perception reward's question and the annotator's by what they hold. For the one it reads the objects out of the facts and out
of the response (``labeling.rules``), and calls a fact stated if the response states its object, in the same place if both name one. For
the other it returns the facts that it reads in the trace. It knows nothing beyond plain descriptive English.
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

MODEL = "reader"  # any name will do but "rules", which the annotator takes for its own
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


def read(trace: str) -> dict[str, Any]:
    """The facts of a trace, as the annotator wants them."""
    named = ("kind", "statement", "phrase", "quote")
    return {"facts": [{name: getattr(fact, name) for name in named} for fact in facts_of(trace)]}


class NotAsked(ValueError):
    """The request is no question that this judge knows; the message says which it does."""


def answer(body: Any) -> dict[str, Any]:
    """The reply to a chat request; ``NotAsked`` where it holds no question."""
    messages = body.get("messages") if isinstance(body, dict) else None
    for message in reversed(messages if isinstance(messages, list) else []):  # a repair follows the question
        asked = _question(message)
        trace, response, facts = asked.get("trace"), asked.get("response"), asked.get("facts")
        if isinstance(trace, str):
            return read(trace)
        if isinstance(response, str) and isinstance(facts, list) and all(map(_is_fact, facts)):
            return judge(facts, response)
    raise NotAsked(
        "this judge answers by rule, and only two questions, each a user message in JSON: the perception reward's "
        '{"facts": [{"id": "...", "fact": "..."}], "response": "..."} with verdicts, and the annotator\'s '
        '{"question": "...", "trace": "..."} with facts. For any other give an LLM\'s address'
    )


def _question(message: Any) -> dict[str, Any]:
    """What a user's message holds as JSON; nothing, if it is none."""
    content = message.get("content") if isinstance(message, dict) and message.get("role") == "user" else None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    with suppress(ValueError, TypeError, RecursionError):
        asked = json.loads(content or "")
        return asked if isinstance(asked, dict) else {}
    return {}


def _is_fact(fact: Any) -> bool:
    return isinstance(fact, dict) and isinstance(fact.get("id"), str) and isinstance(fact.get("fact"), str)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.is_at("/v1/models"):
            self.send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "demo"}]})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.is_at("/v1/chat/completions"):
            return
        try:
            body = json.loads(sent)
            message = {"role": "assistant", "content": json.dumps(answer(body))}
            reply = {"id": "judge", "object": "chat.completion", "created": 0, "model": body.get("model", MODEL)}
            self.send(200, reply | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        except (ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, NotAsked) else f"the request is no JSON ({error})"
            self.send(400, {"error": {"message": said, "type": "invalid_request_error"}})

    def is_at(self, path: str) -> bool:
        """Whether this path was asked for; if not, that is the answer."""
        if self.path.partition("?")[0].rstrip("/") == path:
            return True
        self.send(404, {"error": {"message": f"{self.command} is for /v1/models or /v1/chat/completions, not {self.path}"}})
        return False

    def send(self, status: int, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
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
