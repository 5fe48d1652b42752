"""Build a labelled dataset: image questions with traces in, located evidence out.

    python -m flows.build_dataset --source rows.jsonl --out dataset --license cc-by-4.0          # here and now, no server
    prefect deployment run build-dataset/local --watch -p source=/data/rows.jsonl -p out=/data/dataset  # on a worker
    build_dataset(source="rows.jsonl", out="dataset")                                            # as a Prefect flow from Python
    python -m flows.build_dataset --source rows.jsonl --out dataset --runner ray --workers 8     # by Ray: docs/clusters.md

All take the same settings (``pipelines.config``); ``--config FILE.yaml`` reads them from a file, flags come on top. A build that was
interrupted, however rudely, goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flows.build_command import exit_status
from flows.build_command import main as main
from flows.own_server import flow
from pipelines.config import BuildConfig, BuildOptions


@flow("build-dataset")
def build_dataset(source: str, out: str, options: BuildOptions = BuildOptions()) -> str:
    """Label every row of a source and write a dataset folder; finished shards are reused.

    Args:
        source: A JSONL, Parquet or COCO file, a folder saved by `datasets`, or a Hub dataset id.
        out: The dataset's folder.
        options: Models, thresholds and everything else; defaults are the embedded models.
    """
    from flows.building import as_flow  # loads the models' libraries, which --help does without

    return as_flow(BuildConfig(**{**options.model_dump(), "source": source, "out": Path(out)}))


if __name__ == "__main__":
    sys.exit(exit_status(main()))
