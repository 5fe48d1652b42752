"""The dataset's one table: its columns, and what travels through the pipeline on the way there.

All coordinates are pixels of the stored image; boxes are xyxy; masks are COCO run-length encodings of the stored image's size.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from datasets import Features, Image, List, Value
from PIL import Image as PILImage

from rewardlib.ink import printable
from rewardlib.redact import redact

SCHEMA_VERSION = 3
MAX_TRACE = 64_000  # characters; longer ones are runaway generations
STAGES = (
    "ingest",
    "collect",
    "check",
    "annotate",
    "select",
    "ground",
    "segment",
    "weigh",
    "intervene",
)  # in the order in which a row passes them

_MASK = {"size": List(Value("int32"), length=2), "counts": Value("string")}

FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "split": Value("string"),
        "license": Value("string"),
        "image": Image(),
        "width": Value("int32"),
        "height": Value("int32"),
        "image_sha256": Value("string"),
        "question": Value("string"),
        "choices": List(Value("string")),
        "answer": Value("string"),
        "alternatives": List(Value("string")),  # further answers, each as good as the first
        "traces": List(
            {
                "trace_id": Value("string"),
                "model": Value("string"),
                "text": Value("string"),
                "answer": Value("string"),
                "correct": Value("bool"),
            }
        ),
        "annotations": List(
            {
                "annotation_id": Value("string"),
                "trace_id": Value("string"),
                "kind": Value("string"),
                "statement": Value("string"),
                "phrase": Value("string"),
                "quote": Value("string"),
                "start": Value("int32"),
                "end": Value("int32"),
                "role": Value("string"),  # evidence, context or unknown, as labeling.facts says
                "role_by": Value("string"),  # who decided it: labeling.roles.DECIDERS
                "role_reason": Value("string"),  # in the decider's words; null where it gives none
                "also": List(  # the other traces that state the same
                    {
                        "trace_id": Value("string"),
                        "quote": Value("string"),
                        "start": Value("int32"),
                        "end": Value("int32"),
                    }
                ),
                "flags": List(Value("string")),
            }
        ),
        "regions": List(
            {
                "region_id": Value("string"),
                "annotation_ids": List(Value("string")),  # every annotation whose phrase this region grounds
                "phrase": Value("string"),
                "bbox": List(Value("float32"), length=4),
                "locator": Value("string"),  # who found it: "grounding-dino", "ocr", ...; "given"
                "confirmed_by": Value("string"),  # the locator that found a given region, too
                "score": Value("float32"),  # null: the region was given and no locator found it
                "text": Value("string"),  # what is written there, where the locator reads
                "role": Value("string"),  # as an annotation's
                "role_by": Value("string"),
                # The fall of the gold answer's log-probability (nats) when the region is erased, beyond
                # that of its control, with a 95 % interval; null where no answerer looked.
                "effect": Value("float32"),
                "effect_low": Value("float32"),
                "effect_high": Value("float32"),
                "mask": _MASK,
                "mask_score": Value("float32"),
                "mask_source": Value("string"),  # sam, box (fallback), locator or given
                "flags": List(Value("string")),
            }
        ),
        "counterfactuals": List(
            {
                "role": Value("string"),  # what is erased: evidence, control or context
                "fill": Value("string"),
                "shape": Value("string"),
                "region_ids": List(Value("string")),
                "image": Image(),
                "mask": _MASK,
                "area_fraction": Value("float32"),
                "seed": Value("int64"),
                "verified": Value("bool"),  # null: the detector did not see the evidence on the original either
                "score_before": Value("float32"),
                "score_after": Value("float32"),
            }
        ),
        "provenance": {
            "judge": Value("string"),
            "prompt_sha256": Value("string"),
            "detector": Value("string"),
            "detector_revision": Value("string"),
            "detector_threshold": Value("float32"),
            "locators": List({"locator": Value("string"), "name": Value("string"), "revision": Value("string")}),
            "answerer": Value("string"),
            "answerer_revision": Value("string"),
            "segmenter": Value("string"),
            "segmenter_revision": Value("string"),
            "config_sha256": Value("string"),
            "code_version": Value("string"),
        },
    }
)


@dataclass
class Item:
    """A row on its way: the columns that are known so far, and the decoded image that the models look at."""

    row: dict[str, Any]
    image: PILImage.Image


@dataclass(frozen=True)
class Reject:
    """A row that did not make it. ``row`` is its text as JSON, so that nothing that was paid for is lost."""

    id: str
    stage: str
    reason: str  # a few words, for counting
    detail: str  # what exactly, and what to do
    row: str = "{}"
    thumbnail: str = ""  # its image, small, as JPEG in base64; empty where none could be read


_KEPT = ("raw", "question", "choices", "answer", "alternatives", "traces", "annotations")  # of a row that is rejected


@dataclass
class Ledger:
    """What happened to the rows of one shard: every loss has an entry, every stage a count."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, other: Ledger) -> None:
        """Enter what another ledger of the same shard holds."""
        self.counts.update(other.counts)
        self.rejects += other.rejects

    def reject(self, row: dict[str, Any], stage: str, reason: str, detail: str) -> None:
        kept = {name: row[name] for name in _KEPT if name in row}
        text = json.dumps(kept, ensure_ascii=True, default=str)
        # A detail may quote what an endpoint said, and that the key it refused.
        small = thumbnail(row.get("image"))
        self.rejects.append(Reject(printable(str(row.get("id", ""))), stage, reason, printable(redact(detail)), text, small))


def thumbnail(image: Any, side: int = 160) -> str:
    """A stored image ({"bytes", "path"}), small, as JPEG in base64; empty for what is no image."""
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes):
        return ""
    try:
        with PILImage.open(io.BytesIO(data)) as opened:
            small = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return ""
    small.thumbnail((2 * side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
