"""The other tools that there are, and the rows that can be asked for. Light, for ``--help``."""

from __future__ import annotations

from typing import Literal

Tool = Literal["label-studio", "coco"]
Only = Literal["evidence", "context", "unknown", "unfound", "boxes", "unverified"]
