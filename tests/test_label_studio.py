"""Label Studio: its brush run lengths, its tasks, and its exports as corrections."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from labeling import masks
from pipelines.reviewing.corrections import CorrectionError, dataset_hash
from pipelines.reviewing.label_studio import decode_brush, encode_brush
from pipelines.reviewing.tools import corrections_from, write_for
from tests.review_data import row, small, write

Row = dict[str, Any]

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))
# What label_studio_sdk 2.1.2 makes of the mask [[0, 1, 1], [1, 0, 0]]; it adds a byte at the end.
KNOWN = [0, 0, 0, 24, 57, 27, 252, 96, 22, 255, 231, 0, 0]


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_a_stroke_is_the_mask_it_was_made_of(mask: masks.Mask) -> None:
    encoded = encode_brush(mask)
    assert all(0 <= value <= 255 for value in encoded)
    np.testing.assert_array_equal(decode_brush(encoded, *mask.shape), mask)


def test_a_stroke_that_label_studio_wrote() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0]], bool)
    np.testing.assert_array_equal(decode_brush(KNOWN, 2, 3), mask)
    assert encode_brush(mask) == KNOWN[:-1]


@pytest.mark.parametrize("fill", [False, True])
def test_long_runs_are_split(fill: bool) -> None:
    mask = np.full((300, 700), fill)
    mask[150, 350] = not fill
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 300, 700), mask)


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_strokes_are_label_studios_own(mask: masks.Mask) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    pixels = np.repeat(255 * mask.astype(np.uint8), 4, axis=1).reshape(-1)
    theirs = brush.decode_rle(encode_brush(mask))
    np.testing.assert_array_equal(theirs, pixels)
    np.testing.assert_array_equal(decode_brush(brush.encode_rle(pixels), *mask.shape), mask)
    whole = brush.mask2rle(255 * mask.astype(np.uint8))
    np.testing.assert_array_equal(decode_brush(whole, *mask.shape), mask)


def literal(values: list[int]) -> list[int]:
    """A stroke that says every value by itself, as Label Studio does where nothing repeats."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += f"0{2:02b}{len(values) - 1:08b}" + "".join(f"{v:08b}" for v in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def test_a_stroke_of_single_values_is_its_alpha() -> None:
    stroke = literal([9, 9, 9, 255, 9, 9, 9, 127, 0, 0, 0, 128])
    np.testing.assert_array_equal(decode_brush(stroke, 1, 3), [[True, False, True]])


@pytest.mark.parametrize(
    "stroke",
    [
        [],
        [0, 0, 0, 8],
        encode_brush(np.ones((2, 3), bool))[:-2],
        encode_brush(np.ones((3, 3), bool)),
        [*encode_brush(np.ones((2, 3), bool))[:-1], 256],
        [-1, 2],
        ["a"],
        [1.5, None],
        "text",
    ],
)
def test_damaged_strokes(stroke: Any) -> None:
    with pytest.raises(ValueError, match=r"stroke|byte|invalid literal"):
        decode_brush(stroke, 2, 3)


@given(st.lists(st.integers(0, 255), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_stroke_or_an_error(data: list[int]) -> None:
    header = encode_brush(np.ones((2, 3), bool))[:7]
    with suppress(ValueError):
        assert decode_brush(header + data, 2, 3).shape == (2, 3)


# ------------------------------------------------------------------------------ there and back


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("review") / "dataset")


def exported(folder: Path, dataset: Path) -> list[Row]:
    """The tasks as they come back when people submit what they were given."""
    write_for("label-studio", dataset, folder / "ls")
    tasks: list[Row] = json.loads((folder / "ls" / "tasks.json").read_text())
    for n, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        task["annotations"] = [
            {
                "id": n,
                "was_cancelled": False,
                "result": result,
                "updated_at": "2026-01-02T00:00:00Z",
            }
        ]
    return tasks


def back(folder: Path, dataset: Path, tasks: Any) -> list[Row]:
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return [c.record() for c in corrections_from("label-studio", path, dataset).entries]


def result(task: Row, name: str, kind: str) -> Row:
    results = task["annotations"][0]["result"]
    found: Row = next(r for r in results if (r["id"], r["type"]) == (name, kind))
    return found


def test_what_is_submitted_unchanged_is_accepted(tmp_path: Path, dataset: Path) -> None:
    tasks = exported(tmp_path, dataset)
    tasks[1]["annotations"] = []  # nobody has looked at b
    tasks[2]["annotations"][0]["was_cancelled"] = True  # skipped
    assert back(tmp_path, dataset, tasks) == [{"row": name, "action": "accept"} for name in "ade"]


def test_tasks_are_in_percent_and_have_every_label(tmp_path: Path, dataset: Path) -> None:
    write_for("label-studio", dataset, tmp_path / "ls")
    task = json.loads((tmp_path / "ls" / "tasks.json").read_text())[0]
    box = task["predictions"][0]["result"][0]
    expected = {"x": 12.5, "y": 100 * 8 / 48, "width": 18.75, "height": 25, "rotation": 0}
    assert box["value"].pop("rectanglelabels") == ["red square"]
    assert box["value"] == pytest.approx(expected)
    assert (box["original_width"], box["original_height"]) == (64, 48)
    assert task["data"]["image"].startswith("data:image/png;base64,")
    assert task["data"]["about"].splitlines()[:2] == [
        "answer: red",
        "evidence: There is a red square.",
    ]
    view = ElementTree.parse(tmp_path / "ls" / "config.xml").getroot()
    names = {tag.get("name"): [child.get("value") for child in tag] for tag in view}
    assert names["box"] == names["mask"] == ["red square", "blue square", "green dot"]
    assert names["role"] == ["evidence", "context", "unknown"]


def test_pictures_may_lie_beside_the_tasks(tmp_path: Path, dataset: Path) -> None:
    write_for("label-studio", dataset, tmp_path / "ls", images_at="/data/local-files/?d=ls/")
    task = json.loads((tmp_path / "ls" / "tasks.json").read_text())[0]
    address, name = task["data"]["image"].rsplit("/", 1)
    assert address == "/data/local-files/?d=ls/images"
    assert (tmp_path / "ls" / "images" / name).exists()


def test_what_a_person_did(tmp_path: Path, dataset: Path) -> None:
    tasks = exported(tmp_path, dataset)
    first, second = tasks[0], tasks[1]
    result(first, "r0", "rectanglelabels")["value"]["width"] = 25
    result(first, "r1", "choices")["value"]["choices"] = ["unknown"]
    results = first["annotations"][0]["result"]
    results[:] = [r for r in results if not r["id"].startswith("r2")]
    value = {
        "x": 50,
        "y": 50,
        "width": 25,
        "height": 25,
        "rotation": 0,
        "rectanglelabels": ["arrow"],
    }
    results.append({"id": "x1", "type": "rectanglelabels", "from_name": "box", "value": value})
    role = {"choices": ["evidence"]}
    results.append({"id": "x1", "type": "choices", "from_name": "role", "value": role})
    drawn = masks.from_box((28, 8, 42, 20), 48, 64)
    result(second, "r1-mask", "brushlabels")["value"]["rle"] = encode_brush(drawn)
    verdict = {
        "type": "choices",
        "from_name": "verdict",
        "value": {"choices": ["reject"]},
        "id": "v",
    }
    tasks[3]["annotations"][0]["result"].append(verdict)
    assert back(tmp_path, dataset, tasks[:4]) == [
        {"row": "a", "action": "accept"},
        {
            "row": "a",
            "action": "add",
            "phrase": "arrow",
            "bbox": (32, 24, 48, 36),
            "role": "evidence",
        },
        {"row": "a", "region": "r0", "action": "redraw", "bbox": (8, 8, 24, 20)},
        {"row": "a", "region": "r1", "action": "role", "role": "unknown"},
        {"row": "a", "region": "r2", "action": "reject"},
        {"row": "b", "action": "accept"},
        {
            "row": "b",
            "region": "r1",
            "action": "redraw",
            "bbox": (28, 8, 42, 20),
            "mask": masks.encode(drawn),
        },
        {"row": "c", "action": "accept"},
        {"row": "d", "action": "reject"},
    ]


def test_ids_may_be_made_anew(tmp_path: Path, dataset: Path) -> None:
    """Some versions write new ids, and keep notes; others lose those, and add to ids."""
    tasks = exported(tmp_path, dataset)
    for task, keeps_notes in zip(tasks, (True, False, True, False, False), strict=True):
        for n, part in enumerate(task["annotations"][0]["result"]):
            if not keeps_notes:
                part.pop("meta", None)
                part["id"] += f"#{n}"
            else:
                part["id"] = "new" + part["id"]
    for part in tasks[4]["annotations"][0]["result"]:
        part["id"] = part["id"].replace("r", "x").partition("#")[0]
    assert back(tmp_path, dataset, tasks) == [{"row": name, "action": "accept"} for name in "abcde"]


def test_a_turned_rectangle_is_what_encloses_it(tmp_path: Path, dataset: Path) -> None:
    tasks = exported(tmp_path, dataset)
    value = result(tasks[0], "r0", "rectanglelabels")["value"]
    value |= {
        "x": 50,
        "y": 25,
        "width": 25,
        "height": 25,
        "rotation": 90,
    }  # 16 x 12 pixels about (32, 12)
    entry = back(tmp_path, dataset, tasks)[1]
    assert (entry["action"], entry["bbox"]) == ("redraw", pytest.approx((20, 12, 32, 28)))


def test_phrases_of_any_kind_come_back(tmp_path: Path) -> None:
    made = row("a")
    for region, phrase in zip(made["regions"], ('<a & "b">', "two\nlines\x01", ""), strict=True):
        region["phrase"] = phrase
    dataset = write(tmp_path / "dataset", [[made]])
    tasks = exported(tmp_path, dataset)
    assert back(tmp_path, dataset, tasks) == [{"row": "a", "action": "accept"}]
    view = ElementTree.parse(tmp_path / "ls" / "config.xml").getroot()
    labels = [tag.get("value") for tag in view.iter("Label")]
    assert labels[:3] == ['<a & "b">', "two lines", "(unnamed)"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tasks: tasks[0]["data"].update(row="zz"), "task 1: there is no row 'zz'"),
        (lambda tasks: tasks[0]["data"].update(dataset="0"), "task 1 is about the dataset '0'"),
        (
            lambda tasks: tasks[1].pop("annotations"),
            "task 2 has no data and annotations; export as JSON",
        ),
        (
            lambda tasks: result(tasks[0], "r0", "rectanglelabels")["value"].pop("rectanglelabels"),
            "has no label",
        ),
        (
            lambda tasks: result(tasks[0], "r0", "rectanglelabels")["value"].pop("x"),
            "cannot be read: KeyError",
        ),
        (
            lambda tasks: result(tasks[0], "r0", "rectanglelabels")["value"].update(x=100),
            "lies outside the image",
        ),
        (
            lambda tasks: result(tasks[0], "r0-mask", "brushlabels")["value"].update(rle=[1]),
            "ends too early",
        ),
    ],
)
def test_unusable_exports(tmp_path: Path, dataset: Path, damage: Any, message: str) -> None:
    tasks = exported(tmp_path, dataset)
    damage(tasks)
    with pytest.raises(CorrectionError, match=message):
        back(tmp_path, dataset, tasks)
    with pytest.raises(CorrectionError, match="a list of tasks"):
        back(tmp_path, dataset, {"tasks": tasks})


def test_the_last_submission_counts(tmp_path: Path, dataset: Path) -> None:
    tasks = exported(tmp_path, dataset)[:1]
    (first,) = tasks[0]["annotations"]
    earlier = {**first, "result": [], "updated_at": "2026-01-01T00:00:00Z"}
    tasks[0]["annotations"] = [first, earlier]
    assert back(tmp_path, dataset, tasks) == [{"row": "a", "action": "accept"}]
    assert dataset_hash(dataset) == tasks[0]["data"]["dataset"]
