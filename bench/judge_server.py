"""An OpenAI-compatible server that answers every request with the same five facts, after a fixed time, and does nothing else.

It reads just enough HTTP to know where a request ends, so that one core serves many times what an ``openai`` client can ask, and it runs in
a process of its own.

    python -m bench.judge_server [--latency 0.2]

Prints its URL, and serves until it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# A valid reply to ``labeling.annotate``, of the length that a judge writes for a trace of 1,500 characters.
FACTS = [
    ("object", "A red cube stands on the left side of the table.", "red cube", "The red cube is next to the yellow square"),
    ("attribute", "The tile in the lower row is small and blue.", "small blue tile", "A small blue tile covers both circles"),
    ("count", "There are three towers behind the scale.", "tower", "The left tower lies below the second column"),
    ("relation", "Triangle PQR shares an edge with segment ST.", "triangle", "Triangle PQR shares an edge with segment ST"),
    ("text", "The scale shows the number 17.", "scale", "The scale is twice as wide as the grey background"),
]


def reply() -> bytes:
    """The whole answer: headers, and a chat completion with the facts and its usage."""
    facts = [dict(zip(("kind", "statement", "phrase", "quote"), fact, strict=True)) for fact in FACTS]
    message = {"role": "assistant", "content": json.dumps({"facts": facts})}
    usage = {"prompt_tokens": 760, "completion_tokens": 230, "total_tokens": 990}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice], "usage": usage}
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class _Connection(asyncio.Protocol):
    def __init__(self, latency: float, answer: bytes) -> None:
        self.latency, self.answer = latency, answer
        self.received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.received[:end])
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            del self.received[:whole]
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, self.answer)


@contextmanager
def serving(latency: float) -> Iterator[str]:
    """The URL of a server in a process of its own; ``latency`` in seconds."""
    command = [sys.executable, "-m", "bench.judge_server", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


async def serve(latency: float) -> None:
    answer = reply()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(latency, answer), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds between a request and its answer")
    asyncio.run(serve(parser.parse_args().latency))
