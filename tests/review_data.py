"""A small finished dataset to review, put together without any model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from labeling import masks
from labeling.counterfactual import intervene
from pipelines.dataset import store
from pipelines.dataset.schema import SCHEMA_VERSION, Ledger
from tests.conftest import encode

Row = dict[str, Any]
SIZE = (64, 48)
BOXES = {
    "red square": (8, 8, 20, 20),
    "blue square": (30, 8, 42, 20),
    "green dot": (50, 30, 58, 38),
}
COLORS = {"red square": (255, 0, 0), "blue square": (0, 0, 255), "green dot": (0, 128, 0)}
TEXT = "There is a red square. Right of it is a blue square. A green dot is there. So it is red."

TRACE = {"trace_id": "t0", "model": "writer", "text": TEXT, "answer": "red", "correct": True}


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """The three things on grey, in proportion to the image's size."""
    image = Image.new("RGB", size, (200, 200, 200))
    for phrase, box in BOXES.items():
        x0, y0, x1, y1 = scaled(box, size)
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLORS[phrase])
    return image


def scaled(box: tuple[int, ...], size: tuple[int, int]) -> list[int]:
    return [round(v * size[i % 2] / SIZE[i % 2]) for i, v in enumerate(box)]


def row(name: str, size: tuple[int, int] = SIZE, **changes: Any) -> Row:
    """Evidence, context and unknown: a fact and a region of each; and a counterfactual pair."""
    image = picture(size)
    data = encode(image)
    roles = dict(zip(BOXES, ("evidence", "context", "unknown"), strict=True))
    regions = [_region(n, phrase, size, roles[phrase]) for n, phrase in enumerate(BOXES)]
    evidence = regions[:1]
    places = [(masks.decode(r["mask"]), r["bbox"]) for r in evidence]
    pair = intervene(image, places, fill="mean", shape="mask", seed=7)
    made = {
        "id": name,
        "source": "shapes",
        "split": "train",
        "license": "cc0-1.0",
        "image": {"bytes": data, "path": None},
        "width": size[0],
        "height": size[1],
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "question": "Which colour is the square?",
        "choices": [],
        "answer": "red",
        "alternatives": [],
        "traces": [TRACE],
        "annotations": [_annotation(n, phrase, roles[phrase]) for n, phrase in enumerate(BOXES)],
        "regions": regions,
        "counterfactuals": [_counterfactual(c, ["r0"]) for c in pair],
        "provenance": {"judge": "rules-1", "detector": "fake", "locators": []},
    }
    return made | changes


def _annotation(n: int, phrase: str, role: str) -> Row:
    quote = f"a {phrase}" if f"a {phrase}" in TEXT else f"A {phrase}"
    start = TEXT.index(quote)
    return {
        "annotation_id": f"a{n}",
        "trace_id": "t0",
        "kind": "object",
        "statement": f"There is a {phrase}.",
        "phrase": phrase,
        "quote": quote,
        "start": start,
        "end": start + len(quote),
        "role": role,
        "role_by": "nobody" if role == "unknown" else "judge",
        "role_reason": f"because of {phrase}",
        "also": [],
        "flags": [],
    }


def _region(n: int, phrase: str, size: tuple[int, int], role: str) -> Row:
    box = scaled(BOXES[phrase], size)
    return {
        "region_id": f"r{n}",
        "annotation_ids": [f"a{n}"],
        "phrase": phrase,
        "bbox": [float(v) for v in box],
        "locator": "grounding-dino",
        "score": 0.75,
        "text": None,
        "role": role,
        "role_by": "nobody" if role == "unknown" else "judge",
        "effect": 1.5 if role == "evidence" else None,
        "effect_low": 1.0 if role == "evidence" else None,
        "effect_high": 2.0 if role == "evidence" else None,
        "mask": masks.encode(masks.from_box(box, size[1], size[0])),
        "mask_score": 0.9,
        "mask_source": "sam",
        "flags": [],
    }


def _counterfactual(made: Any, regions: list[str]) -> Row:
    return {
        "role": made.role,
        "fill": made.fill,
        "shape": made.shape,
        "region_ids": regions,
        "image": {"bytes": encode(made.image), "path": None},
        "mask": masks.encode(made.mask),
        "area_fraction": float(made.mask.mean()),
        "seed": made.seed,
        "verified": True,
        "score_before": 0.75,
        "score_after": 0.1,
    }


def write(out: Path, shards: list[list[Row]]) -> Path:
    """A finished dataset of these rows, and one row that its build rejected."""
    records = []
    for n, rows in enumerate(shards):
        ledger = Ledger()
        ledger.counts["rows_in"] = len(rows) + (n == 0)
        if n == 0:
            ledger.reject({"id": "lost"}, "ingest", "missing image", "there is no gone.png; add it")
        records.append(store.write_shard(out, f"train-{n:05}", "key", rows, ledger))
    store.finish(out, records, {"schema_version": SCHEMA_VERSION, "models": {}, "config": {}})
    return out


def small(out: Path) -> Path:
    """Rows a to e in two shards."""
    return write(out, [[row("a"), row("b"), row("c")], [row("d"), row("e")]])
