"""The whole way of a row, top to bottom: from a source's record to a row with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines import steps
from pipelines.config import BuildConfig
from pipelines.ingest import Shard, ingest
from pipelines.models import Models
from pipelines.rows.sources import Source
from pipelines.schema import Ledger

Progress = Callable[[str, int], None]  # called with a stage and the number of rows that have passed it


def label(
    shard: Shard, source: Source, config: BuildConfig, models: Models, ledger: Ledger, progress: Progress = lambda stage, rows: None
) -> list[dict[str, Any]]:
    """The labelled rows of a shard: the whole way of a row, top to bottom."""

    def passed(stage: str) -> None:
        ledger.counts[f"after_{stage}"] += len(items)
        progress(stage, len(shard.indices))

    items = ingest(shard, source, config, ledger)
    passed("ingest")
    items = steps.collect(items, models.collector, ledger)
    passed("collect")
    items = steps.check(items, ledger)
    passed("check")
    items = steps.annotate(items, models.annotator, ledger)
    passed("annotate")
    items = steps.ground(items, models.detector, ledger, required=config.require != "annotations")
    passed("ground")
    items = steps.segment(items, models.segmenter, ledger)
    passed("segment")
    required = config.require == "counterfactuals"
    items = steps.make_counterfactuals(items, config.counterfactual, models.detector, ledger, required=required)
    passed("intervene")
    provenance = models.provenance(config)
    return [{**item.row, "provenance": provenance} for item in items]
