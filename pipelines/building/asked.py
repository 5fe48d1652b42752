"""From a row to what an annotator is asked about it, and to what its question names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling.annotate import Asked
from labeling.facts import normalize_phrase
from labeling.locators.base import Sought
from labeling.rules import named_by


def asked_of(row: Mapping[str, Any], trace: str) -> Asked:
    return Asked(row["question"], trace, row["answer"], tuple(row["choices"]))


def named_in_question(row: Mapping[str, Any]) -> list[Sought]:
    """What the question names, to be looked for where the traces tell of nothing that is found."""
    sought: dict[str, Sought] = {}
    for fact in named_by(row["question"]):
        if phrase := normalize_phrase(fact.phrase):
            sought.setdefault(phrase, Sought(phrase, fact.kind, fact.quote))
    return list(sought.values())
