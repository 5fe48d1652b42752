"""The judge's bench, at a size at which its figures mean nothing: every client asks the same, and it ends with its line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import judge
from bench.judge_server import reply
from labeling.annotate import check_reply
from rewardlib.judge import JudgeEndpoint
from tests.judge_server import Server, completion

FACTS = json.loads(reply().partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
ARGUMENTS = ["judge", "--requests", "20", "--concurrency", "8", "--latency", "0.01", "--repetitions", "2"]
STAND_IN = 'import json; print(json.dumps({"version": "1", "seconds": 1.0}))'


SHARED = ("model", "messages", "temperature", "seed", "response_format")


def _line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    judge.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ARGUMENTS)
    monkeypatch.setattr(judge, "RESULTS", tmp_path / "judge.json")


def test_without_the_peer_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "PEERS", tmp_path / "gone")
    judge.main()
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert "make peers" in out
    assert result["peer_ratio"] is None
    assert result["efficiency"] > 0
    assert {name: len(times) for name, times in result["seconds"].items()} == {"bare": 2, "sightline": 2}
    assert json.loads(judge.RESULTS.read_text()) == result


@pytest.mark.slow
def test_a_peer_is_measured_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stand_in(tmp_path, monkeypatch, STAND_IN)
    result = _line(capsys)
    assert (result["distilabel_per_second"], result["seconds"]["distilabel"]) == (20, [1.0, 1.0])
    assert result["versions"] == {"distilabel": "1", "distilabel-task": "1"}
    assert result["peer_ratio"] == result["ratios"]["distilabel"] > 0
    assert "curator" not in result["ratios"]


def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A distilabel that does what ``script`` says."""
    (tmp_path / "peer.py").write_text(script)
    (tmp_path / "distilabel" / "bin").mkdir(parents=True)
    (tmp_path / "distilabel" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "distilabel" / "ready").touch()
    monkeypatch.setattr(judge, "PEERS", tmp_path)
    monkeypatch.setattr(judge, "PEER_SCRIPT", tmp_path / "peer.py")


def test_a_peer_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "raise SystemExit('no such model')")
    with pytest.raises(RuntimeError, match="no such model"):
        judge.ask_peer("distilabel", JudgeEndpoint("judge", "http://127.0.0.1:1/v1"), judge.make_requests(1, seed=1))


def test_the_server_gives_what_the_annotator_accepts() -> None:
    assert len(check_reply(json.loads(FACTS))) == 5


def _bodies(client: Callable[..., float]) -> list[dict[str, Any]]:
    """What reaches the server, in the order of the traces."""
    requests = judge.make_requests(10, seed=3)
    with Server(lambda n, body: completion(FACTS)).running() as server:
        client(JudgeEndpoint("judge", server.url, concurrency=4), requests)
    order = {request.user: n for n, request in enumerate(requests)}
    asked = [body for body in server.requests if body["messages"]]  # the peer asks once for nothing, to see the headers
    return sorted(asked, key=lambda body: order[body["messages"][1]["content"]])


def test_both_clients_send_the_same() -> None:
    bodies = _bodies(judge.bare)
    assert _bodies(judge.sightline) == bodies
    traces = [json.loads(body["messages"][1]["content"])["trace"] for body in bodies]
    assert len(set(traces)) == 10
    assert all(1500 <= len(trace) <= 1550 for trace in traces)


@pytest.mark.slow
@pytest.mark.skipif(not judge.peers(), reason="`make peers` installs what is compared")
def test_the_peers_send_the_same() -> None:
    bodies = _bodies(judge.bare)
    expected = sorted([*bodies, *bodies[:4]], key=bodies.index)  # their warm-up asks the first ones
    for name in judge.peers():
        assert [{key: body[key] for key in SHARED} for body in _bodies(partial(judge.peer, name))] == [
            {key: body[key] for key in SHARED} for body in expected
        ]
