"""A finished dataset in Python: its rows, its rejects, and its gallery in a notebook.

dataset = Dataset("dataset")
dataset[0]["regions"]              # rows as `datasets` gives them, images opened
dataset.rejects[0].reason
dataset.show()                     # the gallery, in a notebook
dataset.score("gold.jsonl")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import datasets

from pipelines.dataset import store
from pipelines.dataset.schema import Reject

SHOWN = 20  # rows
HEIGHT = 720  # pixels of the gallery in a notebook


class Dataset(Sequence[dict[str, Any]]):
    """The folder that a build has written; ``StoreError`` where it is none, or not finished."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = store.read_manifest(self.path)

    @cached_property
    def rows(self) -> datasets.Dataset:
        """The rows of all splits, memory-mapped; raises ``StoreError`` where there are none."""
        files = [str(self.path / shard["file"]) for shard in self.manifest["shards"] if shard["rows"]]
        if not files:
            raise store.StoreError(f"{self.path} has no rows; its rejects say why each was dropped")
        return datasets.load_dataset("parquet", data_files=files, split="train")

    @cached_property
    def rejects(self) -> list[Reject]:
        """Every row that was dropped, with the stage, the reason and what to do."""
        return list(store.read_rejects(self.path))

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows) if len(self) else iter(())

    def score(self, gold: str | Path) -> dict[str, Any]:
        """The figures of ``pipelines.score`` against a file, or another dataset, that knows better."""
        from pipelines.score import score

        return score(self.path, Path(gold)).figures()

    def show(self, limit: int = SHOWN) -> Gallery:
        """The gallery of the first rows and of all rejects; a notebook shows it, a browser opens its path."""
        from pipelines.gallery import write_gallery

        return Gallery(write_gallery(self.path, limit))

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}): {len(self)} rows, {self.manifest['rejected']} rejected"


class Gallery:
    """A page to look at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"open {self.path}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own, which may run its own script and nothing else."""
        page = escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" width="100%" height="{HEIGHT}"></iframe>'
