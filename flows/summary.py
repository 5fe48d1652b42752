"""A build told in a few lines: rows by stage, what was dropped and why, and what was labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.config import AnnotatorConfig
from pipelines.console import console, say, table
from pipelines.schema import STAGES


def funnel_rows(manifest: dict[str, Any]) -> list[list[str]]:
    """Rows left after each stage."""
    counts = manifest["counts"]
    return [["read", str(counts["rows_in"])], *([f"after {stage}", str(counts.get(f"after_{stage}", 0))] for stage in STAGES)]


def judge_cost(manifest: dict[str, Any], annotator: AnnotatorConfig) -> float | None:
    """Dollars that the annotations took, whenever they were paid; None where prices are unknown."""
    if annotator.price_in is None or annotator.price_out is None:
        return None
    counts = manifest["counts"]
    return (counts["judge_prompt_tokens"] * annotator.price_in + counts["judge_completion_tokens"] * annotator.price_out) / 1e6


def print_summary(manifest: dict[str, Any], out: Path, seconds: float, annotator: AnnotatorConfig = AnnotatorConfig()) -> None:
    counts = manifest["counts"]
    console.print()
    console.print(table("Rows", ["stage", "rows"], funnel_rows(manifest)))
    if manifest["rejects"]:
        rejects = [[r["stage"], r["reason"], str(r["rows"])] for r in manifest["rejects"]]
        console.print(table("\nDropped", ["stage", "reason", "rows"], rejects))
    labels = [[_sentence(name), str(counts[name])] for name in counts if not name.startswith(("rows_in", "after_"))]
    console.print(table("\nLabels", ["", "count"], labels))
    models = manifest["models"]
    say(f"\njudge {models['annotator']['judge']}, detector {models['detector']['detector']}, segmenter {models['segmenter']['segmenter']}")
    if (cost := judge_cost(manifest, annotator)) is not None:
        say(f"the judge's tokens cost ${cost:.4f}")
    say(f"{manifest['rows']} rows in {out}/data, {manifest['rejected']} in {out}/rejects.parquet, {seconds:.0f} s")
    say(f"look at it: {out}/gallery.html")


def _sentence(name: str) -> str:
    return name.replace("_", " ")
