"""Other people's rows are read as their own tools read them; what is wrong with one of them costs that row alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeling import masks
from pipelines.rows.base import SourceError
from rewardlib.rows import DatasetRow
from tests.conftest import SIZE, encode, record, scene, write_rows
from tests.test_ingest import take
from train.data import load_rows

WIDTH, HEIGHT = SIZE
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
    assert trained.region is not None
    assert trained.region.sum() == 24 * 24 + 32 * 24


TALK = FOREIGN["ms-swift"][0]
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "two images": ({"images": ["a.png", "a.png"]}, "several images", "2 images"),
    "two questions": ({"messages": TALK["messages"] * 2}, "placeholders without images", "2 <image> placeholders for 1 images"),
    "two questions about one image": (
        {"messages": [*TALK["messages"], {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "red"}]},
        "several questions",
        "2 messages of a user",
    ),
    "no question": ({"messages": [{"role": "assistant", "content": "red"}]}, "no question", "no message of a user"),
    "no image": ({"images": None}, "placeholders without images", "1 <image> placeholders for 0 images"),
    "no answer": ({"messages": TALK["messages"][:1]}, "no answer", "answer"),
    "phrases for other boxes": ({"objects": {"ref": ["a", "b"], "bbox": [PIXELS] * 3}}, "bad regions", "3 boxes and 2 phrases"),
    "a box on another image": ({"objects": {"ref": ["a"], "bbox": [PIXELS], "image_id": [1]}}, "bad regions", "other images"),
    "a point": ({"objects": {"ref": ["a"], "bbox": [[3, 4]]}}, "bad region", "expected x0, y0, x1, y1"),
    "a point in shares": ({"objects": {"ref": ["a"], "bbox": [[0.3, 0.4]], "bbox_type": "norm1"}}, "bad region", "expected x0, y0"),
    "thousandths": ({"objects": {"ref": ["a"], "bbox": [PIXELS], "bbox_type": "norm1000"}}, "bad region", "norm1000.*convert yours"),
    "shares that nobody called so": ({"objects": None, "bbox": [0.1, 0.1, 0.4, 0.4]}, "bad region", "bbox_type of norm1"),
    "regions that are no JSON": ({"objects": None, "regions": "[1, 2"}, "bad regions", "no list and no JSON"),
    "choices in a word": ({"choices": "ABC"}, "bad choices", "choices is 'ABC', expected a list"),
    "messages of another kind": ({"messages": [{"text": "?"}]}, "bad chat", "expected role and content"),
    "a phrase of another kind": ({"objects": {"ref": [{"a": 1}], "bbox": [PIXELS] * 2}}, "bad region", "phrase is .*, expected text"),
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


def test_boxes_of_the_hubs_detection_format_are_not_taken_for_corners() -> None:
    row = DatasetRow({"problem": "?", "answer": "4", "image": "a.png", "objects": {"bbox": [[8, 8, 12, 12]], "categories": [3]}})
    assert row.regions == []


# ---------------------------------------------------------------------------------------------------------------------------------------
# COCO


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
        ("no usable trace", ledger.rejects[1].detail),
    ]
    assert "--collector.model asks a vision model for traces" in ledger.rejects[1].detail
    assert not items


def test_a_coco_file_without_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="an annotation has no image_id"):
        take(coco_file(tmp_path, annotations=[{"bbox": [8, 8, 12, 12]}]), license="mit")


def test_json_lines_in_a_json_file_are_still_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [record("a"), record("b")])
    items, _ = take(path.rename(tmp_path / "rows.json"))
    assert [item.row["id"] for item in items] == ["a", "b"]


def test_a_single_trace_is_one() -> None:
    row = DatasetRow({"problem": "?", "answer": "4", "image": "a.png", "traces": "It is 4."})
    assert [trace["text"] for trace in row.traces] == ["It is 4."]


def test_coco_files_that_were_put_together(tmp_path: Path) -> None:
    image = {"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **WANTED}
    with pytest.raises(SourceError, match="two entries of images have the id 5"):
        take(coco_file(tmp_path, images=[image, image]))
