"""A page about a GRPO run: the same rows before and after it, its curves, and its completions with
what was looked at while they were written, early and late.

Curves say that a reward rises; only the completions say why. One HTML file with everything inside
and nothing that runs: all text is escaped, the page has no script, and a content-security policy
forbids any.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader
from PIL import Image

from rewardlib.page import content_policy, data_url
from train.curves import Curve, Values, draw_curve, in_words, measured, stride_of, varies, window_of
from train.diagnosis import Finding, diagnose
from train.heat import heat_image
from train.methods import PAPERS
from train.settings import Settings, flags_of, values_of
from train.story import story

# Metrics by section, as patterns in the order of their charts; what no pattern names comes under
# "Other".
SECTIONS = {
    "Rewards": ("reward", "reward_std", "rewards/.*/mean", "rewards/.*", ".*reward.*"),
    "Policy": (
        "entropy",
        "kl",
        "clip.*",
        "completions/mean_length",
        "completions/.*",
        "grad_norm",
        "loss",
    ),
    "Speed": ("perf/tokens_per_s", "time/step_s", "perf/.*", "time/.*"),
}
IN_HEADER = {"recipe", "model", "data", "seed", "steps", "out"}
COLUMNS = {"step", "id", "question", "answer", "completion", "tokens", "reward", "advantage"}
PORTRAYED = {
    *("step", "number", "id", "question", "answer", "response", "correct"),
    *("share", "area", "image", "boxes", "attention"),
}


def write_report(out: Path, limit: int = 24) -> Path:
    """Write ``report.html`` into a run's folder: some rows before and after, its curves, and at
    most ``limit`` groups of completions, first and last ones.
    """
    history = read_metrics(out / "metrics.jsonl")
    groups, total = read_groups(out / "completions", limit)
    settings = read_settings(out / "settings.json")
    steps, columns = list(history), by_metric(history)
    silent = silent_rewards(columns)
    page = {
        "name": out.resolve().name,
        "settings": settings,
        "done": steps[-1] + 1,
        "silent": silent,
        "story": story(columns),
        "findings": diagnose(columns),
        "portrait": view_portrait(read_portrait(out / "portrait")),
        "left_out": read_left_out(out / "left_out.jsonl"),
        "recipe": str(settings.get("recipe")) in PAPERS,
        "changed": changed_settings(settings),
        "sections": draw_sections(steps, columns),
        "flat": [
            (name, in_words(measured(v)[0], 4))
            for name, v in columns.items()
            if measured(v) and not varies(v)
        ],
        "unknown": [name for name, values in columns.items() if not measured(values)],
        "window": window_of(len(steps)),
        "stride": stride_of(len(steps)),
        "steps": len(steps),
        "groups": [view_group(group) for group in groups],
        "total": total,
    }
    template = Environment(
        loader=PackageLoader("train", "."), autoescape=True, trim_blocks=True
    ).get_template("report.html")
    policy = content_policy(template.render(page))
    path = out / "report.html"
    path.write_text(template.render(page, policy=policy), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------ a run's files


def read_metrics(path: Path) -> dict[int, dict[str, float | None]]:
    """Metrics by step, in order. Of a step that ran twice the last line counts; what is not a
    finite number is None.
    """
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    history: dict[int, dict[str, float | None]] = {}
    for number, line in enumerate(lines, 1):
        metrics = _metrics_of(line)
        if metrics is not None:
            history[int(metrics["step"])] = {
                name: _number(value) for name, value in metrics.items() if name != "step"
            }
        elif line.strip() and number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a JSON object with a step: {line[:80]!r}; remove the "
                "line"
            )
    if not history:
        raise ValueError(
            f"{path} has no metrics: give a folder that train.grpo has written at least one step to"
        )
    return dict(sorted(history.items()))


def by_metric(history: Mapping[int, Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """Every metric's values over the steps, None where it was not measured."""
    names = dict.fromkeys(name for metrics in history.values() for name in metrics)
    return {name: [metrics.get(name) for metrics in history.values()] for name in names}


def findings_of(out: Path) -> list[Finding]:
    """The cases that a run in a folder is in."""
    return diagnose(by_metric(read_metrics(out / "metrics.jsonl")))


def read_left_out(path: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """The rows that a run went on without, by reason, the commonest first; none where all could be
    used.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            rows.setdefault(row["reason"], []).append(
                {"id": str(row["id"]), "detail": str(row["detail"])}
            )
    return sorted(rows.items(), key=lambda kind: -len(kind[1]))


def silent_rewards(columns: dict[str, list[float | None]]) -> list[tuple[str, int]]:
    """The rewards that scored nothing in some steps, and in how many; their columns are taken out,
    for the page says it in words.
    """
    silent = []
    for name in [name for name in columns if re.fullmatch(r"rewards/.*/silent", name)]:
        steps = sum(bool(value) for value in columns.pop(name))
        if steps:
            silent.append((name.removeprefix("rewards/").removesuffix("/silent"), steps))
    return silent


def _metrics_of(line: str) -> dict[str, Any] | None:
    """A line's metrics. A killed run leaves half a line, and the run that goes on from it writes
    its first line behind that half.
    """
    for part in (line, line[line.rfind("{") :]):
        with suppress(ValueError):
            metrics = json.loads(part)
            if isinstance(metrics, dict) and isinstance(metrics.get("step"), int):
                return metrics
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_settings(path: Path) -> dict[str, Any]:
    """A run's settings; none where the file is missing, for the curves are worth a look without."""
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a JSON object ({error}): remove it, or let train.grpo write it again"
        ) from error


def changed_settings(settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, value and usual value of the settings that differ from the recipe's, or from the
    default where no recipe has a say.
    """
    paper = PAPERS.get(str(settings.get("recipe")))
    if paper is None:
        return []
    values: dict[str, Any] = {
        **values_of(paper.recipe),
        "methods": tuple(settings.get("methods", ())),
        "data": "",
    }
    # tuples become lists, as in the file
    usual = json.loads(json.dumps(flags_of(Settings(**values)), default=str))
    usual["methods"] = list(paper.recipe.methods)
    changed = [
        name
        for name, value in settings.items()
        if name not in IN_HEADER and value != usual.get(name)
    ]
    return [(name, in_words(settings[name]), in_words(usual.get(name))) for name in changed]


def read_groups(folder: Path, limit: int) -> tuple[list[list[dict[str, Any]]], int]:
    """The first and the last groups of a run, ``limit`` in all, and how many there are."""
    places = [
        (file, n)
        for file in sorted(folder.glob("step-*.parquet"))
        for n in range(len(_groups(file, ["id"])))
    ]
    late = limit // 2
    kept = places if len(places) <= limit else places[: limit - late] + places[len(places) - late :]
    groups_kept = []
    for file, chosen in groupby(kept, key=lambda place: place[0]):
        groups = _groups(file)
        groups_kept += [groups[n] for _, n in chosen]
    return groups_kept, len(places)


def _groups(file: Path, columns: list[str] | None = None) -> list[list[dict[str, Any]]]:
    """A file's rows, those of the same prompt together."""
    frame = _read(file, set(columns or COLUMNS), columns)
    return [
        list(rows) for _, rows in groupby(frame.iter_rows(named=True), key=lambda row: row["id"])
    ]


def _read(file: Path, needed: Set[str], columns: list[str] | None = None) -> pl.DataFrame:
    """A table, or some of its columns. ``ValueError`` if it cannot be read or lacks some."""
    try:
        frame = pl.read_parquet(file, columns=columns).fill_nan(None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): remove it to see the rest of the run"
        ) from error
    if missing := needed - set(frame.columns):
        raise ValueError(
            f"{file} has no column {', '.join(sorted(missing))}: remove it to see the rest of the "
            "run"
        )
    return frame


def read_portrait(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows that were asked before and after a run, in pairs; none while it has not ended, or
    where no row was fit.
    """
    files = [folder / f"{moment}.parquet" for moment in ("before", "after")]
    if not all(file.exists() for file in files):
        return []
    before, after = (
        {row["number"]: row for row in _read(file, PORTRAYED).iter_rows(named=True)}
        for file in files
    )
    return [(row, after[number]) for number, row in before.items() if number in after]


# ------------------------------------------------------------------------------------------- curves


def draw_sections(
    steps: Sequence[int], columns: Mapping[str, Values]
) -> list[tuple[str, list[Curve]]]:
    """The charts of every metric that varies, by section."""
    varying = [name for name, values in columns.items() if varies(values)]
    if "reward" in varying and "reward_std" in varying:
        varying.remove("reward_std")  # it is the reward's band
    patterns = [
        (section, pattern) for section, listed in SECTIONS.items() for pattern in listed
    ] + [("Other", ".*")]
    placed: dict[str, list[tuple[int, str]]] = {section: [] for section, _ in patterns}
    for name in varying:
        rank = next(
            i for i, (_, pattern) in enumerate(patterns) if re.fullmatch(pattern, name, re.S)
        )
        placed[patterns[rank][0]].append((rank, name))
    spread = {"reward": columns.get("reward_std")}
    return [
        (
            section,
            [draw_curve(name, steps, columns[name], spread.get(name)) for _, name in sorted(names)],
        )
        for section, names in placed.items()
        if names
    ]


# --------------------------------------------------------------------------------- before and after


def view_portrait(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> dict[str, Any] | None:
    """What the page shows of rows before and after, with the figures of them all; None without
    rows.
    """
    if not pairs:
        return None
    shares = [(a["share"], b["share"]) for a, b in pairs if None not in (a["share"], b["share"])]
    right = [(a["correct"], b["correct"]) for a, b in pairs if a["correct"] is not None]
    return {
        "steps": pairs[0][1]["step"],
        "share": [sum(column) / len(column) for column in zip(*shares, strict=True)],
        "right": [int(sum(column)) for column in zip(*right, strict=True)],
        "judged": len(right),
        "rows": [
            {
                "head": before,
                **view_image(before["image"], before["boxes"]),
                "times": [
                    {"moment": moment, "row": row, **heat_map(row["attention"])}
                    for moment, row in (("before", before), ("after", after))
                ],
            }
            for before, after in pairs
        ],
    }


# -------------------------------------------------------------------------------------- completions


def view_group(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page shows of a prompt and its completions, best first."""
    rewards = [
        name
        for name in rows[0]
        if name.startswith("rewards/") and any(row[name] is not None for row in rows)
    ]
    ordered = sorted(
        enumerate(rows, 1),
        key=lambda pair: -math.inf if pair[1]["reward"] is None else pair[1]["reward"],
        reverse=True,
    )
    encoded = next((row["image"] for row in rows if row.get("image")), None)
    boxes: list[list[float]] = next((row["boxes"] for row in rows if row.get("boxes")), [])
    return {
        "head": rows[0],
        **view_image(encoded, boxes),
        "maps": view_maps(ordered) if encoded else [],
        "names": [name.removeprefix("rewards/") for name in rewards],
        "rows": [
            {"number": n, "row": row, "scores": [row[name] for name in rewards]}
            for n, row in ordered
        ],
    }


def view_image(encoded: bytes | None, boxes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """An image for the page, None where there is none, with its boxes in its pixels."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB") if encoded else None
    width, height = image.size if image else (1, 1)
    return {
        "image": data_url(image) if image else None,
        "width": width,
        "height": height,
        "boxes": [place_box(box, width, height) for box in boxes],
    }


def place_box(box: Sequence[float], width: int, height: int) -> dict[str, float]:
    """A box in [0, 1] as an SVG rectangle in the image's pixels."""
    x0, y0, x1, y1 = (
        round(edge * side, 2)
        for edge, side in zip(box, (width, height, width, height), strict=True)
    )
    return {"x": x0, "y": y0, "width": round(x1 - x0, 2), "height": round(y1 - y0, 2)}


def view_maps(ordered: Sequence[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The attention of the best and of the worst completion that have any."""
    measured = [
        (n, row) for n, row in ordered if row.get("attention") and row["reward"] is not None
    ]
    ends = (
        [("best", *measured[0]), ("worst", *measured[-1])]
        if len(measured) > 1
        else [("the only one measured", *m) for m in measured]
    )
    return [
        {"which": which, "number": n, "reward": row["reward"], **heat_map(row["attention"])}
        for which, n, row in ends
    ]


def heat_map(attention: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A map as an overlay of one pixel a cell, the hottest cell at full heat, with the shares of
    attention that say how hot that is.
    """
    grid = np.nan_to_num(np.array(attention, dtype=float))
    overlay = data_url(heat_image(grid))
    return {"url": overlay, "peak": float(grid.max()), "whole": float(grid.sum())}
