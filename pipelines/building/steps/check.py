"""Every trace's final answer, judged: a row whose traces are all wrong teaches nothing true about its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pipelines.building.steps.base import Rejection, Step
from pipelines.dataset.schema import Item, Ledger
from rewardlib.answers import check_answer, final_answer


class Check(Step):
    stage: ClassVar[str] = "check"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        return [_check(item.row, ledger) for item in items]


def verdict(row: Mapping[str, Any], text: str) -> bool:
    """Whether a trace ends in the row's answer."""
    return check_answer(text, [row["answer"], *row["alternatives"]], row["choices"])


def _check(row: dict[str, Any], ledger: Ledger) -> Rejection | None:
    for trace in row["traces"]:
        trace["answer"] = final_answer(trace["text"])
        trace["correct"] = verdict(row, trace["text"])
    correct = sum(trace["correct"] for trace in row["traces"])
    ledger.counts["traces_correct"] += correct
    ledger.counts["traces_wrong"] += len(row["traces"]) - correct
    if correct or row["regions"] or not row["traces"]:
        return None
    answers = ", ".join(repr(trace["answer"]) for trace in row["traces"])
    return Rejection(
        "no trace with the right answer",
        f"the answer is {row['answer']!r}, the traces say {answers}; --collector.model asks a vision model for further traces",
    )
