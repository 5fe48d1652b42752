"""Sightline in Python: label rows, look at the labels, and at where a model looks.

    import sightline

    dataset = sightline.build("rows.jsonl", "dataset", license="cc-by-4.0")
    dataset.show()                                        # the gallery, in a notebook
    found = sightline.look("Qwen/Qwen2.5-VL-3B-Instruct", dataset[0])
    found.picture()                                       # the image, and the attention of the answer on it
    found.scores(sightline.Accuracy(), sightline.AttentionContrast(share=1.0))

Everything else has a home of its own: rewards in ``rewardlib``, labelling in ``labeling`` and ``pipelines``, training in ``train``. The
commands are ``sightline`` in a shell. Nothing is loaded before it is used.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlib import Accuracy as Accuracy
from rewardlib import AttentionContrast as AttentionContrast
from rewardlib import Sample as Sample

if TYPE_CHECKING:
    from pipelines.dataset.opened import Dataset
    from train.look import Look
    from train.policy import Policy

__all__ = ["Accuracy", "AttentionContrast", "Sample", "build", "load", "look", "open_dataset"]


def build(rows: str | Path | Iterable[Mapping[str, Any]], out: str | Path, **settings: Any) -> Dataset:
    """Label rows, or go on labelling them; the same as ``sightline build``, without a server.

    Args:
        rows: Any source that the command takes, or rows themselves, with images as paths.
        out: The dataset's folder.
        settings: Those of ``pipelines.config.BuildConfig``, such as ``license="cc-by-4.0"`` or ``detector={"name": ...}``.

    Raises:
        ValueError: the settings or the source cannot be used; the message says why and what to do.
    """
    from pipelines.build import build as build_here
    from pipelines.card import write_card
    from pipelines.config import BuildConfig
    from pipelines.dataset.opened import Dataset
    from pipelines.gallery import write_gallery

    with tempfile.TemporaryDirectory() as aside:
        source = str(rows) if isinstance(rows, str | Path) else _written(rows, Path(aside) / "rows.jsonl")
        if not isinstance(rows, str | Path):
            settings.setdefault("image_root", Path.cwd())  # as the paths in the rows are meant
        config = BuildConfig(source=source, out=Path(out), **settings)
        build_here(config)
    write_gallery(config.out)
    write_card(config.out)
    return Dataset(config.out)


def open_dataset(path: str | Path) -> Dataset:
    """A dataset that a build has finished; ``StoreError`` (a ``ValueError``) where there is none."""
    from pipelines.dataset.opened import Dataset

    return Dataset(path)


@lru_cache(maxsize=1)
def load(model: str, device: str = "auto") -> Policy:
    """A policy by its Hub id or folder; the last one is kept, so that asking again is quick."""
    from train.loading import load_model

    return load_model(model, device)


def look(model: str | Policy, row: Mapping[str, Any], **settings: Any) -> Look:
    """What a policy answers to a row with an image, and where it looks meanwhile: ``train.look.look`` has the settings."""
    from train.look import look as look_at

    return look_at(load(model) if isinstance(model, str) else model, row, **settings)


def _written(rows: Iterable[Mapping[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)
