"""The house stands as it was drawn: arrows point down, and the ground floor is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_arrows_point_down() -> None:
    done = subprocess.run([str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kept, 0 broken" in done.stdout


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


@pytest.mark.parametrize("path", sorted((ROOT / "train").rglob("*.py")), ids=lambda path: path.stem)
def test_the_trainer_imports_at_the_top(path: Path) -> None:
    """But for one line in each command's ``main``, which lets ``--help`` answer before torch is loaded."""
    inside = [
        (function.name, node.lineno)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert all(name == "main" for name, _ in inside), inside
    assert len(inside) <= 1


@pytest.mark.parametrize("module", ["train.grpo", "train.anchor", "train.evaluate"])
def test_help_loads_no_torch(module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
