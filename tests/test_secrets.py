"""No key, token or password is in anything that a build leaves or says, whatever an endpoint quotes."""

from __future__ import annotations

import base64
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from demo.questions import write_rows as write_scenes
from pipelines import build
from pipelines.building.models import ModelError, Models, _explained, load_annotator
from pipelines.card import write_card
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.gallery import write_gallery
from rewardlib.console import failing_clearly
from rewardlib.redact import redact
from tests.conftest import ROOT, fake_models, record, write_rows
from tests.judge_server import Answer, Server, completion, failure

KEY, TOKEN, PASSWORD = "sk-planted-judge-key-7c41", "hf_plantedHubToken9d52", "planted-password-5e63"
BASIC = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
SECRETS = (KEY, KEY[:8], TOKEN, PASSWORD, BASIC, BASIC[:-4])


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def spilled(*said: str, folder: Path | None = None) -> list[tuple[str, str]]:
    """Every secret with the place where it is found: in texts, in any file's bytes, and in what Parquet and SQLite files hold."""
    places = {f"text {n}": text for n, text in enumerate(said)}
    for path in [path for path in (folder.rglob("*") if folder else ()) if path.is_file()]:
        places[path.name] = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            places[f"{path.name}, unpacked"] = repr(pq.read_table(path).to_pylist())
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as database:
                places[f"{path.name}, dumped"] = "\n".join(database.iterdump())
    return [(secret, place) for place, text in places.items() for secret in SECRETS if secret in text]


def facts(body: dict[str, Any]) -> Answer:
    fact = {"kind": "object", "statement": "There is a red square.", "phrase": "red square", "quote": "red square"}
    return completion(json.dumps({"facts": [fact]}))


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def built(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A build of three rows, one request at a time, with card and gallery."""
    annotator = {"model": "judge", "base_url": url, "retries": 0, "timeout": 5, "concurrency": 1}
    source = write_rows(tmp_path / "source", [record(name) for name in "abc"])
    config = BuildConfig(source=str(source), out=tmp_path / "out", shard_size=1, annotator=annotator)
    fakes = fake_models()
    models = Models(load_annotator(config.annotator, config.out / ".work" / "replies.sqlite"), fakes.locators, fakes.segmenter)
    monkeypatch.setattr(build, "load_models", lambda config: models)
    manifest = build.build(config)
    if manifest["rows"]:
        write_gallery(config.out)
        write_card(config.out)
    return config.out, manifest


ECHOES: dict[str, Answer] = {
    "401": failure(401, f"Incorrect API key provided: {KEY}. Get another at http://me:{PASSWORD}@keys.example"),
    "400": failure(400, f"the header Authorization: Bearer {KEY} is malformed"),
    "500": failure(500, f"unhandled: {{'Authorization': 'Bearer {KEY}', 'cookie': '{TOKEN}'}}"),
    "401, cut": failure(401, f"{'.' * 250} Incorrect API key provided: {KEY}"),
    "HTML": ((502, {"Content-Type": "text/html"}, f"<html><pre>Authorization: Bearer {KEY}\nAuthorization: Basic {BASIC}</pre></html>")),
    "HTML for a reply": ((200, {"Content-Type": "text/html"}, f"<html>{KEY}</html>")),
    "refusal": completion(None, refusal=f"I will not work for {KEY}"),
    "no JSON": completion(f"your key is {KEY}"),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_an_endpoint_that_quotes_the_key(
    echo: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Server(lambda n, body: echo if n < 2 else facts(body)).running() as server:
        out, manifest = built(tmp_path, server.url, monkeypatch)
    rejects = store.read_rejects(out)
    assert manifest["rows"] + len(rejects) == 3
    assert rejects
    assert all(reject.reason == "the judge failed" and reject.detail for reject in rejects)
    assert list(out.rglob("*.sqlite"))
    assert spilled(*capfd.readouterr(), caplog.text, folder=out) == []


@pytest.mark.parametrize("answers", [True, False])
def test_credentials_in_the_judges_url(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Server(lambda n, body: failure(403, f"Authorization: Basic {BASIC}") if n == 0 else facts(body)).running() as server:
        place = server.url.removeprefix("http://") if answers else f"{closed()}/v1"
        out, _ = built(tmp_path, f"http://me:{PASSWORD}@{place}", monkeypatch)
    details = [reject.detail for reject in store.read_rejects(out)]
    assert (len(details), "403" in details[0] if answers else f"[credentials]@{place}" in details[0]) == (1 if answers else 3, True)
    assert spilled(*capfd.readouterr(), folder=out) == []


# --- the real command ---


def command(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PREFECT_"))}
    variables = {**kept, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1", **environment}
    whole = [sys.executable, "-m", "flows.build_dataset", "--out", str(tmp_path / "out"), *arguments]
    return subprocess.run(whole, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)


@contextmanager
def hub() -> Iterator[tuple[str, list[str]]]:
    """A Hub that refuses everybody and quotes their token; its address, and the authorizations that it was shown."""
    shown: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            text = json.dumps({"error": f"not with {shown[-1]}"}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("X-Error-Message", f"Invalid token: {shown[-1]}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", shown
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_the_command_with_a_judge_that_quotes_its_key(tmp_path: Path) -> None:
    rows = write_scenes(tmp_path / "scenes", 2, seed=3)
    with Server(lambda n, body: failure(401, f"Incorrect API key provided: {KEY}")).running() as server:
        url = server.url.replace("http://", f"http://me:{PASSWORD}@")
        done = command(
            tmp_path,
            "--source",
            str(rows),
            "--annotator.model",
            "judge",
            "--annotator.base-url",
            url,
            HF_HUB_OFFLINE="1",
            PREFECT_API_URL="",
        )
        assert server.requests
    assert "the judge failed" in done.stdout, done.stderr
    assert spilled(done.stdout, done.stderr, folder=tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("--source", "ROWS", "--detector.name", "some/detector"), ("--source", "some/rows", "--license", "mit")]
)
def test_the_command_with_a_hub_that_quotes_the_token(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    rows = str(write_scenes(tmp_path / "scenes", 1, seed=3))
    with hub() as (url, shown):
        done = command(tmp_path, *[rows if a == "ROWS" else a for a in arguments], HF_ENDPOINT=url)
    assert f"Bearer {TOKEN}" in shown
    assert (done.returncode, "error:" in done.stderr) == (2, True)
    assert spilled(done.stdout, done.stderr, folder=tmp_path) == []


def test_the_sentence_that_ends_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    for padding in (0, 270, 290):  # where a long message is cut, half a token may be left
        with pytest.raises(SystemExit), failing_clearly(ModelError), _explained("detector", "some/detector"):
            raise OSError(f"{'.' * padding} Invalid token: {TOKEN} at https://me:{PASSWORD}@hub")
    out, errors = capfd.readouterr()
    assert errors.count("cannot load the detector") == 3
    assert spilled(out, errors) == []
    assert TOKEN[:8] not in errors


# --- redact ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: [OPENAI_API_KEY]."),
        (f"{TOKEN}{TOKEN} and {KEY}", "[HF_TOKEN][HF_TOKEN] and [OPENAI_API_KEY]"),
        (f"http://me:{PASSWORD}@host:1/v1?x=1 and https://{TOKEN}@h", "http://[credentials]@host:1/v1?x=1 and https://[credentials]@h"),
        (f"http://me:p@{PASSWORD}@host", "http://[credentials]@host"),
        ('{"Authorization": "Basic bWU6cHc="}', '{"Authorization": "Basic [credentials]"}'),
        ("authorization: bearer abc", "authorization: bearer [credentials]"),
        ("http://host/a@b, me@example.org, Basic mathematics", "http://host/a@b, me@example.org, Basic mathematics"),
        ("", ""),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_what_is_named_like_a_secret_and_long_enough_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MY_SECRET": "long-enough",
        "DB_PASSWORD": "long-enough-too",
        "SHORT_KEY": "true",
        "EMPTY_TOKEN": "",
        "PLACE": "somewhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert (
        redact("long-enough-too long-enough true somewhere other", "other", "other-secret")
        == "[DB_PASSWORD] [MY_SECRET] true somewhere other"
    )
    assert redact("an other-secret", "other-secret") == "an [secret]"
