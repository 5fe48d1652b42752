"""The gallery and the card: everything escaped, nothing lost, edited paragraphs kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines import build
from pipelines.card import kept_sections, merge_kept, write_card
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.failures import known_failures
from pipelines.dataset.licenses import license_metadata
from pipelines.gallery import mark_quotes, outline_path, view_row, write_gallery
from tests.conftest import fake_models, record, write_rows

ATTACK = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">{{ 7*7 }}'


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three good rows, one of them hostile in every text, and two rejects."""
    monkeypatch.setattr(build, "load_models", lambda config: fake_models())
    traces = [{"text": f"{ATTACK} There is a red square. The answer is red.", "model": ATTACK}]
    rows = [
        record("a"),
        record("b"),
        record("c", question=ATTACK, traces=traces, choices=["red", ATTACK]),
        record("d", answer="blue"),
        record(ATTACK, image="gone.jpg"),
    ]
    out = tmp_path / "dataset"
    build.build(BuildConfig(source=str(write_rows(tmp_path, rows)), out=out))
    return out


def test_nothing_of_a_row_becomes_markup(dataset: Path) -> None:
    page = write_gallery(dataset).read_text()
    assert page.count("<script>") == 1
    assert "onerror=" not in re.sub(r"&\w+;|&#\d+;", "", page).replace("onerror=&#34;", "") or "<img src=x" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "49" not in re.findall(r"<h2>(.*?)</h2>", page)[2]


def test_a_phrase_is_found_however_the_trace_writes_it(dataset: Path) -> None:
    row = next(iter(store.read_rows(dataset)))
    for fact in row["annotations"]:
        fact["phrase"] = fact["phrase"] and fact["phrase"].upper()
    shown = view_row(row)
    assert shown["phrases"]
    assert all(phrase["found"] for phrase in shown["phrases"])
    assert "phrase not found" not in shown["status"]


def test_the_policy_admits_the_pages_own_script_and_no_other(dataset: Path) -> None:
    import base64
    import hashlib

    page = write_gallery(dataset).read_text()
    script = re.search(r"<script>(.*?)</script>", page, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy.group(1)
    assert "unsafe" not in policy.group(1)
    assert ' style="' not in page


def test_every_row_and_every_reject_is_shown(dataset: Path) -> None:
    page = write_gallery(dataset).read_text()
    assert page.count("<article") == 3 + 2
    assert "no trace with the right answer" in page
    assert "missing image" in page
    assert "rejected" in page


def test_quotes_are_marked_in_place() -> None:
    trace = {"trace_id": "t0", "text": "A <red> square & a blue one."}
    annotation = {"trace_id": "t0", "start": 2, "end": 14, "kind": "object", "statement": '"s"', "phrase": "red square"}
    overlapping = {**annotation, "start": 8, "end": 14}
    marked = str(mark_quotes(trace, [annotation, overlapping], {"red square": "h3"}))
    assert marked == 'A <mark class="h3" title="object: &#34;s&#34;">&lt;red&gt; square</mark> &amp; a blue one.'


def test_an_outline_runs_between_the_pixels() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:8] = True
    numbers = [float(v) for v in re.findall(r"[\d.]+", outline_path(mask))]
    assert (min(numbers[::2]), max(numbers[::2])) == (3.25, 7.75)
    assert (min(numbers[1::2]), max(numbers[1::2])) == (2.25, 4.75)


def _front_matter(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return loaded


def test_the_card_says_what_the_manifest_says(dataset: Path) -> None:
    card, manifest = write_card(dataset, "me/shapes").read_text(), store.read_manifest(dataset)
    assert f"| rows | {manifest['rows']} |" in card
    assert "| check | no trace with the right answer | 1 |" in card
    assert manifest["config_sha256"][:16] in card
    assert 'load_dataset("me/shapes", split="train")' in card
    matter = _front_matter(card)
    assert matter["license"] == "cc0-1.0"
    assert matter["annotations_creators"] == ["machine-generated"]
    assert matter["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def test_the_cards_settings_build_the_same_dataset(dataset: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", write_card(dataset).read_text(), re.S)
    assert block is not None
    config = BuildConfig(source="x", out=dataset, **yaml.safe_load(block.group(1)))
    assert config.sha256() == store.read_manifest(dataset)["config_sha256"]


def test_edited_paragraphs_survive(dataset: Path) -> None:
    path = write_card(dataset)
    edited = re.sub(
        r"(<!-- keep: summary -->\n).*?(\n<!-- /keep -->)", r"\1Our own words.\n\nTwo paragraphs.\2", path.read_text(), flags=re.S
    )
    path.write_text(edited)
    assert write_card(dataset).read_text() == edited


def test_the_card_names_what_failed_and_what_judges_agree_on(dataset: Path) -> None:
    manifest = store.read_manifest(dataset)
    manifest["counts"] |= {
        "phrases": 8,
        "phrases_not_found": 2,
        "masks": 4,
        "masks_from_box": 1,
        "judge_failed: timeout": 3,
        "collector_failed: http_503": 2,
    }
    manifest["cost"] = {
        "dollars": 0.0123,
        "models": [{"model": "big", "requests": 7, "prompt_tokens": 100, "completion_tokens": 10, "dollars": None}],
    }
    store.write_text(dataset / "manifest.json", json.dumps(manifest))
    pair = {"a": "big", "b": "small", "kappa": 0.71, "low": 0.6, "high": None, "agreement": 0.9, "units": 40}
    figures = {"units": 40, "rows": 12, "pairs": [pair], "foreign_rejected": 0.97, "own_found": 0.88}
    (dataset / "agreement.json").write_text(json.dumps(figures))
    card = write_card(dataset).read_text()
    assert "- 2 of 8 (25.0 %) phrases were not found in their image" in card
    assert "- 1 of 4 (25.0 %) masks are the whole box" in card
    assert "no usable reply for 3 traces (timeout 3)" in card
    assert "The collector gave no usable reply for 2 traces (http_503 2); these were asked for and not written." in card
    assert "- 2 of 5 (40.0 %) rows were dropped" in card
    assert "| big | 7 | 100 | 10 | unknown |" in card
    assert "The labels cost $0.0123 in all." in card
    assert "| big | small | 0.71 | 0.60 to unknown | 90 % | 40 |" in card
    assert "the judge finds 88 % in it" in card
    assert "\n\n\n" not in card


def test_nothing_is_said_to_fail_that_did_not() -> None:
    worked = {
        "rows_in": 4,
        "phrases": 4,
        "phrases_not_found": 0,
        "masks": 4,
        "traces_correct": 4,
        "evidence_images": 2,
        "evidence_verified": 2,
    }
    assert known_failures(worked) == []


def test_a_damaged_agreement_is_an_error(dataset: Path) -> None:
    (dataset / "agreement.json").write_text('{"units": 3}')
    with pytest.raises(store.StoreError, match=r"agreement\.json cannot be read .*remove the file"):
        write_card(dataset)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["CC-BY-4.0"], {"license": "cc-by-4.0"}),
        (["mit", "cc0-1.0"], {"license": "other", "license_name": "cc0-1.0-and-mit"}),
        (["VQA terms (2017)"], {"license": "other", "license_name": "vqa-terms-2017"}),
    ],
)
def test_licences_as_the_hub_wants_them(names: list[str], expected: dict[str, str]) -> None:
    assert license_metadata(names) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected", "conflicts"),
    [
        ("default", "edited", "edited", []),
        ("published", "edited", "edited", []),
        ("edited", "default", "edited", []),
        ("edited", "published", "edited", []),
        ("edited", "edited", "edited", []),
        ("edited", "otherwise", "edited", ["s"]),
    ],
)
def test_who_has_edited_a_section_wins(ours: str, theirs: str, expected: str, conflicts: list[str]) -> None:
    assert merge_kept({"s": ours}, {"s": theirs}, {"s": "default"}, {"s": "published"}) == ({"s": expected}, conflicts)


def test_a_section_of_ones_own_survives(dataset: Path) -> None:
    path = write_card(dataset)
    path.write_text(path.read_text() + "<!-- keep: citation -->\n@misc{me}\n<!-- /keep -->\n")
    once = write_card(dataset).read_text()
    assert kept_sections(once)["citation"] == "@misc{me}"
    assert write_card(dataset).read_text() == once


def test_a_region_without_a_name_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_models", lambda config: fake_models())
    source = write_rows(tmp_path, [record(bboxs=[[10, 10, 40, 40]])])
    build.build(BuildConfig(source=str(source), out=tmp_path / "out"))
    assert "without a name" in write_gallery(tmp_path / "out").read_text()
