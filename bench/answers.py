"""Datasets whose golds cannot be relied on, as those of the web cannot: what a reward for right answers is told then is partly wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any, Literal

import polars

from demo.scenes import COLORS

Answers = Literal["right", "unreliable"]
WRONG = 1 / 3  # the share of golds that are wrong where they are unreliable


def spoil(dataset: Path, out: Path, seed: int = 0) -> Path:
    """A copy of a dataset's rows of which ``WRONG`` have a wrong gold; an earlier copy is used again.

    Wrong golds are those that somebody who did not look closely would give: the row's other choice, or, where there are no choices, the
    answer with one colour mistaken for that of something else that the traces mention. Rows that mention nothing else stay right.
    """
    if not (out / "data").exists():
        table = polars.concat([polars.read_parquet(part) for part in sorted((dataset / "data").glob("*.parquet"))])
        rng = random.Random(seed)
        slips = [_slips(row) for row in table.select("answer", "choices", "annotations").to_dicts()]
        able = [n for n, wrong in enumerate(slips) if wrong]
        chosen = set(rng.sample(able, min(len(able), round(WRONG * len(table)))))
        golds = [rng.choice(slips[n]) if n in chosen else right for n, right in enumerate(table["answer"])]
        aside = out.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "data").mkdir(parents=True)
        table.with_columns(polars.Series("answer", golds)).write_parquet(aside / "data" / "train-00000.parquet")
        aside.replace(out)
    return out


def _slips(row: dict[str, Any]) -> list[str]:
    """The wrong answers that a row may be given."""
    if row["choices"]:
        return [choice for choice in row["choices"] if choice != row["answer"]]
    colors = row["answer"].split(" and ")
    mentioned = {fact["phrase"].split()[0] for fact in row["annotations"] if fact["role"] == "context" and fact["phrase"]}
    others = sorted(mentioned & set(COLORS) - set(colors))
    return [" and ".join([*colors[:n], other, *colors[n + 1 :]]) for n in range(len(colors)) for other in others]
