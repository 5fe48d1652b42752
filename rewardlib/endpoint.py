"""One request to an OpenAI-compatible endpoint: its text, or a ``JudgeError`` that says in one word and one sentence why there is none.

Endpoints fail in many ways: rate limits, gateways that answer in HTML, bodies that trickle in for ever, refusals, replies without choices,
replies that never end. ``complete`` knows them all. What to ask and what to make of the answer is the subject of ``rewardlib.judge``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardlib.redact import redact

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FINAL = frozenset({"refusal", "invalid", "length", "bad_request", "empty"})  # reasons that asking again at another time will not cure


class JudgeError(Exception):
    """The judge gave no usable reply. ``reason`` is one word for counting, the message says what happened."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(redact(message))  # endpoints have been seen to echo the key
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
    """The reply hit the token limit."""


class FormatRefused(Exception):
    """The server does not support the output format."""


def connect(endpoint: JudgeEndpoint) -> AsyncOpenAI:
    """A client for one event loop. It retries what is worth retrying and honours Retry-After."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http = importlib.import_module(
        DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    )  # httpx, or what openai has in its place

    class Bounded(DefaultAsyncHttpxClient):
        """Its own timeout is for each read, so that a body which trickles in would never end; this one is for the whole answer."""

        async def send(self, request: Any, **options: Any) -> Any:
            try:
                async with asyncio.timeout(endpoint.timeout):
                    return await super().send(request, **options)
            except TimeoutError as error:
                raise http.ReadTimeout(f"no whole answer within {endpoint.timeout:g} s", request=request) from error

    return AsyncOpenAI(
        api_key=endpoint.key or "none",  # local servers need none, but the client insists on one
        base_url=endpoint.base_url,
        timeout=endpoint.timeout,
        max_retries=endpoint.retries,
        http_client=Bounded(),
    )


async def complete(client: AsyncOpenAI, endpoint: JudgeEndpoint, spent: Usage, **asked: Any) -> str:
    """The text of a chat completion; ``asked`` are its messages, seed and response_format. Tokens are added to ``spent`` in any case.

    Raises ``JudgeError``, ``Runaway`` for a reply that was cut off, and ``FormatRefused`` where a freer response_format may help."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError, BadRequestError, OpenAIError, UnprocessableEntityError
    from openai.types.chat import ChatCompletion

    e = endpoint
    try:
        # As chat.completions.create does, but without its walk through schema and messages, a quarter of a request's CPU time.
        body = {"model": e.model, "temperature": e.temperature, "max_tokens": e.max_tokens, **asked}
        reply = await client.post("/chat/completions", body=body, cast_to=ChatCompletion)
    except (BadRequestError, UnprocessableEntityError) as error:
        if "response_format" in asked and re.search(r"response_format|json_schema|json_object|schema|structured|guided", str(error), re.I):
            raise FormatRefused from error
        raise JudgeError("bad_request", f"the endpoint refused the request: {_brief(error)}") from None
    except APITimeoutError:
        raise JudgeError("timeout", f"no reply from {e.place} within {e.timeout:g} s, {e.retries} retries") from None
    except APIConnectionError as error:
        raise JudgeError("connection", f"cannot reach {e.place}: {_brief(error)}") from None
    except APIStatusError as error:
        raise JudgeError(f"http_{error.status_code}", f"the endpoint answered {error.status_code}: {_brief(error)}") from None
    except (OpenAIError, ValueError) as error:
        raise JudgeError("protocol", f"the endpoint's reply cannot be read: {_brief(error)}") from None
    try:
        return _text_of(reply, spent, e.place)
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # the openai client does not check what it received
        raise JudgeError("protocol", f"the endpoint's reply is no chat completion: {_brief(error)}") from None


def _text_of(reply: Any, spent: Usage, place: str) -> str:
    """The text of a chat completion; raises on a refusal, an empty reply or one that was cut off."""
    if isinstance(reply, str):  # openai hands on what is not JSON
        raise JudgeError("protocol", f"{place} answered {redact(reply.strip())[:60]!r}; is this the API's address, ending in /v1?")
    choices = getattr(reply, "choices", None)
    if not choices:
        raise JudgeError("empty", "the endpoint returned no choices")
    if (usage := getattr(reply, "usage", None)) is not None:
        spent.prompt_tokens += usage.prompt_tokens or 0
        spent.completion_tokens += usage.completion_tokens or 0
    message, finish = choices[0].message, choices[0].finish_reason
    if getattr(message, "refusal", None):
        raise JudgeError("refusal", f"the judge refused: {redact(message.refusal)[:200]}")
    if finish == "content_filter":
        raise JudgeError("refusal", "the endpoint's content filter stopped the reply")
    if finish == "length":
        raise Runaway
    if not (message.content or "").strip():
        raise JudgeError("empty", "the judge returned an empty reply")
    return str(message.content)


def _brief(error: Exception) -> str:
    return " ".join(redact(str(error)).split())[:300]  # before the cut: half a key is not known for one
