"""Datasets of the version before are read as if they had been written today, and nothing is made up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.build
from pipelines.card import write_card
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.features import FEATURES
from pipelines.gallery import write_gallery
from pipelines.reviewing.correct import apply
from pipelines.reviewing.corrections import dataset_hash, read
from pipelines.validate import validate
from rewardlib.rows import DatasetRow
from tests.conftest import fake_models, record, write_rows

NEW = {
    "annotations": ("role", "role_by", "role_reason", "also", "flags"),
    "regions": ("locator", "confirmed_by", "text", "role", "role_by", "effect", "effect_low", "effect_high"),
}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset as version 2 wrote it: made by today's build, and taken back."""
    monkeypatch.setattr(pipelines.build, "load_models", lambda config: fake_models())
    given = record("b", regions=[{"phrase": "red square", "bbox": [8, 8, 20, 20]}])
    pipelines.build.build(BuildConfig(source=str(write_rows(tmp_path, [record("a"), given])), out=tmp_path / "out"))
    path = tmp_path / "out" / "data" / "train-00000.parquet"
    pq.write_table(pa.Table.from_pylist([_taken_back(row) for row in pq.read_table(path).to_pylist()]), path)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["schema_version"] = 2
    manifest["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["models"] = {
        "annotator": {"judge": "rules-1", "prompt": None},
        "detector": {"detector": "small", "revision": "1", "threshold": 0.25},
        "segmenter": {"segmenter": "small", "revision": "1", "backend": "transformers"},
        "collector": None,
    }
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "out"


def _taken_back(row: dict[str, Any]) -> dict[str, Any]:
    for region in row["regions"]:
        region["mask_source"] = "given" if region["locator"] == "given" else region["mask_source"]
    for column, names in NEW.items():
        for entry in row[column]:
            for name in names:
                del entry[name]
    for name in ("locators", "answerer", "answerer_revision"):
        del row["provenance"][name]
    return row


def test_roles_of_older_regions_are_unknown_but_for_given_ones(old: Path) -> None:
    found, given = store.read_rows(old)
    (region,), (other,) = found["regions"], given["regions"]
    assert (region["role"], region["role_by"], region["locator"]) == ("unknown", "nobody", "grounding-dino")
    assert (other["role"], other["role_by"], other["locator"]) == ("evidence", "given", "given")
    assert [set(row) for row in (found, given)] == [set(FEATURES)] * 2
    assert {*region} == {*FEATURES["regions"].feature}
    assert found["annotations"][0]["also"] == []


def test_older_datasets_keep_their_promises_and_can_be_looked_at(old: Path) -> None:
    assert validate(old)["valid"]
    assert "small" in write_gallery(old).read_text()
    assert "locator: grounding-dino | small (threshold 0.25)" in write_card(old).read_text()


def test_a_reward_looks_at_evidence_and_at_what_nobody_gave_a_role() -> None:
    box = {"bbox": [1, 1, 5, 5]}
    roles = [None, "evidence", "context", "unknown"]
    row = DatasetRow({"regions": [box | {"role": role, "phrase": str(role)} for role in roles]})
    assert [r["phrase"] for r in row.regions_on((9, 9))] == ["None", "evidence"]
    assert [r["phrase"] for r in row.all_regions_on((9, 9))] == ["None", "evidence", "context", "unknown"]


def test_a_corrected_older_dataset_keeps_no_image_of_unknown_roles(old: Path, tmp_path: Path) -> None:
    accepted = json.dumps({"row": "a", "action": "accept"})
    head = f'"format": "sightline-corrections", "version": 1, "dataset": "{dataset_hash(old)}"'
    (tmp_path / "said.json").write_text(f'{{{head}, "corrections": [{accepted}]}}')
    manifest = apply(old, read(tmp_path / "said.json", old), tmp_path / "corrected")
    assert validate(tmp_path / "corrected")["valid"]
    before, after = ([len(row["counterfactuals"]) for row in store.read_rows(folder)] for folder in (old, tmp_path / "corrected"))
    assert manifest["counts"]["images_of_no_known_role"] == sum(before) - sum(after) > 0
    assert after[1] == before[1]  # what was given is evidence, and stays
