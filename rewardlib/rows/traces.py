"""Chain-of-thought traces that a row has: what somebody or some model wrote about its image before it answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewardlib.rows.chat import read_reply
from rewardlib.rows.golds import ANSWER_TAG
from rewardlib.rows.values import decoded, is_missing, listed, plain

TRACES = ("traces", "trace", "cot", "rationale", "reasoning", "response", "responses")
_TEXTS = ("text", "content", "response", "value")


def read_traces(columns: Mapping[str, Any], gold: str | None) -> list[dict[str, Any]]:
    """Every trace of a row as a mapping with ``text`` (of any type: the reader decides) and what else it says.

    A solution, or a chat's reply, that says more than the gold answer is one too.
    """
    name = next((name for name in TRACES if listed(columns.get(name))), None)
    given = None if name is None else plain(decoded(columns[name]))
    traces = [] if given is None else list(_told(given if isinstance(given, list | tuple) else [given]))
    for value in (columns.get("solution"), read_reply(columns)):
        if isinstance(value, str) and not is_missing(value) and ANSWER_TAG.sub("", value).strip() not in ("", gold):
            return [*traces, {"text": value}]
    return traces


def _told(given: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for trace in map(plain, given):
        if not isinstance(trace, Mapping):
            yield {"text": trace}
            continue
        if str(trace.get("role", trace.get("from"))).lower() in ("user", "system", "human"):
            continue  # a chat in a trace's place: what the model wrote is the trace
        name = next((name for name in _TEXTS if not is_missing(trace.get(name))), "text")
        yield {**trace, "text": trace.get(name)}
