"""A SQLite store of judge replies, keyed by the request itself.

Asking a judge twice costs money and time, and a run that is killed must not pay again. The key is the SHA-256 of the request's canonical
JSON (model, messages, parameters, schema), so any change of prompt or setting asks anew. SQLite in WAL mode: many readers, one writer at
a time, safe under ``kill -9``, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

_SPENDING = "CREATE TABLE IF NOT EXISTS spending (model TEXT PRIMARY KEY, requests INT, prompt INT, completion INT, dollars REAL)"
_SPEND = """INSERT INTO spending VALUES (?, 1, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET requests = requests + 1,
prompt = prompt + excluded.prompt, completion = completion + excluded.completion, dollars = dollars + excluded.dollars"""


def request_key(request: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a request."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """Maps request keys to JSON-serialisable replies. Usable from several threads."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
        self._db.execute(_SPENDING)

    def get(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, reply: dict[str, Any]) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    def spend(self, model: str, prompt_tokens: int, completion_tokens: int, dollars: float | None) -> None:
        """Note what a request took, whatever came of it; requests that are answered from here take nothing."""
        with self._lock:
            self._db.execute(_SPEND, (model, prompt_tokens, completion_tokens, dollars or 0.0))

    def spending(self) -> list[dict[str, Any]]:
        """What all who share this file have spent, by model: model, requests, prompt and completion tokens, dollars at known prices."""
        with self._lock:
            rows = self._db.execute("SELECT model, requests, prompt, completion, dollars FROM spending ORDER BY model").fetchall()
        return [dict(zip(("model", "requests", "prompt_tokens", "completion_tokens", "dollars"), row, strict=True)) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()
