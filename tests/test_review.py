"""Corrections: read, checked and put into a dataset; the page; other tools' files and back."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from labeling import masks
from labeling.info import ModelInfo
from labeling.segmenters import Segment
from pipelines.dataset import store
from pipelines.dataset.schema import SCHEMA_VERSION
from pipelines.export import ExportError
from pipelines.review import main
from pipelines.reviewing import corrections
from pipelines.reviewing.choosing import chosen
from pipelines.reviewing.coco import file_stem
from pipelines.reviewing.correct import apply, corrected, load_segmenter
from pipelines.reviewing.corrections import CorrectionError, dataset_hash
from pipelines.reviewing.page import write_page
from pipelines.reviewing.tools import corrections_from, write_for
from pipelines.validate import check_row, validate
from tests.conftest import ROOT, folder_bytes, run_module
from tests.review_data import row, small, write

Row = dict[str, Any]
ATTACK = '</script><img src=x onerror="window.hacked=1"><!--<script>{{ 7*7 }}\u2028'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows a to e in two shards, and a reject; not to be changed."""
    return small(tmp_path_factory.mktemp("review") / "dataset")


def written(
    folder: Path,
    dataset: Path,
    entries: Sequence[Any],
    changes: Row | None = None,
) -> Path:
    """A file of corrections."""
    content = {"format": "sightline-corrections", "version": 1, "dataset": dataset_hash(dataset)}
    path = folder / "corrections.json"
    path.write_text(json.dumps({**content, "corrections": list(entries), **(changes or {})}))
    return path


def applied(folder: Path, dataset: Path, *entries: Row, **options: Any) -> dict[str, Row]:
    """The corrected rows by id; the folder is valid."""
    found = corrections.read(written(folder, dataset, entries), dataset)
    out = folder / "corrected"
    apply(dataset, found, out, **options)
    assert validate(out) == {
        "rows": len(list(store.read_rows(out))),
        "valid": True,
        "findings": {},
        "examples": [],
    }
    return {row["id"]: row for row in store.read_rows(out)}


def rows_of(dataset: Path) -> dict[str, Row]:
    return {row["id"]: row for row in store.read_rows(dataset)}


# ------------------------------------------------------------------------------------- one row


def test_what_was_not_touched_stays_as_it_is(tmp_path: Path, dataset: Path) -> None:
    found = applied(tmp_path, dataset, {"row": "a", "action": "accept"})
    assert found == rows_of(dataset)
    manifest, before = store.read_manifest(tmp_path / "corrected"), store.read_manifest(dataset)
    said = manifest.pop("corrections")
    assert said["counts"] == {"accept_row": 1}
    assert (said["dataset"], said["segmenter"]) == (dataset_hash(dataset), None)
    assert manifest == before
    assert store.read_rejects(tmp_path / "corrected") == store.read_rejects(dataset)


def test_a_rejected_row_goes_to_the_rejects(tmp_path: Path, dataset: Path) -> None:
    found = applied(tmp_path, dataset, *({"row": name, "action": "reject"} for name in "be"))
    assert list(found) == ["a", "c", "d"]
    manifest = store.read_manifest(tmp_path / "corrected")
    assert (manifest["rows"], manifest["rejected"], manifest["counts"]["rows_in"]) == (3, 3, 6)
    assert {"stage": "review", "reason": "rejected by a person", "rows": 2} in manifest["rejects"]
    reject = store.read_rejects(tmp_path / "corrected")[1]
    assert (reject.id, reject.stage) == ("b", "review")
    assert json.loads(reject.row)["traces"][0]["answer"] == "red"


def test_a_role_is_a_persons(tmp_path: Path, dataset: Path) -> None:
    entries = [
        {"row": "a", "region": "r1", "action": "role", "role": "unknown"},
        {"row": "a", "annotation": "a1", "action": "role", "role": "unknown"},
        {"row": "a", "region": "r2", "action": "accept"},
        {"row": "a", "annotation": "a2", "action": "accept"},
    ]
    after, before = applied(tmp_path, dataset, *entries)["a"], rows_of(dataset)["a"]
    person = {"role": "unknown", "role_by": "person"}
    assert after["regions"] == [before["regions"][0], *(r | person for r in before["regions"][1:])]
    decided = person | {"role_reason": None}
    assert after["annotations"][1:] == [a | decided for a in before["annotations"][1:]]
    assert after["counterfactuals"] == before["counterfactuals"]  # the evidence is what it was


def test_a_redrawn_region_and_its_images(tmp_path: Path, dataset: Path) -> None:
    entry = {"row": "a", "region": "r0", "action": "redraw", "bbox": [6, 6, 22, 22]}
    after, before = applied(tmp_path, dataset, entry)["a"], rows_of(dataset)["a"]
    region = after["regions"][0]
    assert (region["bbox"], region["locator"], region["role_by"]) == (
        [6, 6, 22, 22],
        "person",
        "person",
    )
    assert (region["mask_source"], region["mask_score"], region["flags"]) == (
        "box",
        None,
        ["redrawn"],
    )
    assert [region[name] for name in ("score", "effect", "effect_low", "effect_high")] == [None] * 4
    assert masks.decode(region["mask"]).sum() == 16 * 16
    assert (region["annotation_ids"], region["role"]) == (["a0"], "evidence")
    evidence, control, context = after["counterfactuals"]
    assert [c["role"] for c in (evidence, control, context)] == ["evidence", "control", "context"]
    assert evidence["mask"] == region["mask"]
    assert masks.decode(control["mask"]).sum() == 16 * 16
    for new, old in zip(after["counterfactuals"], before["counterfactuals"], strict=False):
        assert (new["fill"], new["shape"], new["seed"]) == (old["fill"], old["shape"], old["seed"])
        assert [new[name] for name in ("verified", "score_before", "score_after")] == [None] * 3


class Halves:
    """Draws the left half of every box."""

    def segment(self, images: Sequence[Image.Image], boxes: Sequence[Sequence[masks.Box]]) -> list[list[Segment]]:
        return [[self._half(image, box) for box in wanted] for image, wanted in zip(images, boxes, strict=True)]

    def _half(self, image: Image.Image, box: masks.Box) -> Segment:
        mask = masks.from_box((box[0], box[1], (box[0] + box[2]) / 2, box[3]), image.height, image.width)
        return Segment(mask, 0.7, "sam", ("fragmented",))

    def info(self) -> ModelInfo:
        return ModelInfo("halves")


def test_masks_are_the_segmenters_or_the_persons(tmp_path: Path, dataset: Path) -> None:
    mine = masks.encode(masks.from_box((30, 8, 36, 20), 48, 64))
    entries = [
        {"row": "a", "region": "r0", "action": "redraw", "bbox": [8, 8, 24, 20]},
        {"row": "a", "region": "r1", "action": "redraw", "bbox": [30, 8, 42, 20], "mask": mine},
        {"row": "a", "action": "add", "phrase": "grey", "bbox": [0, 40, 4, 48], "role": "unknown"},
    ]
    one, two, _, four = applied(tmp_path, dataset, *entries, segmenter=Halves())["a"]["regions"]
    assert (masks.decode(one["mask"]).sum(), one["mask_source"], one["flags"]) == (
        8 * 12,
        "sam",
        ["fragmented", "redrawn"],
    )
    assert one["mask_score"] == pytest.approx(0.7)
    assert (two["mask"], two["mask_source"], two["mask_score"]) == (mine, "given", None)
    assert (masks.decode(four["mask"]).sum(), four["flags"]) == (2 * 8, ["fragmented", "added"])
    assert store.read_manifest(tmp_path / "corrected")["corrections"]["segmenter"] == "halves"


def test_an_added_region_is_linked_to_what_names_it(tmp_path: Path, dataset: Path) -> None:
    add = {
        "row": "a",
        "action": "add",
        "phrase": " Red  Square",
        "bbox": [1, 1, 5, 5],
        "role": "evidence",
    }
    reject = {"row": "a", "region": "r2", "action": "reject"}
    after = applied(tmp_path, dataset, add, reject)["a"]
    region = after["regions"][-1]
    assert [r["region_id"] for r in after["regions"]] == ["r0", "r1", "r3"]  # no id is used twice
    assert (region["annotation_ids"], region["phrase"], region["role"]) == (
        ["a0"],
        "Red Square",
        "evidence",
    )
    assert (region["locator"], region["role_by"], region["flags"]) == (
        "person",
        "person",
        ["added"],
    )
    assert after["counterfactuals"][0]["region_ids"] == ["r0", "r3"]


def test_without_evidence_there_are_no_images(tmp_path: Path, dataset: Path) -> None:
    entries = [
        {"row": "a", "region": "r0", "action": "reject"},
        {"row": "b", "region": "r0", "action": "role", "role": "context"},
        {"row": "c", "region": "r1", "action": "role", "role": "evidence"},
    ]
    found = applied(tmp_path, dataset, *entries)
    assert found["a"]["counterfactuals"] == found["b"]["counterfactuals"] == []
    assert found["c"]["counterfactuals"][0]["region_ids"] == ["r0", "r1"]
    assert masks.decode(found["c"]["counterfactuals"][0]["mask"]).sum() == 2 * 12 * 12


def test_a_rejected_fact_is_grounded_by_nothing(tmp_path: Path, dataset: Path) -> None:
    after = applied(tmp_path, dataset, {"row": "a", "annotation": "a0", "action": "reject"})["a"]
    assert [a["annotation_id"] for a in after["annotations"]] == ["a1", "a2"]
    assert [r["annotation_ids"] for r in after["regions"]] == [["a1"], ["a2"]]
    assert after["counterfactuals"] == []  # the evidence went with it


def test_a_region_follows_its_facts(tmp_path: Path, dataset: Path) -> None:
    entries = [{"row": "a", "annotation": "a0", "action": "role", "role": "context"}]
    entries += [{"row": "a", "annotation": "a1", "action": "role", "role": "evidence"}]
    regions = applied(tmp_path, dataset, *entries)["a"]["regions"]
    assert [(r["role"], r["role_by"]) for r in regions[:2]] == [("context", "person"), ("evidence", "person")]
    said = {"row": "a", "region": "r1", "action": "role", "role": "unknown"}
    (tmp_path / "said").mkdir()
    assert applied(tmp_path / "said", dataset, *entries, said)["a"]["regions"][1]["role"] == "unknown"


def test_an_image_without_context_follows_the_context(tmp_path: Path) -> None:
    made = row("a")
    context = made["counterfactuals"][0] | {"role": "context", "region_ids": ["r1"]}
    images = [*made["counterfactuals"], context]
    rows = [{**made, "id": name, "counterfactuals": images} for name in "abc"]
    before = write(tmp_path / "dataset", [rows])
    entries = [
        {"row": "a", "region": "r1", "action": "role", "role": "unknown"},
        {"row": "b", "region": "r1", "action": "redraw", "bbox": [30, 8, 44, 22]},
        {"row": "c", "region": "r0", "action": "role", "role": "unknown"},
    ]
    apply(before, corrections.read(written(tmp_path, before, entries), before), tmp_path / "out")
    after = rows_of(tmp_path / "out")
    roles = {name: [c["role"] for c in r["counterfactuals"]] for name, r in after.items()}
    assert roles == {
        "a": ["evidence", "control"],
        "b": ["evidence", "control", "context"],
        "c": [],  # without evidence nothing is known to be beside it
    }
    assert masks.decode(after["b"]["counterfactuals"][2]["mask"]).sum() == 14 * 14


# ------------------------------------------------------------------------------------ the whole

EVERYTHING = [
    {"row": "a", "action": "accept"},
    {"row": "a", "region": "r0", "action": "redraw", "bbox": [6, 6, 22, 22]},
    {"row": "a", "region": "r0", "action": "role", "role": "context"},
    {"row": "a", "region": "r1", "action": "role", "role": "evidence"},
    {"row": "a", "action": "add", "phrase": "one", "bbox": [1, 1, 5, 5], "role": "evidence"},
    {"row": "a", "action": "add", "phrase": "two", "bbox": [2, 30, 9, 45], "role": "unknown"},
    {"row": "b", "action": "reject"},
    {"row": "d", "annotation": "a0", "action": "reject"},
    {"row": "d", "annotation": "a1", "action": "role", "role": "evidence"},
    {"row": "e", "region": "r2", "action": "accept"},
]


def test_the_order_of_entries_says_nothing(tmp_path: Path, dataset: Path) -> None:
    seen = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        entries = [dict(random.Random(seed).sample(list(e.items()), len(e))) for e in EVERYTHING]
        random.Random(seed).shuffle(entries)
        applied(folder, dataset, *entries)
        seen.append(folder_bytes(folder / "corrected", hidden=True))
    assert seen[0] == seen[1] == seen[2]
    counts = store.read_manifest(tmp_path / "0" / "corrected")["corrections"]["counts"]
    assert counts == {
        "accept_region": 1,
        "accept_row": 1,
        "add_region": 2,
        "redraw_region": 1,
        "reject_annotation": 1,
        "reject_row": 1,
        "role_annotation": 1,
        "role_region": 2,
    }


@st.composite
def corrected_rows(draw: st.DrawFn) -> list[Row]:
    """Anything that fits together, of a row."""
    role = st.sampled_from(["evidence", "context", "unknown"])
    low = st.tuples(st.integers(0, 60), st.integers(0, 44))
    box = low.map(lambda p: [*p, min(64, p[0] + 3 + p[1] // 2), min(48, p[1] + 2 + p[0] // 3)])
    entries: list[Row] = []
    for kind in ("region", "annotation"):
        for n in draw(st.sets(st.integers(0, 2))):
            head = {"row": "a", kind: f"{kind[0]}{n}"}
            if draw(st.booleans()):
                entries.append({**head, "action": draw(st.sampled_from(["accept", "reject"]))})
                continue
            entries.append({**head, "action": "role", "role": draw(role)})
            if kind == "region" and draw(st.booleans()):
                entries.append({**head, "action": "redraw", "bbox": draw(box)})
    added = draw(st.lists(box, max_size=3, unique_by=tuple))
    adds = {"row": "a", "action": "add", "phrase": "red square"}
    return entries + [{**adds, "bbox": place, "role": draw(role)} for place in added]


@given(corrected_rows())
@settings(max_examples=60, deadline=None)
def test_whatever_is_corrected_stays_valid(entries: list[Row]) -> None:
    parsed = [corrections.parse(entry, n, "test") for n, entry in enumerate(entries)]
    made = corrected(row("a"), corrections.ordered(parsed, "").entries)
    again = corrected(row("a"), corrections.ordered(reversed(parsed), "").entries)
    assert made == again
    assert list(check_row(made)) == []
    evidence = [r["region_id"] for r in made["regions"] if r["role"] == "evidence"]
    for image in made["counterfactuals"]:
        context = [r["region_id"] for r in made["regions"] if r["role"] == "context"]
        assert image["region_ids"] == (context if image["role"] == "context" else evidence)
    assert bool(made["counterfactuals"]) == bool(evidence)


def test_corrections_are_corrected(tmp_path: Path, dataset: Path) -> None:
    applied(tmp_path, dataset, {"row": "b", "action": "reject"})
    once, folder = tmp_path / "corrected", tmp_path / "again"
    folder.mkdir()
    found = applied(folder, once, {"row": "a", "region": "r0", "action": "reject"})
    said = store.read_manifest(folder / "corrected")["corrections"]
    assert said["before"] == store.read_manifest(once)["corrections"]
    assert said["dataset"] == dataset_hash(once) != dataset_hash(dataset)
    assert list(found) == ["a", "c", "d", "e"]


def test_the_file_is_written_as_it_is_read(tmp_path: Path, dataset: Path) -> None:
    found = corrections.read(written(tmp_path, dataset, EVERYTHING), dataset)
    again = tmp_path / "again.json"
    again.write_text(found.text())
    assert corrections.read(again, dataset).sha256() == found.sha256()
    assert len(again.read_text().splitlines()) == len(EVERYTHING) + 7
    empty = corrections.ordered([], dataset_hash(dataset))
    again.write_text(empty.text())
    assert corrections.read(again, dataset).entries == ()


WRONG: dict[str, tuple[list[Any], str]] = {
    "row": ([{"row": "zz", "action": "accept"}], "entry 1: .* has no row 'zz'; take the entry out"),
    "region": (
        [{"row": "a", "action": "accept"}, {"row": "a", "region": "r9", "action": "reject"}],
        "entry 2: row 'a' has no region 'r9', only r0, r1, r2; correct the id",
    ),
    "annotation": ([{"row": "a", "annotation": "a9", "action": "accept"}], "no annotation 'a9'"),
    "role": (
        [{"row": "a", "region": "r0", "action": "role", "role": "proof"}],
        "entry 1: role is 'proof'; give one of evidence, context, unknown",
    ),
    "outside": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": [0, 0, 65, 9]}],
        r"bbox \[0.0, 0.0, 65.0, 9.0\] reaches outside the image of row 'a', which is 64x48",
    ),
    "below zero": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": [-1, 0, 5, 9]}],
        r"bbox is \[-1",
    ),
    "nothing": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": [5, 0, 5, 9]}],
        "must lie beyond",
    ),
    "not four": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": [5, 0, 5]}],
        "give .x0, y0",
    ),
    "not numbers": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": ["1", 0, 5, 9]}],
        "give .x0",
    ),
    "nan": (
        [{"row": "a", "region": "r0", "action": "redraw", "bbox": [float("nan"), 0, 5, 9]}],
        "bbox is",
    ),
    "no box": ([{"row": "a", "region": "r0", "action": "redraw"}], "redraw needs bbox; add it"),
    "no phrase": (
        [{"row": "a", "action": "add", "phrase": " .", "bbox": [1, 1, 5, 5], "role": "unknown"}],
        "phrase is",
    ),
    "action": (
        [{"row": "a", "action": "role", "role": "context"}],
        "for a row give one of accept, reject, add",
    ),
    "further field": (
        [{"row": "a", "action": "accept", "why": "so"}],
        "accept has no why; take it out",
    ),
    "no row": ([{"action": "accept"}], "entry 1 has no row"),
    "two targets": (
        [{"row": "a", "region": "r0", "annotation": "a0", "action": "accept"}],
        "at most one of",
    ),
    "id": ([{"row": 3, "action": "accept"}], "row is 3; give an id in quotes"),
    "no object": (["a"], "entry 1 is 'a'; give an object"),
    "twice": ([{"row": "a", "action": "accept"}] * 2, "accept in entry 1; take one of them out"),
    "added twice": (
        [{"row": "a", "action": "add", "phrase": "x", "bbox": [1, 1, 5, 5], "role": "unknown"}] * 2,
        "add of row 'a' does not go together with add in entry 1",
    ),
    "accepted and rejected": (
        [
            {"row": "a", "region": "r0", "action": "accept"},
            {"row": "a", "region": "r0", "action": "reject"},
        ],
        "does not go together",
    ),
    "of a rejected row": (
        [{"row": "a", "region": "r0", "action": "accept"}, {"row": "a", "action": "reject"}],
        "accept of row 'a' does not go together with reject in entry 2",
    ),
    "mask of another size": (
        [
            {
                "row": "a",
                "region": "r0",
                "action": "redraw",
                "bbox": [1, 1, 5, 5],
                "mask": masks.encode(np.ones((4, 4), bool)),
            }
        ],
        "the mask is 4x4 pixels and not of the image of row 'a', which is 64x48",
    ),
    "mask elsewhere": (
        [
            {
                "row": "a",
                "region": "r0",
                "action": "redraw",
                "bbox": [1, 1, 5, 5],
                "mask": masks.encode(masks.from_box((20, 20, 30, 30), 48, 64)),
            }
        ],
        "does not overlap its bbox",
    ),
    "no mask": (
        [
            {
                "row": "a",
                "region": "r0",
                "action": "redraw",
                "bbox": [1, 1, 5, 5],
                "mask": {"size": [48, 64]},
            }
        ],
        "mask is not a COCO run-length",
    ),
}


@pytest.mark.parametrize(("entries", "message"), WRONG.values(), ids=WRONG)
def test_wrong_corrections(tmp_path: Path, dataset: Path, entries: list[Any], message: str) -> None:
    path = written(tmp_path, dataset, entries)
    with pytest.raises(CorrectionError, match=message) as caught:
        corrections.read(path, dataset)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "0" * 64}, r"is about the dataset '000.*give the dataset that was reviewed"),
        ({"version": 2}, "is of version 2, and not 1"),
        ({"format": "labels"}, "holds no corrections"),
        ({"corrections": {}}, "give a list"),
    ],
)
def test_other_files(tmp_path: Path, dataset: Path, changes: Row, message: str) -> None:
    with pytest.raises(CorrectionError, match=message):
        corrections.read(written(tmp_path, dataset, [], changes), dataset)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_files_that_are_no_corrections(tmp_path: Path, dataset: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CorrectionError, match=r"c\.json"):
        corrections.read(tmp_path / "c.json", dataset)
    with pytest.raises(CorrectionError, match=r"gone\.json"):
        corrections.read(tmp_path / "gone.json", dataset)


def test_all_or_nothing(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = corrections.read(written(tmp_path, dataset, EVERYTHING), dataset)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(ExportError, match="exists already"):
        apply(dataset, found, tmp_path / "full")

    def break_off(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(store, "finish", break_off)
    with pytest.raises(OSError, match="full"):
        apply(dataset, found, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corrections.json", "full"]


def test_an_older_dataset_becomes_one_of_today(tmp_path: Path) -> None:
    old = small(tmp_path / "old")
    manifest = store.read_manifest(old) | {"schema_version": 2}
    (old / "manifest.json").write_text(json.dumps(manifest))
    made = apply(old, corrections.ordered([], dataset_hash(old)), tmp_path / "out")
    assert made["schema_version"] == SCHEMA_VERSION
    assert len(list(store.read_rows(tmp_path / "out"))) == made["rows"]


# ------------------------------------------------------------------------------------- the page


class Outline(HTMLParser):
    """The elements of a page, and what its scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def test_nothing_of_a_row_becomes_part_of_the_page(tmp_path: Path) -> None:
    hostile = row(ATTACK, question=ATTACK, answer=ATTACK, choices=[ATTACK])
    hostile["regions"][0]["phrase"] = ATTACK
    page, shown = write_page(write(tmp_path / "dataset", [[hostile]]))
    text = page.read_text()
    outline = Outline(text)
    tags = [tag for tag, _ in outline.tags]
    assert (shown, tags.count("script"), tags.count("img")) == (1, 2, 1)
    names = {name for _, attributes in outline.tags for name in attributes}
    assert not any(name.startswith("on") or name == "style" for name in names)
    data = json.loads(outline.scripts[0])
    assert data["rows"][0]["question"] == data["rows"][0]["regions"][0]["phrase"] == ATTACK
    assert "<img src=x" not in text


def test_the_policy_admits_the_pages_own_script_and_style(tmp_path: Path, dataset: Path) -> None:
    text = write_page(dataset, tmp_path / "page.html")[0].read_text()
    outline = Outline(text)
    policy = next(a["content"] for tag, a in outline.tags if a.get("http-equiv"))
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert policy is not None
    assert style is not None
    for kind, part in (("script", outline.scripts[1]), ("style", style.group(1))):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(http|//)""", text)


def test_pages_and_choices_of_rows(tmp_path: Path, dataset: Path) -> None:
    assert [r["id"] for r in chosen(dataset, None, 1, 2)] == ["b", "c"]
    assert len(list(chosen(dataset, "unknown", 0, None))) == 5
    assert list(chosen(dataset, "boxes", 0, None)) == []
    page, shown = write_page(dataset, tmp_path / "p" / "second.html", limit=2, offset=3)
    data = json.loads(Outline(page.read_text()).scripts[0])
    assert ([r["id"] for r in data["rows"]], shown) == (["d", "e"], 2)
    assert (data["offset"], data["total"], data["dataset"]) == (3, 5, dataset_hash(dataset))
    with pytest.raises(CorrectionError, match=r"\(5 rows\) fits --offset 5 and --only boxes"):
        write_page(dataset, offset=5, only="boxes")


def test_the_page_is_the_same_each_time(tmp_path: Path, dataset: Path) -> None:
    one, two = (write_page(dataset, tmp_path / f"{name}.html")[0] for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# ----------------------------------------------------------------------------------------- COCO


def coco(folder: Path, dataset: Path) -> dict[str, Any]:
    assert write_for("coco", dataset, folder / "coco") == 5
    loaded: dict[str, Any] = json.loads((folder / "coco" / "instances.json").read_text())
    return loaded


def back(folder: Path, dataset: Path, content: Any) -> list[Row]:
    (folder / "edited.json").write_text(json.dumps(content))
    return [c.record() for c in corrections_from("coco", folder / "edited.json", dataset).entries]


def test_coco_is_read_by_pycocotools(tmp_path: Path, dataset: Path) -> None:
    content = coco(tmp_path, dataset)
    loaded = COCO(str(tmp_path / "coco" / "instances.json"))
    for image in loaded.imgs.values():
        pixels = Image.open(tmp_path / "coco" / "images" / image["file_name"])
        assert pixels.size == (image["width"], image["height"])
        for annotation in loaded.imgToAnns[image["id"]]:
            x, y, width, height = map(int, annotation["bbox"])
            mask = loaded.annToMask(annotation)
            assert mask[y : y + height, x : x + width].all()
            assert annotation["area"] == mask.sum()
    assert content["annotations"][0]["attributes"] == {
        "role": "evidence",
        "score": 0.75,
        "locator": "grounding-dino",
        "region_id": "r0",
        "phrase": "red square",
        "row_id": "a",
    }
    labels = json.loads((tmp_path / "coco" / "labels.json").read_text())
    assert [label["name"] for label in labels] == ["red square", "blue square", "green dot"]
    assert back(tmp_path, dataset, content) == []  # nothing was changed


def test_what_a_person_did_in_coco(tmp_path: Path, dataset: Path) -> None:
    content = coco(tmp_path, dataset)
    first, second, third = content["annotations"][:3]
    first["attributes"]["role"] = "context"
    second["bbox"], second["segmentation"] = [28, 8, 20, 12], []
    content["annotations"].remove(third)
    polygon = [[1, 1, 9, 1, 9, 9, 1, 9]]
    added = {
        "id": 99,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 8, 8],
        "segmentation": polygon,
    }
    content["annotations"].append(added)
    assert back(tmp_path, dataset, content) == [
        {
            "row": "a",
            "action": "add",
            "phrase": "red square",
            "bbox": (1, 1, 9, 9),
            "role": "unknown",
        }
        | {"mask": masks.encode(masks.from_box((1, 1, 9, 9), 48, 64))},
        {"row": "a", "region": "r0", "action": "role", "role": "context"},
        {"row": "a", "region": "r1", "action": "redraw", "bbox": (28, 8, 48, 20)},
        {"row": "a", "region": "r2", "action": "reject"},
    ]


def test_a_tool_may_forget_whose_is_what(tmp_path: Path, dataset: Path) -> None:
    """CVAT keeps names of files, and numbers anew; FiftyOne puts attributes beside the others."""
    content = coco(tmp_path, dataset)
    for n, image in enumerate(content["images"]):
        kept = ("id", "file_name", "width", "height")
        content["images"][n] = {name: image[name] for name in kept}
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x + 0.3, y, width, height]
        right, bottom = x + width - 1, y + height - 1
        annotation["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]
        annotation["role"] = annotation.pop("attributes")["role"]
    del content["info"]
    assert back(tmp_path, dataset, content) == []
    runs = masks.from_box((30, 8, 40, 20), 48, 64)
    edges = np.flatnonzero(np.diff(runs.T.ravel().astype(int), prepend=0, append=0))
    counts = np.diff(edges, prepend=0, append=runs.size).tolist()
    content["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": counts}
    (entry,) = back(tmp_path, dataset, content)
    assert (entry["action"], entry["bbox"], entry["mask"]) == (
        "redraw",
        (30, 8, 40, 20),
        masks.encode(runs),
    )


def test_polygons_know_no_holes(tmp_path: Path) -> None:
    made = row("a")
    ring = masks.from_box((8, 8, 20, 20), 48, 64) & ~masks.from_box((12, 12, 17, 17), 48, 64)
    made["regions"][0]["mask"] = masks.encode(ring)
    dataset = write(tmp_path / "dataset", [[made]])
    write_for("coco", dataset, tmp_path / "coco")
    content = json.loads((tmp_path / "coco" / "instances.json").read_text())
    content["annotations"][0]["segmentation"] = [[8.5, 8.5, 19.5, 8.5, 19.5, 19.5, 8.5, 19.5]]
    assert back(tmp_path, dataset, content) == []
    content["annotations"][0]["segmentation"] = [[8.5, 8.5, 14, 8.5, 14, 19.5, 8.5, 19.5]]
    assert [entry["action"] for entry in back(tmp_path, dataset, content)] == ["redraw"]


def test_datumaro_reads_and_writes_it(tmp_path: Path, dataset: Path) -> None:
    """CVAT's converters: they lose fields of images and the info, and make polygons of masks."""
    datumaro = pytest.importorskip("datumaro.components.dataset")
    coco(tmp_path, dataset)
    folder = tmp_path / "in"
    (folder / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "images").rename(folder / "images")
    named = folder / "annotations" / "instances_default.json"
    (tmp_path / "coco" / "instances.json").rename(named)
    read = datumaro.Dataset.import_from(str(folder), "coco")
    read.export(str(tmp_path / "out"), "coco_instances")
    written = tmp_path / "out" / "annotations" / named.name
    assert corrections_from("coco", written, dataset).entries == ()


@pytest.mark.parametrize("options", [{}, {"tolerance": 1}])
def test_fiftyone_reads_and_writes_it(tmp_path: Path, dataset: Path, options: Row) -> None:
    """Its importer and exporter by themselves, which need no database."""
    fiftyone = pytest.importorskip("fiftyone.utils.coco")
    coco(tmp_path, dataset)
    reader = fiftyone.COCODetectionDatasetImporter(
        data_path=str(tmp_path / "coco" / "images"),
        labels_path=str(tmp_path / "coco" / "instances.json"),
        label_types=["segmentations"],
    )
    with reader:
        samples = list(reader)
    assert samples[0][2].detections[0]["region_id"] == "r0"
    with fiftyone.COCODetectionDatasetExporter(str(tmp_path / "out"), **options) as writer:
        for path, metadata, found in samples:
            writer.export_sample(path, found, metadata=metadata)
    assert corrections_from("coco", tmp_path / "out" / "labels.json", dataset).entries == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda c: c["images"][0].update(row_id="zz", file_name="zz.png"),
            "image 1: 'zz.png' is the picture of no row",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2]),
            "annotation 1 has no bbox of four numbers",
        ),
        (lambda c: c["annotations"][0].update(category_id=77), "no category of the file"),
        (
            lambda c: c["annotations"][0].update(segmentation={"size": [4, 4], "counts": [16]}),
            "4x4 pixels, the image",
        ),
        (lambda c: c["annotations"][0].update(bbox=[70, 2, 5, 5]), "lies outside the image"),
        (lambda c: c["info"].update(dataset="0"), "is about the dataset '0'"),
        (lambda c: c.pop("categories"), "is no COCO file"),
    ],
)
def test_coco_that_cannot_be_used(tmp_path: Path, dataset: Path, damage: Any, message: str) -> None:
    content = coco(tmp_path, dataset)
    damage(content)
    with pytest.raises(CorrectionError, match=message):
        back(tmp_path, dataset, content)


def test_a_picture_is_listed_once(tmp_path: Path, dataset: Path) -> None:
    content = coco(tmp_path, dataset)
    content["images"].append({**content["images"][0], "id": 999})
    with pytest.raises(CorrectionError, match="picture of the same row as image 1; list each picture once"):
        back(tmp_path, dataset, content)


def test_rows_that_share_a_picture_have_a_file_each(tmp_path: Path, dataset: Path) -> None:
    coco(tmp_path, dataset)
    names = {path.stem for path in (tmp_path / "coco" / "images").iterdir()}
    assert names == {file_stem(name) for name in "abcde"}


# -------------------------------------------------------------------------------- the command


def test_command_line(tmp_path: Path, dataset: Path) -> None:
    path = written(tmp_path, dataset, EVERYTHING)
    options = ["--apply", path, "--out", tmp_path / "out"]
    status, last, stderr = run_module("pipelines.review", dataset, *options)
    assert status == 0, stderr
    assert json.loads(last)["rows"] == 4


def test_the_ways_of_the_command(
    tmp_path: Path,
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(dataset, tmp_path / "page.html", limit=2)
    main(dataset, tmp_path / "coco", to="coco")
    main(dataset, tmp_path / "back.json", from_=("coco", tmp_path / "coco" / "instances.json"))
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'page.html'} with 2 rows" in said
    assert '{"rows": 5}' in said
    assert corrections.read(tmp_path / "back.json", dataset).entries == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"apply": Path("x.json")}, "need --out"),
        ({"apply": Path("x.json"), "to": "coco", "out": Path("o")}, "things; give one"),
        ({"apply": Path("gone.json"), "out": Path("o")}, "cannot read gone.json"),
        ({"offset": 99}, "lower the offset"),
        ({"out": Path("full"), "to": "coco"}, "exists already"),
    ],
)
def test_commands_that_cannot_be_run(
    tmp_path: Path,
    dataset: Path,
    options: Row,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").write_text("")
    with pytest.raises(SystemExit):
        main(dataset, **options)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_sam_draws_what_a_person_boxed(tmp_path: Path, dataset: Path) -> None:
    segmenter = load_segmenter(str(ROOT / "labeling/embedded/segmenter"))
    entry = {"row": "a", "region": "r0", "action": "redraw", "bbox": [7, 7, 21, 21]}
    (region, *_) = applied(tmp_path, dataset, entry, segmenter=segmenter)["a"]["regions"]
    square = masks.from_box((8, 8, 20, 20), 48, 64)
    assert region["mask_source"] == "sam"
    assert masks.iou(masks.decode(region["mask"]), square) > 0.7
    said = store.read_manifest(tmp_path / "corrected")["corrections"]
    assert said["segmenter"].endswith("segmenter")


@pytest.mark.slow
def test_a_segmenter_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match=r"the segmenter .*gone.*without --segmenter"):
        load_segmenter(str(tmp_path / "gone"))
