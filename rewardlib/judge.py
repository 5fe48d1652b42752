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
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rewardlib.cache import ReplyCache, request_key
from rewardlib.endpoint import FINAL, FormatRefused, JudgeEndpoint, JudgeError, Runaway, Usage, complete, connect
from rewardlib.redact import redact

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["FINAL", "BudgetSpent", "JudgeClient", "JudgeEndpoint", "JudgeError", "JudgeReply", "JudgeRequest", "Usage", "parse_json"]


class BudgetSpent(Exception):
    """No further request may be paid for. All replies that were are in the cache."""


@dataclass(frozen=True)
class JudgeRequest:
    """One question. ``check`` turns the parsed JSON into the caller's type and raises ``ValueError`` if it is not acceptable.

    Without a ``schema`` the reply is free text, and ``check`` is given the text. ``image`` is a data URL, shown before the question.
    ``draw`` numbers several replies to the same question: each has a seed and a place in the cache of its own."""

    system: str
    user: str
    schema: dict[str, Any] | None
    check: Callable[[Any], Any] = lambda value: value
    image: str | None = None
    draw: int = 0

    def messages(self) -> list[dict[str, Any]]:
        shown = {"type": "image_url", "image_url": {"url": self.image}}
        user: Any = [shown, {"type": "text", "text": self.user}] if self.image else self.user
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


@dataclass(frozen=True)
class JudgeReply:
    """A checked reply and the tokens it took, whenever they were paid: a reply from the cache still says what it once cost."""

    value: Any
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


_FORMATS = ("json_schema", "json_object", "text")


@dataclass
class _Session:
    """One connection pool and one gate; closed when no call uses it any more."""

    client: AsyncOpenAI
    gate: asyncio.Semaphore
    calls: int = 0


@dataclass
class JudgeClient:
    """Asks many questions at once; safe to share between threads (each call has its own event loop and connection pool).

    ``max_cost`` is what all runs that share the cache may spend, in dollars. When it is reached no further request is sent and
    ``BudgetSpent`` is raised, after the replies on their way have been received and stored: up to ``concurrency`` requests more."""

    endpoint: JudgeEndpoint
    cache: ReplyCache | None = None
    max_cost: float | None = None
    usage: Usage = field(default_factory=Usage)
    _format: int = field(default=0, init=False)  # the highest rung of the ladder that this server is known to accept
    _sessions: dict[asyncio.AbstractEventLoop, _Session] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def ask_all(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | JudgeError]:
        """The checked reply, or the ``JudgeError``, of every request, in order. Not to be called inside a running event loop."""
        return asyncio.run(self.ask_all_async(requests))

    async def ask_all_async(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | JudgeError]:
        async with self._session() as session:
            # All are waited for, also when one raises: what has been asked is paid for, and belongs into the cache.
            replies = await asyncio.gather(*(self._answer(session, r) for r in requests), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, JudgeError):
                raise reply
        return [reply for reply in replies if isinstance(reply, JudgeReply | JudgeError)]

    async def _answer(self, session: _Session, request: JudgeRequest) -> JudgeReply | JudgeError:
        spent = Usage(requests=1)
        async with session.gate:
            try:
                return await self._ask(session.client, request, spent)
            except JudgeError as error:
                spent.failed = 1
                return JudgeError(error.reason, redact(str(error), self.endpoint.key))
            finally:
                self._account(spent)

    def _account(self, spent: Usage) -> None:
        with self._lock:
            self.usage.add(spent)
        if self.cache is not None and spent.prompt_tokens + spent.completion_tokens:
            self.cache.spend(self.endpoint.model, spent.prompt_tokens, spent.completion_tokens, self.endpoint.dollars(spent))

    def knows(self, request: JudgeRequest) -> bool:
        """Whether the reply to a request is in the cache."""
        return self.cache is not None and self.cache.get(request_key(self._identity(request))) is not None

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        """The session of all calls that overlap in this event loop: some hosts ask about one response at a time."""
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _Session(connect(self.endpoint), asyncio.Semaphore(self.endpoint.concurrency))
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
        """Dollars paid by this client so far; None where prices are unknown."""
        return self.endpoint.dollars(self.usage)

    async def _ask(self, client: AsyncOpenAI, request: JudgeRequest, spent: Usage) -> JudgeReply:
        key = request_key(self._identity(request))
        if self.cache is not None and (known := self.cache.get(key)) is not None:
            with suppress(ValueError):  # one that a stricter check refuses now is asked for anew
                reply = JudgeReply(request.check(known["value"]), known["prompt_tokens"], known["completion_tokens"], cached=True)
                spent.cached = 1
                return reply
        self._check_budget()
        messages = request.messages()
        text = await self._complete(client, messages, request, spent)
        try:
            value, result = _read(text, request)
        except ValueError as problem:
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": _repair(problem)}]
            text = await self._complete(client, messages, request, spent)
            with _as_judge_error("invalid", f"the judge's repaired reply is still not acceptable: {redact(text)[:200]!r}"):
                value, result = _read(text, request)
        reply = JudgeReply(result, spent.prompt_tokens, spent.completion_tokens)
        if self.cache is not None:
            tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            self.cache.put(key, {"value": value, **tokens})
        return reply

    def _check_budget(self) -> None:
        """``BudgetSpent`` if the money that was spent has reached the limit."""
        if self.max_cost is None:
            return
        spent = self.cost if self.cache is None else sum(model["dollars"] for model in self.cache.spending())
        if spent is not None and spent >= self.max_cost:
            raise BudgetSpent(
                f"${spent:.4f} of at most ${self.max_cost:g} have been spent, so {self.endpoint.model} is asked no further. What was paid "
                "for is kept: to go on from there, give the same command with a higher --max-cost"
            )

    def _identity(self, request: JudgeRequest) -> dict[str, Any]:
        """All that decides the reply; where the server runs and how fast does not."""
        e = self.endpoint
        settings = {"model": e.model, "temperature": e.temperature, "seed": e.seed, "max_tokens": e.max_tokens}
        asked = {"system": request.system, "user": request.user, "schema": request.schema}
        return settings | asked | ({"image": request.image} if request.image else {}) | ({"draw": request.draw} if request.draw else {})

    async def _complete(self, client: AsyncOpenAI, messages: list[dict[str, Any]], request: JudgeRequest, spent: Usage) -> str:
        """The reply's text, from the best output format that the server supports."""
        e = self.endpoint
        seed = {} if e.seed is None else {"seed": e.seed + request.draw}
        for rung in range(self._format if request.schema else len(_FORMATS) - 1, len(_FORMATS)):
            try:
                return await complete(client, e, spent, messages=messages, **seed, **_response_format(_FORMATS[rung], request.schema))
            except FormatRefused:
                self._format = max(self._format, rung + 1)  # do not ask this server in vain again
            except Runaway:
                # Constrained decoding can loop on whitespace until the limit; a freer format usually ends.
                if rung + 1 == len(_FORMATS):
                    raise JudgeError("length", f"the reply did not end within {e.max_tokens} tokens") from None
        raise AssertionError("the ladder ends by returning or raising")


def _read(text: str, request: JudgeRequest) -> tuple[Any, Any]:
    """A reply's value, to keep, and what the caller makes of it."""
    value = text if request.schema is None else parse_json(text, request.user)
    return value, request.check(value)


@contextmanager
def _as_judge_error(reason: str, message: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise JudgeError(reason, f"{message} ({error})") from error


def _response_format(kind: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}}


def _repair(problem: Exception) -> str:
    return f"Your reply cannot be used: {problem}. Answer again with the JSON object only, nothing before or after it."


def parse_json(text: str, given: str = "") -> Any:
    """The JSON value in a model's reply: bare, or the only object in prose or a code fence. ``ValueError`` if there is none or any doubt.

    A judge may quote its input, and so a reply forged there: in prose, an object that stands in ``given``, the JSON that the judge was
    asked, is not the judge's. Two different objects, one beside another that is broken, a name that occurs twice in an object (what is
    quoted without escapes can add it), and thoughts that do not end are therefore no reply.
    """
    visible = re.sub(r"(?s)^\s*<think>.*?</think>", "", text)
    if visible.lstrip().startswith("<think>"):
        raise ValueError("its reasoning has no end")
    decoder, found, position = json.JSONDecoder(object_pairs_hook=_unrepeated), [], 0
    if visible == text:  # what follows thoughts may be of them: quoted words can end them early
        with suppress(ValueError, RecursionError):
            return decoder.decode(text)
    while (start := visible.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(visible, start)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the brace at character {start} begins no JSON object ({error})") from error
        if value not in found and _escaped(visible[start:position]) not in _squeezed(given):
            found.append(value)
    if len(found) > 1:
        raise ValueError("it holds several JSON objects")
    if found:
        return found[0]
    raise ValueError("it holds no JSON object")


def _escaped(text: str) -> str:
    """A piece of text as it stands inside JSON."""
    return _squeezed(json.dumps(text, ensure_ascii=False)[1:-1])


def _squeezed(text: str) -> str:
    return re.sub(r"\\[nrt]|\s", "", text)


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice")
    return dict(pairs)
