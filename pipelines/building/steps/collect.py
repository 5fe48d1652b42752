"""Traces for the rows that have none, and for those whose traces are all wrong: a vision model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from labeling.annotate import HALF_CHARACTER
from labeling.collect import Question, Trace, TraceCollector
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.check import verdict
from pipelines.building.steps.payment import ENDPOINT_FAILED, fail, pay
from pipelines.dataset.schema import MAX_TRACE, Item, Ledger
from rewardlib.ink import is_encodable
from rewardlib.judge import JudgeError


@dataclass(frozen=True)
class Collect(Step):
    """Without a collector every row keeps the traces that it has."""

    collector: TraceCollector | None
    stage: ClassVar[str] = "collect"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        wanting = [item for item in items if self.collector is not None and wants_traces(item)]
        if self.collector is None or not wanting:
            return [None] * len(items)
        failures: dict[str, JudgeError] = {}
        replies = self.collector.collect([question_of(item) for item in wanting])
        for item, traces in zip(wanting, replies, strict=True):
            ledger.counts["rows_topped_up"] += bool(item.row["traces"])
            for reply in traces:
                if isinstance(reply, JudgeError):
                    failures[item.row["id"]] = reply
                    fail("collector", reply, ledger)
                else:
                    _add_trace(item, self.collector.name, reply, ledger)
        return [_rejection(item, failures.get(item.row["id"])) for item in items]


def wants_traces(item: Item) -> bool:
    """Whether a row has no trace with the right answer."""
    row = item.row
    return not any(verdict(row, trace["text"]) for trace in row["traces"]) and not (row["traces"] and row["regions"])


def question_of(item: Item) -> Question:
    return Question(item.row["question"], tuple(item.row["choices"]), item.row["image"]["bytes"])


def _rejection(item: Item, failure: JudgeError | None) -> Rejection | None:
    if item.row["traces"] or item.row["regions"]:
        return None
    return Rejection(ENDPOINT_FAILED[0], str(failure) if failure else "no trace was usable: --collector.draws asks for more")


def _add_trace(item: Item, model: str, reply: Trace, ledger: Ledger) -> None:
    pay("collector", reply, ledger)
    if problem := _unusable(reply.text, item):
        ledger.counts[f"traces_dropped: {problem}"] += 1
        return
    ledger.counts["traces_collected"] += 1
    taken = {trace["trace_id"] for trace in item.row["traces"]}
    number = next(n for n in range(len(taken), len(taken) + MAX_TRACE) if f"t{n}" not in taken)
    trace = {"trace_id": f"t{number}", "model": model, "text": reply.text, "answer": None, "correct": None}
    item.row["traces"].append(trace)


def _unusable(text: str, item: Item) -> str | None:
    """Why a row cannot have this trace."""
    if not is_encodable(text):
        return HALF_CHARACTER
    if any(trace["text"] == text for trace in item.row["traces"]):
        return "repeated"  # a server that does not sample says the same each time
    return "too long" if len(text) > MAX_TRACE else None
