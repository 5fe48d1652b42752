"""The build: plan shards, label each, write the manifest. No Prefect here; ``flows.build_dataset`` runs the same three functions as tasks.

from pipelines.build import build
from pipelines.config import BuildConfig

manifest = build(BuildConfig(source="rows.jsonl", out="dataset", license="cc-by-4.0"))
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from pipelines.building.code import code_version
from pipelines.building.cost import cost
from pipelines.building.ingest import Shard, image_folders, plan, record_digest, source_of
from pipelines.building.label import Progress, label
from pipelines.building.models import Models, load_models
from pipelines.building.steps.payment import FAILURES, carry_over
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.schema import SCHEMA_VERSION, STAGES, Ledger
from pipelines.rows.base import Source
from rewardlib.judge import FINAL, BudgetSpent


def build(config: BuildConfig, progress: Progress = lambda stage, rows: None) -> dict[str, Any]:
    """Build, or resume building, a dataset in threads of this process. Returns its manifest."""
    if config.runner != "threads":
        raise ValueError(f"runner {config.runner!r} needs Prefect: call flows.build_dataset.build_dataset, or leave runner at 'threads'")
    source = source_of(config)
    shards = plan(source, config)
    with store.exclusive(config.out):
        models = load_models(config)

        def attempt(shard: Shard) -> store.ShardRecord | Exception:
            try:
                return build_shard(shard, source, config, models, progress)
            except BudgetSpent:
                raise
            except Exception as error:  # the other shards are still made; then this one's error is raised
                return error

        if config.workers == 1:  # torch is a quarter faster in the thread that it has warmed up in
            outcomes = list(map(attempt, shards))
        else:
            with ThreadPoolExecutor(config.workers) as pool:
                outcomes = list(pool.map(attempt, shards))
        records = store.or_raise(outcomes)
        return finish(config, records, about(config, models))


def build_shard(
    shard: Shard, source: Source, config: BuildConfig, models: Models, progress: Progress = lambda stage, rows: None
) -> store.ShardRecord:
    """Label one shard, or return its record if it is done already."""
    key = shard_key(shard, source, config, models)
    if (record := store.finished(config.out, shard.name, key)) is not None and not _is_unanswered(record):
        for stage in STAGES:
            progress(stage, len(shard.indices))
        return record
    ledger = Ledger()
    if (earlier := store.recorded(config.out, shard.name, key)) is not None:
        carry_over(earlier.counts, ledger)
    rows = label(shard, source, config, models, ledger, progress)
    return store.write_shard(config.out, shard.name, key, rows, ledger)


def _is_unanswered(record: store.ShardRecord) -> bool:
    """Whether a shard lacks labels for a reason that can be put right: asked again, the endpoint may answer.

    The replies that came are remembered, so that asking again costs the failures only."""
    failures = [name.split(": ")[1] for name in record.counts if name.startswith(FAILURES)]
    return any(reason not in FINAL for reason in failures)


def shard_key(shard: Shard, source: Source, config: BuildConfig, models: Models) -> str:
    """Hash of everything that a shard's contents depend on."""
    digest = hashlib.sha256(repr([SCHEMA_VERSION, source.name, sorted(models.provenance(config).items())]).encode())
    folders = image_folders(config)
    for index in shard.indices:
        digest.update(record_digest(source, index, config, folders))
        digest.update(repr((index, shard.duplicates.get(index))).encode())
    return digest.hexdigest()


def about(config: BuildConfig, models: Models) -> dict[str, Any]:
    """The manifest's fixed part: how to make this dataset again."""
    packages = ("torch", "transformers", "datasets", "polars", "pyarrow", "pillow", "opencv-python-headless", "pycocotools", "math-verify")
    return {
        "schema_version": SCHEMA_VERSION,
        "config": config.decisive(),
        "config_sha256": config.sha256(),
        "code_version": code_version(),
        "models": models.infos(),
        "packages": {name: version(name) for name in packages},
    }


def finish(config: BuildConfig, records: list[store.ShardRecord], about: dict[str, Any]) -> dict[str, Any]:
    """Write what a dataset has besides its shards; returns the manifest."""
    return store.finish(config.out, records, about | {"cost": cost(config, store.sum_counts(records))})
