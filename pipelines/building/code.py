"""Which code makes labels, and its version: a dataset's rows are remade when that code changes, and by no other edit.

The modules are those that the labelling of a shard imports, as their files say it: nobody keeps a list that a new module
could be missing from.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ("labeling", "pipelines", "rewardlib")
ENTRANCES = ("pipelines.building.label", "pipelines.dataset.store")  # what a row says, and how it is written


@functools.cache
def code_version(root: Path = ROOT) -> str:
    """Changes with any edit of the code that labels are made by, and with no other."""
    digest = hashlib.sha256()
    for module, file in sorted(label_modules(root).items()):
        digest.update(json.dumps(module).encode() + file.read_bytes())
    return "sha256:" + digest.hexdigest()[:16]


@functools.cache
def label_modules(root: Path = ROOT) -> dict[str, Path]:
    """The modules that can change a label, with their files."""
    modules: dict[str, Path] = {}
    waiting = list(ENTRANCES)
    while waiting:
        module = waiting.pop()
        file = _file_of(root, module)
        if file is not None and module not in modules:
            modules[module] = file
            waiting += _imported(root, file)
    return modules


def _imported(root: Path, file: Path) -> Iterator[str]:
    """The house's modules that a file imports, anywhere but for type checkers."""
    waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if _file_of(root, name)]
            yield from modules
            if len(modules) < len(inner):
                yield node.module


def _file_of(root: Path, module: str) -> Path | None:
    """The file of one of the house's modules; None for anybody else's."""
    if module.partition(".")[0] not in HOUSE:
        return None
    path = root.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)
