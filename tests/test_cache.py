"""The store of replies: what was put is there, for whoever opens it, while its log is moved into the database beside the work."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rewardlib import cache
from rewardlib.cache import ReplyCache

LONG = "x" * 3000


def _reply(n: int) -> dict[str, Any]:
    return {"value": n, "raw": LONG}


def test_a_reply_is_there_for_another_process_before_the_store_is_closed(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path / "replies.sqlite")
    store.put("a", _reply(1))
    store.put("a", _reply(2))
    assert ReplyCache(tmp_path / "replies.sqlite").get("a") == store.get("a") == _reply(2)
    assert store.get("b") is None


def test_the_log_is_moved_into_the_database_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_PUTS_PER_CHECKPOINT", 10)
    path = tmp_path / "replies.sqlite"
    store = ReplyCache(path)
    for n in range(9):
        store.put(str(n), _reply(n))
    empty = path.stat().st_size
    store.put("9", _reply(9))
    store._checkpointer.join()
    assert path.stat().st_size > empty + 10 * len(LONG)
    store.close()
    assert not path.with_name(path.name + "-wal").exists()


def test_many_threads_write_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_PUTS_PER_CHECKPOINT", 7)
    store = ReplyCache(tmp_path / "replies.sqlite")
    seen: list[bool] = []

    def work(worker: int) -> None:
        for n in range(40):
            store.put(f"{worker}.{n}", _reply(n))
            seen.append(store.get(f"{worker}.{n}") == _reply(n))

    workers = [threading.Thread(target=work, args=(w,)) for w in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    assert seen == [True] * 160
    with closing(sqlite3.connect(tmp_path / "replies.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM replies").fetchone() == (160,)


def test_a_store_of_an_earlier_version_is_read_and_written(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "replies.sqlite")) as db, db:
        db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO replies VALUES ('a', '{\"value\": 1}')")
    store = ReplyCache(tmp_path / "replies.sqlite")
    store.put("b", _reply(2))
    assert (store.get("a"), store.get("b")) == ({"value": 1}, _reply(2))
