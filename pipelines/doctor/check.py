"""What a check of ``sightline doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One line of the report. ``missing`` is something optional that is not there; ``failed`` is something there that does not work."""

    name: str
    state: Literal["ok", "missing", "failed"]
    found: str
    remedy: str = ""
