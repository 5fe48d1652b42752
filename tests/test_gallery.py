"""The gallery and the card: everything escaped, nothing lost, edited paragraphs kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines import build, store
from pipelines.card import write_card
from pipelines.config import BuildConfig
from pipelines.gallery import mark_quotes, outline_path, write_gallery
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
    assert page.count("<article") == 3 + 1
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
