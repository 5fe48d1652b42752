"""One request to an OpenAI-compatible endpoint: its text, or a ``JudgeError`` that says in one word and one sentence why there is none.

Endpoints fail in many ways: rate limits, gateways that answer in HTML, bodies that trickle in for ever, refusals, replies without choices,
replies that never end. ``complete`` knows them all. What to ask and what to make of the answer is the subject of ``rewardlib.judge``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rewardlib.complaint import BROKEN_OFF, complaint_inside, read_complaint
from rewardlib.ink import has_ink
from rewardlib.redact import redact

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

# Reasons that asking again will not cure: the model refuses what is in the request, or answers it in a
# wrong form even after a repair. Whatever else goes wrong can be put right without another request: a
# server that was down, full, started with too short a context or with thoughts that fill the reply, a
# wrong key, address or name.
FINAL = frozenset({"refusal", "invalid"})


class JudgeError(Exception):
    """The judge gave no usable reply. ``reason`` is one word for counting, the message says what
    happened, ``usage`` what was paid for nothing.

    ``setting`` is the endpoint's setting that would help, as (name, value), where one would."""

    def __init__(
        self,
        reason: str,
        message: str,
        usage: Usage | None = None,
        setting: tuple[str, str] | None = None,
    ) -> None:
        clean = message.encode("utf-8", "backslashreplace").decode()  # servers quote what no file can hold
        super().__init__(redact(clean))  # endpoints have been seen to echo the key
        self.reason, self.usage, self.setting = reason, usage or Usage(), setting

    def __reduce__(self) -> tuple[type[JudgeError], tuple[Any, ...]]:
        return JudgeError, (self.reason, str(self), self.usage, self.setting)

    def with_flags(self, prefix: str) -> JudgeError:
        """The same for a command line where the endpoint's settings begin with ``prefix``, such as "--annotator."."""
        if self.setting is None:
            return self
        name, value = self.setting
        return JudgeError(self.reason, f"{self}: {prefix}{name} {value}", self.usage, self.setting)


@dataclass(frozen=True)
class JudgeEndpoint:
    """Where the judge lives and how it is asked. Prices are dollars per million tokens; None means unknown."""

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    seed: int | None = 0
    max_tokens: int = 2048
    timeout: float = 120.0  # seconds for one attempt, from the first byte sent to the last received
    retries: int = 4  # attempts after the first on 408, 409, 429, 5xx and connection errors
    concurrency: int = 16
    price_in: float | None = None
    price_out: float | None = None

    @property
    def place(self) -> str:
        return self.base_url or "the endpoint"

    @property
    def key(self) -> str:
        """The secret, read where it is needed and stored nowhere."""
        return os.environ.get(self.api_key_env, "").strip()

    def dollars(self, usage: Usage) -> float | None:
        """What these tokens cost here; None where prices are unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out) / 1e6


@dataclass
class Usage:
    """What was asked and paid. ``cached`` requests are in ``requests`` but not in the tokens."""

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Usage) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Runaway(Exception):
    """The reply hit the token limit; the message is what there is to add to that."""


class Refused(Exception):
    """The server does not take a parameter as it was sent; ``error`` is for who cannot do without it.

    guessed: whether the server does not say so, and another parameter or none may be at fault."""

    def __init__(self, parameter: str, error: JudgeError, guessed: bool = False) -> None:
        super().__init__(parameter)
        self.parameter, self.error, self.guessed = parameter, error, guessed


# How replies end, in the words of several servers, lower case. What broke off is in ``rewardlib.complaint``.
_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "max_length", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "sensitive", "recitation", "prohibited_content", "blocklist", "spii"})

# What the request in hand has taken so far: replies that end with an error are paid for, too, and
# openai asks again without a word.
_spent: ContextVar[Usage] = ContextVar("spent")
_INSIDE = "x-sightline-inside"  # marks an error that came in a 200
_BAD_GATEWAY = 502  # the status of an error in a 200 that tells none


def connect(endpoint: JudgeEndpoint) -> AsyncOpenAI:
    """A client for one event loop. It retries what is worth retrying and honours Retry-After."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http = importlib.import_module(
        DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    )  # httpx, or what openai has in its place

    class Bounded(DefaultAsyncHttpxClient):
        """Its own timeout is for each read, so that a body which trickles in would never end; this
        one is for the whole answer.

        What openai decides by status and headers, whether to ask again and when, is told to it that
        way where servers say it otherwise: an error in a 200, a refused parameter in a 500, a pause
        that is asked for in the body."""

        async def send(self, request: Any, **options: Any) -> Any:
            try:
                async with asyncio.timeout(endpoint.timeout):
                    response = await super().send(request, **options)
            except TimeoutError as error:
                raise http.ReadTimeout(f"no whole answer within {endpoint.timeout:g} s", request=request) from error
            return response if options.get("stream") else self.as_meant(response, request)

        def as_meant(self, response: Any, request: Any) -> Any:
            body = response.content
            if response.status_code == 200:
                # openai reads what is called JSON, and only that, as JSON.
                is_json = body.lstrip()[:1] in (b"{", b"[")
                response.headers["content-type"] = "application/json" if is_json else "text/plain; charset=utf-8"
                if b'"error"' not in body and b'"choices"' in body and not BROKEN_OFF.search(body):  # spares replies the parsing
                    return response
                complaint = complaint_inside(response.text)
                if complaint is None:
                    return response
                _account_failed(body)
                headers = {name: response.headers[name] for name in _PAUSES if name in response.headers}
                status, headers[_INSIDE] = complaint.status or _BAD_GATEWAY, "1"
                response = http.Response(status, headers=headers, content=body, request=request)
            elif response.status_code in (408, 409, 429) or response.status_code >= 500:
                complaint = read_complaint(response.status_code, response.text)
                _account_failed(body)
            else:
                return response
            if complaint.wait is not None and not any(name in response.headers for name in _PAUSES):
                response.headers["retry-after"] = str(complaint.wait)
            if complaint.blames(_parameters(request)):
                response.headers["x-should-retry"] = "false"
            return response

    return AsyncOpenAI(
        api_key=endpoint.key or "none",  # local servers need none, but the client insists on one
        base_url=endpoint.base_url,
        timeout=endpoint.timeout,
        max_retries=endpoint.retries,
        http_client=Bounded(),
    )


_PAUSES = ("retry-after-ms", "retry-after")


def _parameters(request: Any) -> set[str]:
    """What a request has set."""
    try:
        return set(json.loads(request.content))
    except (ValueError, AttributeError, TypeError):
        return set()


async def complete(client: AsyncOpenAI, endpoint: JudgeEndpoint, spent: Usage, **asked: Any) -> str:
    """The text of a chat completion; ``asked`` are its messages, limit, temperature, seed and response_format.

    Tokens are added to ``spent`` in any case. Raises ``JudgeError``, ``Runaway`` for a reply that was cut off, and
    ``Refused`` where another response_format, another name of the limit or no temperature may help."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError
    from openai.types.chat import ChatCompletion

    e = endpoint
    body = {"model": e.model, **asked}
    _spent.set(spent)
    try:
        # As chat.completions.create does, but without its walk through schema and messages, a quarter of a request's CPU time.
        reply = await client.post("/chat/completions", body=body, cast_to=ChatCompletion)
    except APITimeoutError:
        raise JudgeError("timeout", f"no reply from {e.place} within {e.timeout:g} s, {e.retries} retries") from None
    except APIConnectionError as error:
        raise JudgeError("connection", _lost(error, e)) from None
    except APIStatusError as error:
        _raise_refusal(error, body, e.key)
    except UnicodeEncodeError as error:
        raise JudgeError("protocol", f"the request holds what cannot be sent: {_brief(error, e.key)}") from None
    except (OpenAIError, ValueError, RecursionError) as error:
        raise JudgeError("protocol", f"the endpoint's reply cannot be read: {_brief(error, e.key)}") from None
    read, written, guess = spent.prompt_tokens, spent.completion_tokens, 0
    try:
        text = _text_of(reply, spent, e)
        guess = len(text) // CHARACTERS
    except Runaway:
        guess = e.max_tokens
        raise
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # the openai client does not check what it received
        said = _said_in(reply, e.key)
        raise JudgeError("protocol", f"the endpoint's reply is no chat completion ({_brief(error, e.key)}){said}") from None
    finally:
        if e.dollars(Usage()) is not None:  # where nobody counts them, they are guessed: a limit of dollars is to hold
            spent.prompt_tokens += _guessed_tokens(body["messages"]) if spent.prompt_tokens == read else 0
            spent.completion_tokens += guess if spent.completion_tokens == written else 0
    return text


def _guessed_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens messages have."""
    parts = [part for m in messages for part in (m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}])]
    return sum(len(part["text"]) // CHARACTERS if "text" in part else IMAGE_TOKENS for part in parts)


def _lost(error: Exception, endpoint: JudgeEndpoint) -> str:
    """Why there is no answer: nobody there, or somebody who went away."""
    cause = error.__cause__ or error
    why = _brief(cause, endpoint.key) or type(cause).__name__
    if type(cause).__name__ in ("RemoteProtocolError", "ReadError", "WriteError"):
        return (
            f"{endpoint.place} closed the connection without an answer ({why}): "
            "its server may have crashed on this request; its log says more"
        )
    return f"cannot reach {endpoint.place}: {why}"


def _raise_refusal(error: APIStatusError, sent: Mapping[str, Any], key: str) -> NoReturn:
    """What became of a request that was answered with an error: ``Refused`` or ``JudgeError``."""
    inside = _INSIDE in error.response.headers
    text = error.response.text
    complaint = complaint_inside(text) if inside else read_complaint(error.status_code, text)
    assert complaint is not None  # it is the one that the error was made from
    status = complaint.status
    words = redact(complaint.words, key)[:500] or "nothing more"
    if inside:
        message = f"the endpoint answered 200 with the error {status or ''}".rstrip() + f": {words}"
    else:
        message = f"the endpoint answered {status}: {words}"
    reason = f"http_{status}" if status else "error_in_200"
    reason = "bad_request" if status in (400, 422) else reason
    parameter = complaint.blames(sent)
    # A temperature of 1 is the one that models have by themselves, so it can be left out instead.
    if parameter == "seed" or (parameter == "temperature" and sent[parameter] != 1):
        value = "None" if parameter == "seed" else "1"
        hint = f"{message}. Set {parameter} to {value}"
        raise JudgeError(reason, hint, setting=(parameter, value)) from None
    if parameter is not None:
        raise Refused(parameter, JudgeError(reason, message)) from None
    if complaint.is_unexplained and "response_format" in sent:
        raise Refused("response_format", JudgeError(reason, message), guessed=True) from None
    raise JudgeError(reason, message) from None


# What servers call the tokens that they read and wrote.
_TAKEN = {
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
}
CHARACTERS, IMAGE_TOKENS = 4, 600  # of a token; of an image: where an endpoint with prices does not say what it read
_MOST_TOKENS = 10**9  # more is no count


def _account(usage: Any, spent: Usage) -> None:
    """Add what a reply took. It is bookkeeping: what is no count of tokens is unknown, and decides nothing about the reply."""
    counts = usage if isinstance(usage, Mapping) else getattr(usage, "__dict__", {})
    extra = getattr(usage, "model_extra", None) or {}
    for name, spellings in _TAKEN.items():
        taken = max(_count({**counts, **extra}.get(spelling)) for spelling in spellings)
        setattr(spent, name, getattr(spent, name) + taken)


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:20])
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if whole and 0 <= value <= _MOST_TOKENS else 0


def _account_failed(body: bytes) -> None:
    """Add what a reply took that ended with an error."""
    with suppress(LookupError, ValueError, AttributeError, RecursionError):
        _account(json.loads(body).get("usage"), _spent.get())


def _text_of(reply: Any, spent: Usage, endpoint: JudgeEndpoint) -> str:
    """The text of a chat completion; raises on a refusal, an empty reply or one that was cut off."""
    key = endpoint.key
    if isinstance(reply, str):  # openai hands on what is not JSON
        start = redact(reply.strip(), key)[:200]
        raise JudgeError("protocol", f"{endpoint.place} answered {start!r}; is this the API's address, ending in /v1?")
    _account(getattr(reply, "usage", None), spent)
    choices = getattr(reply, "choices", None)
    if not choices:
        raise JudgeError("empty", f"the endpoint returned no choices{_said_in(reply, key)}")
    message, finish = choices[0].message, str(choices[0].finish_reason or "").lower()
    text, refusal = _parts(message.content)
    if refusal := getattr(message, "refusal", None) or refusal:
        raise JudgeError("refusal", f"the judge refused: {redact(str(refusal), key)[:200]}")
    if finish in _FILTERED:
        raise JudgeError("refusal", f"the endpoint's content filter stopped the reply ({finish})")
    thought_only = not has_ink(text) and _has_thoughts(message)
    if finish in _CUT_OFF:
        raise Runaway("; only its reasoning came back" if thought_only else "")
    if thought_only:
        raise JudgeError(
            "empty",
            "the judge returned its reasoning only, and no reply: turn its thinking off where it is served, "
            f"or raise max_tokens (now {endpoint.max_tokens})",
            setting=("max-tokens", str(4 * endpoint.max_tokens)),
        )
    if not has_ink(text):
        raise JudgeError("empty", "the judge returned an empty reply")
    return text


def _said_in(reply: Any, key: str) -> str:
    """What a body that is no chat completion says, to be added to a sentence; empty where it says nothing."""
    body = json.dumps(reply.to_dict(warnings=False) if hasattr(reply, "to_dict") else reply, default=str)
    words = redact(read_complaint(200, body).words, key)[:300]
    return f"; it says: {words}" if words else ""


def _parts(content: Any) -> tuple[str, str]:
    """What a message says and what it refuses, in one text or in parts. Thoughts are neither."""
    if content is None or isinstance(content, str):
        return content or "", ""
    said, refused = [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            said.append(part)
        elif part.get("type") == "refusal":
            refused.append(str(part.get("refusal") or part.get("text") or "without a word"))
        elif part is content and not _is_part(part):  # the object itself, already parsed
            said.append(json.dumps(part, ensure_ascii=False))
        elif part.get("type", "text") in ("text", "output_text"):
            text = part.get("text") or ""
            said.append(str(text.get("value", "")) if isinstance(text, dict) else str(text))
    return "".join(said), "".join(refused)


def _is_part(value: Mapping[str, Any]) -> bool:
    """Whether an object is a part of a message, and not what the judge was asked for."""
    kinds = ("text", "output_text", "refusal", "thinking", "reasoning")
    return value.get("type") in kinds or set(value) == {"text"}


def _has_thoughts(message: Any) -> bool:
    """Whether there is reasoning beside, or in the place of, the reply."""
    if isinstance(message.content, list) and message.content:
        return True
    names = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
    return any(getattr(message, name, None) for name in names)


def _brief(error: BaseException, key: str) -> str:
    return " ".join(redact(str(error), key).split())[:300]  # before the cut: half a key is not known for one
