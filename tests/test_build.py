"""A build with fake models: the same bytes every time, nothing done twice, nothing lost without a trace."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pytest
from PIL import Image

import pipelines.build
from labeling import masks
from labeling.annotate import Annotated
from pipelines.build import build
from pipelines.building.models import Models
from pipelines.config import BuildConfig, CounterfactualConfig, DetectorConfig
from pipelines.dataset import store
from pipelines.dataset.features import FEATURES
from pipelines.dataset.schema import STAGES
from pipelines.rows.base import SourceError
from rewardlib.judge import JudgeError
from tests.conftest import BOX, SIZE, FakeAnnotator, FakeLocator, encode, fake_models, folder_bytes, record, scene, write_rows

COLORS = ["red", "blue", "green", "red", "blue"]  # five rows, three shards of two


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    made = fake_models()
    monkeypatch.setattr(pipelines.build, "load_models", lambda config: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """A small build that has not run yet."""
    rows = [record(f"r{n}", color) for n, color in enumerate(COLORS)]
    source = write_rows(tmp_path / "scenes", rows, {f"r{n}.png": scene(color) for n, color in enumerate(COLORS)})
    return BuildConfig(source=str(source), out=tmp_path / "out", shard_size=2)


def edited(config: BuildConfig, **changes: Any) -> BuildConfig:
    return BuildConfig(**{**config.model_dump(), **changes})


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in store.read_rows(out)}


def labelled(models: Models, config: BuildConfig) -> int:
    """How many rows a build looked at anew."""
    (locator,) = models.locators.locators
    assert isinstance(locator, FakeLocator)
    before = locator.labelled
    build(config)
    return locator.labelled - before


@pytest.mark.usefixtures("models")
def test_same_inputs_give_the_same_bytes(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    build(edited(config, out=tmp_path / "again"))
    assert folder_bytes(config.out, hidden=True) == folder_bytes(tmp_path / "again", hidden=True)
    assert set(folder_bytes(config.out)) == {"manifest.json", "rejects.parquet", *(f"data/train-0000{n}.parquet" for n in range(3))}


@pytest.mark.usefixtures("models")
def test_number_of_workers_changes_no_byte(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    build(edited(config, out=tmp_path / "again", workers=2))
    assert folder_bytes(config.out) == folder_bytes(tmp_path / "again")


@pytest.mark.usefixtures("models")
def test_copied_source_gives_the_same_bytes(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    copy = Path(shutil.copytree(Path(config.source).parent, tmp_path / "copy" / "scenes"))
    os.utime(copy / "r0.png", ns=(0, 0))
    build(edited(config, source=str(copy / "rows.jsonl"), out=tmp_path / "again"))
    assert folder_bytes(config.out) == folder_bytes(tmp_path / "again")


def remove_record(out: Path) -> None:
    (out / ".work" / "train-00000.json").unlink()


def break_record(out: Path) -> None:
    (out / ".work" / "train-00000.json").write_bytes(b"\xff{")


def empty_record(out: Path) -> None:
    (out / ".work" / "train-00000.json").write_text("[]")


def remove_data(out: Path) -> None:
    store.data_path(out, "train-00000").unlink()


def truncate_data(out: Path) -> None:
    path = store.data_path(out, "train-00000")
    path.write_bytes(path.read_bytes()[:-1])


def corrupt_data(out: Path) -> None:
    path = store.data_path(out, "train-00000")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_manifest(out: Path) -> None:
    (out / "manifest.json").unlink()
    (out / "rejects.parquet").unlink()


def leave_temporary_files(out: Path) -> None:
    for name in ("manifest.json.tmp", "data/train-00009.parquet.tmp", ".work/train-00009.json.tmp"):
        (out / name).write_text("half of it")


DAMAGE = [
    (remove_record, 2),
    (break_record, 2),
    (empty_record, 2),
    (remove_data, 2),
    (truncate_data, 2),
    (corrupt_data, 2),
    (remove_manifest, 0),
    (leave_temporary_files, 0),
    (lambda out: None, 0),
]


@pytest.mark.parametrize(("damage", "rebuilt"), DAMAGE)
def test_resuming_repairs_what_is_damaged_and_no_more(
    config: BuildConfig, models: Models, damage: Callable[[Path], None], rebuilt: int
) -> None:
    build(config)
    before = folder_bytes(config.out, hidden=True)
    damage(config.out)
    assert labelled(models, config) == rebuilt
    assert folder_bytes(config.out, hidden=True) == before


CHANGES = [
    ({"detector": DetectorConfig(threshold=0.4)}, 5),
    ({"counterfactual": CounterfactualConfig(fills=("mean",))}, 5),
    ({"license": "cc-by-4.0"}, 5),
    ({"workers": 2}, 0),
    ({"limit": 5}, 0),
    ({"limit": 3}, 1),
    ({"image_root": "."}, 0),
]


@pytest.mark.parametrize(("changes", "rebuilt"), CHANGES)
def test_changed_settings_rebuild_what_depends_on_them(
    config: BuildConfig, models: Models, changes: dict[str, Any], rebuilt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(config.source).parent)
    build(config)
    assert labelled(models, edited(config, **changes)) == rebuilt


def edit_image(folder: Path) -> None:
    (folder / "r0.png").write_bytes(encode(scene("red", (30, 20, 50, 40))))


def edit_line(folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().replace("There is a green", "I see a green"))


def append_line(folder: Path) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(record("r9", image="r0.png")) + "\n")


def repeat_last_id(folder: Path) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(record("r4", image="r0.png")) + "\n")


@pytest.mark.parametrize(("edit", "rebuilt"), [(edit_image, 2), (edit_line, 2), (append_line, 2), (repeat_last_id, 1)])
def test_edited_source_rebuilds_only_its_shard(
    config: BuildConfig, models: Models, edit: Callable[[Path], None], rebuilt: int, tmp_path: Path
) -> None:
    build(config)
    edit(Path(config.source).parent)
    assert labelled(models, config) == rebuilt
    build(edited(config, out=tmp_path / "fresh"))
    assert folder_bytes(config.out) == folder_bytes(tmp_path / "fresh")


def rename_image_column(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = write_rows(folder, [{**record("r0", image=None), "picture": "r0.png"}])
    return path, {"columns": {"image": "picture"}}


def image_in_a_list(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_rows(folder, [record("r0", image=["r0.png"])]), {}


def paths_in_parquet(folder: Path) -> tuple[Path, dict[str, Any]]:
    pl.DataFrame([record("r0")]).write_parquet(folder / "paths.parquet")
    return folder / "paths.parquet", {}


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("arrange", [rename_image_column, image_in_a_list, paths_in_parquet])
def test_edited_image_is_noticed_however_it_is_named(config: BuildConfig, models: Models, arrange: Callable[[Path], Any]) -> None:
    folder = Path(config.source).parent
    source, settings = arrange(folder)
    config = edited(config, source=str(source), **settings)
    build(config)
    edit_image(folder)
    assert labelled(models, config) == 1


@pytest.mark.usefixtures("models")
def test_smaller_source_removes_stale_shards(config: BuildConfig) -> None:
    build(config)
    manifest = build(edited(config, limit=2))
    assert [p.name for p in (config.out / "data").iterdir()] == ["train-00000.parquet"]
    assert [p.name for p in (config.out / ".work").glob("*.json")] == ["train-00000.json"]
    assert manifest["rows"] == len(rows_of(config.out)) == 2


@pytest.mark.usefixtures("models", "datasets_cache")
def test_source_inside_the_output_folder_survives(config: BuildConfig) -> None:
    source = config.out / "data" / "mine.parquet"
    source.parent.mkdir(parents=True)
    pl.DataFrame([{**record(), "image": encode(scene())}]).write_parquet(source)
    before = source.read_bytes()
    with pytest.raises(SourceError, match="choose another --out"):
        build(edited(config, source=str(source)))
    assert source.read_bytes() == before


@pytest.mark.usefixtures("models")
def test_second_build_in_the_same_folder_is_refused(config: BuildConfig) -> None:
    with store.exclusive(config.out), pytest.raises(store.StoreError, match="another build is writing"):
        build(config)
    assert build(config)["rows"] == 5  # the lock is gone with its holder


@pytest.mark.usefixtures("models")
def test_output_folder_that_is_a_file(config: BuildConfig) -> None:
    config.out.write_text("mine")
    with pytest.raises(store.StoreError, match="is a file"):
        build(config)
    assert config.out.read_text() == "mine"


@pytest.mark.usefixtures("models")
def test_failing_shard_leaves_the_finished_ones(config: BuildConfig, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    (locator,) = models.locators.locators
    assert isinstance(locator, FakeLocator)

    def fail_on_green(images: Any, sought: Any, threshold: float | None = None) -> Any:
        if any(s.phrase == "green square" for wanted in sought for s in wanted):
            raise RuntimeError("out of memory")
        return FakeLocator.locate(locator, images, sought, threshold)

    with monkeypatch.context() as broken:
        broken.setattr(locator, "locate", fail_on_green)
        with pytest.raises(RuntimeError, match="out of memory"):
            build(config)
    assert not (config.out / "manifest.json").exists()
    assert labelled(models, config) == 2


LOST = {
    "ingest": (record("ingest", image="elsewhere/a.png"), "missing image", "elsewhere/a.png"),
    "check": (record("check", answer="blue"), "no trace with the right answer", "the answer is 'blue', the traces say 'red'"),
    "annotate": (
        record("annotate", question="Which is it?", traces=["The answer is red."]),
        "no visual fact in its traces",
        "found nothing",
    ),
    "question": (
        record("question", question="Is the dot red?", traces=["It is red."], answer="It is red."),
        "no phrase found in the image",
        "no visual fact in its traces, and of what its question names: looked for dot; lower",
    ),
    "judge": (record("judge", traces=["A riddle. The answer is red."]), "the judge failed", "t0: it never answered"),
    "ground": (record("ground", traces=["I see a pink square. The answer is red."]), "no phrase found in the image", "pink square"),
}


class MoodyAnnotator(FakeAnnotator):
    """Fails on riddles."""

    def annotate(self, traces: Any) -> list[Annotated | JudgeError]:
        answers = super().annotate(traces)
        return [
            JudgeError("timeout", "it never answered") if "riddle" in asked.trace else a for asked, a in zip(traces, answers, strict=True)
        ]


@pytest.mark.parametrize(("row", "reason", "detail"), LOST.values(), ids=LOST)
def test_lost_row_is_accounted_for(tmp_path: Path, row: dict[str, Any], reason: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Models(MoodyAnnotator(), fake_models().locators, fake_models().segmenter)
    monkeypatch.setattr(pipelines.build, "load_models", lambda config: made)
    out = tmp_path / "out"
    manifest = build(BuildConfig(source=str(write_rows(tmp_path / "scenes", [record("kept"), row])), out=out))
    (reject,) = store.read_rejects(out)
    stage = {"judge": "annotate", "question": "ground"}.get(row["id"], row["id"])
    assert (reject.id, reject.stage, reject.reason) == (row["id"], stage, reason)
    assert detail in reject.detail
    assert json.loads(reject.row)["question"] == row["question"]
    assert manifest["rejects"] == [{"stage": stage, "reason": reason, "rows": 1}]
    assert (manifest["counts"]["rows_in"], manifest["rows"], manifest["rejected"], list(rows_of(out))) == (2, 1, 1, ["kept"])


@pytest.mark.usefixtures("models")
def test_paid_for_labels_of_a_lost_row_are_kept(tmp_path: Path) -> None:
    rows = [record("lost", traces=["I see a pink square. The answer is red."])]
    build(BuildConfig(source=str(write_rows(tmp_path, rows)), out=tmp_path / "out"))
    kept = json.loads(store.read_rejects(tmp_path / "out")[0].row)
    assert kept["traces"][0]["correct"] is True
    assert [a["phrase"] for a in kept["annotations"]] == ["pink square"]


@pytest.mark.usefixtures("models", "datasets_cache")
def test_dataset_of_rejects_only_can_be_loaded(tmp_path: Path) -> None:
    manifest = build(BuildConfig(source=str(write_rows(tmp_path, [record(answer="blue")])), out=tmp_path / "out"))
    assert (manifest["rows"], manifest["rejected"]) == (0, 1)
    assert list(store.read_rows(tmp_path / "out")) == []


@pytest.mark.usefixtures("models")
def test_manifest_names_neither_place_nor_time(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    text = (config.out / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)
    assert not [s for s in re.findall(r'"([^"]*)"', text) if s.startswith(("/", "~"))]


@pytest.mark.usefixtures("models")
def test_manifest_counts_what_happened(config: BuildConfig) -> None:
    manifest = build(config)
    counts = manifest["counts"]
    assert [counts[f"after_{stage}"] for stage in STAGES] == [5] * len(STAGES)
    assert (counts["traces_correct"], counts["annotations"], counts["regions"], counts["masks"]) == (5, 5, 5, 5)
    assert (counts["evidence_verified"], counts["control_verified"]) == (5, 5)
    assert [(s["file"], s["rows"]) for s in manifest["shards"]] == [
        (f"data/train-0000{n}.parquet", rows) for n, rows in enumerate([2, 2, 1])
    ]
    assert manifest == store.read_manifest(config.out)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.usefixtures("models")
def test_progress_passes_every_row_through_every_stage(config: BuildConfig, resumed: bool) -> None:
    if resumed:
        build(config)
    passed = dict.fromkeys(STAGES, 0)
    build(config, progress=lambda stage, rows: passed.update({stage: passed[stage] + rows}))
    assert passed == dict.fromkeys(STAGES, 5)


@pytest.mark.usefixtures("models", "datasets_cache")
def test_datasets_restores_the_schema_and_the_images(config: BuildConfig) -> None:
    build(config)
    table = datasets.load_dataset("parquet", data_files=str(config.out / "data" / "train-*.parquet"), split="train")
    assert table.features == FEATURES
    assert table["id"][:] == [f"r{n}" for n in range(5)]
    first = table[0]
    assert first["image"].size == first["counterfactuals"][0]["image"].size == SIZE
    assert (np.asarray(first["image"]) == np.asarray(scene("red"))).all()


@pytest.mark.usefixtures("models")
def test_row_is_labelled_from_trace_to_counterfactual(config: BuildConfig) -> None:
    build(config)
    row = rows_of(config.out)["r1"]
    (annotation,), (region,) = row["annotations"], row["regions"]
    assert row["traces"][0]["text"][annotation["start"] : annotation["end"]] == annotation["quote"] == "a blue square"
    assert (region["phrase"], region["annotation_ids"], region["bbox"]) == ("blue square", ["a0"], list(BOX))
    assert (region["mask_source"], masks.bounding_box(masks.decode(region["mask"]))) == ("sam", BOX)
    evidence, control = row["counterfactuals"]
    assert (evidence["role"], control["role"]) == ("evidence", "control")
    assert (evidence["verified"], evidence["score_after"]) == (True, 0)
    assert (control["verified"], control["score_after"]) == (True, pytest.approx(0.9))
    assert evidence["seed"] == control["seed"]
    original, changed = scene("blue"), Image.open(io.BytesIO(evidence["image"]["bytes"]))
    difference = (np.asarray(original) != np.asarray(changed)).any(2)
    assert difference[BOX[1] : BOX[3], BOX[0] : BOX[2]].all()
    assert not (difference & ~masks.decode(evidence["mask"])).any()


NOT_IN_THE_IMAGE = record("a", traces=["I see a pink square. The answer is red."])


@pytest.mark.parametrize(
    ("require", "pairs", "kept"),
    [
        ("annotations", 1, ["a", "b"]),
        ("regions", 1, ["b"]),
        ("regions", 0, ["b"]),
        ("counterfactuals", 1, ["b"]),
        ("counterfactuals", 0, []),
    ],
)
@pytest.mark.usefixtures("models")
def test_required_labels_decide_which_rows_stay(tmp_path: Path, require: str, pairs: int, kept: list[str]) -> None:
    source = write_rows(tmp_path, [NOT_IN_THE_IMAGE, record("b")])
    settings = {"require": require, "counterfactual": {"pairs": pairs}}
    build(BuildConfig(source=str(source), out=tmp_path / "out", **settings))
    assert list(rows_of(tmp_path / "out")) == kept
    stages = {r.id: r.stage for r in store.read_rejects(tmp_path / "out")}
    assert stages == {i: "ground" if i == "a" else "intervene" for i in ("a", "b") if i not in kept}


GIVEN_MASK = masks.encode(masks.from_box((8, 8, 16, 20), SIZE[1], SIZE[0]))


@pytest.mark.parametrize(
    ("region", "box", "score", "mask"),
    [
        pytest.param({"phrase": "red square", "bbox": [8, 8, 20, 16], "mask": GIVEN_MASK}, [8, 8, 20, 16], 0.9, GIVEN_MASK, id="confirmed"),
        pytest.param({"phrase": "crimson square", "bbox": list(BOX), "mask": GIVEN_MASK}, list(BOX), None, GIVEN_MASK, id="another phrase"),
        pytest.param({"phrase": "pink dot", "bbox": [40, 30, 50, 40]}, [40, 30, 50, 40], None, None, id="not found"),
        pytest.param({"bbox": [40, 30, 50, 40]}, [40, 30, 50, 40], None, None, id="no phrase"),
    ],
)
@pytest.mark.usefixtures("models")
def test_given_region_stays_as_it_is(tmp_path: Path, region: Any, box: list[float], score: float | None, mask: Any) -> None:
    source = write_rows(tmp_path, [record(traces=None, regions=[region])])
    build(BuildConfig(source=str(source), out=tmp_path / "out"))
    row = rows_of(tmp_path / "out")["a"]
    given = row["regions"][0]
    assert (given["bbox"], given["mask_source"], given["region_id"]) == (box, "given" if mask else "sam", "r0")
    assert given["score"] == (score if score is None else pytest.approx(score))
    assert given["mask"] == (mask or masks.encode(masks.from_box(box, SIZE[1], SIZE[0])))
    assert row["traces"] == row["annotations"] == []


@pytest.mark.usefixtures("models")
def test_given_regions_are_all_there_is_of_their_phrase(tmp_path: Path) -> None:
    source = write_rows(tmp_path, [record(regions=[{"phrase": "red square", "bbox": [40, 30, 50, 40]}])])
    manifest = build(BuildConfig(source=str(source), out=tmp_path / "out"))
    regions = rows_of(tmp_path / "out")["a"]["regions"]
    assert [(r["locator"], r["bbox"], r["annotation_ids"]) for r in regions] == [("given", [40, 30, 50, 40], ["a0"])]
    assert manifest["counts"]["findings_beside_given_regions"] == 1


@pytest.mark.usefixtures("models")
def test_confirmed_phrase_does_not_count_as_missing(tmp_path: Path) -> None:
    source = write_rows(tmp_path, [record(regions=[{"phrase": "Red Square.", "bbox": list(BOX)}])])
    manifest = build(BuildConfig(source=str(source), out=tmp_path / "out"))
    assert rows_of(tmp_path / "out")["a"]["regions"][0]["score"] is not None
    assert (manifest["counts"]["phrases"], manifest["counts"]["phrases_not_found"]) == (1, 0)
