"""Datasets whose golds cannot be relied on, as those of the web cannot: what a reward for right answers is told then is partly wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Literal

import polars

Answers = Literal["right", "unreliable"]
WRONG = 1 / 3  # the share of golds that are wrong where they are unreliable


def spoil(dataset: Path, out: Path, seed: int = 0) -> Path:
    """A copy of a dataset's rows of which ``WRONG`` have a wrong gold; an earlier copy is used again.

    Wrong golds are the row's other choice, or, where there are no choices, another row's gold.
    """
    if not (out / "data").exists():
        table = polars.concat([polars.read_parquet(part) for part in sorted((dataset / "data").glob("*.parquet"))])
        rng = random.Random(seed)
        chosen = set(rng.sample(range(len(table)), round(WRONG * len(table))))
        rows = table.select("answer", "choices").to_dicts()
        known = sorted({row["answer"] for row in rows})
        golds = [
            rng.choice([other for other in row["choices"] or known if other != row["answer"]]) if n in chosen else row["answer"]
            for n, row in enumerate(rows)
        ]
        aside = out.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "data").mkdir(parents=True)
        table.with_columns(polars.Series("answer", golds)).write_parquet(aside / "data" / "train-00000.parquet")
        aside.replace(out)
    return out
