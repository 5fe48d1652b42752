"""The collected cases of judges that misbehave, each by its own server and its own rows; skipped where the cases are not at hand."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.build_dataset import main
from labeling.annotate import SYSTEM
from pipelines.dataset import store
from rewardlib.cache import ReplyCache

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not at hand")

Started = Callable[[str, str], int]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts a case's judge.py; what ran on its port before is ended."""
    processes: list[subprocess.Popen[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])

    def start(case: str, kind: str) -> int:
        end()
        script = next(CASES.glob(f"{case}*")) / "judge.py"
        processes.append(subprocess.Popen([sys.executable, "-S", str(script), kind, str(port)], stderr=subprocess.DEVNULL))
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"{script} does not listen")

    def end() -> None:
        for process in processes:
            process.kill()
            process.wait()

    yield start
    end()


Built = Callable[..., tuple[dict[str, Any], dict[str, Any], dict[str, str]]]


@pytest.fixture
def built(started: Started, tmp_path: Path) -> Built:
    """Gives the case's command; returns the manifest, the rows by id, and the details of the rejects by id."""

    def build(case: str, kind: str, *more: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        port = started(case, kind)
        source = next(CASES.glob(f"{case}*")) / "rows.jsonl"
        judge = ["--annotator.model", "j", "--annotator.base-url", f"http://127.0.0.1:{port}/v1"]
        out = tmp_path / "d"
        few = ["--annotator.retries", "1", "--annotator.concurrency", "1"]
        manifest = main(["--source", str(source), "--out", str(out), *judge, *few, *more])
        rejects = {reject.id: reject.detail for reject in store.read_rejects(out)}
        return manifest, {row["id"]: row for row in store.read_rows(out)}, rejects

    return build


GOOD = [
    ("F07", "deepseek", ()),
    ("F07", "no-response-format", ()),
    ("F08", "refuses-string", ()),
    ("F08", "refuses-detail", ()),
    ("F08", "refuses-500", ()),
    ("F08", "refuses-param", ()),
    ("F09", "error-in-200", ()),
    ("F11", "max-completion-tokens", ("--annotator.temperature", "1", "--annotator.seed", "None")),
    ("F10", "content-parts", ()),
    ("F10", "no-open-think", ()),
    ("F10", "good", ()),
]


@pytest.mark.parametrize(("case", "kind", "more"), GOOD, ids=[f"{case} {kind}" for case, kind, _ in GOOD])
def test_a_judge_that_can_be_understood_is(built: Built, case: str, kind: str, more: tuple[str, ...]) -> None:
    manifest, rows, rejects = built(case, kind, *more)
    assert (sorted(rows), rejects) == (["a", "b"], {})
    assert {row["regions"][0]["phrase"] for row in rows.values()} == {"red square"}
    assert manifest["cost"]["models"][0]["prompt_tokens"] == 200


def test_the_form_is_in_the_prompt() -> None:
    assert "json" in SYSTEM.lower()
    assert 'facts"' in SYSTEM


def test_a_rate_limit_inside_a_200_is_told_as_it_is(built: Built) -> None:
    _, rows, rejects = built("F09", "error-in-200", "--annotator.retries", "0")
    assert sorted(rows) == ["b"]
    assert "429" in rejects["a"]
    assert "Provider returned error" in rejects["a"]
    _, rows, rejects = built("F09", "good", "--annotator.retries", "0")
    assert (sorted(rows), rejects) == (["a", "b"], {})


@pytest.mark.parametrize(("kind", "said"), [("context", "maximum context length is 4096"), ("reasoning-only", "reasoning only")])
def test_a_judge_that_was_put_right_is_asked_again(built: Built, kind: str, said: str) -> None:
    _, rows, rejects = built("F10", kind)
    assert (rows, sorted(rejects)) == ({}, ["a", "b"])
    assert all(said in detail for detail in rejects.values())
    assert built("F10", "good")[2] == {}


def test_the_account_is_what_was_paid(started: Started, tmp_path: Path) -> None:
    """The account is the cache's to the token. This server now understands at once: it had not been told the form."""
    port = started("F30", "no-response-format")
    source = next(CASES.glob("F30*")) / "rows.jsonl"
    judge = ["--annotator.model", "j", "--annotator.base-url", f"http://127.0.0.1:{port}/v1", "--annotator.concurrency", "1"]
    prices = ["--annotator.price-in", "1", "--annotator.price-out", "10"]
    manifest = main(["--source", str(source), "--out", str(tmp_path / "d"), *judge, *prices])
    (spent,) = ReplyCache(tmp_path / "d" / ".work" / "replies.sqlite").spending()
    (line,) = manifest["cost"]["models"]
    assert {name: line[name] for name in ("requests", "prompt_tokens", "completion_tokens", "dollars")} == {
        name: spent[name] for name in ("requests", "prompt_tokens", "completion_tokens", "dollars")
    }


def test_a_phrase_that_nobody_can_see_is_none(built: Built) -> None:
    _, rows, rejects = built("F06", "invisible-phrase")
    assert (rows, sorted(rejects)) == ({}, ["a", "b"])
    assert all("looked for nothing" in detail for detail in rejects.values())


def test_half_an_emoji_drops_its_fact(built: Built) -> None:
    for _ in range(2):
        manifest, rows, rejects = built("F06", "half-emoji")
        assert (rows, sorted(rejects)) == ({}, ["a", "b"])
        assert all("half a character" in detail for detail in rejects.values())
        assert manifest["counts"]["annotations_dropped: half a character"] == 2
