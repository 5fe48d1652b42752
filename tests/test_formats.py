"""What is exported is what the other tool reads, and it comes back as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from labeling import masks
from pipelines.dataset import formats as write
from pipelines.dataset import store
from pipelines.dataset.features import EASYR1, FEATURES, VERL
from pipelines.dataset.schema import Ledger
from pipelines.export import Exported, ExportError, Format, export
from pipelines.rows.coco import Coco
from rewardlib.rows import DatasetRow, RowError
from rewardlib.rows.choices import with_choices
from rewardlib.rows.values import is_missing
from tests.conftest import SIZE, encode, folder_bytes, run_module, scene
from tests.test_ingest import take
from train.data import Row as TrainRow
from train.data import load_rows, to_row

pytestmark = pytest.mark.usefixtures("datasets_cache")

FORMATS: tuple[Format, ...] = get_args(Format)
WIDTH, HEIGHT = SIZE
RECORDS: dict[Format, Callable[..., dict[str, Any]]] = {
    "easyr1": write.easyr1,
    "verl": write.verl,
    "vlm-r1": write.vlm_r1,
    "ms-swift": write.ms_swift,
    "visual-cot": write.visual_cot,
}


def region(box: tuple[float, ...] = (8, 8, 20, 20), phrase: str = "red square") -> dict[str, Any]:
    mask = masks.encode(masks.from_box(box, HEIGHT, WIDTH))
    return {**dict.fromkeys(FEATURES["regions"].feature), "phrase": phrase, "bbox": list(box), "mask": mask}


def labelled(name: str, **changes: Any) -> dict[str, Any]:
    """A row as a build stores it."""
    image = encode(scene())
    row = {
        **dict.fromkeys(FEATURES),
        **{"id": name, "source": "scenes", "split": "train", "license": "cc0-1.0", "width": WIDTH, "height": HEIGHT},
        "image": {"bytes": image, "path": None},
        "image_sha256": hashlib.sha256(image).hexdigest(),
        **{"question": "Which colour?", "choices": ["red", "blue"], "answer": "red"},
        "traces": [{"trace_id": f"t{n}", "text": text, "correct": n == 1} for n, text in enumerate(("It is blue.", "It is red."))],
        "annotations": [{"annotation_id": "a0", "statement": "There is a square."}],
        "regions": [region()],
        "counterfactuals": [{"role": role, "image": {"bytes": encode(scene(color)), "path": None}} for role, color in ROLES],
    }
    return {**row, **changes}


ROLES = (("evidence", "blue"), ("control", "green"))
JPEG = encode(scene("green"), "JPEG")
ROWS = [
    labelled("a/ü", regions=[region(), region((0.1, 0.25, 30.3, 40), "größter Kreis „x“")]),
    labelled("b", choices=[], question="How many\n squares?", answer="1", image={"bytes": JPEG, "path": None}, image_sha256="0" * 64),
    labelled("c", split="test", annotations=[], traces=[], counterfactuals=[]),
]


def dataset(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A finished dataset of these rows, a shard for every split."""
    records = []
    for split in dict.fromkeys(row["split"] for row in rows):
        ledger = Ledger()
        ledger.counts["rows_in"] = len(part := [row for row in rows if row["split"] == split])
        records.append(store.write_shard(folder, f"{split}-00000", "key", part, ledger))
    store.finish(folder, records, {})
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same three rows in every format."""
    folder = tmp_path_factory.mktemp("exported")
    built = dataset(folder / "dataset", ROWS)
    for to in FORMATS:
        assert export(built, to, folder / to) == Exported(3)
    return {to: folder / to for to in FORMATS}


def file_of(folder: Path, split: str = "train") -> Path:
    (path,) = folder.glob(f"{split}.*")
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


# ---------------------------------------------------------------------------------------------------------------------------------------
# There and back


@pytest.mark.parametrize("to", FORMATS)
def test_a_build_reads_back_what_was_exported(to: Format, exported: dict[str, Path]) -> None:
    items, ledger = take(file_of(exported[to]))
    assert not ledger.rejects
    for item, row in zip(items, ROWS[:2], strict=True):
        same = ("id", "source", "split", "license", "answer", "width", "height")
        assert {name: item.row[name] for name in same} == {name: row[name] for name in same}
        assert item.row["image"]["bytes"] == row["image"]["bytes"]
        told = (with_choices(row["question"], row["choices"]), []) if to == "visual-cot" else (row["question"], row["choices"])
        assert (item.row["question"], item.row["choices"]) == told
        assert [r["bbox"] for r in item.row["regions"]] == [pytest.approx(r["bbox"], abs=0.01) for r in row["regions"]]
        if to != "visual-cot":
            assert [r["phrase"] for r in item.row["regions"]] == [r["phrase"] for r in row["regions"]]
        if to not in ("visual-cot", "ms-swift"):
            assert [r["mask"] for r in item.row["regions"]] == [r["mask"] for r in row["regions"]]
        assert [t["text"] for t in item.row["traces"]] == (["It is red."] if to == "ms-swift" else [])


@pytest.mark.parametrize("to", FORMATS)
def test_a_training_run_reads_what_was_exported(to: Format, exported: dict[str, Path]) -> None:
    rows = list(load_rows(str(file_of(exported[to])), "boxed"))
    originals = [to_row(row, "boxed") for row in ROWS[:2]]
    for row, original in zip(rows, originals, strict=True):
        assert (row.id, row.messages, row.sample.answer) == (original.id, original.messages, original.sample.answer)
        assert np.array_equal(np.asarray(row.images[0]), np.asarray(original.images[0]))
        for found, wanted in zip(row.sample.regions, original.sample.regions, strict=True):
            assert found["bbox"] == pytest.approx(wanted["bbox"], abs=1e-4)
        if to not in ("visual-cot", "ms-swift"):  # these have no masks: attention is rewarded in the boxes
            assert np.array_equal(_region(row), _region(original))
        assert row.sample.choices == (() if to == "visual-cot" else original.sample.choices)
        if to in ("easyr1", "verl", "ms-swift"):
            assert row.sample.annotations == original.sample.annotations


def _region(row: TrainRow) -> Any:
    assert row.region is not None
    return row.region


TAGS = r"(?i)<(image|video|audio|bbox|ref-object|/?answer|/?info\d*)>"
words = st.text(min_size=1, max_size=30).filter(lambda text: text == text.strip() and not is_missing(text) and not re.search(TAGS, text))
number = st.integers(0, 100).map(lambda n: n / 100)
box = st.tuples(number, number, number, number).map(
    lambda v: (v[0] * 30, v[1] * 20, v[0] * 30 + 2 + v[2] * 30, v[1] * 20 + 2 + v[3] * 20),
)
boxes = st.lists(st.builds(region, box.map(lambda b: tuple(map(float, np.float32(b)))), words), max_size=3)
labels = {"question": words, "answer": words, "choices": st.lists(words, max_size=4), "regions": boxes}


@given(to=st.sampled_from(list(RECORDS)), row=st.fixed_dictionaries({"name": words, **labels}).map(lambda changes: labelled(**changes)))
def test_odd_rows_come_back(to: Format, row: dict[str, Any]) -> None:
    if to == "visual-cot" and not row["regions"]:
        with pytest.raises(write.Inexpressible):
            write.visual_cot(row, 0, "a.png")
        return
    original = DatasetRow(row)
    try:
        golds = original.golds
    except RowError:
        assume(False)  # an answer that is none of its options is no row of a dataset
    features = {"easyr1": EASYR1, "verl": VERL}.get(to)
    told = RECORDS[to](row, 0, "a.png")
    if features is not None:  # what Parquet makes of it
        (told,) = pa.Table.from_pylist([told], schema=features.arrow_schema).to_pylist()
    back = DatasetRow(json.loads(json.dumps(told, ensure_ascii=False)) if features is None else told)
    assert (back.id, back.source, back.split, back.license) == (original.id, "scenes", "train", "cc0-1.0")
    if to == "visual-cot":
        assert (back.question, back.choices.texts) == (with_choices(original.question, original.choices.texts), ())
    else:
        assert (back.question, back.choices, back.golds) == (original.question, original.choices, golds)
        assert [r["phrase"] for r in back.regions] == [r["phrase"] for r in row["regions"]]
    assert [np.float32(r["bbox"]).tolist() for r in back.regions] == [r["bbox"] for r in row["regions"]]
    assert back.pictures == ([row["image"]] if features is not None else ["a.png"])


@given(row=st.fixed_dictionaries({"name": words, **labels}).map(lambda changes: labelled(**changes)))
def test_odd_rows_come_back_from_coco(row: dict[str, Any]) -> None:
    image = {**write.coco_image(row, 6, "a.png"), "license": 1}
    told = write.coco_annotations(row, image["id"])
    phrases = sorted({annotation["category"] for annotation in told})
    content = {
        "images": [image],
        "annotations": [{"id": n, **found, "category_id": phrases.index(found["category"])} for n, found in enumerate(told)],
        "categories": [{"id": n, "name": phrase} for n, phrase in enumerate(phrases)],
        "licenses": [{"id": 1, "name": row["license"]}],
    }
    (back,) = Coco(json.loads(json.dumps(content)))
    same = ("id", "source", "split", "license", "question", "choices", "answer")
    assert [back[name] for name in same] == [row[name] for name in same]
    for found, given_region in zip(back["regions"], row["regions"], strict=True):
        assert (found["phrase"], found["mask"]) == (given_region["phrase"], given_region["mask"])
        assert found["bbox"] == pytest.approx(given_region["bbox"], abs=1e-4)


# ---------------------------------------------------------------------------------------------------------------------------------------
# In the tool it is for


def opened(exported: Path, split: str = "train") -> Any:
    path = file_of(exported, split)
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train")


def test_pycocotools_reads_it(exported: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(file_of(exported["coco"])))
    assert [image["row_id"] for image in coco.loadImgs(coco.getImgIds())] == ["a/ü", "b"]
    for found, wanted in zip(coco.loadAnns(coco.getAnnIds(imgIds=[1])), ROWS[0]["regions"], strict=True):
        mask = masks.decode(wanted["mask"])
        assert np.array_equal(coco.annToMask(found), mask)
        assert found["area"] == mask.sum()
        assert coco.loadCats(found["category_id"])[0]["name"] == wanted["phrase"]
        x, y, width, height = found["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(wanted["bbox"])
    assert coco.getAnnIds(catIds=coco.getCatIds(catNms=["red square"])) == [1, 3]
    for image in coco.dataset["images"]:
        assert Image.open(exported["coco"] / image["file_name"]).size == (image["width"], image["height"])
    capsys.readouterr()


def test_easyr1_reads_it(exported: dict[str, Path]) -> None:
    """hiyouga/EasyR1, verl/utils/dataset.py: the folder's first file names its type; a part for every <image>; images are opened by PIL."""
    assert {os.path.splitext(name)[-1] for name in os.listdir(exported["easyr1"])} == {".parquet"}
    table = datasets.load_dataset("parquet", data_dir=str(exported["easyr1"]), split="train")
    assert len(table) == 2
    for row, original in zip(table, ROWS, strict=False):
        assert row["problem"].split("<image>") == ["", with_choices(original["question"], original["choices"])]
        (image,), (changed,) = row["images"], row["images_aug"]
        assert np.array_equal(np.asarray(image), pixels(original["image"]["bytes"]))
        assert np.array_equal(np.asarray(changed), np.asarray(scene("blue")))  # PAPO; the evidence is gone
        assert (row["answer"], row["visual_key_info"]) == (original["answer"], "<info1>There is a square.</info1>")
        scalars = set(row) - {"images", "images_aug"}
        assert all(isinstance(row[name], str) for name in scalars)  # np.array(column, dtype=object) keeps one dimension
    (held_out,) = opened(exported["easyr1"], "test")
    assert (held_out["images_aug"], held_out["visual_key_info"]) == ([], "")


def test_verl_reads_it(exported: dict[str, Path]) -> None:
    """volcengine/verl, verl/utils/dataset/rl_dataset.py: a placeholder for each image, extra_info.index; naive.py: ground_truth."""
    for number, (row, original) in enumerate(zip(opened(exported["verl"]), ROWS, strict=False)):
        (message,) = row["prompt"]
        assert message["role"] == "user"
        assert re.split("(<image>|<video>|<audio>)", message["content"])[:2] == ["", "<image>"]
        assert message["content"].count("<image>") == len(row["images"]) == 1
        assert np.array_equal(np.asarray(row["images"][0]), pixels(original["image"]["bytes"]))
        assert row["reward_model"] == {"style": "rule", "ground_truth": original["answer"]}
        assert (row["data_source"], row["ability"], row["extra_info"]["index"]) == ("scenes", "vqa", number)


def test_verls_rewards_find_choices_and_annotations(exported: dict[str, Path]) -> None:
    from rewardlib import Accuracy
    from rewardlib.adapters.verl import VerlScore

    row = opened(exported["verl"])[0]
    told = (row["data_source"], r"\boxed{A}", row["reward_model"]["ground_truth"])
    assert VerlScore([Accuracy()])(*told, extra_info=row["extra_info"])["score"] == 1
    assert VerlScore([Accuracy()])(*told, extra_info={})["score"] == 0


def test_vlm_r1_reads_it(exported: dict[str, Path]) -> None:
    """om-ai-lab/VLM-R1, grpo_jsonl.py: image joined to a folder, the human's turn, then the reply as the whole solution."""
    rows = lines(file_of(exported["vlm-r1"]))
    for row, original in zip(rows, ROWS, strict=False):
        assert (exported["vlm-r1"] / row["image"]).read_bytes() == original["image"]["bytes"]
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
        question, solution = (turn["value"] for turn in row["conversations"])
        assert question.replace("<image>", "") == with_choices(original["question"], original["choices"])
        assert solution == original["answer"]
    assert len(datasets.Dataset.from_list(rows)) == 2  # how it goes on
    assert len(opened(exported["vlm-r1"])) == 2


def test_ms_swift_reads_it(exported: dict[str, Path]) -> None:
    """modelscope/ms-swift, swift/dataset/preprocessor/core.py: roles, boxes of four numbers in order; Custom-dataset.md: objects."""
    for row, original in zip(opened(exported["ms-swift"]), ROWS, strict=False):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][0]["content"].count("<image>") == len(row["images"])
        assert (exported["ms-swift"] / row["images"][0]).read_bytes() == original["image"]["bytes"]
        objects = row["objects"]
        assert (objects["bbox_type"], len(objects["ref"])) == ("real", len(objects["bbox"]))
        assert all(x0 < x1 <= WIDTH and y0 < y1 <= HEIGHT for x0, y0, x1, y1 in objects["bbox"])
        assert (row["messages"][1]["content"], row["solution"]) == ("It is red.", original["answer"])
    (bare,) = opened(exported["ms-swift"], "test")
    assert bare["messages"][1]["content"] == bare["solution"]  # no correct trace


def test_visual_cot_reads_it(exported: dict[str, Path]) -> None:
    """deepcs233/Visual-CoT, tools/convert_data_to_llava_format.py: the hull of bboxs, in shares of the padded square."""
    for row, original in zip(lines(file_of(exported["visual-cot"])), ROWS, strict=False):
        assert set(row) >= {"question", "answer", "image", "width", "height", "bboxs", "dataset", "split"}
        assert (exported["visual-cot"] / row["image"]).read_bytes() == original["image"]["bytes"]
        assert all(0 <= x0 < x1 <= row["width"] and 0 <= y0 < y1 <= row["height"] for x0, y0, x1, y1 in row["bboxs"])
    assert len(opened(exported["visual-cot"])) == 2


# ---------------------------------------------------------------------------------------------------------------------------------------
# The command


def test_the_same_dataset_gives_the_same_bytes(exported: dict[str, Path], tmp_path: Path) -> None:
    built = dataset(tmp_path / "elsewhere", ROWS)
    for to in FORMATS:
        export(built, to, tmp_path / "again" / to)
        assert folder_bytes(tmp_path / "again" / to, hidden=True) == folder_bytes(exported[to], hidden=True)


class Watched(dict[str, Any]):
    """A row that can be seen to go."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("to", FORMATS)
def test_rows_are_let_go_when_they_are_written(to: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most = 0

    def read_rows(out: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
        nonlocal most
        for n in range(250):
            row = Watched(labelled(str(n)))
            alive.add(row)
            most = max(most, len(alive))
            yield row

    built = dataset(tmp_path / "dataset", ROWS)
    monkeypatch.setattr(store, "read_rows", read_rows)
    assert export(built, to, tmp_path / "out") == Exported(250)
    assert most <= 3


def test_a_row_that_cannot_be_expressed_is_named(tmp_path: Path) -> None:
    built = dataset(tmp_path / "dataset", [labelled("a"), labelled("b", question="Is <image> left?"), labelled("c", regions=[])])
    status, last, errors = run_module("pipelines.export", built, "--to", "visual-cot", "--out", tmp_path / "out")
    assert (status, json.loads(last)) == (0, {"rows": 1, "left_out": 2}), errors
    assert [row["id"] for row in lines(tmp_path / "out" / "train.jsonl")] == ["a"]
    done = export(built, "vlm-r1", tmp_path / "other")
    assert done == Exported(2, [("b", "its question holds <image>, which the format takes for the place of something")])
    assert export(built, "coco", tmp_path / "coco") == Exported(3)


INEXPRESSIBLE = {
    "a place for a box": ("ms-swift", {"question": "Is <bbox> red?"}, "<bbox>"),
    "a film": ("verl", {"question": "In <video>?"}, "<video>"),
    "a choice with a place": ("easyr1", {"choices": ["<image>"]}, "<image>"),
    "a tagged answer": ("vlm-r1", {"answer": "<answer>4</answer>"}, "<answer>"),
    "a tagged annotation": ("easyr1", {"annotations": [{"statement": "</info1> is written"}]}, "<info>"),
    "no region": ("visual-cot", {"regions": []}, "needs a box"),
}


@pytest.mark.parametrize(("to", "changes", "message"), INEXPRESSIBLE.values(), ids=INEXPRESSIBLE)
def test_what_cannot_be_expressed(to: Format, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    built = dataset(tmp_path / "dataset", [labelled("a", **changes)])
    with pytest.raises(ExportError, match=rf"{to} can express no row of .*row a: .*{message}.*; choose another format"):
        export(built, to, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"dataset"}


def test_a_trace_with_places_is_no_reply() -> None:
    trace = {"text": "At <bbox> it is red.", "correct": True}
    assert write.ms_swift(labelled("a", traces=[trace]), 0, "a.png")["messages"][1]["content"] == "red"


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    status, _, errors = run_module("pipelines.export", tmp_path / "unfinished", "--to", "coco", "--out", tmp_path / "out")
    assert status == 2
    assert "no manifest.json" in errors
    assert "Traceback" not in errors
    built = dataset(tmp_path / "dataset", [labelled("a")])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"used exists already; remove it, or choose another --out"):
        export(built, "coco", tmp_path / "used")
    assert (tmp_path / "used" / "notes.txt").read_text() == "mine"
    (built / "data" / "train-00000.parquet").unlink()
    with pytest.raises(store.StoreError, match=r"train-00000.parquet is missing or damaged.*Run the build again"):
        export(built, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_in_nobodys_way(tmp_path: Path) -> None:
    built = dataset(tmp_path / "dataset", [labelled("a")])
    (tmp_path / ".out.export").mkdir()
    (tmp_path / ".out.export" / "stale.jsonl").write_text("half a row")
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    export(built, "vlm-r1", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.jsonl", "images"}
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", "out"}
