"""What every step is: items in, columns filled in place, and for each item a word: it stays, or why it does not.

The base counts what stays and enters what does not into the ledger, so that no step can lose a row in silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipelines.dataset.schema import Item, Ledger


@dataclass(frozen=True)
class Rejection:
    """Why a row goes no further. ``reason``: a few words, for counting; ``detail``: what exactly, and what to do."""

    reason: str
    detail: str


class Step(ABC):
    """One step of the way of a row. ``stage`` names it in counts, rejects and progress."""

    stage: ClassVar[str]

    def run(self, items: Sequence[Item], ledger: Ledger) -> list[Item]:
        """The items that stay."""
        kept = []
        for item, rejection in zip(items, self.process(items, ledger), strict=True):
            if rejection is None:
                kept.append(item)
            else:
                ledger.reject(item.row, self.stage, rejection.reason, rejection.detail)
        ledger.counts[f"after_{self.stage}"] += len(kept)
        return kept

    @abstractmethod
    def process(self, items: Sequence[Item], ledger: Ledger) -> Sequence[Rejection | None]:
        """Fill the step's columns of every item; None for an item that stays, in order. Counts go into ``ledger.counts``."""
