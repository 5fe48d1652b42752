"""Rows of datasets to samples: one convention for all hosts.

Columns, as Sightline's datasets have them; the names in brackets are accepted too, a row may be a dict or its JSON text:

    answer [solution, ground_truth, gt]   choices   annotations (facts, or {"statement": ...})   regions ({"bbox": ..., "mask": ...})
    image or images                       counterfactuals ({"role": evidence or control, "image": ...})
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rewardlib.sample import Sample

_ANSWERS = ("answer", "solution", "ground_truth", "gt")


def to_samples(responses: Sequence[str], columns: Mapping[str, Any], prompts: Sequence[Any], ids: Sequence[Sequence[int]]) -> list[Sample]:
    """Samples from lists, as trainers pass dataset columns: everything in ``columns`` that has one value per response is one."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == len(responses)}
    rows = [{name: values[i] for name, values in lists.items()} for i in range(len(responses))]
    return [
        to_sample(response, row, prompt=prompts[i] if prompts else "", ids=ids[i] if ids else ())
        for i, (response, row) in enumerate(zip(responses, rows, strict=True))
    ]


def to_sample(
    response: str, row: Any, *, prompt: Any = "", group: Hashable = None, ids: Sequence[int] = (), length: int | None = None
) -> Sample:
    """A sample from a response and the row that it answers: a mapping of columns, its JSON text, or the bare gold answer."""
    columns = _columns(row)
    answers = (str(columns[name]).strip() for name in _ANSWERS if columns.get(name) is not None)
    counterfactuals = {c["role"]: c["image"] for c in reversed(_listed(columns.get("counterfactuals")))}  # the first of each role
    return Sample(
        response=response,
        prompt=prompt,
        answer=next(filter(None, answers), None),  # a blank gold is none
        choices=tuple(map(str, _listed(columns.get("choices")))),
        annotations=tuple(a["statement"] if isinstance(a, Mapping) else str(a) for a in _listed(columns.get("annotations"))),
        images=tuple(_listed(columns.get("images")) or _listed(columns.get("image"))),
        regions=tuple(_listed(columns.get("regions"))),
        evidence_image=counterfactuals.get("evidence"),
        control_image=counterfactuals.get("control"),
        group=group,
        response_ids=tuple(ids),
        length=length,
    )


def _columns(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, str) and row.lstrip().startswith("{"):
        try:
            parsed = json.loads(row)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict) and any(name in parsed for name in _ANSWERS):
            return parsed
    return {"answer": row}


def _listed(value: Any) -> list[Any]:
    """A column's values without missing ones; a single value counts as a list of one."""
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        value = [value]
    return [item for item in value if item is not None]
