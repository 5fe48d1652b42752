"""A judge LLM behind any OpenAI-compatible endpoint, asked for JSON.

One class, ``JudgeClient``, serves every part of Sightline that asks a language model: the annotator of ``labeling`` and the perception
reward. It bounds concurrency, retries what is worth retrying (the ``openai`` client honours Retry-After), remembers replies, counts
tokens and cost, and walks down a ladder of output formats, since servers differ in what they support:

    JSON schema -> JSON object -> plain text with JSON in it, and one request to repair a reply that does not validate.

Every prompt that wants JSON says its form in words (``rewardlib.form``), so that below the schema a model knows it, too.
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
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rewardlib.cache import ReplyCache, request_key
from rewardlib.endpoint import FINAL, JudgeEndpoint, JudgeError, Refused, Runaway, Usage, complete, connect
from rewardlib.form import in_words
from rewardlib.redact import redact

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["FINAL", "BudgetSpent", "JudgeClient", "JudgeEndpoint", "JudgeError", "JudgeReply", "JudgeRequest", "Usage", "parse_json"]


class BudgetSpent(Exception):
    """No further request may be paid for. All replies that were are in the cache."""


@dataclass(frozen=True)
class JudgeRequest:
    """One question. ``check`` turns the parsed JSON into the caller's type and raises ``ValueError`` if it is not acceptable.

    ``system`` says what is wanted; the form of the reply is added to it from the ``schema``, see ``prompt``. Without a schema
    the reply is free text, and ``check`` is given the text. ``image`` is a data URL, shown before the question.
    ``draw`` numbers several replies to the same question: each has a seed and a place in the cache of its own."""

    system: str
    user: str
    schema: dict[str, Any] | None
    check: Callable[[Any], Any] = lambda value: value
    image: str | None = None
    draw: int = 0

    @cached_property
    def prompt(self) -> str:
        """The system prompt as it is sent."""
        return self.system if self.schema is None else f"{self.system}\n\n{in_words(self.schema)}"

    def messages(self) -> list[dict[str, Any]]:
        shown = {"type": "image_url", "image_url": {"url": self.image}}
        user: Any = [shown, {"type": "text", "text": self.user}] if self.image else self.user
        return [{"role": "system", "content": self.prompt}, {"role": "user", "content": user}]


@dataclass(frozen=True)
class JudgeReply:
    """A checked reply and the tokens it took, whenever they were paid: a reply from the cache still says what it once cost."""

    value: Any
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


_FORMATS = ("json_schema", "json_object", "text")
MOST_GUESSES = 2  # after which what unexplained refusals wanted counts as known


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
    _why_freer: str = field(default="", init=False)  # what it said to a format that it does not take
    _guesses: int = field(default=0, init=False)  # how much oftener a freer format was what an unexplained refusal wanted
    _limit: str = field(default="max_tokens", init=False)  # what it calls the longest reply
    _without_temperature: bool = field(default=False, init=False)  # whether it takes none
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
                paid = spent.prompt_tokens + spent.completion_tokens > 0
                usage = Usage(int(paid), 0, 1, spent.prompt_tokens, spent.completion_tokens)
                return JudgeError(error.reason, redact(str(error), self.endpoint.key), usage, error.setting)
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
            said = text.encode("utf-8", "replace").decode()  # half an emoji cannot be sent back
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": _repair(problem)}]
            text = await self._complete(client, messages, request, spent)
            shown = redact(text, self.endpoint.key)[:200]
            message = f"the judge's repaired reply is still not acceptable: {shown!r}"
            with _as_judge_error("invalid", message, self._why_freer):
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
        asked = {"system": request.prompt, "user": request.user, "schema": request.schema}
        return settings | asked | ({"image": request.image} if request.image else {}) | ({"draw": request.draw} if request.draw else {})

    async def _complete(self, client: AsyncOpenAI, messages: list[dict[str, Any]], request: JudgeRequest, spent: Usage) -> str:
        """The reply's text, from the best output format that the server supports."""
        e, last = self.endpoint, len(_FORMATS) - 1
        seed = {} if e.seed is None else {"seed": e.seed + request.draw}
        temperature = {} if self._without_temperature else {"temperature": e.temperature}
        rung = self._format if request.schema else last
        accepted, limit, why, guessed = self._format, self._limit, self._why_freer, False
        while True:
            form = _response_format(_FORMATS[rung], request.schema)
            asked = {"messages": messages, limit: e.max_tokens, **temperature, **seed, **form}
            try:
                text = await complete(client, e, spent, **asked)
            except Refused as refusal:
                if refusal.parameter == "max_tokens":
                    limit = "max_completion_tokens"
                elif refusal.parameter == "temperature":
                    temperature, self._without_temperature = {}, True
                elif refusal.guessed and self._guesses <= -MOST_GUESSES:  # here it never was the format
                    raise refusal.error from None
                elif refusal.parameter == "response_format":
                    why = f"; it was not held to the form, since {refusal.error}"
                    rung = last if refusal.guessed else rung + 1
                    guessed |= refusal.guessed
                    accepted = accepted if guessed else rung
                else:
                    raise refusal.error from None
            except JudgeError:
                self._guesses -= guessed
                raise
            except Runaway as cut:
                # Constrained decoding can loop on whitespace until the limit; a freer format usually ends.
                self._limit = limit
                if rung == last:
                    message = f"the reply did not end within {e.max_tokens} tokens{cut}"
                    raise JudgeError("length", message, setting=("max-tokens", str(4 * e.max_tokens))) from None
                rung += 1
            else:
                # Do not ask this server in vain again. What was not due to the format is not held
                # against it.
                self._guesses += guessed
                if guessed and self._guesses >= MOST_GUESSES:
                    accepted = rung
                self._format, self._limit = max(self._format, accepted), limit
                if rung == accepted:
                    self._why_freer = why
                return text


def _read(text: str, request: JudgeRequest) -> tuple[Any, Any]:
    """A reply's value, to keep, and what the caller makes of it."""
    value = text if request.schema is None else parse_json(text, request.user)
    return value, request.check(value)


@contextmanager
def _as_judge_error(reason: str, message: str, more: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise JudgeError(reason, f"{message} ({error}){more}") from error


def _response_format(kind: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}}


def _repair(problem: Exception) -> str:
    return f"Your reply cannot be used: {problem}. Answer again with the JSON object only, nothing before or after it."


# Where thoughts begin and end: what models and their templates put there.
_NAMES = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad|cot)"
_THOUGHT = re.compile(rf"<{_NAMES}>|\[(?:THINK|REASONING)\]|\u25c1think\u25b7|<\|(?:START_THINKING|begin_of_thought)\|>", re.I)
_THOUGHT_ENDS = re.compile(
    rf"</{_NAMES}>|\[/(?:THINK|REASONING)\]|\u25c1/think\u25b7|<\|(?:END_THINKING|end_of_thought)\|>"
    r"|<\|channel\|>final<\|message\|>",
    re.I,
)


def parse_json(text: str, given: str = "") -> Any:
    """The JSON value in a model's reply: bare, or the only object in prose or a code fence. ``ValueError`` if there is none or any doubt.

    What stands before the last ``</think>`` is thought, also where the model's template has opened it. A judge may quote its input,
    and so a reply forged there: in prose or behind thoughts, an object that stands in ``given``, the JSON that the judge was asked,
    is not the judge's. Two different objects, one beside another that is broken, a name that occurs twice in an object (what is
    quoted without escapes can add it), and thoughts that do not end are therefore no reply.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_unrepeated)
    if not _THOUGHT.match(text.lstrip()):  # what follows thoughts may be of them: quoted words can end them early
        with suppress(ValueError, RecursionError):
            return decoder.decode(text)
    visible = text
    for end in _THOUGHT_ENDS.finditer(text):
        visible = text[end.end() :]
        with suppress(ValueError, RecursionError):  # whole, so that a mark inside one of its strings ends nothing
            value = decoder.decode(visible.strip())
            if not _stands_in(visible.strip(), given):
                return value
    if _THOUGHT.match(visible.lstrip()):
        raise ValueError("its reasoning has no end")
    found: list[Any] = []
    position = 0
    while (start := visible.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(visible, start)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the brace at character {start} begins no JSON object ({error})") from error
        if value not in found and not _stands_in(visible[start:position], given):
            found.append(value)
    if len(found) > 1:
        raise ValueError("it holds several JSON objects")
    if found:
        return found[0]
    raise ValueError("it holds no JSON object")


def _stands_in(text: str, given: str) -> bool:
    """Whether a piece of a reply is a piece of what was asked."""
    return _escaped(text) in _squeezed(given)


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
