"""Build a labelled dataset: image questions with traces in, located evidence out.

    python -m flows.build_dataset --source rows.jsonl --out dataset --license cc-by-4.0          # here and now, no server
    prefect deployment run build-dataset/local --watch -p source=/data/rows.jsonl -p out=/data/dataset  # on a worker
    build_dataset(source="rows.jsonl", out="dataset")                                            # as a Prefect flow from Python
    python -m flows.build_dataset --source rows.jsonl --out dataset --runner ray --workers 8     # by Ray: docs/clusters.md

All take the same settings (``pipelines.config``); ``--config FILE.yaml`` reads them from a file, flags come on top. A build that was
interrupted, however rudely, goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import tyro
import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.settings import temporary_settings
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows import runners
from flows.shards import Home, describe_models, label_all, opened
from flows.summary import funnel_rows, print_estimate, print_summary
from pipelines.build import build, finish
from pipelines.building.estimate import estimate
from pipelines.building.ingest import Shard, plan, source_of
from pipelines.building.models import ModelError
from pipelines.card import write_card
from pipelines.config import BuildConfig, BuildOptions
from pipelines.dataset import store
from pipelines.dataset.schema import STAGES
from pipelines.gallery import write_gallery
from pipelines.rows.sources import SourceError
from rewardlib.console import console, failing_clearly, quiet_libraries, say
from rewardlib.judge import BudgetSpent
from rewardlib.redact import redact


@flow(name="build-dataset", validate_parameters=True)
def build_dataset(source: str, out: str, options: BuildOptions = BuildOptions()) -> str:
    """Label every row of a source and write a dataset folder; finished shards are reused.

    Args:
        source: A JSONL, Parquet or COCO file, a folder saved by `datasets`, or a Hub dataset id.
        out: The dataset's folder.
        options: Models, thresholds and everything else; defaults are the embedded models.
    """
    config = BuildConfig(**{**options.model_dump(), "source": source, "out": Path(out)})
    log = get_run_logger()
    opened.cache_clear()  # the file may have changed since an earlier run in this process
    source_rows = opened(config.model_dump_json())
    shards = plan(source_rows, config)
    log.info("%d rows in %d shards", len(source_rows), len(shards))
    with store.exclusive(config.out):
        with runners.running(config) as workers:
            records = _label_all(workers, shards, config)
            fixed = workers.submit(describe_models, {"config": config, "home": Home.here()}).result()
        manifest = finish(config, records, fixed)
    write_gallery(config.out)
    write_card(config.out)
    create_table_artifact([dict(zip(("stage", "rows"), row, strict=True)) for row in funnel_rows(manifest)], key="build-dataset-rows")
    create_markdown_artifact(_rejects_markdown(manifest), key="build-dataset-rejects")
    return str(config.out)


def _label_all(workers: runners.Workers, shards: Sequence[Shard], config: BuildConfig) -> list[store.ShardRecord]:
    """The records of all shards, in their order. If one fails the others are still made, then its error is raised."""
    progress = cast(UUID, create_progress_artifact(0.0, key="build-dataset-progress", description="Shards done"))
    outcomes: dict[str, store.ShardRecord | BaseException] = {}
    for shard, outcome in label_all(workers, shards, config):
        outcomes[shard.name] = outcome
        update_progress_artifact(progress, 100 * len(outcomes) / len(shards))
    return store.or_raise([outcomes[shard.name] for shard in shards])


def _rejects_markdown(manifest: dict[str, Any]) -> str:
    lines = [f"| {r['stage']} | {r['reason']} | {r['rows']} |" for r in manifest["rejects"]]
    return "\n".join(["| stage | reason | rows |", "|---|---|---|", *lines]) if lines else "No row was dropped."


def build_here(config: BuildConfig) -> dict[str, Any]:
    """Build without a server, with a progress bar. Returns the manifest."""
    total = config.limit or len(source_of(config))
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bars = {stage: bar.add_task(stage, total=total) for stage in STAGES}
        manifest = build(config, progress=lambda stage, rows: bar.advance(bars[stage], rows))
    write_gallery(config.out)
    write_card(config.out)
    return manifest


EXPECTED = (SourceError, ModelError, store.StoreError, runners.RunnerError, runners.ShardLost, BudgetSpent, ValidationError, OSError)


class Command(BuildConfig):
    """A build as the command line has it."""

    dry_run: bool = False
    """Say what the language models would be asked and what that would cost, and stop."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line; returns the manifest, of a dry run an empty one."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    quiet_libraries()
    with failing_clearly(*EXPECTED):
        command = parse(arguments)
        config = BuildConfig(**command.model_dump(exclude={"dry_run"}))
        if command.dry_run:
            print_estimate(estimate(config))
            return {}
        runners.check(config)
        started = time.monotonic()
        api = os.environ.get("PREFECT_API_URL")
        if api:
            runners.require_server(api)
        if api or config.runner == "ray":
            say(f"tracked by the Prefect server at {redact(api)}" if api else "tracked by a Prefect server of its own, as Ray needs one")
            with temporary_settings(runners.OWN_SERVER):
                build_dataset(source=config.source, out=str(config.out), options=BuildOptions(**_options(config)))
            manifest = store.read_manifest(config.out)
        else:
            manifest = build_here(config)
    print_summary(manifest, config.out, time.monotonic() - started)
    return manifest


def exit_status(manifest: dict[str, Any]) -> int:
    """1 for a build that kept no row, so that no script takes it for one that worked; 0 for others, and for a dry run."""
    return 1 if manifest and not manifest["rows"] else 0


def _options(config: BuildConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"source", "out"})


def parse(arguments: Sequence[str]) -> Command:
    """Flags over the YAML file of ``--config`` over the defaults."""
    arguments = list(arguments)
    given: dict[str, Any] = {}
    if "--config" in arguments:
        at = arguments.index("--config")
        file = Path(arguments[at + 1]) if at + 1 < len(arguments) else Path("--config")
        given = yaml.safe_load(file.read_text()) or {}
        del arguments[at : at + 2]
        if not isinstance(given, dict):
            raise SourceError(f"{file} holds a {type(given).__name__}, expected settings such as `shard_size: 128`")
    options = BuildOptions.model_validate({k: v for k, v in given.items() if k not in ("source", "out")})
    places = {"source": given.get("source", tyro.MISSING), "out": Path(given["out"]) if "out" in given else tyro.MISSING}
    default = Command.model_construct(**dict(options), **places)
    return tyro.cli(Command, args=arguments, default=default, prog="python -m flows.build_dataset", description=__doc__)


if __name__ == "__main__":
    sys.exit(exit_status(main()))
