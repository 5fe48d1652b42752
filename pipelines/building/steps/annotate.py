"""The visual facts that every right trace states. What several traces state is one fact with several quotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling.annotate import Annotated, Annotator
from labeling.facts import Fact
from labeling.merging import same_facts
from pipelines.building.asked import asked_of, named_in_question
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.payment import ENDPOINT_FAILED, fail, pay
from pipelines.dataset.schema import Item, Ledger
from rewardlib.judge import JudgeError

Replies = dict[str, Annotated | JudgeError]  # by trace

NO_FACT = "no visual fact in its traces"
TO_READ = (
    "the built-in reader knows plain descriptive English, labels and measures: --annotator.model names a judge LLM that reads any; "
    "or --collector.model a vision model that writes down what it sees"
)


@dataclass(frozen=True)
class Annotate(Step):
    """asks_question: whether a row without a fact goes on, if its question names what can be looked for."""

    annotator: Annotator
    asks_question: bool = False
    stage: ClassVar[str] = "annotate"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        jobs = [(item, trace) for item in items for trace in item.row["traces"] if trace["correct"]]
        replies = self.annotator.annotate([asked_of(item.row, trace["text"]) for item, trace in jobs]) if jobs else []
        read: dict[str, Replies] = {item.row["id"]: {} for item in items}
        for (item, trace), reply in zip(jobs, replies, strict=True):
            read[item.row["id"]][trace["trace_id"]] = reply
        return [_annotate(item.row, read[item.row["id"]], self.asks_question, ledger) for item in items]


def _annotate(row: dict[str, Any], replies: Replies, asks_question: bool, ledger: Ledger) -> Rejection | None:
    failures: list[str] = []
    dropped: dict[str, None] = {}
    stated: list[tuple[str, Sequence[Fact]]] = []
    for trace_id, reply in replies.items():
        if isinstance(reply, JudgeError):
            failures.append(f"{trace_id}: {reply}")
            fail("judge", reply, ledger)
            continue
        pay("judge", reply, ledger)
        dropped |= dict.fromkeys(reply.dropped_for)
        for reason in reply.dropped_for:
            ledger.counts[f"annotations_dropped: {reason}"] += 1
        stated.append((trace_id, reply.facts))
    for same in same_facts(stated):
        row["annotations"].append(_annotation(len(row["annotations"]), same))
        ledger.counts["annotations"] += 1
        ledger.counts["facts_stated_again"] += len(same) - 1
    if row["annotations"] or row["regions"]:
        return None
    if failures:
        return Rejection(ENDPOINT_FAILED[1], "; ".join(failures))
    if dropped:
        return Rejection(NO_FACT, f"none of the facts that the annotator named is usable: {', '.join(dropped)}; {TO_READ}")
    if asks_question and named_in_question(row):
        return None
    return Rejection(NO_FACT, f"the annotator found nothing that the traces read off the image; {TO_READ}")


def _annotation(n: int, same: Sequence[tuple[str, Fact]]) -> dict[str, Any]:
    """One fact, with every place where it is stated: its trace's own, and ``also`` the others."""
    (trace_id, fact), *others = same
    return {
        "annotation_id": f"a{n}",
        "trace_id": trace_id,
        "kind": fact.kind,
        "statement": fact.statement,
        "phrase": fact.phrase,
        "quote": fact.quote,
        "start": fact.start,
        "end": fact.end,
        "also": [{"trace_id": t, "quote": f.quote, "start": f.start, "end": f.end} for t, f in others],
        "role": fact.role,
        "role_by": fact.by,
        "role_reason": fact.reason or None,
        "flags": [],
    }
