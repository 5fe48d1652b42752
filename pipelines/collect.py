"""Ask a vision model for chain-of-thought traces of image questions, keep the rows that have one with the right answer.

    sightline collect --source rows.jsonl --out traced --license cc-by-4.0 \\
        --collector.model Qwen/Qwen2.5-VL-7B-Instruct --collector.base-url http://localhost:8000/v1
    sightline build --source traced --out dataset

What ``--collector.model`` does inside a build, by itself: to look at the traces before anything is labelled, or to use them elsewhere.
Rows that have a trace with the right answer are not asked about. Every answer is checked against the row's gold. Writes
``data/*.parquet``, which every command here reads as rows, and ``left_out.jsonl``, with the reason and the remedy of every row that is not
there. Replies are remembered: the same command again asks only for what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tyro
from pydantic import Field, ValidationError

from pipelines.config import SPLIT_NAME, BuildConfig, CollectorConfig, Strict
from pipelines.dataset.schema import COLUMNS
from rewardlib.console import console, failing_clearly, say, table, tell
from rewardlib.program import program

_LATER = ("image_sha256", "annotations", "counterfactuals", "provenance")  # what a build adds
_WRITTEN = tuple(name for name in COLUMNS if name not in _LATER)
_COUNTS = ("rows in", "rows asked about", "traces collected", "rows with a right trace", "rows left out")


class CollectSettings(Strict):
    """Which rows, and who is asked; flags have the names that they have in a build."""

    source: str
    """Rows as a build reads them: JSON Lines, CSV, Parquet, a folder, or a Hub dataset id."""
    out: Path
    """The folder of the rows with their traces."""
    collector: CollectorConfig = CollectorConfig()
    license: str | None = None
    """Licence of the source, for rows that do not carry their own."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Where the source names its columns otherwise: question problem."""
    image_root: Path | None = None
    """Folder that relative image paths start from; the source file's own by default."""
    split: str = Field("train", pattern=SPLIT_NAME)
    """Split of rows that do not name one; also the Hub split that is read."""
    limit: int | None = Field(None, ge=1)
    """Use the first rows only."""
    shard_size: int = Field(64, ge=1, le=4096)
    """Rows that are asked about, and written, together."""
    max_cost: float | None = Field(None, gt=0)
    """Dollars that the collector may cost, over all runs into this folder."""


def collect(settings: CollectSettings, progress: Callable[[int], None] = lambda rows: None) -> dict[str, int]:
    """Write the rows that have, or got, a trace with the right answer. Returns how many there were of everything.

    ``SourceError`` for a source that cannot be read, ``BudgetSpent`` at the limit, ``StoreError`` where another process writes the folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.building.ingest import ingest, plan, source_of
    from pipelines.building.models import load_collector
    from pipelines.building.steps import Check, Collect
    from pipelines.building.steps.collect import wants_traces
    from pipelines.dataset import store
    from pipelines.dataset.features import FEATURES
    from pipelines.dataset.schema import Ledger

    config = BuildConfig(**settings.model_dump())
    source = source_of(config)
    total, asked, written = Ledger(), 0, set()
    schema = pa.schema([FEATURES.arrow_schema.field(name) for name in _WRITTEN])
    with store.exclusive(config.out):
        collector = load_collector(config.collector, config.out / ".work" / "replies.sqlite", config.max_cost)
        for shard in plan(source, config):
            ledger = Ledger()
            items = ingest(shard, source, config, ledger)
            asked += sum(map(wants_traces, items))
            items = Check().run(Collect(collector).run(items, ledger), ledger)
            rows = [{name: item.row[name] for name in _WRITTEN} for item in items]
            if rows:
                table_of_rows, path = pa.Table.from_pylist(rows, schema=schema), store.data_path(config.out, shard.name)
                store.write_aside(path, partial(pq.write_table, table_of_rows))
                written.add(path)
            total.add(ledger)
            progress(len(shard.indices))
        for stale in set((config.out / "data").glob("*.parquet")) - written:  # of rows that have gone since
            stale.unlink()
        left_out = [{"id": r.id, "reason": r.reason, "detail": r.detail} for r in total.rejects]
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in left_out)
        store.write_text(config.out / "left_out.jsonl", lines)
    figures = (total.counts["rows_in"], asked, total.counts["traces_collected"], total.counts["after_check"], len(left_out))
    return dict(zip(_COUNTS, figures, strict=True))


def main() -> None:
    """The command line."""
    with failing_clearly(ValueError, ValidationError, OSError):
        settings = tyro.cli(CollectSettings, prog=program(), description=__doc__)
        if settings.collector.model is None:
            raise ValueError("nobody is named to ask: give --collector.model NAME and --collector.base-url URL")
    from pipelines.building.models import ModelError
    from pipelines.dataset.store import StoreError
    from pipelines.rows.base import SourceError
    from rewardlib.judge import BudgetSpent

    with failing_clearly(SourceError, ModelError, StoreError, BudgetSpent, ValueError, OSError), console.status("asking") as status:
        done = 0

        def progress(rows: int) -> None:
            nonlocal done
            done += rows
            status.update(f"asking: {done} rows done")

        figures = collect(settings, progress)
    console.print(table(str(settings.out), ["", "rows"], [[name, str(count)] for name, count in figures.items()]))
    if figures["rows left out"]:
        say(f"why rows were left out: {settings.out / 'left_out.jsonl'}")
    say(f"next: sightline build --source {settings.out} --out DATASET")
    tell({name.replace(" ", "_"): count for name, count in figures.items()} | {"out": settings.out})


if __name__ == "__main__":
    main()
