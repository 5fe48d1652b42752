"""A SQLite store of judge replies, keyed by the request itself.

Asking a judge twice costs money and time, and a run that is killed must not pay again. The key is the SHA-256 of the request's canonical
JSON (model, messages, parameters, schema), so any change of prompt or setting asks anew. SQLite in WAL mode: many readers, one writer at
a time, safe under ``kill -9``, and nothing is unpickled.

A reply is stored by the time ``put`` returns, yet ``put`` does not wait for the disk: it is called where many other requests are in flight.
Moving SQLite's log into the database does wait, so a thread of its own does that.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

_SPENDING = "CREATE TABLE IF NOT EXISTS spending (model TEXT PRIMARY KEY, requests INT, prompt INT, completion INT, dollars REAL)"
_SPEND = """INSERT INTO spending VALUES (?, 1, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET requests = requests + 1,
prompt = prompt + excluded.prompt, completion = completion + excluded.completion, dollars = dollars + excluded.dollars"""
_PUTS_PER_CHECKPOINT = 500  # some 1,500 pages of the log
_LONGEST_LOG = 25_000  # pages, 100 MB: a log to which replies keep coming is never emptied beside them; beyond this the writer does it


def request_key(request: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a request."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """Maps request keys to JSON-serialisable replies. Usable from several threads."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._path, self._puts = Path(path).absolute(), 0
        self._checkpointer = threading.Thread()
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={_LONGEST_LOG}")
        # With row ids, since replies are long: a table without them keeps them in the tree of the keys, and a third more pages are written.
        self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        self._db.execute(_SPENDING)

    def get(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, reply: dict[str, Any]) -> None:
        text = json.dumps(reply)
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, text))
            self._puts += 1
            if self._puts % _PUTS_PER_CHECKPOINT == 0 and not self._checkpointer.is_alive():
                self._checkpointer = threading.Thread(target=_checkpoint, args=(self._path,), daemon=True)
                self._checkpointer.start()

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
            if self._checkpointer.is_alive():
                self._checkpointer.join()
            self._db.close()


def _checkpoint(path: Path) -> None:
    """Moves what the log holds into the database, without keeping readers or writers from their work."""
    with closing(sqlite3.connect(path, timeout=60)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
