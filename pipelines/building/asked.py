"""From a row to what an annotator is asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling.annotate import Asked


def asked_of(row: Mapping[str, Any], trace: str) -> Asked:
    return Asked(row["question"], trace, row["answer"], tuple(row["choices"]))
