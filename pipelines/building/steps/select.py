"""What the answer rests on, among the facts: the role of every annotation that the judge has left open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from labeling.facts import Fact
from labeling.roles import Decision, by_agreement, by_answer, by_question
from pipelines.building.asked import asked_of
from pipelines.building.steps.base import Rejection, Step
from pipelines.dataset.schema import Item, Ledger


class Select(Step):
    stage: ClassVar[str] = "select"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        for item in items:
            _select(item.row)
            for annotation in item.row["annotations"]:
                ledger.counts[f"annotations_{annotation['role']}"] += 1
        return [None] * len(items)


def _select(row: dict[str, Any]) -> None:
    facts = [_fact(annotation) for annotation in row["annotations"]]
    right = [trace for trace in row["traces"] if trace["correct"]]
    stated_by = [{a["trace_id"], *(place["trace_id"] for place in a["also"])} for a in row["annotations"]]
    # The facts that the judge has decided on are seen by the others too: what the question asks about is among them.
    asked = asked_of(row, "")
    parties = [
        by_answer(facts, asked, [trace["text"] for trace in right]),
        by_question(asked, facts),
        by_agreement(facts, stated_by, of=len(right)),
    ]
    for decisions in parties:
        for annotation, decision in zip(row["annotations"], decisions, strict=True):
            if annotation["role"] == "unknown":
                _decide(annotation, decision)


def _decide(annotation: dict[str, Any], decision: Decision) -> None:
    annotation |= {"role": decision.role, "role_by": decision.by, "role_reason": decision.reason or None}


def _fact(annotation: dict[str, Any]) -> Fact:
    return Fact(*(annotation[name] for name in ("kind", "statement", "phrase", "quote", "start", "end")))
