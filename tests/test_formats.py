"""What is exported is what the other tool reads, and it comes back as it was; other people's rows are read as their tools read them."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from labeling import masks
from pipelines import store
from pipelines.config import BuildConfig
from pipelines.export import Exported, ExportError, Format, export
from pipelines.formats import write
from pipelines.formats.adopt import adopt, format_of
from pipelines.formats.coco import Coco
from pipelines.formats.columns import with_choices
from pipelines.ingest import ingest, plan
from pipelines.schema import FEATURES, Item, Ledger, Rejected
from pipelines.sources import SourceError, open_source
from tests.conftest import SIZE, encode, folder_bytes, record, run_module, scene, write_rows
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
        "image_sha256": store.hashlib.sha256(image).hexdigest(),
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


def take(source: Path, **settings: Any) -> tuple[list[Item], Ledger]:
    """Everything that a build would read of a source."""
    config = BuildConfig(source=str(source), out=source.parent / "out", **settings)
    opened, ledger = open_source(config), Ledger()
    items = [item for shard in plan(opened, config) for item in ingest(shard, opened, config, ledger)]
    assert ledger.counts["rows_in"] == len(items) + len(ledger.rejects) == len(opened)
    return items, ledger


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
words = st.text(min_size=1, max_size=30).filter(lambda text: text == text.strip() and not re.search(TAGS, text))
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
    features = {"easyr1": write.EASYR1, "verl": write.VERL}.get(to)
    told = RECORDS[to](row, 0, "a.png")
    if features is not None:  # what Parquet makes of it
        (told,) = pa.Table.from_pylist([told], schema=features.arrow_schema).to_pylist()
    back = adopt(json.loads(json.dumps(told, ensure_ascii=False)) if features is None else told)
    assert [back[name] for name in ("id", "source", "split", "license", "answer")] == [
        row["id"],
        "scenes",
        "train",
        "cc0-1.0",
        row["answer"],
    ]
    if to == "visual-cot":
        assert (back["question"], back["choices"]) == (with_choices(row["question"], row["choices"]), [])
    else:
        assert (back["question"], back["choices"]) == (row["question"], row["choices"])
        assert [r["phrase"] for r in back["regions"]] == [r["phrase"] for r in row["regions"]]
    assert [np.float32(r["bbox"]).tolist() for r in back["regions"]] == [r["bbox"] for r in row["regions"]]
    assert back["image"] == (row["image"] if features is not None else "a.png")


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
    with pytest.raises(ExportError, match=r"cannot read .*train-00000.parquet.*pipelines.validate"):
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


# ---------------------------------------------------------------------------------------------------------------------------------------
# Other people's rows

WANTED = {"question": "Which colour?", "answer": "red"}
PIXELS = [8.0, 8.0, 20.0, 20.0]
FOREIGN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "EasyR1": ({"images": ["a.png"], "problem": "<image>Which colour?", "answer": "red", "regions": [{"bbox": PIXELS}]}, {}),
    "EasyR1 with JSON": ({"images": ["a.png"], "problem": "Which colour?", "answer": "red", "regions": json.dumps([{"bbox": PIXELS}])}, {}),
    "Visual-RFT": (
        {"image": "a.png", "problem": "Which colour?", "solution": "<think>I see red.</think><answer> red </answer>"},
        {"traces": ["<think>I see red.</think><answer> red </answer>"]},
    ),
    "verl": (
        {
            "data_source": "squares",
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>\nWhich colour?"}],
            "images": ["a.png"],
            "reward_model": {"style": "rule", "ground_truth": "red"},
            "extra_info": {"split": "test", "regions": [{"bbox": PIXELS, "phrase": "square"}], "answer": "with its working"},
        },
        {"source": "squares", "split": "test"},
    ),
    "VLM-R1": (
        {
            "id": 7,
            "image": ["a.png"],
            "conversations": [{"from": "human", "value": "<image>Which colour?"}, {"from": "gpt", "value": "<answer> red </answer>"}],
            "bboxs": [PIXELS],
        },
        {"id": "7"},
    ),
    "ms-swift": (
        {
            "messages": [{"role": "user", "content": "<image>Which colour?"}, {"role": "assistant", "content": "red"}],
            "images": ["a.png"],
            "objects": {"ref": ["square", "circle"], "bbox": [PIXELS, [30, 8, 40, 20]]},
        },
        {"phrases": ["square", "circle"]},
    ),
    "ms-swift in shares": (
        {
            "messages": [{"role": "user", "content": "<image>Which colour?"}, {"role": "assistant", "content": "It is red."}],
            "images": ["a.png"],
            "solution": "red",
            "objects": {"ref": ["square"], "bbox": [[0.125, 0.25, 0.5, 0.75], [0.5, 0.5, 1, 1]], "bbox_type": "norm1"},
        },
        {"traces": ["It is red."], "phrases": ["square", "square"], "boxes": [[8, 12, 32, 36], [32, 24, 64, 48]]},
    ),
    "Visual-CoT": (
        {**WANTED, "image": "a.png", "width": 64, "height": 48, "bboxs": [PIXELS], "dataset": "squares", "split": "val"},
        {"source": "squares", "split": "val"},
    ),
}


@pytest.mark.parametrize(("row", "expected"), FOREIGN.values(), ids=FOREIGN)
def test_rows_of_other_formats(row: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    items, ledger = take(write_rows(tmp_path, [row], {"a.png": scene()}), license="cc0-1.0")
    assert not ledger.rejects
    found = items[0].row
    assert {name: found[name] for name in WANTED} == WANTED
    assert {name: found[name] for name in ("id", "source", "split") if name in expected} == {
        name: value for name, value in expected.items() if name in ("id", "source", "split")
    }
    assert [trace["text"] for trace in found["traces"]] == expected.get("traces", [])
    given_boxes = [] if "solution" in row and "objects" not in row else [PIXELS]
    boxes_found = [r["bbox"] for r in found["regions"]]
    assert boxes_found == expected["boxes"] if "boxes" in expected else boxes_found[:1] == given_boxes
    assert [r["phrase"] for r in found["regions"]] == expected.get("phrases", [r["phrase"] for r in found["regions"]])


def test_a_trainer_scales_shares_too(tmp_path: Path) -> None:
    row = FOREIGN["ms-swift in shares"][0]
    (trained,) = load_rows(str(write_rows(tmp_path, [row], {"a.png": scene()})), "boxed")
    assert [r["bbox"] for r in trained.sample.regions] == [[8, 12, 32, 36], [32, 24, 64, 48]]
    assert _region(trained).sum() == 24 * 24 + 32 * 24


TALK = FOREIGN["ms-swift"][0]
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "two images": ({"images": ["a.png", "a.png"]}, "bad ms-swift row", "2 images"),
    "two questions": ({"messages": TALK["messages"] * 2}, "bad ms-swift row", "2 messages of a user"),
    "no question": ({"messages": [{"role": "assistant", "content": "red"}]}, "bad ms-swift row", "0 messages of a user"),
    "no image": ({"images": None}, "bad ms-swift row", "the column images is empty"),
    "no answer": ({"messages": TALK["messages"][:1]}, "no answer", "answer"),
    "phrases for other boxes": ({"objects": {"ref": ["a", "b"], "bbox": [PIXELS] * 3}}, "bad ms-swift row", "3 boxes and 2 phrases"),
    "a box on another image": ({"objects": {"ref": ["a"], "bbox": [PIXELS], "image_id": [1]}}, "bad ms-swift row", "other images"),
    "a point": ({"objects": {"ref": ["a"], "bbox": [[3, 4]]}}, "bad region", "expected x0, y0, x1, y1"),
    "a point in shares": ({"objects": {"ref": ["a"], "bbox": [[0.3, 0.4]], "bbox_type": "norm1"}}, "bad region", "expected x0, y0"),
    "thousandths": ({"objects": {"ref": ["a"], "bbox": [PIXELS], "bbox_type": "norm1000"}}, "bad region", "norm1000.*convert yours"),
    "shares that nobody called so": ({"objects": None, "bbox": [0.1, 0.1, 0.4, 0.4]}, "bad region", "bbox_type of norm1"),
    "regions that are no JSON": ({"objects": None, "regions": "[1, 2"}, "bad ms-swift row", "regions is no JSON"),
    "messages of another kind": ({"messages": [{"text": "?"}]}, "bad ms-swift row", "expected role and content"),
    "images of another kind": ({"objects": {"ref": 3, "bbox": [PIXELS]}}, "bad ms-swift row", "not as expected"),
}


@pytest.mark.parametrize(("changes", "reason", "detail"), BAD.values(), ids=BAD)
def test_a_bad_row_of_another_format(changes: dict[str, Any], reason: str, detail: str, tmp_path: Path) -> None:
    items, ledger = take(write_rows(tmp_path, [TALK, TALK | changes], {"a.png": scene()}), license="cc0-1.0")
    assert len(items) == 1, "a bad row must not cost the good one"
    assert ledger.rejects[0].reason == reason
    assert re.search(f"row 2: .*{detail}", ledger.rejects[0].detail)


def test_columns_that_are_named_come_first(tmp_path: Path) -> None:
    row = FOREIGN["verl"][0] | {"short": "RED", "rights": "mit"}
    items, _ = take(write_rows(tmp_path, [row], {"a.png": scene()}), columns={"answer": "short", "license": "rights"})
    assert (items[0].row["answer"], items[0].row["license"], items[0].row["question"]) == ("RED", "mit", "Which colour?")


def test_a_row_of_ones_own_is_left_alone() -> None:
    own = record(messages=[{"role": "user", "content": "?"}], problem="?", objects={"ref": [], "bbox": []})
    assert adopt(own) == own
    assert format_of(["image", "prompt", "answer"]) is None


def test_boxes_of_the_hubs_detection_format_are_not_taken_for_corners() -> None:
    found = adopt({"problem": "?", "answer": "4", "image": "a.png", "objects": {"bbox": [[8, 8, 12, 12]], "categories": [3]}})
    assert found["regions"] == []


# ---------------------------------------------------------------------------------------------------------------------------------------
# COCO files of other people


def coco_file(folder: Path, **changes: Any) -> Path:
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, "license": 3, **WANTED}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [8, 8, 12, 12], "segmentation": []}],
        "categories": [{"id": 2, "name": "square"}],
        "licenses": [{"id": 3, "name": "mit"}],
    }
    (folder / "a.png").write_bytes(encode(scene()))
    path = folder / "instances.json"
    path.write_text(json.dumps({**content, **changes}, indent=1))
    return path


POLYGON = [[8.0, 8.0, 20.0, 8.0, 20.0, 20.0, 8.0, 20.0]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [8 * HEIGHT + 8, *([12, HEIGHT - 12] * 11), 12, 44 * HEIGHT + 28]}


@pytest.mark.parametrize("segmentation", [POLYGON, RUNS], ids=["polygon", "plain run lengths"])
def test_masks_of_coco(segmentation: Any, tmp_path: Path) -> None:
    annotation = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [8, 8, 12, 12], "segmentation": segmentation}
    items, ledger = take(coco_file(tmp_path, annotations=[annotation]))
    assert not ledger.rejects
    (found,) = items[0].row["regions"]
    assert (found["phrase"], found["bbox"], items[0].row["id"], items[0].row["license"]) == ("square", PIXELS, "5", "mit")
    assert np.array_equal(masks.decode(found["mask"]), masks.from_box(PIXELS, HEIGHT, WIDTH))


def test_coco_without_questions(tmp_path: Path) -> None:
    path = coco_file(tmp_path, images=[{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}])
    with pytest.raises(
        SourceError, match=r"is COCO without questions: give the entries of its images a question and an answer, .* or write"
    ):
        take(path, license="mit")


@pytest.mark.parametrize(
    ("annotation", "detail"),
    [
        ({"category_id": 2, "bbox": [8, 8, 12]}, "annotation 9 has no bbox of four numbers"),
        ({"category_id": 7, "bbox": [8, 8, 12, 12]}, "a category that the file does not define"),
        ({"category_id": 2, "bbox": [8, 8, 12, 12], "segmentation": "square"}, "neither run lengths nor polygons"),
        ({"category_id": 2, "bbox": [0.1, 0.1, 0.2, 0.2]}, "lies on one pixel"),
    ],
)
def test_a_bad_annotation_of_coco(annotation: dict[str, Any], detail: str, tmp_path: Path) -> None:
    path = coco_file(tmp_path, annotations=[{"id": 9, "image_id": 5, **annotation}])
    items, ledger = take(path, license="mit")
    assert not items
    assert re.search(f"row 1: .*{detail}", ledger.rejects[0].detail)


def test_a_bad_image_of_coco(tmp_path: Path) -> None:
    path = coco_file(tmp_path, images=[{"id": 5, **WANTED}, {"id": 6, "file_name": "a.png", **WANTED}])
    items, ledger = take(path, license="mit")
    assert [(r.reason, r.detail) for r in ledger.rejects] == [
        ("bad COCO entry", "row 1: entry 0 of images has no file_name; correct it, or drop it"),
        ("no usable trace", "row 2: every trace is empty, too long or broken, and no regions are given"),
    ]
    assert not items


def test_a_coco_file_without_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="an annotation has no image_id"):
        take(coco_file(tmp_path, annotations=[{"bbox": [8, 8, 12, 12]}]), license="mit")


def test_json_lines_in_a_json_file_are_still_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [record("a"), record("b")])
    items, _ = take(path.rename(tmp_path / "rows.json"))
    assert [item.row["id"] for item in items] == ["a", "b"]


def test_a_rejected_row_says_what_it_was() -> None:
    with pytest.raises(Rejected, match="bad VLM-R1 row"):
        adopt({"conversations": [{"from": "human"}]})
