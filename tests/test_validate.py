"""Every promise of a dataset, broken once, is found under its own name."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipelines.build
from labeling import masks
from pipelines.build import build
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.features import FEATURES
from pipelines.validate import PROMISES, validate
from tests.conftest import SIZE, encode, fake_models, record, run_module, write_rows

Row = dict[str, Any]
WIDTH, HEIGHT = SIZE
SHARD = "data/train-00000.parquet"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled rows and a reject; not to be changed."""
    folder = tmp_path_factory.mktemp("valid")
    source = write_rows(folder, [record("a"), record("b"), record("c", answer="blue")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.build, "load_models", lambda config: fake_models())
        build(BuildConfig(source=str(source), out=folder / "out"))
    return folder / "out"


@pytest.fixture
def dataset(valid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "dataset"))


def edit_manifest(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = store.read_manifest(out)
    change(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))


def edit_rows(out: Path, change: Callable[[list[Row]], object]) -> None:
    """Rows changed by somebody who keeps the manifest's hash up to date."""
    rows = list(store.read_rows(out))
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema), out / SHARD)
    digest = hashlib.sha256((out / SHARD).read_bytes()).hexdigest()
    edit_manifest(out, lambda manifest: manifest["shards"][0].update(sha256=digest))


def edit_rejects(out: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_parquet(out / "rejects.parquet")).write_parquet(out / "rejects.parquet")


def box_mask(*box: int, size: tuple[int, int] = SIZE) -> Row:
    return masks.encode(masks.from_box(box, size[1], size[0]))


def paint_pixel(rows: list[Row]) -> None:
    """One step of one channel of one pixel that the mask does not cover."""
    made = rows[0]["counterfactuals"][1]
    pixels = np.asarray(Image.open(io.BytesIO(made["image"]["bytes"]))).copy()
    y, x = np.argwhere(~masks.decode(made["mask"]))[0]
    pixels[y, x, 2] ^= 1
    made["image"]["bytes"] = encode(Image.fromarray(pixels))


def set_counterfactual(rows: list[Row], data: bytes, n: int = 1) -> None:
    rows[0]["counterfactuals"][n]["image"]["bytes"] = data


def widen_control(rows: list[Row]) -> None:
    evidence, control = rows[0]["counterfactuals"]
    control["mask"] = masks.encode(masks.decode(control["mask"]) | masks.decode(evidence["mask"]))


def replace_image(rows: list[Row]) -> None:
    rows[0]["image"]["bytes"] = encode(Image.new("RGB", (WIDTH + 1, HEIGHT)))


def quote_elsewhere(rows: list[Row]) -> None:
    """The first fact also stated by a trace that says something else there."""
    fact = rows[0]["annotations"][0]
    fact["also"] = [{"trace_id": fact["trace_id"], "quote": "elsewhere", "start": 0, "end": 9}]


BROKEN_ROWS: dict[str, tuple[str, Callable[[list[Row]], object]]] = {
    "question is empty": ("text", lambda rows: rows[0].update(question="")),
    "license is null": ("text", lambda rows: rows[0].update(license=None)),
    "statement is empty": ("text", lambda rows: rows[0]["annotations"][0].update(statement="")),
    "quote shifted": ("quotes", lambda rows: rows[0]["annotations"][0].update(start=0)),
    "quote reworded": ("quotes", lambda rows: rows[0]["annotations"][0].update(quote="a Red square")),
    "box outside": ("boxes", lambda rows: rows[0]["regions"][0].update(bbox=[8, 8, WIDTH + 0.5, 20])),
    "box of nothing": ("boxes", lambda rows: rows[0]["regions"][0].update(bbox=[8, 8, 8, 20])),
    "box of NaN": ("boxes", lambda rows: rows[0]["regions"][0].update(bbox=[float("nan"), 8, 20, 20])),
    "mask of another size": ("masks", lambda rows: rows[0]["regions"][0].update(mask=box_mask(8, 8, 20, 20, size=(HEIGHT, WIDTH)))),
    "mask away from its box": ("masks", lambda rows: rows[0]["regions"][0].update(mask=box_mask(20, 20, 30, 30))),
    "mask is empty": ("masks", lambda rows: rows[0]["regions"][0].update(mask=masks.encode(np.zeros((HEIGHT, WIDTH), bool)))),
    "mask is no encoding": ("masks", lambda rows: rows[0]["regions"][0]["mask"].update(counts="no runs")),
    "mask is null": ("masks", lambda rows: rows[0]["regions"][0].update(mask=None)),
    "pixel outside the mask": ("pixels", paint_pixel),
    "counterfactual of another image": ("pixels", lambda rows: set_counterfactual(rows, encode(Image.new("RGB", SIZE)))),
    "counterfactual of another size": ("pixels", lambda rows: set_counterfactual(rows, encode(Image.new("RGB", (9, 9))))),
    "counterfactual is no image": ("pixels", lambda rows: set_counterfactual(rows, b"PNG")),
    "control touches evidence": ("control", widen_control),
    "control without evidence": ("control", lambda rows: rows[0]["counterfactuals"].pop(0)),
    "duplicate id": ("rows", lambda rows: rows[1].update(id="a")),
    "row lost": ("rows", lambda rows: rows.pop()),
    "wrong image hash": ("image", lambda rows: rows[0].update(image_sha256="0" * 64)),
    "wrong width": ("image", lambda rows: rows[0].update(width=WIDTH + 1)),
    "another image": ("image", replace_image),
    "image is no image": ("image", lambda rows: rows[0]["image"].update(bytes=b"PNG")),
    "image is null": ("image", lambda rows: rows[0].update(image=None)),
    "role that nobody knows": ("roles", lambda rows: rows[0]["annotations"][0].update(role="proof")),
    "role that nobody decided": ("roles", lambda rows: rows[0]["annotations"][0].update(role_by="nobody")),
    "context erased as evidence": ("roles", lambda rows: rows[0]["regions"][0].update(role="context")),
    "effect without an interval": ("effects", lambda rows: rows[0]["regions"][0].update(effect=0.5)),
    "effect outside its interval": ("effects", lambda rows: rows[0]["regions"][0].update(effect=0.5, effect_low=0.6, effect_high=0.7)),
    "other trace's quote shifted": ("quotes", quote_elsewhere),
    "unknown annotation": ("references", lambda rows: rows[0]["regions"][0].update(annotation_ids=["a0", "a9"])),
    "unknown trace": ("references", lambda rows: rows[0]["annotations"][0].update(trace_id="t9")),
    "unknown region": ("references", lambda rows: rows[0]["counterfactuals"][0].update(region_ids=["r9"])),
    "region twice": ("references", lambda rows: rows[0]["regions"].append(rows[0]["regions"][0])),
    "annotation twice": ("references", lambda rows: rows[0]["annotations"].append(rows[0]["annotations"][0])),
}

BROKEN_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "file changed": ("files", lambda out: (out / SHARD).write_bytes((out / SHARD).read_bytes() + b"\0")),
    "file missing": ("files", lambda out: (out / SHARD).unlink()),
    "rejects missing": ("files", lambda out: (out / "rejects.parquet").unlink()),
    "rejects in name only": ("files", lambda out: (out / "rejects.parquet").write_bytes(b"PAR1 it is not")),
    "file that nobody named": ("files", lambda out: shutil.copy(out / SHARD, out / "data" / "train-00001.parquet")),
    "reject without a reason": ("rejects", lambda out: edit_rejects(out, lambda table: table.with_columns(reason=pl.lit("")))),
    "reject without a stage": ("rejects", lambda out: edit_rejects(out, lambda table: table.with_columns(stage=pl.lit(None, pl.String)))),
    "reject lost": ("rows", lambda out: edit_rejects(out, pl.DataFrame.clear)),
    "row never counted": ("rows", lambda out: edit_manifest(out, lambda manifest: manifest["counts"].update(rows_in=4))),
}
# Not found so far: Polars' error is no ValueError, and nobody looks for further files.


def test_untouched_dataset_is_valid(valid: Path) -> None:
    assert validate(valid) == {"rows": 2, "valid": True, "findings": {}, "examples": []}


@pytest.mark.parametrize(("promise", "damage"), BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_broken_row_is_found(dataset: Path, promise: str, damage: Callable[[list[Row]], object]) -> None:
    edit_rows(dataset, damage)
    result = validate(dataset)
    assert (result["valid"], result["findings"]) == (False, {promise: 1})
    assert result["examples"][0].startswith(f"{promise}: ")


def test_broken_evidence_is_not_held_against_its_control(dataset: Path) -> None:
    edit_rows(dataset, lambda rows: set_counterfactual(rows, b"PNG", n=0))
    assert validate(dataset)["findings"] == {"pixels": 1}


@pytest.mark.parametrize(
    ("promise", "damage"),
    [pytest.param(*case, id=name) for name, case in BROKEN_FILES.items()],
)
def test_broken_file_is_found(dataset: Path, promise: str, damage: Callable[[Path], object]) -> None:
    damage(dataset)
    result = validate(dataset)
    assert (result["valid"], result["findings"]) == (False, {promise: 1})


def test_every_promise_is_tested() -> None:
    assert {promise for promise, _ in [*BROKEN_ROWS.values(), *BROKEN_FILES.values()]} == set(PROMISES)


def test_finding_names_its_row(dataset: Path) -> None:
    edit_rows(dataset, lambda rows: rows[1].update(license=""))
    assert validate(dataset)["examples"] == ["text: row b: license is empty"]


def test_examples_are_few_but_findings_are_counted(dataset: Path) -> None:
    edit_rows(dataset, lambda rows: rows[0]["regions"][0].update(annotation_ids=["a9"]))
    edit_rows(dataset, lambda rows: rows[0].update(regions=[{**rows[0]["regions"][0], "region_id": f"r{n}"} for n in range(150)]))
    result = validate(dataset)
    assert result["findings"] == {"references": 150}
    assert len(result["examples"]) == 100


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_manifest_that_is_none(dataset: Path, text: str) -> None:
    (dataset / "manifest.json").write_text(text)
    with pytest.raises(store.StoreError):
        validate(dataset)


def keep(out: Path) -> None:
    pass


def break_row(out: Path) -> None:
    edit_rows(out, BROKEN_ROWS["quote shifted"][1])


@pytest.mark.parametrize(
    ("damage", "status", "findings"),
    [(keep, 0, {}), (break_row, 1, {"quotes": 1}), (shutil.rmtree, 2, None)],
)
def test_command_line(dataset: Path, damage: Callable[[Path], object], status: int, findings: dict[str, int] | None) -> None:
    damage(dataset)
    code, last_line, stderr = run_module("pipelines.validate", dataset)
    assert code == status, stderr
    if findings is None:
        assert stderr.startswith("error: ")
        assert last_line == ""
    else:
        assert json.loads(last_line)["findings"] == findings
