"""The page of an evaluation: every figure, and for the first rows what was answered, what another
model answered, and where the response looked. One file with everything inside, which runs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from rewardlib.page import content_policy
from train.reporting import heat_map, view_image

SHOWN = 60  # rows on the page


def write_page(
    out: Path,
    model: str,
    summary: Mapping[str, Any],
    outcomes: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any] | None],
    other: Sequence[Mapping[str, Any]] | None = None,
    against: Path | None = None,
) -> Path:
    """Write ``evaluation.html`` into an evaluation's folder.

    outcomes: of all rows. shown: what is kept to look at of each (``looked_at``). other: the
        outcomes of the evaluation ``against`` that is compared with.
    """
    theirs = {outcome["id"]: outcome for outcome in other or ()}
    rows = [
        view_row(outcome, kept, theirs.get(outcome["id"]))
        for outcome, kept in list(zip(outcomes, shown, strict=True))[:SHOWN]
    ]
    kinds = ["gained", "lost", "right", "wrong"] if theirs else ["right", "wrong"]
    page = {
        "model": model,
        "figures": {
            name.replace("_", " "): figure
            for name, figure in summary.items()
            if name not in ("against", "left_out")
        },
        "comparison": summary.get("against"),
        "against": against,
        "left_out": summary["left_out"],
        "rows": rows,
        "total": len(outcomes),
        "kinds": kinds,
        "counts": {kind: sum(kind in row["kinds"] for row in rows) for kind in kinds},
    }
    template = Environment(
        loader=PackageLoader("train", "."), autoescape=True, trim_blocks=True
    ).get_template("evaluation.html")
    policy = content_policy(template.render(page))
    path = out / "evaluation.html"
    path.write_text(template.render(page, policy=policy), encoding="utf-8")
    return path


def looked_at(
    image: bytes | None, boxes: Sequence[Sequence[float]], attention: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """What a page needs of a row, as JSON: its image (PNG), boxes in shares of its sides, and the
    attention on it.
    """
    encoded = None if image is None else base64.b64encode(image).decode()
    return {"image": encoded, "boxes": [list(box) for box in boxes], "attention": attention}


def view_row(
    outcome: Mapping[str, Any], kept: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the page shows of a row; its kinds are what it can be filtered by."""
    correct, before = outcome["correct"], None if theirs is None else theirs["correct"]
    kinds = [] if correct is None else ["right" if correct else "wrong"]
    if None not in (correct, before) and correct != before:
        kinds.append("gained" if correct else "lost")
    encoded = base64.b64decode(kept["image"]) if kept and kept["image"] else None
    view = view_image(encoded, kept["boxes"] if kept else [])
    heat = heat_map(kept["attention"]) if kept and encoded and kept["attention"] else None
    return {"head": outcome, "theirs": theirs, "kinds": kinds, "heat": heat, **view}
