"""Rows of datasets to samples: one convention for all hosts.

A row may be a mapping of columns, their JSON text, or the bare gold answer. Which columns count and what they mean is decided
in ``rewardlib.rows``, for builds and trainers alike:

    answer, solution, ground_truth, gt    text, number, alternatives, tagged, or an option by letter or number
    choices, options                      list, object, or their text
    annotations                           facts, or {"statement": ...}
    regions                               {"bbox": ..., "mask": ...}
    image, images                         counterfactuals    {"role": evidence or control, "image": ...}

What cannot be understood is left out of the sample with a warning, so that rewards that need it leave the response unscored:
one row does not end a run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from rewardlib.rows import Choices, DatasetRow, RowError
from rewardlib.rows.pictures import upright
from rewardlib.rows.values import reading
from rewardlib.sample import Sample

T = TypeVar("T")


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
    told = DatasetRow.of(row)
    images: list[Any] = _or(lambda: told.pictures, [])
    size = upright(images[0]).size if images and hasattr(images[0], "getexif") else None  # of an image that is open already
    golds: tuple[str, ...] = _or(lambda: told.golds, ())
    annotations: tuple[str, ...] = _or(lambda: told.annotations, ())
    return Sample(
        response=response,
        prompt=prompt,
        answer=golds[0] if golds else None,
        alternatives=golds[1:],
        choices=_or(lambda: told.choices, Choices()).texts,
        annotations=annotations,
        images=tuple(images),
        regions=tuple(_or(lambda: told.regions_on(size) if size else told.regions, [])),
        evidence_image=told.counterfactuals.get("evidence"),
        control_image=told.counterfactuals.get("control"),
        group=group,
        response_ids=tuple(ids),
        length=length,
    )


def _or(read: Callable[[], T], nothing: T) -> T:
    """What a row says, or nothing and a warning where it cannot be understood."""
    try:
        with reading():
            return read()
    except RowError as error:
        warnings.warn(f"a row is not scored by rewards that need it: {error}", stacklevel=3)
        return nothing
