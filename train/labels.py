"""What a row has to hold for a reward or a method to say anything about it, and what to do where no
row does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardlib.rows import DatasetRow

_BUILD = "build labels with `python -m flows.build_dataset`"
_EVIDENCE = (
    f"{_BUILD}; where it could not tell what the answer rests on, name a judge with "
    "--annotator.model, or a policy with --answerer"
)


@dataclass(frozen=True)
class Label:
    """One thing that rows may hold."""

    noun: str
    remedy: str
    read: Callable[[DatasetRow], Any]  # what a row has of it; nothing, or empty, where it has none


LABELS: dict[str, Label] = {
    "answer": Label("a gold answer", "add a column answer", lambda row: row.answer),
    "regions": Label("regions of evidence", _EVIDENCE, lambda row: row.regions),
    "evidence_image": Label(
        "images without their evidence",
        _BUILD,
        lambda row: "evidence" in row.counterfactual_roles,
    ),
    "control_image": Label(
        "control images, with something else erased",
        _BUILD,
        lambda row: "control" in row.counterfactual_roles,
    ),
    "annotations": Label("annotations", _BUILD, lambda row: row.annotations),
    "traces": Label(
        "correct traces", f"{_BUILD} from rows that have traces", lambda row: row.correct_traces
    ),
}
IMAGE = "image"  # a label too, but told by the columns: reading every image would take too long


@dataclass(frozen=True)
class Need:
    """Somebody who needs a label."""

    label: str
    who: str  # "the accuracy reward"
    without: str = ""  # what does without it: "set --accuracy 0"

    def __post_init__(self) -> None:
        if self.label not in (*LABELS, IMAGE):
            raise ValueError(
                f"{self.who} requires {self.label!r}, which is no label; there are "
                f"{', '.join([*LABELS, IMAGE])}"
            )
