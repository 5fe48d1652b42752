"""``import sightline``: labels, a gallery and a look at a policy, from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import sightline
from demo.tasks import write_rows
from pipelines.dataset import store
from pipelines.dataset.opened import Dataset
from pipelines.rows.base import SourceError
from rewardlib.rows import RowError
from tests import notebook
from tests.conftest import ROOT

POLICY = str(ROOT / "demo" / "checkpoints" / "policy-seeing")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("api") / "scenes", 4, 5, "look")


@pytest.fixture(scope="module")
def dataset(source: Path) -> Dataset:
    return sightline.build(source, source.parent.parent / "dataset")


def test_importing_it_loads_nothing_heavy() -> None:
    check = "import sightline, sys; assert not {'torch', 'transformers', 'datasets', 'prefect'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dataset_is_its_rows_opened(dataset: Dataset) -> None:
    assert len(dataset) + len(dataset.rejects) == 4
    assert isinstance(dataset[0]["image"], Image.Image)
    assert {row["id"] for row in dataset} == {dataset[n]["id"] for n in range(len(dataset))}
    assert repr(dataset).endswith(f"{len(dataset)} rows, {len(dataset.rejects)} rejected")


def test_rows_from_python_are_labelled_as_those_of_a_file(source: Path, dataset: Dataset, tmp_path: Path) -> None:
    import json

    rows = [json.loads(line) for line in source.read_text().splitlines()]
    again = sightline.build(rows, tmp_path / "dataset", image_root=source.parent)
    assert [row["regions"] for row in again] == [row["regions"] for row in dataset]


def test_a_notebook_shows_the_gallery(dataset: Dataset) -> None:
    page = dataset.show(2)._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "&lt;title&gt;Sightline gallery" in page


def test_it_scores(source: Path, dataset: Dataset) -> None:
    assert dataset.score(source)["evidence_recall"] > 0.5


def test_a_look_knows_where(dataset: Dataset) -> None:
    found = sightline.look(POLICY, dataset[0])
    assert "<answer>" in found.response
    assert found.share is not None
    assert found.share > found.area  # it has learnt to look
    assert found.attention.sum() < 1
    scores = found.scores(sightline.Accuracy(), sightline.AttentionContrast(share=1.0))
    assert scores["accuracy"] == 1.0
    assert scores["attention_contrast"] is not None
    assert scores["attention_contrast"] > 0
    assert found.picture().width == 448
    assert found._repr_png_().startswith(b"\x89PNG")


def test_a_row_without_regions_is_looked_at_without_a_share(dataset: Dataset) -> None:
    row = dataset[0]
    found = sightline.look(POLICY, {"image": row["image"], "question": row["question"], "answer": row["answer"]})
    assert (found.share, found.area) == (None, 0)
    assert found.scores(sightline.AttentionContrast())["attention_contrast"] is None


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(store.StoreError, match="no manifest"):
        sightline.open_dataset(tmp_path)
    with pytest.raises(SourceError, match="cannot read"):
        sightline.build(tmp_path / "gone.jsonl", tmp_path / "out")
    with pytest.raises(RowError):
        sightline.look(POLICY, {"question": "What?"})


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    shown = notebook.run(ROOT / "docs" / "tour.ipynb")
    values = [value for _, value in shown]
    printed = "".join(text for text, _ in shown)
    assert len(values[1]) + len(values[1].rejects) == 24
    assert isinstance(values[2], Image.Image)
    assert values[4]._repr_html_().startswith("<iframe")
    assert values[5]["recall"] > 0.9
    assert "of its attention on the image lies on the evidence" in printed
    assert (values[-1] / "report.html").exists()
