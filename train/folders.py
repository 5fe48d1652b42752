"""Where models are: under Hub ids, in folders, and in the folders of runs. Loads nothing."""

from __future__ import annotations

from pathlib import Path

CONFIGS = ("config.json", "adapter_config.json")


def latest(out: Path) -> Path | None:
    """The newest whole checkpoint in a run's folder."""
    checkpoints = sorted(
        out.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    return checkpoints[-1] if checkpoints else None


def find_model(name: str) -> str:
    """A Hub id or a model's folder, as it is given; of a run's folder the newest checkpoint, or the
    model that ``train.anchor`` has made.
    """
    folder = Path(name)
    if not folder.is_dir() or any((folder / config).exists() for config in CONFIGS):
        return name
    inside = [folder / "model", latest(folder)]
    return next((str(found) for found in inside if found is not None and found.is_dir()), name)
