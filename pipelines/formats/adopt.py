"""Rows of other people's formats as rows that ``pipelines.ingest`` takes: under Sightline's column names.

Which format a row has is told by its columns alone:

    question                Sightline's own, left as it is; with bboxs and no regions, Visual-CoT
    prompt, reward_model    verl
    problem                 EasyR1, PAPO, Perception-R1, Visual-RFT
    conversations           VLM-R1
    messages                ms-swift

``pipelines.formats.columns`` says how their columns are read; nothing is taken for a box, or for another unit, that the row does not say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipelines.formats.columns import PLACEHOLDER, Columns, labels, pictures, reasoning, turns, with_choices
from pipelines.schema import Rejected

_MARKS = {"verl": {"prompt", "reward_model"}, "EasyR1": {"problem"}, "VLM-R1": {"conversations"}, "ms-swift": {"messages"}}


def format_of(names: Collection[str]) -> str | None:
    """Whose format a row with these columns has; None where it is Sightline's own, or nobody's."""
    if "question" in names:
        return "Visual-CoT" if "bboxs" in names and "regions" not in names else None
    return next((name for name, marks in _MARKS.items() if marks <= set(names)), None)


def adopt(columns: Columns) -> dict[str, Any]:
    """The row under Sightline's column names; one that has them already stays as it is. ``Rejected`` where its format cannot be read."""
    theirs = format_of([name for name, value in columns.items() if value is not None])
    if theirs is None:
        return dict(columns)
    try:
        return _adopted(columns)
    except ValueError as error:
        raise Rejected(f"bad {theirs} row", str(error)) from error
    except (TypeError, KeyError, AttributeError) as error:
        raise Rejected(f"bad {theirs} row", f"a column is not as expected: {type(error).__name__}: {error}") from error


def _adopted(columns: Columns) -> dict[str, Any]:
    found = labels(columns)
    choices = found["choices"] or []
    if not isinstance(choices, list | tuple):
        raise ValueError(f"choices is {choices!r:.80}, expected a list")
    traces = given if isinstance(given := columns.get("traces") or [], list) else [given]
    trace = reasoning(columns)
    extra = extra if isinstance(extra := columns.get("extra_info"), Mapping) else {}
    return {
        "id": columns.get("id"),
        "source": next((value for name in ("source", "data_source", "dataset") if (value := columns.get(name))), None),
        "split": columns.get("split") or extra.get("split"),
        "license": columns.get("license"),
        "image": _image(columns),
        "question": _question(columns).removesuffix(with_choices("", choices)),
        "choices": list(choices),
        "answer": found["answer"],
        "traces": [*traces, *([trace] if trace else ())],
        "regions": [dict(region) for region in found["regions"]],
    }


def _image(columns: Columns) -> Any:
    shown = pictures(columns)
    if len(shown) > 1:
        raise ValueError(f"the row has {len(shown)} images, and regions are of one; drop the row, or make a row of the image that counts")
    return shown[0] if shown else None


def _question(columns: Columns) -> str:
    """What the user asks, without the image's place; system messages tell a model how to answer and are no part of it."""
    asked = [text for role, text in turns(columns) if role == "user"]
    if len(asked) != 1:
        raise ValueError(f"the chat has {len(asked)} messages of a user, expected one question; make a row of each, or drop the row")
    return asked[0].replace(PLACEHOLDER, "").strip()
