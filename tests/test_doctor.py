"""The doctor finds what is wrong, says what to do, keeps its secrets, and never falls ill itself."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from demo.judge import serving
from pipelines.doctor import endpoints, machine
from pipelines.doctor.command import main
from pipelines.doctor.packages import parse_requirement, within
from tests.conftest import ROOT
from tests.judge_server import Answer, Server, completion, failure

JUDGE_KEY, HUB_TOKEN, PASSWORD = "planted-judge-key-1f", "hf_plantedHubToken2e", "planted-password-3d"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
Page = tuple[int, dict[str, str], str]


class Service:
    """Answers a GET with ``behave(path, authorization)``, and remembers whom it was asked by."""

    def __init__(self, behave: Callable[[str, str], Page]) -> None:
        self.asked: list[tuple[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorization = self.headers.get("Authorization", "")
                service.asked.append((self.path, authorization))
                status, headers, text = behave(self.path, authorization)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Service]:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def as_json(value: Any, status: int = 200) -> Page:
    return status, {"Content-Type": "application/json"}, json.dumps(value)


def pretend(site: Path, **versions: str) -> Path:
    """A folder for packages that holds Sightline's metadata, and that of packages which are said to be installed."""
    lines = [f"Requires-Python: {PROJECT['requires-python']}", *(f"Requires-Dist: {line}" for line in PROJECT["dependencies"])]
    for extra, packages in PROJECT["optional-dependencies"].items():
        lines += [f"Provides-Extra: {extra}", *(f'Requires-Dist: {line}; extra == "{extra}"' for line in packages)]
    for name, version, more in [("sightline", "0.1.0", lines), *((n.replace("_", "-"), v, []) for n, v in versions.items())]:
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *more]) + "\n")
    return site


BASE = {"numpy": "2.4.6", "math_verify": "0.9.0", "openai": "3.51.0", "pycocotools": "2.0.11"}


def run(folder: Path, *arguments: str, whole: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """``sightline doctor ARGUMENTS`` on a bare Python with the packages of ``folder``; ``whole`` adds those of this environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = {**kept, "PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *([] if whole else ["-S"]), "-m", "pipelines.doctor", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base installation."""
    return pretend(tmp_path_factory.mktemp("base"), **BASE)


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """The checks by name of a run with ``--json``, which neither shows a secret nor a traceback."""
    healthy(done)
    report = json.loads(done.stdout)
    assert report["failed"] == sum(check["state"] == "failed" for check in report["checks"])
    assert done.returncode == (1 if report["failed"] else 0)
    return {check["name"]: check for check in report["checks"]}


def healthy(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stderr == ""
    assert "Traceback" not in done.stdout
    assert not [secret for secret in (JUDGE_KEY, HUB_TOKEN, PASSWORD) if secret in done.stdout]


# --- what is installed ---


def test_here_everything_is_installed_and_works(tmp_path: Path) -> None:
    found = checks(run(pretend(tmp_path), "--json", whole=True, PREFECT_API_URL=""))
    assert {name: check["state"] for name, check in found.items() if name.startswith("extra")} == {
        f"extra {extra}": "ok" for extra in PROJECT["optional-dependencies"]
    }
    assert {name: found[name]["state"] for name in ("python", "base", "torch", "checkpoints", "prefect")} == dict.fromkeys(
        ("python", "base", "torch", "checkpoints", "prefect"), "ok"
    )
    assert "torchvision" in found["torch"]["found"]
    assert "GiB" in found["machine"]["found"]
    assert "builds run here and now" in found["prefect"]["found"]


def test_a_base_installation_is_told_its_extras(base: Path) -> None:
    done = run(base)
    healthy(done)
    assert done.returncode == 0
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert "ok    base          numpy 2.4.6, math-verify 0.9.0, openai 3.51.0, pycocotools 2.0.11" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("--    extra flows"))
    assert lines[at : at + 2] == [
        f"--    extra flows   not installed: prefect, fastapi, {len(PROJECT['optional-dependencies']['label'])} of label",
        " " * 20 + "> pip install 'sightline[flows]'",
    ]
    assert lines[-1] == "nothing has failed"
    assert "\x1b" not in done.stdout


def test_a_base_package_that_is_missing_or_old_is_a_failure(tmp_path: Path) -> None:
    done = run(pretend(tmp_path, **{**BASE, "openai": "1.99.0"}), "--json")
    assert checks(done)["base"] == {
        "name": "base",
        "state": "failed",
        "found": "outside the range: openai 1.99.0, not >=2",
        "remedy": "pip install sightline",
    }
    (tmp_path / "numpy-2.4.6.dist-info" / "METADATA").unlink()
    (tmp_path / "numpy-2.4.6.dist-info").rmdir()
    assert checks(run(tmp_path, "--json"))["base"]["found"] == "not installed: numpy; outside the range: openai 1.99.0, not >=2"


@pytest.mark.parametrize(("fastapi", "state"), [("0.150.9", "ok"), ("0.151.0", "failed"), ("0.139", "ok"), ("0.138.7", "failed")])
def test_an_extra_with_a_version_that_does_not_go_has_failed(tmp_path: Path, fastapi: str, state: str) -> None:
    names = [parse_requirement(line).name for line in PROJECT["optional-dependencies"]["label"]]
    label = {name.replace("-", "_"): parse_requirement(line).versions.lstrip(">=").split(",")[0] for name, line in zip(
        names, PROJECT["optional-dependencies"]["label"], strict=True)}  # fmt: skip
    found = checks(run(pretend(tmp_path, **BASE, **label, prefect="3.8.8", fastapi=fastapi), "--json"))
    assert found["extra label"]["state"] == "ok"
    assert (found["extra flows"]["state"], f"fastapi {fastapi}" in found["extra flows"]["found"]) == (state, True)
    assert found["extra train"]["state"] == "missing"


def test_without_an_installation_it_says_so(tmp_path: Path) -> None:
    for package in ("demo", "flows", "pipelines", "rewardlib", "train"):
        (tmp_path / package).symlink_to(ROOT / package)
    found = checks(run(tmp_path, "--json", PYTHONPATH=str(tmp_path)))
    assert (found["base"]["state"], "not installed" in found["base"]["found"]) == ("missing", True)


RELEASES = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@given(RELEASES, st.lists(st.tuples(st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), RELEASES), max_size=3))
def test_ranges_are_those_of_packaging(version: str, parts: list[tuple[str, str]]) -> None:
    versions = ",".join(operator + release for operator, release in parts)
    assert within(version, versions) == SpecifierSet(versions).contains(version)


@pytest.mark.parametrize(
    ("version", "versions", "fits"), [("2.11.0+cu128", ">=2.11", True), ("8.3.2", "!=8.3.*,>=5", False), ("8.4", "==8.*", True)]
)
def test_ranges_of_local_versions_and_prefixes(version: str, versions: str, fits: bool) -> None:
    assert within(version, versions) is fits is SpecifierSet(versions).contains(version)


def test_every_range_of_the_project_is_understood() -> None:
    for line in [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]:
        assert isinstance(within("1.0", parse_requirement(line).versions), bool)


# --- torch, GPU, machine ---

FAKE_TORCH = """
from types import SimpleNamespace as S
__version__, version = "2.15.0", S(cuda={cuda!r})
backends = S(mps=S(is_available=lambda: False))
zeros = ones = lambda *shape, device=None: S(sum=lambda: S(item={kernel}))
cuda = S(is_available=lambda: {gpu}, device_count=lambda: 1, mem_get_info=lambda n: (100 * 2**30, 139 * 2**30),
         get_device_name=lambda n: "H200")
"""


def fake_torch(
    folder: Path, gpu: bool = False, cuda: str | None = None, kernel: str = "lambda: 0", driver: str | None = None
) -> dict[str, str]:
    """Makes ``torch``, ``torchvision`` and ``nvidia-smi`` that say what they are told to; returns the environment to find them."""
    (folder / "torch.py").write_text(FAKE_TORCH.format(gpu=gpu, cuda=cuda, kernel=kernel))
    (folder / "torchvision.py").write_text("from types import SimpleNamespace as S\n__version__, ops = '0.30', S(nms=lambda *a: None)\n")
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {driver}\n" if driver else "#!/bin/sh\necho no devices\nexit 9\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("told", "state", "found"),
    [
        ({"gpu": True, "cuda": "13.2", "driver": "580.65"}, "ok", "H200, 100 of 139 GiB free; driver 580.65, CUDA 13.2: --device cuda"),
        ({}, "missing", "none: --device cpu"),
        ({"driver": "580.65"}, "failed", "the driver 580.65 sees a GPU, torch does not: torch is built without CUDA"),
        ({"driver": "470.1", "cuda": "13.2"}, "failed", "the driver 470.1 sees a GPU, torch does not: torch is built for CUDA 13.2"),
        ({"gpu": True, "driver": "580.65", "kernel": "lambda: 1 / 0"}, "failed", "ZeroDivisionError: division by zero"),
    ],
)
def test_gpus(tmp_path: Path, told: dict[str, Any], state: str, found: str) -> None:
    environment = fake_torch(tmp_path, **told)
    check = checks(run(pretend(tmp_path, **BASE, torchvision="0.30"), "--json", **environment))["gpu"]
    assert (check["state"], check["found"]) == (state, found)
    assert check["remedy"] or state != "failed"


def test_a_torch_that_does_not_load_or_does_not_match_has_failed(tmp_path: Path) -> None:
    environment = fake_torch(pretend(tmp_path, **BASE, torchvision="0.30"))
    metadata = tmp_path / "torchvision-0.30.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: torch (==2.16.0)\n")
    assert "which wants torch ==2.16.0" in checks(run(tmp_path, "--json", **environment))["torch"]["found"]
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    assert "torchvision::nms does not exist" in checks(run(tmp_path, "--json", **environment))["torch"]["found"]
    (tmp_path / "torch.py").write_text("import os\nos.abort()")
    found = checks(run(tmp_path, "--json", **environment))
    assert (found["torch"]["state"], found["gpu"]["state"]) == ("failed", "missing")


def test_damaged_checkpoints_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CHECKPOINTS", tmp_path)
    whole = (ROOT / "labeling/embedded/segmenter/model.safetensors").read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8009572\n"
    for name, content in {"detector": pointer, "segmenter": whole[:-1]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    check = machine.checkpoints()
    assert (check.state, check.found) == ("failed", f"missing or damaged in {tmp_path}: detector, segmenter")


# --- the judge ---

MODELS = as_json({"data": [{"id": "Qwen/Qwen2.5-32B-Instruct"}, {"id": "judge"}]})
ENDPOINTS: dict[str, tuple[Page, str, str, str]] = {
    "models": (MODELS, "ok", "serves Qwen/Qwen2.5-32B-Instruct, judge", ""),
    "no models": (as_json({"data": []}), "ok", "serves no model", ""),
    "401": (as_json({"error": f"Incorrect API key: {JUDGE_KEY}"}, 401), "failed", "the key in OPENAI_API_KEY is refused", "export"),
    "HTML": ((200, {}, f"<!DOCTYPE html><p>{JUDGE_KEY}</p>"), "failed", "answers a web page", "/v1"),
    "404": (as_json({"detail": "Not Found"}, 404), "failed", "answers 404", "/v1"),
    "500": (as_json({"error": JUDGE_KEY}, 500), "failed", "answers 500", "log"),
    "503": (as_json({}, 503), "failed", "answers 503", "wait"),
    "other JSON": (as_json(["hello"]), "failed", "no list of models", "/v1"),
    "terminal codes": (as_json({"data": [{"id": "\x1b]0;owned\x07\x1b[2Jjudge"}]}), "ok", "judge", ""),
    "the key for a model": (as_json({"data": [{"id": JUDGE_KEY}]}), "ok", "serves [OPENAI_API_KEY]", ""),
    "a very long name": (as_json({"data": [{"id": "x" * 10_000}]}), "ok", "xxx ...", ""),
}  # fmt: skip


@pytest.mark.parametrize(("page", "state", "found", "remedy"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_the_judge(base: Path, page: Page, state: str, found: str, remedy: str) -> None:
    with Service(lambda path, authorization: page).running() as service:
        done = run(base, "--json", "--judge-url", service.url + "/v1", OPENAI_API_KEY=JUDGE_KEY)
        assert service.asked == [("/v1/models", f"Bearer {JUDGE_KEY}")]
    check = checks(done)["judge"]
    assert check["state"] == state, check
    assert found in check["found"]
    assert remedy in check["remedy"]
    assert check["found"].isprintable()


UNLISTED: dict[str, tuple[Answer, str, str]] = {
    "a reply": (completion("yes"), "ok", "answers chat requests: a reply came"),
    "no such model": (failure(404, "The model `default` does not exist"), "ok", "does not exist"),
    "another question wanted": (failure(400, "this judge answers two questions"), "ok", "400, this judge answers two questions"),
    "the key": (failure(401, "no"), "failed", "wants a key, and OPENAI_API_KEY is not set"),
    "a rate limit": (failure(429, "slow down"), "failed", "answers chat requests, but with 429: slow down"),
    "no money": (failure(402, "insufficient balance"), "failed", "answers chat requests, but with 402: insufficient balance"),
    "a fault of its own": (failure(500, "out of memory"), "failed", "answers chat requests, but with 500: out of memory"),
    "an error in a 200": ((200, {}, json.dumps({"error": "it broke"})), "failed", "answers chat requests, but with the error: it broke"),
    "no choices": ((200, {}, json.dumps({"id": "x", "choices": []})), "failed", "answers chat requests, but with no choices"),
    "no such path": ((404, {}, json.dumps({"detail": "Not Found"})), "failed", "it is not the API's base"),
    "a page": ((200, {}, "<html>hello</html>"), "failed", "it is not the API's base"),
}


@pytest.mark.parametrize(("answer", "state", "said"), UNLISTED.values(), ids=UNLISTED)
def test_a_judge_that_lists_no_models_is_asked(answer: Answer, state: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a server answers a GET with a page that says 501."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server(lambda n, body: answer).running() as server:
        check = endpoints.judge(server.url, "OPENAI_API_KEY")
        assert [body["max_tokens"] for body in server.requests] == [1]
    assert (check.state, said in check.found) == (state, True), check


def test_the_demos_judge_is_known_by_its_model(base: Path) -> None:
    with serving() as url:
        check = checks(run(base, "--json", "--judge-url", url))["judge"]
        assert (check["state"], check["found"]) == ("ok", f"{url} serves reader")
        check = endpoints.judge(url.removesuffix("/v1"), "OPENAI_API_KEY")
        assert (check.state, "404: it is not the API's base" in check.found) == ("failed", True)
    assert "nobody listens" in endpoints.judge(url, "OPENAI_API_KEY").found


def test_a_judge_that_wants_a_key_where_none_is_set(base: Path) -> None:
    with Service(lambda path, authorization: as_json({}, 401)).running() as service:
        check = checks(run(base, "--json", "--api-key-env", "MY_KEY", OPENAI_BASE_URL=service.url))["judge"]
    assert "MY_KEY is not set" in check["found"]


def test_a_hanging_judge_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(path: str, authorization: str) -> Page:
        release.wait(30)
        return MODELS

    monkeypatch.setattr(endpoints, "get", partial(endpoints.get, seconds=0.3))
    with Service(hang).running() as service:
        check = endpoints.judge(service.url, "OPENAI_API_KEY")
        release.set()
    assert check.state == "failed"
    assert re.search("no (complete )?answer within 0.3 s", check.found)  # by the socket, or on a busy machine by the clock
    assert "still loading" in check.remedy


def test_an_answer_that_drips_is_given_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            for _ in range(20):
                connection.sendall(b"H")
                time.sleep(0.1)

    threading.Thread(target=drip, daemon=True).start()
    started = time.monotonic()
    with listener, pytest.raises(endpoints.Unreachable, match="no complete answer"):
        endpoints.get(f"http://127.0.0.1:{listener.getsockname()[1]}", seconds=0.3)
    assert time.monotonic() - started < 1.8


def test_a_host_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    check = endpoints.judge("http://judge.internal:8000/v1", "OPENAI_API_KEY")
    assert (check.state, "no such host" in check.found, "correct the host" in check.remedy) == ("failed", True, True)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "found", "remedy"),
    [
        ("http://127.0.0.1:PORT/v1", "nobody listens there", "start the server"),
        (f"http://me:{PASSWORD}@127.0.0.1:PORT/v1?key={PASSWORD}", "http://[credentials]@127.0.0.1", "start the server"),
        (f"http://me:{PASSWORD}/x@127.0.0.1/v1", "no address", "http://localhost:8000/v1"),
        ("localhost:8000/v1", "no address", "http://localhost:8000/v1"),
        ("http://", "no address", "http://localhost:8000/v1"),
        ("http://127.0.0.1:99999/v1", "no address", "http://localhost:8000/v1"),
        ("http://127.0.0.1:1/a b", "no address", "http://localhost:8000/v1"),
        ("file:///etc/passwd", "no address", "http://localhost:8000/v1"),
    ],
)  # fmt: skip
def test_a_judge_that_is_not_there(base: Path, url: str, found: str, remedy: str) -> None:
    check = checks(run(base, "--json", "--judge-url", url.replace("PORT", str(closed_port()))))["judge"]
    assert (check["state"], found in check["found"], remedy in check["remedy"]) == ("failed", True, True), check


def test_no_key_is_sent_to_an_address_that_nobody_named(base: Path) -> None:
    with Service(lambda path, authorization: MODELS).running() as elsewhere:
        there = (302, {"Location": f"{elsewhere.url}/?k={JUDGE_KEY}"}, "")
        with Service(lambda path, authorization: there).running() as service:
            check = checks(run(base, "--json", "--judge-url", service.url, OPENAI_API_KEY=JUDGE_KEY))["judge"]
        assert elsewhere.asked == []
    assert check["found"].endswith(f"answers 302 and sends you on to {elsewhere.url}/")


@pytest.mark.parametrize("key", [JUDGE_KEY + "\r", JUDGE_KEY + "\u2026"])
def test_a_key_that_no_header_may_hold(base: Path, key: str) -> None:
    check = checks(run(base, "--json", "--judge-url", "http://127.0.0.1:9/v1", OPENAI_API_KEY=key))["judge"]
    assert (check["state"], "the key holds" in check["found"]) == ("failed", True)


def test_without_an_address_nobody_is_asked(base: Path) -> None:
    assert "OPENAI_API_KEY not set" in checks(run(base, "--json"))["judge"]["found"]
    assert "OPENAI_API_KEY is set" in checks(run(base, "--json", OPENAI_API_KEY=JUDGE_KEY))["judge"]["found"]


# --- the Hub and Prefect ---


def who(role: str, **more: Any) -> Page:
    return as_json({"name": "ada", "auth": {"accessToken": {"displayName": HUB_TOKEN, "role": role, **more}}})


HUBS: dict[str, tuple[Page, str, str]] = {
    "write": (who("write"), "ok", "the token of ada at URL, which can write"),
    "read": (who("read"), "ok", "the token of ada at URL, which can read only"),
    "fine": (who("fineGrained", fineGrained={"scoped": [{"permissions": ["repo.write"]}]}), "ok",
             "the token of ada at URL, which can write"),
    "nothing": (who("fineGrained", fineGrained={"scoped": None}), "ok", "the token of ada at URL, which can read only"),
    "401": (as_json({"error": f"bad token {HUB_TOKEN}"}, 401), "failed", "URL refuses the token (401)"),
    "HTML": ((200, {}, f"<html>{HUB_TOKEN}"), "failed", "URL answers 200, but not who you are"),
}  # fmt: skip


@pytest.mark.parametrize(("page", "state", "found"), HUBS.values(), ids=HUBS)
def test_the_hub(base: Path, page: Page, state: str, found: str) -> None:
    with Service(lambda path, authorization: page).running() as service:
        check = checks(run(base, "--json", HF_ENDPOINT=service.url, HF_TOKEN=HUB_TOKEN))["hub"]
        assert service.asked == [("/api/whoami-v2", f"Bearer {HUB_TOKEN}")]
    assert (check["state"], check["found"]) == (state, found.replace("URL", service.url))
    assert check["remedy"] or "can write" in check["found"]


def test_the_stored_token_of_the_hub_is_used_and_kept(tmp_path: Path) -> None:
    environment = fake_torch(pretend(tmp_path))  # the real one takes seconds to load
    (tmp_path / "token").write_text(HUB_TOKEN + "\n")
    with Service(lambda path, authorization: as_json({"name": authorization})).running() as service:
        found = checks(run(tmp_path, "--json", whole=True, HF_HOME=str(tmp_path), HF_ENDPOINT=service.url, **environment))
        assert service.asked == [("/api/whoami-v2", f"Bearer {HUB_TOKEN}")]
    assert "the token of Bearer [secret] at" in found["hub"]["found"]


def test_the_hub_is_left_alone_without_a_token_and_offline(base: Path) -> None:
    away = f"http://127.0.0.1:{closed_port()}"
    assert checks(run(base, "--json", HF_ENDPOINT=away))["hub"]["state"] == "missing"
    assert checks(run(base, "--json", HF_ENDPOINT=away, HF_TOKEN=HUB_TOKEN, HF_HUB_OFFLINE="1"))["hub"]["state"] == "missing"
    check = checks(run(base, "--json", HF_ENDPOINT=away, HF_TOKEN=HUB_TOKEN))["hub"]
    assert (check["state"], "nobody listens" in check["found"]) == ("failed", True)


@pytest.mark.parametrize(
    ("health", "state", "found"),
    [
        (as_json(True), "ok", "URL/api is healthy, version 3.8.8 (here none)"),
        (as_json({"detail": PASSWORD}, 401), "failed", "URL/api answers 401"),
        ((200, {}, f"<!doctype html>{PASSWORD}"), "failed", "URL/api/health answers a web page"),
        (as_json({}, 503), "failed", "URL/api/health answers 503"),
    ],
)
def test_prefect(base: Path, health: Page, state: str, found: str) -> None:
    with Service(lambda path, authorization: health if path == "/api/health" else as_json("3.8.8")).running() as service:
        environment = {"PREFECT_API_URL": service.url + "/api/", "PREFECT_API_AUTH_STRING": f"admin:{PASSWORD}"}
        check = checks(run(base, "--json", **environment))["prefect"]
    assert (check["state"], check["found"]) == (state, found.replace("URL", service.url))
    assert all(authorization.startswith("Basic ") for _, authorization in service.asked)


def test_a_prefect_server_that_is_away(base: Path) -> None:
    check = checks(run(base, "--json", PREFECT_API_URL=f"http://x:{PASSWORD}@127.0.0.1:{closed_port()}/api"))["prefect"]
    assert (check["state"], "make serve" in check["remedy"]) == ("failed", True)


# --- the command ---


def test_a_server_that_echoes_every_header_learns_nobody_a_secret(base: Path) -> None:
    secrets = {"OPENAI_API_KEY": JUDGE_KEY, "HF_TOKEN": HUB_TOKEN, "PREFECT_API_KEY": PASSWORD}
    for status in (200, 401, 500):
        with Service(
            lambda path, authorization, status=status: as_json({"name": authorization, "data": [authorization]}, status)
        ).running() as s:
            done = run(base, "--judge-url", s.url, HF_ENDPOINT=s.url, PREFECT_API_URL=s.url, **secrets)
            assert len(s.asked) >= 3
        healthy(done)
        assert "127.0.0.1" in done.stdout


def test_the_report_fails_where_a_check_does(base: Path) -> None:
    done = run(base, "--judge-url", f"http://127.0.0.1:{closed_port()}")
    healthy(done)
    assert done.returncode == 1
    assert "FAIL  judge" in done.stdout
    assert re.search(r"^1 of \d+ checks failed$", done.stdout, re.M)


def test_a_check_that_breaks_is_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise RuntimeError(f"unforeseen, {JUDGE_KEY}")

    for name in ("torch_pair", "gpu"):
        monkeypatch.setattr(machine, name, broken)
    monkeypatch.setattr(endpoints, "hub", broken)
    monkeypatch.setattr(endpoints, "hub_token", broken)
    monkeypatch.setenv("A_KEY_OF_MINE", JUDGE_KEY)
    assert main(["--api-key-env", "A_KEY_OF_MINE"]) == 1
    said = capsys.readouterr().out
    assert said.count("the check broke: RuntimeError: unforeseen, [A_KEY_OF_MINE]") == 3
    assert "machine" in said


def test_help_tells_what_it_takes() -> None:
    taught = subprocess.run(
        [sys.executable, "-m", "pipelines.doctor", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    ).stdout
    assert all(word in taught for word in ("--judge-url", "--api-key-env", "--json", "exit status 1", "OPENAI_BASE_URL"))


def test_the_report_goes_through_a_terminal_that_knows_ascii_only_and_a_closed_pipe(base: Path) -> None:
    with Service(lambda path, authorization: as_json({"data": [{"id": "modèle"}]})).running() as service:
        done = run(base, "--judge-url", service.url, PYTHONIOENCODING="ascii")
    healthy(done)
    assert "mod\\xe8le" in done.stdout
    command = f"{sys.executable} -S -m pipelines.doctor | head -c 1"
    cut = subprocess.run(
        command, shell=True, cwd=base, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{base}:{ROOT}"}, capture_output=True
    )
    assert cut.stderr == b""
