"""A page to look at: every row with its boxes, masks and changed images, and the trace with its quotes marked; and the rows that were
dropped, each with the reason.

One HTML file with everything inside and nothing that runs from a row's text: all of it is escaped, and a content-security policy forbids
what is not the page's own.

    python -m pipelines.gallery DIR [--limit 200]
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from PIL import Image

from labeling import masks
from labeling.facts import normalize_phrase
from pipelines.dataset import store
from pipelines.dataset.schema import Reject
from rewardlib.console import failing_clearly, say, tell
from rewardlib.page import content_policy, data_url
from rewardlib.program import program

LINE = 36  # letters of a box's name that an image's width holds, about
HUES = 8  # classes h0 ... h7 of the style sheet; the policy forbids inline styles


def write_gallery(out: Path, limit: int = 200) -> Path:
    """Write ``gallery.html`` into a dataset folder: its first ``limit`` rows and all its rejects."""
    if limit < 0:
        raise store.StoreError(f"--limit is {limit}; give 0 or more")
    manifest = store.read_manifest(out)
    rows = [view_row(row) for row in islice(store.read_rows(out), limit)]
    rejects = [view_reject(reject) for reject in store.read_rejects(out)]
    template = Environment(loader=PackageLoader("pipelines", "."), autoescape=True).get_template("gallery.html")
    empty = template.render(rows=[], rejects=[], manifest=manifest)
    policy = content_policy(empty)
    path = out / "gallery.html"
    path.write_text(template.render(rows=rows, rejects=rejects, manifest=manifest, policy=policy), encoding="utf-8")
    return path


def view_row(row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a row."""
    named = [normalize_phrase(a["phrase"] or "") for a in row["annotations"]] + [_name(r) for r in row["regions"]]
    phrases = list(dict.fromkeys(filter(None, named)))
    hues = {phrase: f"h{i % HUES}" for i, phrase in enumerate(phrases)}
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    found = {_name(r) for r in row["regions"]}
    return {
        "row": row,
        "image": data_url(image),
        "boxes": [
            _view_region(r, hues.get(_name(r), "none"), image.width) for r in sorted(row["regions"], key=lambda r: r["role"] == "evidence")
        ],
        "roles": Counter(r["role"] for r in row["regions"]),
        "pairs": [{**c, "url": data_url(Image.open(io.BytesIO(c["image"]["bytes"])).convert("RGB"))} for c in row["counterfactuals"]],
        "traces": [{**t, "marked": mark_quotes(t, row["annotations"], hues)} for t in row["traces"]],
        "phrases": [{"text": p, "hue": hues[p], "found": p in found} for p in phrases],
        "status": _status(row, set(phrases) - found),
    }


def _name(region: dict[str, Any]) -> str:
    """What a region is called; empty for one that came without a name."""
    return normalize_phrase(region["phrase"] or "")


def _view_region(region: dict[str, Any], hue: str, image_width: int) -> dict[str, Any]:
    x0, y0, x1, y1 = region["bbox"]
    letters = image_width / LINE
    outline = outline_path(masks.decode(region["mask"]))
    return {
        "region": region,
        "hue": hue,
        "x": x0,
        "y": y0,
        "width": x1 - x0,
        "height": y1 - y0,
        "outline": outline,
        "told": _told(region),
        "letters": round(letters, 2),
        "baseline": round(y0 - letters / 4 if y0 > 1.25 * letters else y0 + letters, 2),  # above the box, or inside at the upper edge
    }


def _told(region: dict[str, Any]) -> str:
    """What hovering over a region tells."""
    score = "given" if region["score"] is None else f"{region['locator']} {region['score']:.2f}"
    parts = [region["phrase"] or "without a name", score, f"{region['role']} by {region['role_by']}"]
    if region["text"]:
        parts.append(f"reads {region['text']!r}")
    if region["effect"] is not None:
        parts.append(f"effect {region['effect']:.2f} ({region['effect_low']:.2f} to {region['effect_high']:.2f}) nats")
    return " · ".join([*parts, *region["flags"]])


def view_reject(reject: Reject) -> dict[str, Any]:
    """What the page shows of a row that was dropped."""
    try:
        row = json.loads(reject.row)
    except ValueError:
        row = {}
    traces = row.get("traces") if isinstance(row.get("traces"), list) else []
    texts = [t.get("text") if isinstance(t, dict) else t for t in traces]
    return {
        "reject": reject,
        "image": f"data:image/jpeg;base64,{reject.thumbnail}" if reject.thumbnail else None,
        "question": row.get("question") if isinstance(row.get("question"), str) else None,
        "answer": row.get("answer"),
        "traces": [text for text in texts if isinstance(text, str)][:3],
    }


def _status(row: dict[str, Any], missing: set[str]) -> list[str]:
    """The filters that a row answers to."""
    verified = [c["verified"] for c in row["counterfactuals"]]
    found = {
        "all verified": bool(verified) and all(verified),
        "not verified": not all(verified),
        "phrase not found": bool(missing),
        "box instead of mask": any(r["mask_source"] == "box" for r in row["regions"]),
        "wrong trace": any(t["correct"] is False for t in row["traces"]),
        "no control": sum(c["role"] == "control" for c in row["counterfactuals"]) == 0,
        "evidence unknown": all(r["role"] != "evidence" for r in row["regions"]),
    }
    return [name for name, holds in found.items() if holds]


def outline_path(mask: masks.Mask) -> str:
    """A mask's outline as an SVG path in image pixels."""
    large = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)  # so that edges lie between pixels
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = [f"{(x + 0.5) / 2:.2f},{(y + 0.5) / 2:.2f}" for x, y in contour[:, 0]]
        parts.append("M" + "L".join(points) + "Z")
    return "".join(parts)


def mark_quotes(trace: dict[str, Any], annotations: Sequence[dict[str, Any]], hues: dict[str, str]) -> Markup:
    """A trace's text, escaped, with the quotes of its annotations marked; the first of overlapping quotes wins."""
    text, position, parts = trace["text"], 0, []
    for a in sorted((a for a in annotations if a["trace_id"] == trace["trace_id"]), key=lambda a: (a["start"], -a["end"])):
        if a["start"] < position:
            continue
        hue = hues.get(normalize_phrase(a["phrase"] or ""), "none")
        parts.append(escape(text[position : a["start"]]))
        quote = text[a["start"] : a["end"]]
        parts.append(Markup('<mark class="{}" title="{}">{}</mark>').format(hue, f"{a['kind']}: {a['statement']}", quote))
        position = a["end"]
    return Markup("").join([*parts, escape(text[position:])])


def main(dir: Annotated[Path, tyro.conf.Positional], limit: int = 200) -> None:
    """Write a dataset's gallery.html again.

    Args:
        dir: A folder written by flows.build_dataset.
        limit: Rows to show.
    """
    with failing_clearly(store.StoreError):
        page = write_gallery(dir, limit)
    say(f"wrote {page}")
    tell({"page": page})


if __name__ == "__main__":
    tyro.cli(main, prog=program())
