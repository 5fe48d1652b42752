"""The code in README and docs runs as it stands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.judge_server import Server
from tests.test_trl import honest_judge
from tests.tiny_models import FAMILIES, PROCESSORS, model

ROOT = Path(__file__).resolve().parents[1]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_readme_example_runs_without_torch():
    (example,) = [block for block in blocks("README.md") if "rewardlib" in block]
    check = "\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", example + check], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    promised = re.search(r"#\s*(\[.*\])", example)
    assert json.loads(done.stdout) == pytest.approx(json.loads(promised[1]))


def test_the_page_on_rewards_runs_from_top_to_bottom(tmp_path, monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    with Server(honest_judge).running() as server:
        names = {
            "image": Image.effect_noise((150, 70), 90).convert("RGB"),
            "model": model(FAMILIES["qwen2_5_vl"]()),
            "processor": PROCESSORS["qwen2_5_vl"](),
            "judge_url": server.url,
        }
        for block in blocks("docs/rewards.md"):
            exec(compile(block, "docs/rewards.md", "exec"), names)
        assert server.requests
    assert names["total"] == pytest.approx([1.25, 0.35, 1.6, 0.0])
    assert names["loss"].item() > 0


def copy_of_the_house(folder):
    """The packages that training needs, a tiny policy, and a row."""
    for package in ("train", "rewardlib", "pipelines", "labeling"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    model(FAMILIES["qwen2_5_vl"]()).save_pretrained(folder / "policy")
    PROCESSORS["qwen2_5_vl"]().save_pretrained(folder / "policy")
    Image.effect_noise((112, 84), 60).convert("RGB").save(folder / "0.png")
    (folder / "rows.jsonl").write_text(json.dumps({"image": "0.png", "question": "How many?", "answer": "4"}))


def trained(folder, flags):
    """A step of training in a copy of the house: its settings and its figures."""
    small = "--data rows.jsonl --model policy --out run --steps 1 --prompts 1 --num-generations 2 --max-tokens 6 --device cpu"
    command = [sys.executable, "-m", "train.grpo", *small.split(), *flags.split(), "--trackers"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return json.loads((folder / "run" / "settings.json").read_text()), json.loads(line)


def test_the_method_of_the_page_on_methods_trains(tmp_path):
    """In a file of its own, with one line beside it, as the page says."""
    (example,) = blocks("docs/methods.md")
    copy_of_the_house(tmp_path)
    (tmp_path / "train" / "methods" / "in_doubt.py").write_text(example)
    registry = tmp_path / "train" / "methods" / "__init__.py"
    text = registry.read_text().replace("        VPPO,\n", "        VPPO,\n        InDoubt,\n")
    registry.write_text(text.replace("from train.methods.papo", "from train.methods.in_doubt import InDoubt\nfrom train.methods.papo"))
    settings, _ = trained(tmp_path, "--recipe in-doubt --in-doubt.kept 0.5")
    assert (settings["methods"], settings["in-doubt.kept"]) == (["in-doubt"], 0.5)


def test_the_reward_of_the_page_on_rewards_trains(tmp_path):
    """In a file of its own, with one line beside it, as the page says."""
    (example,) = [block for block in blocks("docs/rewards.md") if "class FewNumbers" in block]
    copy_of_the_house(tmp_path)
    (tmp_path / "rewardlib" / "few_numbers.py").write_text(example.partition("\n\n\nFewNumbers()")[0] + "\n")
    registry = tmp_path / "train" / "rewards.py"
    text = registry.read_text().replace("    BoxIoU,\n", "    BoxIoU,\n    FewNumbers,\n")
    registry.write_text(text.replace("from rewardlib.evidence", "from rewardlib.few_numbers import FewNumbers\nfrom rewardlib.evidence"))
    settings, figures = trained(tmp_path, "--few-numbers 0.5")
    assert (settings["few_numbers"], figures["rewards/few_numbers/mean"]) == (0.5, 1.0)


def with_lines(file, *changes):
    """A file with lines changed or added, as a page says."""
    text = file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    file.write_text(text)


def test_the_locator_and_the_segmenter_of_the_page_on_extending_label(tmp_path):
    """In files of their own, with the lines that the page names."""
    locator, segmenter, _ = blocks("docs/extending.md")
    for package in ("rewardlib", "pipelines", "labeling"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "labeling" / "locators" / "qr.py").write_text(locator)
    (tmp_path / "labeling" / "segmenters" / "grabcut.py").write_text(segmenter)
    page = (ROOT / "docs" / "extending.md").read_text()
    locator_line, segmenter_lines = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    with_lines(
        tmp_path / "pipelines" / "building" / "models.py",
        (
            "from pipelines.building.code",
            f"{OWN_IMPORTS}from pipelines.building.code",
        ),
        ("    if boxes.model is not None:\n", f"{locator_line}    if boxes.model is not None:\n"),
        ('        if config.backend == "segment-anything":\n', f'{segmenter_lines}        if config.backend == "segment-anything":\n'),
    )
    with_lines(
        tmp_path / "pipelines" / "config.py",
        ('Literal["transformers", "segment-anything"]', 'Literal["transformers", "segment-anything", "grabcut"]'),
    )
    (tmp_path / "use.py").write_text(USE_OWN_LOCATOR)
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


OWN_IMPORTS = "from labeling.locators.qr import QrLocator\nfrom labeling.segmenters.grabcut import GrabCutSegmenter\n"
USE_OWN_LOCATOR = """
import cv2
import numpy as np
from PIL import Image
from labeling.locators.base import Sought
from pipelines.building.models import load_models
from pipelines.config import BuildConfig

code = cv2.resize(cv2.QRCodeEncoder.create().encode("look here"), (120, 120), interpolation=cv2.INTER_NEAREST)
pixels = np.full((240, 320, 3), 255, np.uint8)
pixels[60:180, 100:220] = code[..., None]
pixels[200:230, 20:50] = (200, 30, 30)
image = Image.fromarray(pixels)
models = load_models(BuildConfig(source="none", out="out", segmenter={"backend": "grabcut"}))
(found,) = models.locators.locate([image], [[Sought("qr code")]])
(detection,) = found.detections
assert (detection.locator, detection.text) == ("qr", "look here"), detection
assert np.abs(np.array(detection.bbox) - (100, 60, 220, 180)).max() < 14, detection
((segment,),) = models.segmenter.segment([image], [[(18, 198, 52, 232)]])
assert segment.source == "sam" and abs(segment.mask.sum() - 900) < 60, segment.mask.sum()
assert models.infos()["segmenter"]["name"] == "opencv-grabcut"
"""


def test_the_family_of_the_page_on_extending_is_the_shortest_there_is():
    *_, family = blocks("docs/extending.md")
    assert family == (ROOT / "train" / "families" / "qwen2_vl.py").read_text()
