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

from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.runtime import deployment

from flows.own_server import flow
from flows.paths import refuse_relative
from flows.publish_command import main as main
from flows.publish_command import outcome
from pipelines.dataset.publish import Published, publish


@flow("publish-dataset")
def publish_dataset(out: str, repo: str, public: bool = False) -> Published:
    """Publish a finished dataset folder; what is on the Hub already is not sent again.

    Args:
        out: The dataset's folder.
        repo: The dataset repository, USER/NAME.
        public: Make a new repository public, or write to one that is; an existing one keeps its visibility.
    """
    if deployment.id:
        refuse_relative(out=out)
    published = publish(Path(out), repo, public=public, say=get_run_logger().info)
    create_table_artifact(
        [{"file": f.path, "bytes": f.size, "state": f.state} for f in published.files], key="publish-dataset-files", description=repo
    )
    create_link_artifact(published.url, link_text=repo, key="publish-dataset-repository", description=outcome(published))
    return published


if __name__ == "__main__":
    main()
