"""The code in README and docs runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    from PIL import Image

    from tests.judge_server import Server
    from tests.test_trl import honest_judge
    from tests.tiny_models import FAMILIES, PROCESSORS, model

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


def test_the_method_of_the_page_on_methods_trains(tmp_path):
    """In a file of its own, with one line beside it, as the page says."""
    import shutil

    from PIL import Image

    from tests.tiny_models import FAMILIES, PROCESSORS, model

    (example,) = blocks("docs/methods.md")
    for package in ("train", "rewardlib", "pipelines", "labeling"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "train" / "methods" / "in_doubt.py").write_text(example)
    registry = tmp_path / "train" / "methods" / "__init__.py"
    text = registry.read_text().replace("(VGPO, PAPO, VPPO)", "(VGPO, PAPO, VPPO, InDoubt)")
    registry.write_text(text.replace("from train.methods.papo", "from train.methods.in_doubt import InDoubt\nfrom train.methods.papo"))
    model(FAMILIES["qwen2_5_vl"]()).save_pretrained(tmp_path / "policy")
    PROCESSORS["qwen2_5_vl"]().save_pretrained(tmp_path / "policy")
    Image.effect_noise((112, 84), 60).convert("RGB").save(tmp_path / "0.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "0.png", "question": "How many?", "answer": "4"}))
    flags = (
        "--data rows.jsonl --model policy --out run --recipe in-doubt --in-doubt.kept 0.5 --steps 1 --prompts 1 --group 2 --max-tokens 6"
    )
    command = [sys.executable, "-m", "train.grpo", *flags.split(), "--trackers", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["methods"], settings["method"]["in_doubt"]) == (["in-doubt"], {"kept": 0.5})
