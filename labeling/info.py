"""Who made a label: what provenance records of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """A model's name and revision, and the settings that its output depends on."""

    name: str
    revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision, **self.settings}
