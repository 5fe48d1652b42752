"""A shard is made again when the code that its labels depend on has changed, and by no other edit."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pipelines.building.code import HOUSE, ROOT, code_version, label_modules
from pipelines.building.ingest import plan, source_of
from pipelines.building.label import label
from pipelines.building.models import load_models
from pipelines.config import BuildConfig
from pipelines.dataset.schema import Ledger
from tests.conftest import record, scene, write_rows
from tests.judge_server import Server, completion

# One of each kind that an earlier list was missing, and of the kinds that it had too many of.
CAN = (
    "pipelines.building.steps",
    "pipelines.rows.sources",
    "pipelines.rows.coco",
    "rewardlib.rows.golds",
    "rewardlib.rows.regions",
    "labeling.rules",
)
CANNOT = (
    *(
        "pipelines.gallery",
        "pipelines.dataset.hub",
        "pipelines.dataset.publish",
        "pipelines.agreement",
        "pipelines.dataset.kappa",
        "pipelines.dataset.formats",
    ),
    *("rewardlib.vgpo", "rewardlib.advantages", "rewardlib.perception", "rewardlib.adapters.rows"),
)


@pytest.mark.parametrize("module", CAN)
def test_what_can_change_a_label_counts(module: str) -> None:
    assert module in label_modules()


@pytest.mark.parametrize("module", CANNOT)
def test_what_cannot_does_not(module: str) -> None:
    assert ROOT.joinpath(*module.split(".")).with_suffix(".py").exists()
    assert module not in label_modules()


def test_all_code_that_runs_while_rows_are_labelled_counts(tmp_path: Path) -> None:
    """Watched, not read: the files of all functions that are called between a record and a labelled row."""
    fact = '{"facts": [{"kind": "object", "statement": "A square.", "phrase": "red square", "quote": "red square"}]}'
    rows = [record("a", choices={"A": "red", "B": "blue"}), record("b", traces=None), record("c", image="../c.png")]
    source = write_rows(tmp_path, rows, {name: scene() for name in ("a.png", "b.png")})
    answer = "There is a red square. The answer is red."
    with Server(lambda n, body: completion(fact if "quote" in str(body) else answer)).running() as server:
        judge: dict[str, Any] = {"model": "judge", "base_url": server.url}
        config = BuildConfig(
            source=str(source), out=tmp_path / "out", annotator=judge, collector={**judge, "draws": 1}, require="annotations"
        )
        opened, models, files = source_of(config), load_models(config), set()
        (shard,) = plan(opened, config)

        def watch(frame: FrameType, event: str, argument: Any) -> None:
            files.add(frame.f_code.co_filename)

        sys.setprofile(watch)
        try:
            labelled = label(shard, opened, config, models, Ledger())
        finally:
            sys.setprofile(None)
    assert len(labelled) == 2
    ours = {Path(file) for file in files if any(Path(file).is_relative_to(ROOT / package) for package in HOUSE)}
    assert len(ours) > 20
    assert ours - set(label_modules().values()) <= {ROOT / "rewardlib" / "__init__.py"}


def version_of(root: Path) -> str:
    """The version of the code in a folder, as it is now."""
    label_modules.cache_clear()
    return code_version.__wrapped__(root)


def test_an_edit_changes_the_version_where_it_counts(tmp_path: Path) -> None:
    for package in HOUSE:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = version_of(tmp_path)
    assert before == code_version()
    for module, changes in (("pipelines/gallery.py", False), ("rewardlib/vgpo.py", False), ("rewardlib/rows/chat.py", True)):
        with (tmp_path / module).open("a") as file:
            file.write("\n# edited\n")
        assert (version_of(tmp_path) != before) is changes
