"""What a build as a flow does, and what the command does around it. Loads the models' libraries, which ``--help`` does without."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.runtime import deployment
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows import runners
from flows.paths import refuse_relative
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
from pipelines.rows.base import SourceError
from rewardlib.console import console, failing_clearly, say, tell
from rewardlib.judge import BudgetSpent
from rewardlib.redact import redact

EXPECTED = (SourceError, ModelError, store.StoreError, runners.RunnerError, runners.ShardLost, BudgetSpent, OSError)


def as_flow(config: BuildConfig) -> str:
    """The body of the flow: shards as tasks, progress and results as artifacts."""
    if deployment.id:
        refuse_relative(source=config.source, out=str(config.out))
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


def run(config: BuildConfig, dry_run: bool) -> dict[str, Any]:
    """Build with a server where there is one, else here and now; returns the manifest, of a dry run an empty one."""
    with failing_clearly(*EXPECTED):
        if dry_run:
            estimated = estimate(config)
            print_estimate(estimated)
            tell(asdict(estimated))
            return {}
        runners.check(config)
        started = time.monotonic()
        api = os.environ.get("PREFECT_API_URL")
        if api:
            runners.require_server(api)
        if api or config.runner == "ray":
            from flows.build_dataset import build_dataset

            say(f"tracked by the Prefect server at {redact(api)}" if api else "tracked by a Prefect server of its own, as Ray needs one")
            options = BuildOptions(**config.model_dump(exclude={"source", "out"}))
            build_dataset(source=config.source, out=str(config.out), options=options)
            manifest = store.read_manifest(config.out)
        else:
            manifest = build_here(config)
    print_summary(manifest, config.out, time.monotonic() - started)
    counted = {name: manifest[name] for name in ("rows", "rejected", "rejects", "counts", "cost")}
    tell({"out": config.out, **counted})
    return manifest
