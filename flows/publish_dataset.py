"""Publish a finished dataset to the Hugging Face Hub, privately unless told otherwise.

    hf auth login                                                               # once; or set HF_TOKEN
    python -m flows.publish_dataset dataset --repo me/shapes --dry-run          # what would go up, and where
    python -m flows.publish_dataset dataset --repo me/shapes                    # here and now, no server
    prefect deployment run publish-dataset/local --watch -p out=/data/dataset -p repo=me/shapes  # on a worker
    publish_dataset(out="dataset", repo="me/shapes")                            # as a Prefect flow from Python

The shards, rejects.parquet, manifest.json, gallery.html and the card go up; nothing else does. Refused are datasets that break a promise,
rows without a licence, and files that hold a password, key or token of this environment. A publish that was interrupted goes on when the
same command is given again, and publishing the same dataset twice commits nothing. See docs/publishing.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_table_artifact
from rich.filesize import decimal

from pipelines.dataset.hub import HubError
from pipelines.dataset.publish import Published, PublishError, publish
from pipelines.dataset.store import StoreError
from rewardlib.console import console, failing_clearly, say, table
from rewardlib.redact import redact


@dataclass(frozen=True)
class Arguments:
    """What to publish, and where."""

    dir: tyro.conf.Positional[Path]
    """A folder written by flows.build_dataset."""
    repo: str
    """The dataset repository, USER/NAME or ORGANISATION/NAME; it is made if it does not exist."""
    public: bool = False
    """Make a new repository public, or write to one that is. One that exists keeps the visibility it has."""
    dry_run: bool = False
    """Check everything and list what would go up; write nothing, neither on the Hub nor here."""


@flow(name="publish-dataset", validate_parameters=True)
def publish_dataset(out: str, repo: str, public: bool = False) -> Published:
    """Publish a finished dataset folder; what is on the Hub already is not sent again.

    Args:
        out: The dataset's folder.
        repo: The dataset repository, USER/NAME.
        public: Make a new repository public, or write to one that is; an existing one keeps its visibility.
    """
    published = publish(Path(out), repo, public=public, say=get_run_logger().info)
    create_table_artifact(
        [{"file": f.path, "bytes": f.size, "state": f.state} for f in published.files], key="publish-dataset-files", description=repo
    )
    create_link_artifact(published.url, link_text=repo, key="publish-dataset-repository", description=outcome(published))
    return published


def outcome(published: Published) -> str:
    """What publishing did, in a sentence."""
    if published.commit is None:
        return "nothing has changed since it was last published; no commit was made"
    sent, removed = len(published.having("new", "changed")), len(published.having("removed"))
    return f"{sent} files sent, {removed} removed, {len(published.having('unchanged'))} were there already; commit {published.commit[:12]}"


def main(arguments: Sequence[str] | None = None) -> Published:
    """The command line; returns what lies on the Hub."""
    asked = tyro.cli(
        Arguments, args=arguments, prog="python -m flows.publish_dataset", description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    with failing_clearly(PublishError, HubError, StoreError, OSError):
        if os.environ.get("PREFECT_API_URL") and not asked.dry_run:
            say(f"tracked by the Prefect server at {redact(os.environ['PREFECT_API_URL'])}")
            published = publish_dataset(out=str(asked.dir), repo=asked.repo, public=asked.public)
        else:
            published = publish(asked.dir, asked.repo, public=asked.public, dry_run=asked.dry_run, say=say)
    print_published(published, asked.dry_run)
    return published


def print_published(published: Published, dry_run: bool) -> None:
    rows = [[f.path, f.state, "to be written" if f.size is None else decimal(f.size)] for f in published.files]
    console.print(table("\nWould go up" if dry_run else "\nFiles", ["file", "", "size"], rows))
    visibility = "private" if published.private else "public"
    if dry_run:
        say(f"\nto {published.url}, {visibility}; this was a dry run, nothing was written")
        return
    say(f"\n{outcome(published)}")
    say(f"{published.url} ({visibility})")
    say(f'load_dataset("{published.repo}")')


if __name__ == "__main__":
    main()
