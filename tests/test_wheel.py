"""The wheel: what is in it, and that it works where nothing of the sources lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from demo.tasks import write_rows
from tests.conftest import ROOT

PARTS = {"rewardlib", "labeling", "pipelines", "flows", "train", "data_cards", "sightline.py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    sources = out / "sources"  # a build leaves folders behind
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if name.partition("/")[0] not in ("tests", "docs", "bench"):
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out), str(sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the wheel's modules come first; what they need is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def run(environment: dict[str, str], cwd: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_what_users_need_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == PARTS
    for needed in (
        "labeling/embedded/detector/model.safetensors",
        "labeling/embedded/segmenter/domain.json",
        "pipelines/gallery.html",
        "pipelines/review.html",
        "train/report.html",
        "train/evaluation.html",
        "data_cards/dataset_card.md",
    ):
        assert needed in names
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    modules = {name for name in tracked if name.partition("/")[0] in PARTS and "/" in name}
    assert modules <= set(names)
    assert wheel.stat().st_size < 12e6


def test_it_labels_with_the_embedded_models(installed: dict[str, str], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "scenes", 3, 7, "look")
    run(installed, tmp_path, "-m", "flows.build_dataset", "--source", str(source), "--out", "dataset")
    where = "import labeling, sightline; d = sightline.open_dataset('dataset'); print(labeling.__path__[0], len(d))"
    folder, rows = run(installed, tmp_path, "-c", where).split()
    assert folder.startswith(installed["PYTHONPATH"])
    assert int(rows) == 3
    assert json.loads(run(installed, tmp_path, "-m", "pipelines.validate", "dataset").splitlines()[-1])["valid"]


def test_its_front_door_knows_what_is_not_there(installed: dict[str, str], tmp_path: Path) -> None:
    """Without this environment's packages, which know where the sources are."""
    code = f"import sys; sys.path.insert(0, {installed['PYTHONPATH']!r}); from pipelines.front import main; main([])"
    told = run(installed, tmp_path, "-I", "-S", "-c", code)
    assert "build " in told
    assert "demo" not in told


def test_rewards_need_nothing_else(installed: dict[str, str], tmp_path: Path) -> None:
    code = "from rewardlib import Accuracy, Sample; print(Accuracy()([Sample('<answer>6</answer>', answer='6')])[0])"
    assert float(run(installed, tmp_path, "-c", code)) == 1.0
