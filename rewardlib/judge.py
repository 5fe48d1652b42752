"""A judge LLM behind any OpenAI-compatible endpoint, asked for JSON.

One class, ``JudgeClient``, serves every part of Sightline that asks a language model: the annotator of ``labeling`` and the perception
reward. It bounds concurrency, retries what is worth retrying (the ``openai`` client honours Retry-After), remembers replies, counts
tokens and cost, and walks down a ladder of output formats, since servers differ in what they support:

    JSON schema -> JSON object -> plain text with JSON in it, and one request to repair a reply that does not validate.

A judge that cannot be reached or does not answer properly is a ``JudgeError``, never an empty or zero verdict.

    client = JudgeClient(JudgeEndpoint(model="Qwen/Qwen2.5-32B-Instruct", base_url="http://localhost:8000/v1"))
    replies = client.ask_all([JudgeRequest(system="...", user="...", schema=SCHEMA, check=parse)])
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rewardlib.cache import ReplyCache, request_key

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class JudgeError(Exception):
    """The judge gave no usable reply. ``reason`` is one word for counting, the message says what happened."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[JudgeError], tuple[str, str]]:
        return JudgeError, (self.reason, str(self))


@dataclass(frozen=True)
class JudgeEndpoint:
    """Where the judge lives and how it is asked. Prices are dollars per million tokens; None means unknown."""

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    seed: int | None = 0
    max_tokens: int = 2048
    timeout: float = 120.0  # seconds for one attempt
    retries: int = 4  # attempts after the first on 408, 409, 429, 5xx and connection errors
    concurrency: int = 16
    price_in: float | None = None
    price_out: float | None = None


@dataclass(frozen=True)
class JudgeRequest:
    """One question. ``check`` turns the parsed JSON into the caller's type and raises ``ValueError`` if it is not acceptable."""

    system: str
    user: str
    schema: dict[str, Any]
    check: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class JudgeReply:
    """A checked reply and the tokens it took, whenever they were paid: a reply from the cache still says what it once cost."""

    value: Any
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


@dataclass
class Usage:
    """What was asked and paid by a client. ``cached`` requests are in ``requests`` but not in the tokens."""

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Usage) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


_FORMATS = ("json_schema", "json_object", "text")


@dataclass
class _Session:
    """One connection pool and one gate; closed when no call uses it any more."""

    client: AsyncOpenAI
    gate: asyncio.Semaphore
    calls: int = 0


@dataclass
class JudgeClient:
    """Asks many questions at once; safe to share between threads (each call has its own event loop and connection pool)."""

    endpoint: JudgeEndpoint
    cache: ReplyCache | None = None
    usage: Usage = field(default_factory=Usage)
    _format: int = field(default=0, init=False)  # the highest rung of the ladder that this server is known to accept
    _sessions: dict[asyncio.AbstractEventLoop, _Session] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def ask_all(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | JudgeError]:
        """The checked reply, or the ``JudgeError``, of every request, in order. Not to be called inside a running event loop."""
        return asyncio.run(self.ask_all_async(requests))

    async def ask_all_async(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | JudgeError]:
        async with self._session() as session:

            async def one(request: JudgeRequest) -> JudgeReply | JudgeError:
                spent = Usage(requests=1)
                async with session.gate:
                    try:
                        return await self._ask(session.client, request, spent)
                    except JudgeError as error:
                        spent.failed = 1
                        return error
                    finally:
                        with self._lock:
                            self.usage.add(spent)

            return list(await asyncio.gather(*(one(r) for r in requests)))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        """The session of all calls that overlap in this event loop: some hosts ask about one response at a time."""
        from openai import AsyncOpenAI

        loop, e = asyncio.get_running_loop(), self.endpoint
        if loop not in self._sessions:
            # Local servers need no key, but the client insists on one.
            key = os.environ.get(e.api_key_env) or "none"
            client = AsyncOpenAI(api_key=key, base_url=e.base_url, timeout=e.timeout, max_retries=e.retries)
            self._sessions[loop] = _Session(client, asyncio.Semaphore(e.concurrency))
        session = self._sessions[loop]
        session.calls += 1
        try:
            yield session
        finally:
            session.calls -= 1
            if not session.calls:
                del self._sessions[loop]
                await session.client.close()

    @property
    def cost(self) -> float | None:
        """Dollars paid so far; None where prices are unknown."""
        e, u = self.endpoint, self.usage
        if e.price_in is None or e.price_out is None:
            return None
        return (u.prompt_tokens * e.price_in + u.completion_tokens * e.price_out) / 1e6

    async def _ask(self, client: AsyncOpenAI, request: JudgeRequest, spent: Usage) -> JudgeReply:
        key = request_key(self._identity(request))
        if self.cache is not None and (known := self.cache.get(key)) is not None:
            spent.cached = 1
            return JudgeReply(request.check(known["value"]), known["prompt_tokens"], known["completion_tokens"], cached=True)
        messages = [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}]
        text = await self._complete(client, messages, request.schema, spent)
        try:
            value = parse_json(text)
            result = request.check(value)
        except ValueError as problem:
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": _repair(problem)}]
            text = await self._complete(client, messages, request.schema, spent)
            with _as_judge_error("invalid", f"the judge's repaired reply is still not acceptable: {text[:200]!r}"):
                value = parse_json(text)
                result = request.check(value)
        reply = JudgeReply(result, spent.prompt_tokens, spent.completion_tokens)
        if self.cache is not None:
            tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            self.cache.put(key, {"value": value, "raw": text, **tokens})
        return reply

    def _identity(self, request: JudgeRequest) -> dict[str, Any]:
        """All that decides the reply; where the server runs and how fast does not."""
        e = self.endpoint
        settings = {"model": e.model, "temperature": e.temperature, "seed": e.seed, "max_tokens": e.max_tokens}
        return {**settings, "system": request.system, "user": request.user, "schema": request.schema}

    async def _complete(self, client: AsyncOpenAI, messages: list[dict[str, str]], schema: dict[str, Any], spent: Usage) -> str:
        """The reply's text, from the best output format that the server supports."""
        from openai import BadRequestError, UnprocessableEntityError

        for rung in range(self._format, len(_FORMATS)):
            try:
                return await self._request(client, messages, _FORMATS[rung], schema, spent)
            except (BadRequestError, UnprocessableEntityError) as error:
                if rung + 1 == len(_FORMATS) or not _is_about_format(error):
                    raise JudgeError("bad_request", f"the endpoint refused the request: {_brief(error)}") from error
                self._format = max(self._format, rung + 1)  # do not ask this server in vain again
            except _Runaway:
                # Constrained decoding can loop on whitespace until the limit; a freer format usually ends.
                if rung + 1 == len(_FORMATS):
                    raise JudgeError("length", f"the reply did not end within {self.endpoint.max_tokens} tokens") from None
        raise AssertionError("the ladder ends by returning or raising")

    async def _request(self, client: AsyncOpenAI, messages: Any, kind: str, schema: dict[str, Any], spent: Usage) -> str:
        from openai import APIConnectionError, APIStatusError, APITimeoutError, BadRequestError, OpenAIError, UnprocessableEntityError

        e = self.endpoint
        extra: dict[str, Any] = {} if kind == "text" else {"response_format": _response_format(kind, schema)}
        if e.seed is not None:
            extra["seed"] = e.seed
        try:
            reply = await client.chat.completions.create(
                model=e.model, messages=messages, temperature=e.temperature, max_tokens=e.max_tokens, **extra
            )
        except (BadRequestError, UnprocessableEntityError):
            raise
        except APITimeoutError as error:
            raise JudgeError(
                "timeout", f"no reply from {e.base_url or 'the endpoint'} within {e.timeout:g} s, {e.retries} retries"
            ) from error
        except APIConnectionError as error:
            raise JudgeError("connection", f"cannot reach {e.base_url or 'the endpoint'}: {_brief(error)}") from error
        except APIStatusError as error:
            raise JudgeError(f"http_{error.status_code}", f"the endpoint answered {error.status_code}: {_brief(error)}") from error
        except (OpenAIError, ValueError) as error:
            raise JudgeError("protocol", f"the endpoint's reply cannot be read: {_brief(error)}") from error
        try:
            return self._text_of(reply, spent)
        except (AttributeError, IndexError, KeyError, TypeError) as error:  # the openai client does not check what it received
            raise JudgeError("protocol", f"the endpoint's reply is no chat completion: {_brief(error)}") from error

    def _text_of(self, reply: Any, spent: Usage) -> str:
        """The text of a chat completion; raises on a refusal, an empty reply or one that was cut off."""
        choices = getattr(reply, "choices", None)
        if not choices:
            raise JudgeError("empty", "the endpoint returned no choices")
        if (usage := getattr(reply, "usage", None)) is not None:
            spent.prompt_tokens += usage.prompt_tokens or 0
            spent.completion_tokens += usage.completion_tokens or 0
        message, finish = choices[0].message, choices[0].finish_reason
        if getattr(message, "refusal", None):
            raise JudgeError("refusal", f"the judge refused: {message.refusal[:200]}")
        if finish == "content_filter":
            raise JudgeError("refusal", "the endpoint's content filter stopped the reply")
        if finish == "length":
            raise _Runaway
        if not (message.content or "").strip():
            raise JudgeError("empty", "the judge returned an empty reply")
        return str(message.content)


class _Runaway(Exception):
    """The reply hit the token limit."""


@contextmanager
def _as_judge_error(reason: str, message: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise JudgeError(reason, f"{message} ({error})") from error


def _response_format(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def _is_about_format(error: Exception) -> bool:
    return re.search(r"response_format|json_schema|json_object|schema|structured|guided", str(error), re.I) is not None


def _repair(problem: Exception) -> str:
    return f"Your reply cannot be used: {problem}. Answer again with the JSON object only, nothing before or after it."


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def parse_json(text: str) -> Any:
    """The JSON value in a model's reply: bare, or the only object in prose or a code fence. ``ValueError`` if there is none or any doubt.

    A judge may quote its input, and so a reply forged there. Two different objects, one beside another that is broken, a name that
    occurs twice in an object (what is quoted without escapes can add it), and thoughts that do not end are therefore no reply.
    """
    visible = re.sub(r"(?s)^\s*<think>.*?</think>", "", text)
    if visible.lstrip().startswith("<think>"):
        raise ValueError("its reasoning has no end")
    decoder, found, position = json.JSONDecoder(object_pairs_hook=_unrepeated), [], 0
    with suppress(ValueError, RecursionError):
        return decoder.decode(visible)
    while (start := visible.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(visible, start)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the brace at character {start} begins no JSON object ({error})") from error
        if value not in found:
            found.append(value)
    if len(found) > 1:
        raise ValueError("it holds several JSON objects")
    if found:
        return found[0]
    raise ValueError("it holds no JSON object")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice")
    return dict(pairs)
