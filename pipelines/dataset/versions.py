"""Datasets of older versions, read as if they had been written today.

    1   no alternatives
    2   alternatives; neither roles nor locators, and one locator, the detector
    3   roles, effects and locators

What an older version did not say is not made up: the role of its regions is unknown, but for those that were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.dataset.schema import SCHEMA_VERSION

Row = dict[str, Any]
_OLD_LOCATOR = "grounding-dino"  # the only one before version 3
_NESTED = ("traces", "annotations", "regions", "counterfactuals")


def upgrade_from(manifest: Mapping[str, Any]) -> Callable[[Row, Sequence[str]], Row]:
    """What turns a row of a dataset with this manifest, of which some columns are wanted, into a row of today."""
    if manifest.get("schema_version", 1) >= SCHEMA_VERSION:
        return lambda row, wanted: row
    return _upgraded


def upgraded_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest as one of today: its models by name, and its only detector among the locators."""
    models = manifest.get("models")
    if manifest.get("schema_version", 1) >= SCHEMA_VERSION or not isinstance(models, Mapping) or "locators" in models:
        return manifest
    named = {kind: _named(kind, model) for kind, model in models.items() if kind != "detector"}
    named["annotator"] = _named("judge", models.get("annotator"))
    detector = _named("detector", models.get("detector"))
    return manifest | {"models": named | {"locators": {_OLD_LOCATOR: detector} if detector else {}}}


def _named(kind: str, model: Any) -> dict[str, Any] | None:
    if not isinstance(model, Mapping):
        return None
    settings = {key: value for key, value in model.items() if key not in (kind, "revision")}
    return {"name": model.get(kind), "revision": model.get("revision"), **settings}


def _upgraded(row: Row, wanted: Sequence[str]) -> Row:
    from datasets import List  # takes long to load, and most datasets are of today

    from pipelines.dataset.features import FEATURES

    new = row | {name: [] for name in wanted if name not in row and isinstance(FEATURES[name], List)}
    for annotation in new.get("annotations") or []:
        annotation |= {"role": "unknown", "role_by": "nobody", "also": [], "flags": []} | annotation
    for region in new.get("regions") or []:
        is_given = region["mask_source"] == "given"
        role = {"role": "evidence", "role_by": "given"} if is_given else {"role": "unknown", "role_by": "nobody"}
        locator = {"locator": "given" if is_given else _OLD_LOCATOR}
        region |= {**role, **locator, **region}
    for name in _NESTED:
        for entry in new.get(name) or []:
            entry |= {column: entry.get(column) for column in FEATURES[name].feature}
    if new.get("provenance"):
        new["provenance"] = {column: new["provenance"].get(column) for column in FEATURES["provenance"]}
        new["provenance"]["locators"] = new["provenance"]["locators"] or []
    return new
