"""The dataset card, written from the manifest; paragraphs that a person has edited survive.

Sections between ``<!-- keep: NAME -->`` and ``<!-- /keep -->`` belong to the reader: they are filled in once and kept word for word when
the card is written again. Everything else is regenerated.

    python -m pipelines.card DIR [--repo USER/NAME]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from huggingface_hub import DatasetCardData
from jinja2 import Environment, PackageLoader

from pipelines.dataset import store
from pipelines.dataset.failures import known_failures
from pipelines.dataset.licenses import license_metadata
from pipelines.dataset.schema import STAGES
from rewardlib.console import failing_clearly, say, tell
from rewardlib.program import program

_KEPT = re.compile(r"<!-- keep: (\w+) -->\n(.*?)\n<!-- /keep -->", re.S)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(out: Path, repo: str | None = None) -> Path:
    """Write ``README.md`` into a dataset folder, with its Hub metadata."""
    path = out / "README.md"
    store.write_text(path, render_card(out, repo, kept_sections(path.read_text(encoding="utf-8")) if path.exists() else {}))
    return path


def render_card(out: Path, repo: str | None, edited: Mapping[str, str]) -> str:
    """The card's text, with ``edited`` in place of the kept sections' defaults; those that the template does not have come last."""
    manifest = store.read_manifest(out)
    rows = store.read_rows(out, columns=["license", "provenance"])
    told = {(row["license"], row["provenance"]["prompt_sha256"]) for row in rows}
    licenses = sorted({license for license, _ in told})
    splits = list(dict.fromkeys(Path(s["file"]).stem.rsplit("-", 1)[0] for s in manifest["shards"])) or ["train"]
    body = _template().render(
        title=repo.split("/")[-1] if repo else out.resolve().name,
        repo=repo,
        manifest=manifest,
        counts=manifest["counts"],
        kinds=[name.removeprefix("regions_by_") for name in manifest["counts"] if name.startswith("regions_by_")],
        models=manifest["models"],
        prompts=sorted({prompt for _, prompt in told if prompt}),
        cost=manifest.get("cost"),
        agreement=_read_agreement(out / "agreement.json"),
        failures=known_failures(manifest["counts"], manifest["rejected"]),
        funnel=[("read", manifest["counts"]["rows_in"]), *((s, manifest["counts"].get(f"after_{s}", 0)) for s in STAGES)],
        splits=splits,
        licenses=licenses,
        config_yaml=yaml.safe_dump(manifest["config"], sort_keys=False),
        keep=lambda name, default: _section(name, edited.get(name, default)),
    )
    own = [_section(name, text) for name, text in edited.items() if name not in kept_sections(body)]
    return "\n".join([f"---\n{metadata(manifest, licenses, splits).to_yaml()}\n---\n\n{body}", *(f"{text}\n" for text in own)])


def _template() -> Any:
    environment = Environment(loader=PackageLoader("data_cards", "."), keep_trailing_newline=True)
    environment.filters["percent"] = lambda share: "unknown" if share is None else f"{100 * share:.0f} %"
    environment.filters["figure"] = lambda number, digits=2: "unknown" if number is None else f"{number:.{digits}f}"
    return environment.get_template("dataset_card.md")


def _section(name: str, text: str) -> str:
    return f"<!-- keep: {name} -->\n{text}\n<!-- /keep -->"


def kept_sections(card: str) -> dict[str, str]:
    """The sections of a card that belong to its readers, by name."""
    return dict(_KEPT.findall(card.replace("\r\n", "\n")))


def merge_kept(ours: Mapping[str, str], theirs: Mapping[str, str], *untouched: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The kept sections of two copies of a card, and the names of those that both have edited.

    A section that equals its text in one of the ``untouched`` cards (the template's, the one last published) was edited by nobody and
    gives way; where both copies were edited and differ, ours stays.
    """
    merged, conflicts = dict(ours), []
    for name, text in theirs.items():
        fresh = [card[name] for card in untouched if name in card]
        if name not in ours or ours[name] in fresh:
            merged[name] = text
        elif text != ours[name] and text not in fresh:
            conflicts.append(name)
    return merged, conflicts


def _read_agreement(path: Path) -> dict[str, Any] | None:
    """What judges agree on, where somebody has measured it."""
    if not path.exists():
        return None
    try:
        agreement: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        facts = {"units", "rows", "pairs", "foreign_rejected", "own_found"}
        if not facts <= set(agreement) and set(agreement) != {"roles"}:
            raise ValueError("it lacks units, rows, pairs, foreign_rejected or own_found")
    except (ValueError, TypeError) as error:
        raise store.StoreError(f"{path} cannot be read ({error}); measure the agreement again, or remove the file") from error
    return agreement


def metadata(manifest: dict[str, Any], licenses: Sequence[str], splits: Sequence[str]) -> DatasetCardData:
    """The card's YAML: what the Hub needs to find, license and open the dataset.

    It never has ``dataset_info``: the Hub believes that before the files themselves, and a stale one keeps a dataset from loading.
    """
    size = next((name for limit, name in _SIZES if manifest["rows"] < limit), "n>1M")
    return DatasetCardData(
        **license_metadata(licenses),
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
        card = write_card(dir, repo)
    say(f"wrote {card}")
    tell({"card": card})


if __name__ == "__main__":
    tyro.cli(main, prog=program())
