"""The house stands as it was drawn: arrows point down, and the ground floor is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_arrows_point_down() -> None:
    done = subprocess.run([str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("rewardlib", ("torch", "transformers", "openai", "sympy", "numpy")),
        ("rewardlib.answers", ("torch", "sympy")),
        ("rewardlib.judge", ("torch", "openai")),
        ("rewardlib.text", ("torch", "numpy", "sympy")),
        ("rewardlib.adapters.trl", ("torch", "trl", "transformers")),
        ("pipelines.config", ("torch", "transformers", "prefect")),
    ],
)
def test_imports_stay_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
