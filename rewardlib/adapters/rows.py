"""Rows of datasets to samples: one convention for all hosts.

Columns, as Sightline's datasets have them; the names in brackets are accepted too, a row may be a dict or its JSON text:

    answer [solution, ground_truth, gt]   choices   annotations (facts, or {"statement": ...})   regions ({"bbox": ..., "mask": ...})
    image or images                       counterfactuals ({"role": evidence or control, "image": ...})
"""

from __future__ import annotations

import io
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
    answer = next((columns[name] for name in _ANSWERS if columns.get(name) is not None), None)
    counterfactuals = {c["role"]: _opened(c["image"]) for c in reversed(columns.get("counterfactuals") or [])}  # the first of each role
    return Sample(
        response=response,
        prompt=prompt,
        answer=None if answer is None else str(answer),
        choices=tuple(columns.get("choices") or ()),
        annotations=tuple(a["statement"] if isinstance(a, Mapping) else str(a) for a in columns.get("annotations") or ()),
        images=_images(columns),
        regions=tuple(columns.get("regions") or ()),
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


def _images(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    images = columns.get("images") or columns.get("image")
    return () if images is None else tuple(map(_opened, images)) if isinstance(images, list | tuple) else (_opened(images),)


def _opened(image: Any) -> Any:
    """A PIL image, also where a dataset hands over a path or {"bytes": ..., "path": ...}."""
    from PIL import Image

    if isinstance(image, Mapping):
        image = io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"]
    return Image.open(image) if isinstance(image, str | io.BytesIO) else image
