"""The dataset card, written from the manifest; paragraphs that a person has edited survive.

Sections between ``<!-- keep: NAME -->`` and ``<!-- /keep -->`` belong to the reader: they are filled in once and kept word for word when
the card is written again. Everything else is regenerated.

    python -m pipelines.card DIR [--repo USER/NAME]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from huggingface_hub import DatasetCardData
from jinja2 import Environment, PackageLoader

from pipelines import store
from pipelines.build import STAGES
from pipelines.console import failing_clearly, say

_KEPT = re.compile(r"<!-- keep: (\w+) -->\n(.*?)\n<!-- /keep -->", re.S)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(out: Path, repo: str | None = None) -> Path:
    """Write ``README.md`` into a dataset folder, with its Hub metadata."""
    manifest = store.read_manifest(out)
    path = out / "README.md"
    edited = dict(_KEPT.findall(path.read_text(encoding="utf-8"))) if path.exists() else {}
    licenses = sorted({row["license"] for row in store.read_rows(out, columns=["license"])})
    splits = list(dict.fromkeys(Path(s["file"]).stem.rsplit("-", 1)[0] for s in manifest["shards"])) or ["train"]
    environment = Environment(loader=PackageLoader("data_cards", "."), keep_trailing_newline=True)
    body = environment.get_template("dataset_card.md").render(
        title=repo.split("/")[-1] if repo else out.resolve().name,
        repo=repo,
        manifest=manifest,
        counts=manifest["counts"],
        models=manifest["models"],
        funnel=[("read", manifest["counts"]["rows_in"]), *((s, manifest["counts"].get(f"after_{s}", 0)) for s in STAGES)],
        splits=splits,
        licenses=licenses,
        config_yaml=yaml.safe_dump(manifest["config"], sort_keys=False),
        keep=lambda name, default: f"<!-- keep: {name} -->\n{edited.get(name, default)}\n<!-- /keep -->",
    )
    path.write_text(f"---\n{metadata(manifest, licenses, splits).to_yaml()}\n---\n\n{body}", encoding="utf-8")
    return path


def metadata(manifest: dict[str, Any], licenses: Sequence[str], splits: Sequence[str]) -> DatasetCardData:
    """The card's YAML: what the Hub needs to find, license and open the dataset."""
    size = next((name for limit, name in _SIZES if manifest["rows"] < limit), "n>1M")
    return DatasetCardData(
        license=licenses[0] if len(licenses) == 1 else "other",
        annotations_creators=["machine-generated"],
        task_categories=["visual-question-answering", "image-text-to-text"],
        size_categories=[size],
        tags=["sightline", "visual-grounding", "chain-of-thought", "counterfactual", "reinforcement-learning"],
        configs=[{"config_name": "default", "data_files": [{"split": s, "path": f"data/{s}-*.parquet"} for s in splits]}],
    )


def main(dir: Annotated[Path, tyro.conf.Positional], repo: str | None = None) -> None:
    """Write a dataset's README.md again; sections marked `keep` stay as they are.

    Args:
        dir: A folder written by flows.build_dataset.
        repo: The Hub repository it will be published to, for the loading example.
    """
    with failing_clearly(store.StoreError):
        say(f"wrote {write_card(dir, repo)}")


if __name__ == "__main__":
    tyro.cli(main)
