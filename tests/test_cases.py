"""Inputs of other people on which the product once failed, each with what is right. Skipped where the folder is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.build import build
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.licenses import is_stated
from pipelines.score import score
from pipelines.validate import validate
from tests.conftest import ROOT
from train.data import DataError, Row, load_rows

CASES = ROOT.parent / "shared" / "cases"
pytestmark = [
    pytest.mark.skipif(not CASES.exists(), reason="the folder of cases is not present"),
    pytest.mark.usefixtures("datasets_cache"),
]

Built = tuple[dict[str, dict[str, Any]], dict[str, str]]


def case(name: str) -> Path:
    return next(CASES.glob(f"{name}_*"))


def built(source: Path, out: Path, **settings: Any) -> Built:
    """The rows of a build by id, and the reasons of its rejects with their details."""
    build(BuildConfig(source=str(source), out=out, **settings))
    assert validate(out)["valid"]
    rejects = {reject.id: f"{reject.reason}: {reject.detail}" for reject in store.read_rejects(out)}
    return {row["id"]: row for row in store.read_rows(out)}, rejects


def asked(row: Row) -> list[str]:
    """The parts of a row's chat: "image", or its words without the instruction."""
    parts = [part for message in row.messages for part in message["content"]]
    words = ["image" if part["type"] == "image" else str(part["text"]).partition("\nFirst think")[0] for part in parts]
    return [word for word in words if word]


def trained(data: Path, out: Path, *, group: int = 2, **settings: Any) -> list[dict[str, Any]]:
    """The rows that two steps of a run have left out."""
    from train.loop import train
    from train.settings import Settings

    small: dict[str, Any] = {"model": str(ROOT / "demo/checkpoints/policy"), "prompts": 2, "steps": 2, "max_tokens": 12, "trackers": ()}
    train(Settings(data=str(data), out=out, num_generations=group, **small | settings))
    file = out / "left_out.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# ------------------------------------------------------------------------------------------ golds, choices, chats, missing values


@pytest.mark.parametrize("name", ["image_url", "input_image"])
def test_f01_images_in_chats_are_seen(name: str) -> None:
    row = load_rows(str(case("F01") / f"{name}.jsonl"), "boxed")[0]
    assert asked(row) == ["image", "Which colour is the square?"]
    assert (len(row.images), row.sample.answer) == (1, "red")


@pytest.mark.parametrize(("name", "part"), [("video", "'video'"), ("audio", "'audio'"), ("videos_column", "the column videos")])
def test_f01_what_is_not_read_is_named(name: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"none of the 1 rows of .* can be used; .*{part}.*only (texts and )?images are read"):
        trained(case("F01") / f"{name}.jsonl", tmp_path)


@pytest.mark.parametrize("name", ["dict", "json_text", "objects"])
def test_f02_choices(name: str) -> None:
    row = load_rows(str(case("F02") / f"{name}.jsonl"), "boxed")[0]
    assert asked(row) == ["image", "Which colour is the square?\n(A) blue\n(B) red"]
    assert (row.sample.choices, row.sample.answer) == (("blue", "red"), "B")


def test_f03_lists_and_tags() -> None:
    done = subprocess.run([sys.executable, str(case("F03") / "adapters.py")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [re.sub(r"^.*(?=\[\d)", "", line) for line in done.stdout.splitlines()] == ["[1.0] 1.0 1.0"] * 3
    row = load_rows(str(case("F03") / "list.jsonl"), "boxed")[0]
    assert (row.sample.answer, row.sample.alternatives) == ("red", ("crimson",))


@pytest.mark.parametrize(("name", "gold"), [("index.jsonl", "B"), ("classlabel.parquet", "red")])
def test_f04_golds_that_are_numbers(name: str, gold: str, tmp_path: Path) -> None:
    assert load_rows(str(case("F04") / name), "boxed")[0].sample.answer == gold
    rows, rejects = built(case("F04") / name, tmp_path / "out")
    assert ([row["answer"] for row in rows.values()], rejects) == ([gold], {})


def test_f05_nan_states_nothing(tmp_path: Path) -> None:
    rows, rejects = built(case("F05") / "rows.jsonl", tmp_path / "rows")
    assert {reason.partition(":")[0] for reason in rejects.values()} == {"no question", "no answer"}
    assert {row["split"] for row in rows.values()} == {"train"}
    assert "nan" not in rows
    assert len(rows) == 2
    rows, rejects = built(case("F05") / "license.jsonl", tmp_path / "license")
    assert not rows
    assert {reason.partition(":")[0] for reason in rejects.values()} == {"no license"}
    assert not is_stated("nan")


@pytest.mark.parametrize("name", ["given.jsonl", "coco.json"])
def test_f06_invisible_phrases(name: str, tmp_path: Path) -> None:
    rows, rejects = built(case("F06") / name, tmp_path / "out", license="mit")
    assert len(rows) + len(rejects) >= 1
    assert any(region["phrase"] == "red square" for row in rows.values() for region in row["regions"]) or name == "coco.json"
    flags = [flag for row in rows.values() for region in row["regions"] for flag in region["flags"]]
    assert "invisible_phrase" in flags


def test_f21_tags_in_questions(tmp_path: Path) -> None:
    from pipelines.export import export

    rows, _ = built(case("F21") / "rows.jsonl", tmp_path / "out")
    assert [row["question"] for row in rows.values()] == ["Which colour is the square?"]
    assert export(tmp_path / "out", "easyr1", tmp_path / "e1").rows == 1
    assert export(tmp_path / "out", "vlm-r1", tmp_path / "e2").rows == 1
    assert asked(load_rows(str(case("F21") / "html.jsonl"), "boxed")[0]) == ["image", "Which SVG tag draws it: <image> or <rect>?"]


def test_f25_think_opened_by_the_template() -> None:
    from rewardlib import Format, Sample

    said = "Two and one.\n</think>\n<answer>3</answer>"
    for sample in (Sample(said, prompt="user: ?\nassistant: <think>\n"), Sample(said, opening="<think>\n")):
        assert Format("think-answer")([sample]) == [1.0]
    assert Format("think-answer", opening="<think>\n")([Sample(said)]) == [1.0]
    assert Format("think-answer")([Sample(said)]) == [0.0]


def test_n07_usual_answers_are_right() -> None:
    done = subprocess.run([sys.executable, str(case("N07") / "answers.py")], cwd=ROOT, capture_output=True, text=True, check=True)
    table = [line for line in done.stdout.splitlines() if "closed" in line]
    assert [line[:20].strip() for line in table if "open 0.0" in line] == ["'10-20'", "'42'"]
    assert [line[:20].strip() for line in table if "closed 0.0" in line] == ["'3'", "'10-20'", "'42'"]


def test_n08_row_shapes(tmp_path: Path) -> None:
    """Every row is read, or says in short why not. Its pictures are not in the folder; the flowchart of another case is."""
    picture = next(CASES.glob("N01_*/images/flowchart.png")).read_bytes()
    rows = [json.loads(line) for line in (case("N08") / "all2.jsonl").read_text().splitlines()]
    for name in ("images/flowchart.png", "nv/images/flowchart.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled, rejects = built(tmp_path / "rows.jsonl", tmp_path / "out", require="annotations")
    reasons = {name: reason.partition(":")[0] for name, reason in rejects.items()}
    absent = dict.fromkeys(("rgba", "gray", "cmyk"), "missing image")
    assert reasons == absent | {"http_url": "image on the web", "file_url": "path outside the image folder"}
    assert all(len(reason) < 500 for reason in rejects.values())
    assert set(labelled) == {str(row["id"]) for row in rows} - set(rejects)
    assert {row["answer"] for row in labelled.values()} == {"2", "B"}
    assert labelled["answers_list"]["alternatives"] == ["two"]


@pytest.mark.parametrize("column", ["response", "rationale", "cot"])
def test_n08_traces_in_a_column_of_their_own(column: str, tmp_path: Path) -> None:
    row = json.loads((case("N08") / "col_response.jsonl").read_text())
    row[column] = row.pop("response")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "flowchart.png").write_bytes(next(CASES.glob("N01_*/images/flowchart.png")).read_bytes())
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert len(built(tmp_path / "rows.jsonl", tmp_path / "out", require="annotations")[0]) == 1


@pytest.mark.parametrize("name", ["llava.json", "rows.csv"])
def test_n08_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "flowchart.png").write_bytes(next(CASES.glob("N01_*/images/flowchart.png")).read_bytes())
    (tmp_path / name).write_bytes((case("N08") / name).read_bytes())
    rows, rejects = built(tmp_path / name, tmp_path / "out", license="mit", require="annotations")
    if name == "llava.json":
        assert "several questions" in rejects["llava"]
    else:
        assert [row["answer"] for row in rows.values()] == ["2"]


# ------------------------------------------------------------------------------------------ files, sizes, links


def test_f13_boxes_of_an_image_of_another_size(tmp_path: Path) -> None:
    for name in ("resized.json", "visual_cot.jsonl"):
        (row,) = built(case("F13") / name, tmp_path / name, license="mit")[0].values()
        assert (row["width"], row["height"], row["regions"][0]["bbox"]) == (80, 60, [15, 15, 35, 35])
    rows, rejects = built(case("F13") / "exif.json", tmp_path / "exif", license="mit")
    assert not rows
    assert "the row says 120x160, the image is 160x120; it seems to be turned" in rejects["1"]


def linked(folder: Path, copy: Path) -> Path:
    """The case with its links, of which some copies of the folder hold the targets as text."""
    for file in sorted(folder.rglob("*")):
        there = copy / file.relative_to(folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            there.symlink_to(file.readlink())
        elif file.is_file() and (data := file.read_bytes()).startswith(b"../") and b"\n" not in data.strip():
            there.symlink_to(data.decode().strip())
        elif file.is_file():
            there.write_bytes(data)
    return copy


@pytest.mark.parametrize("place", ["hub/datasets--me--cups/snapshots/0123abc", "project"])
def test_f16_linked_images(place: str, tmp_path: Path) -> None:
    folder = linked(case("F16"), tmp_path / "copy") / place
    rows, rejects = built(folder / "rows.jsonl", tmp_path / "out")
    assert (list(rows), rejects) == (["a"], {})
    assert list(built(folder / "rows.jsonl", tmp_path / "root", image_root=folder)[0]) == ["a"]


def test_f17_base64(tmp_path: Path) -> None:
    for name in ("data_uri", "swift"):
        rows, rejects = built(case("F17") / f"{name}.jsonl", tmp_path / name)
        assert len(rows) + len(rejects) == 1
        assert all(len(reason) < 500 for reason in rejects.values())
        assert len(load_rows(str(case("F17") / f"{name}.jsonl"), "boxed")[0].images) == 1
    assert len(built(case("F17") / "swift.jsonl", tmp_path / "swift")[0]) == 1


def test_n04_the_remedy_of_a_reject_works_in_the_same_folder(tmp_path: Path) -> None:
    """A link that leads to nothing; then the folder above it is named."""
    source = next(case("F16").glob("project/rows.jsonl"))
    (tmp_path / "mv").mkdir()
    (tmp_path / "mv" / "rows.jsonl").write_text(source.read_text().replace("images/", "../disk/"))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "1.png").write_bytes((case("F16") / "disk" / "1.png").read_bytes())
    rows, rejects = built(tmp_path / "mv" / "rows.jsonl", tmp_path / "out")
    assert not rows
    assert "--image-root" in rejects["a"]
    (tmp_path / "mv" / "rows.jsonl").write_text(source.read_text().replace("images/", "disk/"))
    assert "missing image" in built(tmp_path / "mv" / "rows.jsonl", tmp_path / "out")[1]["a"]
    rows, rejects = built(tmp_path / "mv" / "rows.jsonl", tmp_path / "out", image_root=tmp_path)
    assert (list(rows), rejects) == (["a"], {})


# ------------------------------------------------------------------------------------------ labels


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of somebody's own, labelled with the defaults."""
    out = tmp_path_factory.mktemp("own") / "dataset"
    build(BuildConfig(source=str(case("N01") / "own_rows.jsonl"), out=out))
    return out


def test_n01_the_embedded_detector_says_what_it_does_not_know(own: Path) -> None:
    """What it was not taught is not found by it: only what is written there, and is read."""
    regions = [region for row in store.read_rows(own) for region in row["regions"]]
    assert regions
    assert {region["locator"] for region in regions} == {"ocr"}
    assert store.read_manifest(own)["counts"]["rows_out_of_domain"] > 5


@pytest.mark.parametrize("gold", ["rows_regions.jsonl", "coco.json"])
def test_n06_regions_and_coco_are_gold(own: Path, gold: str) -> None:
    figures = score(own, case("N06") / gold).figures()
    assert figures["gold_regions"] > 20
    assert None not in (figures["recall"], figures["precision"])


def test_n02_given_boxes_are_all_there_is_of_their_phrases(tmp_path: Path) -> None:
    rows, rejects = built(case("N02") / "fixed.jsonl", tmp_path)
    assert not rejects
    ((_, row),) = rows.items()
    given = json.loads((case("N02") / "fixed.jsonl").read_text().splitlines()[0])["regions"]
    assert sorted(region["phrase"] for region in row["regions"]) == sorted(region["phrase"] for region in given)
    assert sorted(region["bbox"] for region in row["regions"]) == sorted(region["bbox"] for region in given)


def test_n03_a_photograph_is_blurred_in_a_moment(tmp_path: Path) -> None:
    """Fifteen minutes of one core were not enough; a generous limit, since this is no bench."""
    began = time.process_time()
    built(case("N03") / "rows.jsonl", tmp_path)
    assert time.process_time() - began < 120


# ------------------------------------------------------------------------------------------ one row ends no run


def test_f18_rows_with_and_without_image(tmp_path: Path) -> None:
    assert trained(case("F18") / "mixed.parquet", tmp_path) == []


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("strip", ["prompt cannot be encoded"]), ("token", ["special token in a text"]), ("placeholders", [])],
)
def test_f19_rows_that_stopped_a_run(name: str, left_out: list[str], tmp_path: Path) -> None:
    rows, rejects = built(case("F19") / f"{name}.jsonl", tmp_path / "dataset")
    assert (len(rows), rejects) == (2, {})
    left = trained(tmp_path / "dataset", tmp_path / "run")
    assert [row["reason"] for row in left] == left_out
    assert all(row["id"] == name and row["detail"] for row in left)


def test_f20_an_evaluation_goes_on(tmp_path: Path) -> None:
    from train.evaluate import EvaluateSettings
    from train.evaluation import evaluate

    data = str(case("F20") / "rows.jsonl")
    summary = evaluate(
        EvaluateSettings(data=data, model=str(ROOT / "demo/checkpoints/policy"), out=tmp_path, max_tokens=8, max_prompt=120, batch=1)
    )
    assert summary["accuracy"]["n"] == 1
    assert [(left["id"], left["reason"]) for left in summary["left_out"]] == [("photo", "prompt too long")]
    assert "--max-prompt" in summary["left_out"][0]["detail"]


def test_f22_several_images(tmp_path: Path) -> None:
    rows, rejects = built(case("F22") / "rows.jsonl", tmp_path)
    assert not rows
    assert "several images: row 1: the row has 2 images" in rejects["a"]


def test_f26_a_group_of_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--num-generations 1: .* one alone has none"):
        trained(case("F26") / "rows.jsonl", tmp_path, group=1)


def test_f23_a_prefect_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    main: Callable[[list[str]], Any] = pytest.importorskip("flows.build_dataset").main
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(SystemExit) as ended:
        main(["--source", str(case("F23") / "rows.jsonl"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    said = " ".join("".join(capfd.readouterr()).split())
    assert "no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api" in said
    assert "Traceback" not in said
