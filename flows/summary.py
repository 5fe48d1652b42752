"""A build told in a few lines: rows by stage, what was dropped and why, and what was labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.building.cost import cost_rows
from pipelines.building.estimate import Estimate
from pipelines.building.steps.payment import ENDPOINT_FAILED, FAILURES
from pipelines.dataset import store
from pipelines.dataset.schema import STAGES, Reject
from rewardlib.console import console, say, table
from rewardlib.judge import FINAL

LANGUAGE_MODELS = ["model", "requests", "prompt tokens", "completion tokens", "cost"]  # the columns of cost_rows

_LONGEST = 500  # characters of a reject; endpoints can be talkative


def funnel_rows(manifest: dict[str, Any]) -> list[list[str]]:
    """Rows left after each stage."""
    counts = manifest["counts"]
    return [["read", str(counts["rows_in"])], *([f"after {stage}", str(counts.get(f"after_{stage}", 0))] for stage in STAGES)]


def print_summary(manifest: dict[str, Any], out: Path, seconds: float) -> None:
    counts = manifest["counts"]
    console.print()
    console.print(table("Rows", ["stage", "rows"], funnel_rows(manifest)))
    if manifest["rejects"]:
        rejects = [[r["stage"], r["reason"], str(r["rows"])] for r in manifest["rejects"]]
        console.print(table("\nDropped", ["stage", "reason", "rows"], rejects))
    labels = [[_sentence(name), str(counts[name])] for name in counts if not name.startswith(("rows_in", "after_"))]
    console.print(table("\nLabels", ["", "count"], labels))
    if manifest["cost"]["models"]:
        console.print(table("\nLanguage models", LANGUAGE_MODELS, cost_rows(manifest["cost"])))
    models = manifest["models"]
    locators = ", ".join(f"{kind} {locator['name']}" for kind, locator in models["locators"].items())
    say(f"\njudge {models['annotator']['name']}, locators: {locators}, segmenter {models['segmenter']['name']}")
    _warn_of_foreign_rows(manifest)
    _print_failures(manifest, out)
    say(f"{manifest['rows']} rows in {out}/data, {manifest['rejected']} in {out}/rejects.parquet, {seconds:.0f} s")
    say(f"look at it: {out}/gallery.html")


def _warn_of_foreign_rows(manifest: dict[str, Any]) -> None:
    """Said aloud: the embedded models know one small world, and labels of another would be wrong."""
    counts = manifest["counts"]
    foreign = [
        f"{counts[name]} {what}"
        for name, what in (("rows_out_of_domain", "images"), ("phrases_out_of_domain", "phrases"))
        if counts.get(name)
    ]
    if foreign:
        console.print(f"[bold yellow]OUT OF DOMAIN: {' and '.join(foreign)} are none that the embedded detector was taught[/bold yellow]")
        say("it knows the shapes world only and did not look for them; for photographs and diagrams name real checkpoints:")
        say("  --detector.name IDEA-Research/grounding-dino-base --segmenter.name facebook/sam-vit-huge")


def _print_failures(manifest: dict[str, Any], out: Path) -> None:
    """What no reader of the tables may miss: endpoints that failed, in their own words, and a dataset without rows."""
    failed = {name.split(": ", 1)[1] for name in manifest["counts"] if name.startswith(FAILURES)}
    rejects = store.read_rejects(out) if failed or not manifest["rows"] else []
    if failed and manifest["rows"]:
        say(f"an endpoint failed on some rows: {_first([r for r in rejects if r.reason in ENDPOINT_FAILED])}")
    if failed - FINAL:
        say("the same command asks again for those that may have better luck")
    if not manifest["rows"]:
        console.print(f"[bold red]NO ROWS: all {manifest['rejected']} were dropped[/bold red], the first because:")
        say(_first(rejects))


def _first(rejects: Sequence[Reject]) -> str:
    """The first of some rejects, in a line without anything that a terminal would obey."""
    if not rejects:
        return "see the counts above"
    text = f"{rejects[0].id}: {rejects[0].reason}: {rejects[0].detail}"
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST]


def print_estimate(found: Estimate) -> None:
    say(f"{found.rows:,} rows; the first {found.sampled:,} were read")
    for reason, rows in sorted(found.rejects.items()):
        say(f"  {rows:,} of them would be dropped: {reason}")
    if found.images:
        say(f"the answerer would look at about {found.images:,} images: {found.regions:,} regions, erased and controlled in every draw")
    if not found.account["models"]:
        say("no language model would be asked: --annotator.model and --collector.model name some")
        return
    console.print(table("\nLanguage models, an estimate", LANGUAGE_MODELS, cost_rows(found.account)))
    if found.paid:
        say(f"{found.paid:,} of the sample's requests have been answered and paid for already")
    say("nothing was asked or written; without --dry-run the build begins, and --max-cost sets it a limit in dollars")


def _sentence(name: str) -> str:
    return name.replace("_", " ")
