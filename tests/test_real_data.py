"""The embedded models on images that they have never seen, where the development data is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.build import build
from pipelines.config import BuildConfig
from pipelines.score import score
from pipelines.validate import validate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="development data not present")


def test_nlvr_images_are_labelled_well(tmp_path: Path) -> None:
    source = DATA / "nlvr" / "rows.jsonl"
    build(BuildConfig(source=str(source), out=tmp_path / "nlvr", limit=30))
    assert validate(tmp_path / "nlvr")["valid"]
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(source.read_text().splitlines(keepends=True)[:30]))
    figures = score(tmp_path / "nlvr", gold).figures()
    assert figures["recall"] >= 0.9
    assert figures["precision"] >= 0.9
    assert figures["mask_iou"] >= 0.8


def test_mathvision_completes_and_agrees(tmp_path: Path) -> None:
    source = DATA / "mathvision" / "rows.jsonl"
    manifest = build(BuildConfig(source=str(source), out=tmp_path / "mathvision", limit=60))
    assert manifest["rows"] + manifest["rejected"] == 60
    assert validate(tmp_path / "mathvision")["valid"]
