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
