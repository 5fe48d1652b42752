"""Do the services answer: the judge's endpoint, the Hub, the Prefect API. Each is asked once, with a few seconds' patience.

A key is sent to the address that the user named and to no other (no redirect is followed), and is in no message.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import os
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pipelines.doctor.check import Check
from pipelines.doctor.packages import installed
from rewardlib.complaint import complaint_inside, read_complaint
from rewardlib.redact import redact

SECONDS = 4.0
_LONGEST = 1 << 20  # bytes of an answer that are read


class Unreachable(Exception):
    """No answer came; ``kind`` is refused, timeout, host, tls, url, key or other, and the message says what happened."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    location: str = ""  # where a redirect leads

    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    @property
    def is_page(self) -> bool:
        return self.text.lstrip()[:15].lower().startswith(("<!doctype", "<html"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None  # urllib would send the key along


def get(url: str, authorization: str | None = None, seconds: float = SECONDS, posted: Any = None) -> Answer:
    """The answer to a GET, or to a POST of JSON, whatever its status.

    ``Unreachable`` if none is complete within ``seconds``, looking the host up included."""
    request = _request(url, authorization)
    if posted is not None:
        request.data = json.dumps(posted).encode()
        request.add_header("Content-Type", "application/json")
    outcome: list[Answer | Unreachable] = []
    # Neither a slow name server nor an answer that drips heeds a socket's timeout.
    thread = threading.Thread(target=lambda: outcome.append(_asked(request, seconds)), daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    if not outcome:
        raise Unreachable("timeout", f"no complete answer within {seconds:g} s")
    if isinstance(outcome[0], Unreachable):
        raise outcome[0]
    return outcome[0]


def _request(url: str, authorization: str | None) -> urllib.request.Request:
    """A user and password in the URL take the key's place, as the judge's own client has it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # its message may hold a part of a password
        usable = False
    if not usable:
        raise Unreachable("url", "this is no address; expected http://HOST:PORT/PATH")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    headers = {"Accept": "application/json", "User-Agent": "sightline-doctor"}
    if authorization is not None:
        if not authorization.isascii() or not authorization.isprintable():
            raise Unreachable("key", "the key holds a line break or another character that no HTTP header may hold")
        headers["Authorization"] = authorization
    return urllib.request.Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), headers=headers)


def _asked(request: urllib.request.Request, seconds: float) -> Answer | Unreachable:
    try:
        try:
            reply = urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            reply = error  # an answer too
        with reply:
            text = reply.read(_LONGEST).decode("utf-8", "replace")
            return Answer(reply.status, text, reply.headers.get("Location") or "")
    except Exception as error:  # in a thread of its own: whatever it is, the check that waits has to hear of it
        return _unreachable(getattr(error, "reason", error), seconds)


def _unreachable(error: object, seconds: float) -> Unreachable:
    known: list[tuple[type[Exception], str, str]] = [
        (TimeoutError, "timeout", f"no answer within {seconds:g} s"),
        (ConnectionRefusedError, "refused", "nobody listens there"),
        (socket.gaierror, "host", "no such host is known"),
        (ssl.SSLError, "tls", f"no trusted connection: {error}"),
        (ValueError, "url", "this is no address; expected http://HOST:PORT/PATH"),
        (http.client.InvalidURL, "url", "this is no address; expected http://HOST:PORT/PATH"),
    ]
    for kind_of_error, kind, message in known:
        if isinstance(error, kind_of_error):
            return Unreachable(kind, message)
    return Unreachable("other", f"{type(error).__name__}: {error}")


def shown(url: str) -> str:
    """A URL without credentials, even malformed ones, and without its query."""
    return redact(re.sub(r"(?<=://).*@", "[credentials]@", url).partition("?")[0])


_HEALTHY = "ask whoever runs it; its own log says more"


def judge(url: str | None, key_env: str) -> Check:
    """Whether the judge's endpoint lists its models, or at least answers; without an address, only whether its key is set."""
    key, url = os.environ.get(key_env), url or os.environ.get("OPENAI_BASE_URL")
    if not url:
        if key:
            return Check("judge", "ok", f"{key_env} is set; no endpoint was asked", "to ask one: sightline doctor --judge-url URL")
        found = f"no endpoint named and {key_env} not set: the rule-based reader annotates"
        return Check("judge", "missing", found, "for a judge LLM: sightline doctor --judge-url http://localhost:8000/v1")
    try:
        answer = get(url.rstrip("/") + "/models", f"Bearer {key or 'none'}")
    except Unreachable as error:
        remedy = {
            "refused": "start the server (vllm serve MODEL --port 8000, or python -m demo.judge), or correct --judge-url",
            "timeout": "is it still loading its model, or behind a firewall? Try again, or from the machine that it runs on",
            "host": "correct the host in --judge-url or OPENAI_BASE_URL",
            "tls": "correct http or https in the address, or install the server's certificate (SSL_CERT_FILE)",
            "url": "give an address such as http://localhost:8000/v1",
            "key": f"set {key_env} again, without a line break or quotation marks",
        }.get(error.kind, _HEALTHY)
        return Check("judge", "failed", f"{shown(url)}: {error}", remedy)
    return _judged(answer, url, key_env, key)


def _judged(answer: Answer, url: str, key_env: str, key: str | None) -> Check:
    def failed(found: str, remedy: str) -> Check:
        return Check("judge", "failed", f"{shown(url)} {found}", remedy)

    if answer.location:
        return failed(f"answers {answer.status} and sends you on to {shown(answer.location)}", "name the address that it sends you to")
    if answer.status in (401, 403):
        whose = f"the key in {key_env} is refused" if key else f"it wants a key, and {key_env} is not set"
        return failed(f"answers {answer.status}: {whose}", f"export {key_env}=...; --api-key-env NAME reads another variable")
    models = _field(answer.json(), "data")
    if answer.status == 200 and isinstance(models, list):
        names = [str(_field(model, "id")) for model in models]
        rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return Check("judge", "ok", f"{shown(url)} serves {', '.join(names[:5]) or 'no model'}{rest}")
    probed = _probed(url, key) if answer.is_page or answer.status in (200, 404, 405, 501) else None
    if probed is not None and probed.status in (401, 403):
        return _judged(probed, url, key_env, key)
    if probed is not None and (verdict := _chats(probed)):
        answers, said = verdict
        if answers:
            return Check("judge", "ok", f"{shown(url)} lists no models ({answer.status}), but answers chat requests: {said}")
        return failed(f"answers chat requests, but with {said}", "see what it says; " + _HEALTHY)
    if answer.status in (404, 405, 501):
        return failed(f"answers {answer.status}: it is not the API's base", _BASE)
    if answer.is_page:
        return failed("answers a web page: it is not the API's base", _BASE)
    if answer.status != 200:
        return failed(f"answers {answer.status}", "wait a moment and try again" if answer.status in (429, 503) else _HEALTHY)
    return failed("answers, but with no list of models", "give the base of an OpenAI-compatible API; it mostly ends in /v1")


_BASE = "the address of an OpenAI-compatible API mostly ends in /v1"
# A server that lists no models is asked for the shortest reply there is, of a model that it may well not have.
_PROBE = {"model": "default", "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}


def _probed(url: str, key: str | None) -> Answer | None:
    """What an address says to a chat request; None where nothing comes back."""
    try:
        return get(url.rstrip("/") + "/chat/completions", f"Bearer {key or 'none'}", posted=_PROBE)
    except Unreachable:
        return None


def _chats(answer: Answer) -> tuple[bool, str] | None:
    """Whether an API answers chat requests, and what it said to one; None where this is no such API.

    It does also where it names what is wrong with this request, which is of a model that it may well not have."""
    value = answer.json()
    inside = complaint_inside(answer.text) if answer.status == 200 else None
    if answer.status == 200 and inside is None:
        if _has_choices(value):
            return True, "a reply came"
        return (False, "no choices") if isinstance(_field(value, "choices"), list) else None
    complaint = inside or read_complaint(answer.status, answer.text)
    status, words = complaint.status, complaint.words or "nothing more"
    if inside is None and not any(_field(value, name) for name in ("error", "detail", "message")):
        return None
    if status in (400, 422) or (status == 404 and re.search(r"\bmodel\b", words, re.I)):
        return True, f"{status}, {words}"
    if inside is not None:
        return False, f"the error {status}: {words}" if status else f"the error: {words}"
    is_fault = status in (402, 408, 409, 429) or (status >= 500 and status != 501)
    return (False, f"{status}: {words}") if is_fault else None


def _has_choices(value: Any) -> bool:
    choices = _field(value, "choices")
    return isinstance(choices, list) and bool(choices)


def _field(value: Any, *names: str) -> Any:
    """A value deep inside JSON; None where the way ends."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def hub_token() -> str | None:
    """The Hub token of the environment, or the stored one where ``huggingface_hub`` is installed."""
    if importlib.util.find_spec("huggingface_hub") is not None:
        from huggingface_hub import get_token

        return get_token()
    return os.environ.get("HF_TOKEN", "").strip() or None


def hub() -> Check:
    """Whose the Hub token is, and whether it can write."""
    place = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Check("hub", "missing", "not asked: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to load from the Hub or publish")
    token = hub_token()
    if not token:
        remedy = "hf auth login, or export HF_TOKEN=...: needed to publish and for private or gated repositories"
        return Check("hub", "missing", "no token: public models and datasets only", remedy)
    try:
        answer = get(f"{place}/api/whoami-v2", f"Bearer {token}")
    except Unreachable as error:
        remedy = "check the network, a proxy (HTTPS_PROXY) or HF_ENDPOINT; HF_HUB_OFFLINE=1 works from the cache"
        return Check("hub", "failed", f"{shown(place)}: {error}", "make a new token and set it again" if error.kind == "key" else remedy)
    if answer.status in (401, 403):
        remedy = "make a new one at https://huggingface.co/settings/tokens, then hf auth login or export HF_TOKEN=..."
        return Check("hub", "failed", f"{shown(place)} refuses the token ({answer.status})", remedy)
    name = _field(answer.json(), "name")
    if answer.status != 200 or not isinstance(name, str):
        found = f"{shown(place)} answers {answer.status}, but not who you are"
        return Check("hub", "failed", found, "correct HF_ENDPOINT, or try again later: https://status.huggingface.co")
    if _can_write(answer.json()):
        return Check("hub", "ok", f"the token of {name} at {shown(place)}, which can write")
    remedy = "to publish, make a token that can write at https://huggingface.co/settings/tokens"
    return Check("hub", "ok", f"the token of {name} at {shown(place)}, which can read only", remedy)


def _can_write(who: Any) -> bool:
    """By the token's role; a fine-grained one, if any of its scopes may write to repositories."""
    token = _field(who, "auth", "accessToken")
    if _field(token, "role") != "fineGrained":
        return _field(token, "role") == "write"
    scopes = _field(token, "fineGrained", "scoped")
    return isinstance(scopes, list) and any("repo.write" in (_field(scope, "permissions") or ()) for scope in scopes)


def prefect() -> Check:
    """Whether the Prefect API that builds would report to is healthy, and its version."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        return Check("prefect", "ok", "PREFECT_API_URL is not set: builds run here and now, without a server")
    remedy = "make serve starts one; unset PREFECT_API_URL to build here and now"
    try:
        health = get(f"{url}/health", _prefect_login())
    except Unreachable as error:
        return Check("prefect", "failed", f"{shown(url)}: {error}", remedy)
    if health.status in (401, 403):
        return Check("prefect", "failed", f"{shown(url)} answers {health.status}", "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING")
    if health.status != 200 or health.is_page:
        found = f"{shown(url)}/health answers {'a web page' if health.is_page else health.status}"
        return Check("prefect", "failed", found, "the address of a server's API ends in /api, e.g. http://127.0.0.1:4200/api")
    try:
        version = get(f"{url}/admin/version", _prefect_login()).json()
    except Unreachable:
        version = None  # Prefect's cloud does not tell
    server = f"version {version}" if isinstance(version, str) else "version unknown"
    return Check("prefect", "ok", f"{shown(url)} is healthy, {server} (here {installed('prefect') or 'none'})")


def _prefect_login() -> str | None:
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        return "Basic " + base64.b64encode(login.encode()).decode()
    return f"Bearer {key}" if (key := os.environ.get("PREFECT_API_KEY")) else None
