"""An OpenAI-compatible server on the loopback that misbehaves as a test asks it to."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = tuple[int, dict[str, str], str | Iterable[str]]  # status, headers, body: whole, or in pieces that may take their time


def completion(content: Any, finish: str = "stop", refusal: str | None = None) -> Answer:
    """A well-formed chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice], "usage": usage}
    return 200, {"Content-Type": "application/json"}, json.dumps(body)


def failure(status: int, message: str = "no", **headers: str) -> Answer:
    body = json.dumps({"error": {"message": message, "type": "error", "code": None}})
    return status, {"Content-Type": "application/json", **headers}, body


class Loopback:
    """An HTTP server on a free port of the loopback, while it is running."""

    class Http(ThreadingHTTPServer):
        request_queue_size = 128  # the default of 5 resets connections under load
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:  # clients give up, and are killed, on purpose
            pass

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = self.Http(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


class Server(Loopback):
    """``behave`` maps (request number from 0, request body) to an answer; ``requests`` are the bodies received. If it raises
    ``ConnectionResetError`` the connection is reset without an answer."""

    def __init__(self, behave: Callable[[int, dict[str, Any]], Answer]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.in_flight, self.most_in_flight = 0, 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server.in_flight)
                try:
                    answer = behave(number, body)
                except ConnectionResetError:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                finally:
                    with server._lock:
                        server.in_flight -= 1
                self.answer(*answer)

            def answer(self, status: int, headers: dict[str, str], text: str | Iterable[str]) -> None:
                size = {"Content-Length": str(len(text.encode()))} if isinstance(text, str) else {"Connection": "close"}
                self.send_response(status)
                for name, value in {**headers, **size}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # who asked has given up
                    for piece in [text] if isinstance(text, str) else text:
                        self.wfile.write(piece.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(Handler)
        self.url += "/v1"
