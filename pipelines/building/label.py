"""The whole way of a row, top to bottom: from a source's record to a row with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.building.ingest import Shard, ingest
from pipelines.building.models import Models
from pipelines.building.steps import Annotate, Check, Collect, DrawMasks, Ground, Intervene, Select, Step, Weigh
from pipelines.config import BuildConfig
from pipelines.dataset.schema import Ledger
from pipelines.rows.base import Source

Progress = Callable[[str, int], None]  # called with a stage and the number of rows that have passed it


def steps_of(config: BuildConfig, models: Models) -> tuple[Step, ...]:
    """What is done to the rows of a shard, in order."""
    needs_region, needs_image = config.require != "annotations", config.require == "counterfactuals"
    return (
        Collect(models.collector),
        Check(),
        Annotate(models.annotator, asks_question=needs_region),
        Select(),
        Ground(models.locators, required=needs_region, verifier=models.verifier),
        DrawMasks(models.segmenter, models.segmenter_domain),
        Weigh(models.answerer, config.answerer_draws),
        Intervene(config.counterfactual, models.locators, required=needs_image, at_once=16 * config.detector.batch_size),
    )


def label(
    shard: Shard, source: Source, config: BuildConfig, models: Models, ledger: Ledger, progress: Progress = lambda stage, rows: None
) -> list[dict[str, Any]]:
    """The labelled rows of a shard."""
    items = ingest(shard, source, config, ledger)
    ledger.counts["after_ingest"] += len(items)
    progress("ingest", len(shard.indices))
    for step in steps_of(config, models):
        items = step.run(items, ledger)
        progress(step.stage, len(shard.indices))
    provenance = models.provenance(config)
    return [{**item.row, "provenance": provenance} for item in items]
