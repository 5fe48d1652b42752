"""The command that publishes a dataset: ``sightline publish``, or ``python -m flows.publish_dataset``.

    hf auth login                                                # once; or set HF_TOKEN
    sightline publish dataset --repo me/shapes --dry-run         # what would go up, and where; needs no token
    sightline publish dataset --repo me/shapes

Privately unless told otherwise. The shards, rejects.parquet, manifest.json, gallery.html and the card go up; nothing else does. Refused are
datasets that break a promise, rows without a licence, and files that hold a password, key or token of this environment. A publish that
was interrupted goes on when the same command is given again, and publishing the same dataset twice commits nothing. See
docs/publishing.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from rewardlib.console import console, failing_clearly, say, table, tell
from rewardlib.program import program

if TYPE_CHECKING:
    from pipelines.dataset.publish import Published


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


def main(arguments: Sequence[str] | None = None) -> Published:
    """The command line; returns what lies on the Hub."""
    asked = tyro.cli(Arguments, args=arguments, prog=program(), description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    from flows.publish_dataset import publish_dataset  # loads what --help does without
    from pipelines.dataset.hub import HubError
    from pipelines.dataset.publish import PublishError, publish
    from pipelines.dataset.store import StoreError
    from rewardlib.redact import redact

    with failing_clearly(PublishError, HubError, StoreError, OSError):
        if os.environ.get("PREFECT_API_URL") and not asked.dry_run:
            say(f"tracked by the Prefect server at {redact(os.environ['PREFECT_API_URL'])}")
            published = publish_dataset(out=str(asked.dir), repo=asked.repo, public=asked.public)
        else:
            published = publish(asked.dir, asked.repo, public=asked.public, dry_run=asked.dry_run, say=say)
    print_published(published, asked.dry_run)
    tell(asdict(published) | {"dry_run": asked.dry_run})
    return published


def print_published(published: Published, dry_run: bool) -> None:
    from rich.filesize import decimal

    rows = [[f.path, f.state, "to be written" if f.size is None else decimal(f.size)] for f in published.files]
    console.print(table("\nWould go up" if dry_run else "\nFiles", ["file", "", "size"], rows))
    visibility = "private" if published.private else "public"
    if dry_run:
        say(f"\nto {published.url}, {visibility}; this was a dry run, nothing was written")
        return
    say(f"\n{outcome(published)}")
    say(f"{published.url} ({visibility})")
    say(f'load_dataset("{published.repo}")')


def outcome(published: Published) -> str:
    """What publishing did, in a sentence."""
    if published.commit is None:
        return "nothing has changed since it was last published; no commit was made"
    sent, removed = len(published.having("new", "changed")), len(published.having("removed"))
    return f"{sent} files sent, {removed} removed, {len(published.having('unchanged'))} were there already; commit {published.commit[:12]}"


if __name__ == "__main__":
    main()
