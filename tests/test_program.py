"""What usages begin with."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from rewardlib.program import program


@pytest.mark.parametrize(
    ("argv", "module", "said"),
    [
        ("sightline score", "pipelines.score", "sightline score"),
        ("/somewhere/score.py", "pipelines.score", "python -m pipelines.score"),
        ("/somewhere/__main__.py", "pipelines.doctor.__main__", "python -m pipelines.doctor"),
        ("script.py", None, "script.py"),
    ],
)
def test_a_program_is_called_as_it_was(argv, module, said, monkeypatch):
    main = ModuleType("__main__")
    main.__spec__ = SimpleNamespace(name=module) if module else None
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [argv])
    assert program() == said
