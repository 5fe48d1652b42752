"""Scores against a gold file, on cases small enough to work out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labeling import masks
from pipelines.dataset import store
from pipelines.dataset.schema import Ledger
from pipelines.gold import GoldError
from pipelines.score import Tally, match_regions, score
from tests.conftest import run_module

Row = dict[str, Any]


def region(phrase: str, *box: float, mask: Sequence[float] | None = None) -> Row:
    """A region in a 20x20 image; its mask is another box, if it has one."""
    return {"phrase": phrase, "bbox": list(box), "mask": masks.encode(masks.from_box(mask, 20, 20)) if mask else None}


def tally(predicted: Sequence[Row], gold: Sequence[Row]) -> Tally:
    result = Tally()
    match_regions(predicted, gold, result)
    return result


SQUARE = region("red square", 0, 0, 10, 10)
CASES = {
    "nothing at all": ([], [], []),
    "nothing predicted": ([], [SQUARE], []),
    "nothing to find": ([SQUARE], [], []),
    "exact": ([SQUARE], [SQUARE], [1.0]),
    "spelt differently": ([region("Red  square.", 0, 0, 10, 10)], [SQUARE], [1.0]),
    "another phrase": ([region("red circle", 0, 0, 10, 10)], [SQUARE], []),
    "IoU of exactly a half": ([region("red square", 0, 0, 10, 5)], [SQUARE], [0.5]),
    "IoU of less than a half": ([region("red square", 0, 0, 10, 4.9)], [SQUARE], []),
    "apart": ([region("red square", 10, 10, 20, 20)], [SQUARE], []),
    "a duplicate": ([SQUARE, SQUARE], [SQUARE], [1.0]),
    "one for two": ([SQUARE], [SQUARE, SQUARE], [1.0]),
    "the better one wins": ([region("red square", 0, 0, 10, 6), region("red square", 0, 0, 10, 8)], [SQUARE], [0.8]),
    # 0-10 overlaps 1-11 by 9/11 and 4-14 by 6/14; once 1-11 is taken, 4-14 is left without a match.
    "greedy": ([region("x", 0, 0, 10, 1), region("x", 1, 0, 11, 1)], [region("x", 1, 0, 11, 1), region("x", 4, 0, 14, 1)], [1.0]),
    "two pairs": ([region("x", 10, 10, 20, 20), SQUARE], [SQUARE, region("x", 10, 10, 20, 18)], [1.0, 0.8]),
    "phrases keep pairs apart": ([region("a", 0, 0, 10, 10), region("b", 0, 0, 10, 8)], [region("b", 0, 0, 10, 10)], [0.8]),
}


@pytest.mark.parametrize(("predicted", "gold", "ious"), CASES.values(), ids=CASES)
def test_matching(predicted: list[Row], gold: list[Row], ious: list[float]) -> None:
    result = tally(predicted, gold)
    assert (result.matched, result.predicted, result.gold) == (len(ious), len(predicted), len(gold))
    assert result.box_ious == pytest.approx(ious)


def test_masks_are_compared_where_gold_has_them() -> None:
    predicted = [region("a", 0, 0, 10, 10, mask=(0, 0, 10, 10)), region("b", 0, 0, 9, 9, mask=(0, 0, 9, 9))]
    gold = [region("a", 0, 0, 10, 10, mask=(0, 0, 10, 5)), region("b", 0, 0, 9, 9)]
    assert tally(predicted, gold).mask_ious == [0.5]


def test_figures_add_up_over_rows() -> None:
    result = Tally()
    match_regions([SQUARE, SQUARE, SQUARE], [SQUARE], result)  # two findings too many
    match_regions([region("red square", 0, 0, 10, 5)], [SQUARE, region("blue circle", 0, 0, 5, 5)], result)  # one missed
    figures = result.figures()
    assert (figures["recall"], figures["precision"], figures["box_iou"]) == (pytest.approx(2 / 3), 0.5, 0.75)
    assert (figures["gold_regions"], figures["predicted_regions"]) == (3, 4)


def trace(n: int, correct: bool | None) -> Row:
    return {"trace_id": f"t{n}", "model": "writer", "text": "…", "answer": "red", "correct": correct}


def reported(*verdicts: bool | None) -> list[Row]:
    return [{"text": "…", "model": "writer", "reported_correct": v} for v in verdicts]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """One row with a region and three traces, one of them dropped at ingest; and a reject of each kind."""
    built = {"id": "built", "width": 20, "height": 20, "traces": [trace(0, True), trace(2, False)], "regions": [SQUARE]}
    ledger = Ledger()
    ledger.reject({"id": "wrong", "traces": [trace(0, False), trace(1, True)]}, "ground", "no phrase found in the image", "looked for x")
    ledger.reject({"id": "raw", "traces": [{"text": "…"}, "…"]}, "ingest", "missing image", "the file does not exist")
    ledger.counts["rows_in"] = 3
    out = tmp_path / "dataset"
    store.finish(out, [store.write_shard(out, "train-00000", "key", [built], ledger)], {})
    return out


def write_gold(dataset: Path, *rows: Row) -> Path:
    path = dataset.parent / "gold.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


KNOWN: Row = {"id": "built"}
TRACE_CASES = {
    "all agree": ("built", reported(True, None, False), 2, []),
    "one disagrees": ("built", reported(False, None, False), 2, [("built", "t0 (writer)", True, False)]),
    "a dropped trace was not found right": ("built", reported(True, True), 2, [("built", "t1 (writer)", False, True)]),
    "a dropped trace was not found wrong either": ("built", reported(True, False), 2, []),
    "nothing reported": ("built", reported(None, None), 0, []),
    "traces that are only text": ("built", ["…", "…"], 0, []),
    "a rejected row counts": ("wrong", reported(False, False), 2, [("wrong", "t1 (writer)", True, False)]),
    "an unknown row has found nothing": ("unknown", reported(True, False), 2, [("unknown", "t0 (writer)", False, True)]),
}


@pytest.mark.parametrize(("name", "traces", "compared", "disagreements"), TRACE_CASES.values(), ids=TRACE_CASES)
def test_trace_agreement(dataset: Path, name: str, traces: list[Any], compared: int, disagreements: list[Any]) -> None:
    result = score(dataset, write_gold(dataset, KNOWN, {"id": name, "traces": traces}))
    assert (result.traces, result.agreed) == (compared, compared - len(disagreements))
    assert result.disagreements == disagreements
    assert result.figures()["answer_agreement"] == ((compared - len(disagreements)) / compared if compared else None)


def test_row_rejected_at_ingest_has_found_nothing(dataset: Path) -> None:
    result = score(dataset, write_gold(dataset, {"id": "raw", "traces": reported(True, False)}))
    assert (result.traces, result.agreed) == (2, 1)


@pytest.mark.parametrize(
    ("name", "recall", "not_built"),
    [("built", 1.0, 0), ("wrong", 0.0, 1), ("raw", 0.0, 1), ("unknown", 0.0, 1)],
)
def test_gold_of_a_row_that_was_not_built_is_missed(dataset: Path, name: str, recall: float, not_built: int) -> None:
    figures = score(dataset, write_gold(dataset, KNOWN, {"id": name, "gold_regions": [SQUARE]})).figures()
    assert (figures["recall"], figures["gold_regions"], figures["gold_rows_not_built"]) == (recall, 1, not_built)


@pytest.mark.parametrize("gold", [[{"id": "built"}], [{"id": "built", "gold_regions": []}]], ids=["bare", "no region"])
def test_figures_are_null_where_gold_has_nothing(dataset: Path, gold: list[Row]) -> None:
    figures = score(dataset, write_gold(dataset, *gold)).figures()
    assert [figures[name] for name in ("recall", "precision", "box_iou", "mask_iou", "answer_agreement")] == [None] * 5


def test_rows_that_gold_does_not_know_are_left_out(dataset: Path) -> None:
    assert score(dataset, write_gold(dataset, {"id": "wrong", "gold_regions": []})).predicted == 0


@pytest.mark.parametrize("line", ["{", "[]", "5", '{"phrase": "no id"}'])
def test_gold_line_that_cannot_be_used(dataset: Path, line: str) -> None:
    path = write_gold(dataset, KNOWN)
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(GoldError, match="row 2: "):
        score(dataset, path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe{}"], ids=["missing", "not UTF-8"])
def test_gold_file_that_cannot_be_read(dataset: Path, content: bytes | None) -> None:
    path = dataset.parent / "gold.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GoldError, match="cannot read the gold file"):
        score(dataset, path)


@pytest.mark.parametrize(
    "gold",
    [{"gold_regions": None}, {"traces": None}, {"gold_regions": [{"phrase": "red square"}]}, {"gold_regions": [SQUARE | {"bbox": [1, 2]}]}],
    ids=["no regions", "no traces", "no box", "half a box"],
)
def test_odd_gold_row_is_skipped_or_explained(dataset: Path, gold: Row) -> None:
    try:
        figures = score(dataset, write_gold(dataset, {"id": "built", **gold})).figures()
    except GoldError:
        return
    assert (figures["recall"], figures["answer_agreement"]) == (None, None)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_gold_text_with_a_unicode_line_separator(dataset: Path, separator: str) -> None:
    gold = write_gold(dataset, {"id": "built", "question": f"a{separator}b", "gold_regions": [SQUARE]})
    assert score(dataset, gold).matched == 1


def test_command_line(dataset: Path) -> None:
    gold = write_gold(dataset, {"id": "built", "gold_regions": [SQUARE], "traces": reported(False)})
    code, last_line, stderr = run_module("pipelines.score", dataset, "--gold", gold)
    assert code == 0, stderr
    figures = json.loads(last_line)
    assert (figures["recall"], figures["precision"], figures["answer_agreement"], figures["mask_iou"]) == (1.0, 1.0, 0.0, None)


@pytest.mark.parametrize("missing", ["gold.jsonl", "dataset"])
def test_command_line_without_its_files(dataset: Path, missing: str) -> None:
    gold = write_gold(dataset, {"id": "built"})
    (gold if missing == gold.name else dataset / "manifest.json").unlink()
    code, last_line, stderr = run_module("pipelines.score", dataset, "--gold", gold)
    assert (code, last_line) == (2, "")
    assert stderr.startswith("error: ")


def test_regions_as_a_build_reads_them_are_gold(dataset: Path) -> None:
    assert score(dataset, write_gold(dataset, {"id": "built", "regions": [SQUARE]})).matched == 1


def test_those_called_gold_come_first(dataset: Path) -> None:
    given = region("blue circle", 0, 0, 5, 5)
    result = score(dataset, write_gold(dataset, {"id": "built", "regions": [given], "gold_regions": [SQUARE]}))
    assert (result.matched, result.gold) == (1, 1)


def test_boxes_of_an_image_of_another_size_are_scaled(dataset: Path) -> None:
    gold = {"id": "built", "width": 40, "height": 40, "regions": [region("red square", 0, 0, 20, 20)]}
    assert score(dataset, write_gold(dataset, gold)).box_ious == pytest.approx([1.0])


def write_coco(folder: Path, **image: Any) -> Path:
    path = folder / "instances.json"
    content = {
        "images": [{"id": 7, "file_name": "pictures/built.png", "width": 20, "height": 20, **image}],
        "categories": [{"id": 1, "name": "red square"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("image", [{}, {"row_id": "built", "file_name": "1.png"}], ids=["by the image's name", "by the row's id"])
def test_coco_is_gold(dataset: Path, image: Row) -> None:
    assert score(dataset, write_coco(dataset.parent, **image)).box_ious == pytest.approx([1.0])


def test_another_dataset_is_gold(dataset: Path) -> None:
    figures = score(dataset, dataset).figures()
    assert (figures["recall"], figures["precision"], figures["box_iou"]) == (1.0, 1.0, 1.0)


def test_gold_of_other_rows_is_no_gold(dataset: Path) -> None:
    with pytest.raises(GoldError, match=r"about none of the dataset's rows: its ids are 'x'.* 'built'"):
        score(dataset, write_gold(dataset, {"id": "x", "gold_regions": [SQUARE]}))


def test_command_line_with_gold_that_says_nothing(dataset: Path) -> None:
    code, _, stderr = run_module("pipelines.score", dataset, "--gold", write_gold(dataset, {"id": "built", "boxes": []}))
    assert code == 2
    assert "gold_regions, regions, or a trace with reported_correct" in " ".join(stderr.split())


@pytest.mark.parametrize("verdict", ["true", True, 1, 1.0, "True"])
def test_a_verdict_may_be_written_in_words(dataset: Path, verdict: Any) -> None:
    gold = write_gold(dataset, {"id": "built", "traces": [{"text": "…", "reported_correct": verdict}]})
    assert score(dataset, gold).agreed == 1


def test_gold_that_would_count_twice_is_refused(dataset: Path) -> None:
    row = {"id": "built", "traces": reported(True)}
    with pytest.raises(GoldError, match="row 2: 'built' is the id of row 1 already"):
        score(dataset, write_gold(dataset, row, row))
    with pytest.raises(GoldError, match="reported_correct is 'perhaps', expected true or false"):
        score(dataset, write_gold(dataset, {"id": "built", "traces": reported("perhaps")}))
