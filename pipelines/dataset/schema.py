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

# The table's columns; ``pipelines.dataset.features`` has their types.
COLUMNS = (
    "id",
    "source",
    "split",
    "license",
    "image",
    "width",
    "height",
    "image_sha256",
    "question",
    "choices",
    "answer",
    "alternatives",
    "traces",
    "annotations",
    "regions",
    "counterfactuals",
    "provenance",
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
