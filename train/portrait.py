"""The same rows before and after a run: what the policy answers, and where it looks meanwhile.

Rows differ from step to step, so that early and late completions cannot be compared one by one. A
few rows that are asked twice, greedily, can. They are measured beside the training: no random state
is drawn from, no row is left out, no gradient is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from rewardlib import Accuracy
from rewardlib.rows import RowError
from train.data import DataError, Row, Rows
from train.engines.local import greedy
from train.look import seen
from train.policy import Policy, Prompt
from train.record import png
from train.sampling import encode_row
from train.settings import Settings

Asked = tuple[Row, Prompt]
SHOWN = 3  # rows
LOOKED_AT = 50  # rows among which they are looked for, since each has its image opened


def first_rows(policy: Policy, rows: Rows, settings: Settings) -> list[int]:
    """The numbers of the first rows that have an image and labelled regions, and can be asked."""
    numbers = range(min(len(rows), LOOKED_AT))
    usable = (n for n in numbers if _asked(policy, rows, n, settings) is not None)
    return list(islice(usable, SHOWN))


def portrait(
    policy: Policy, rows: Rows, numbers: Sequence[int], settings: Settings
) -> list[dict[str, Any]]:
    """The policy's greedy response to each of these rows and what it looked at, one dict a row. A
    row that cannot be asked is passed over.

    ``attention`` is a grid as ``image_maps`` makes it, and ``share`` the part of it that falls on
    the labelled region, both in [0, 1]; None where nothing falls on the image. ``area`` is the
    region's part of the image. ``correct`` is None where the row has no gold answer.
    """
    found = {n: _asked(policy, rows, n, settings) for n in numbers}
    asked = {n: pair for n, pair in found.items() if pair is not None}
    if not asked:
        return []
    answers = greedy(policy, [prompt for _, prompt in asked.values()], settings.max_tokens)
    return [
        {"number": n, **_told(policy, pair, tokens, settings)}
        for (n, pair), tokens in zip(asked.items(), answers, strict=True)
    ]


def _asked(policy: Policy, rows: Rows, number: int, settings: Settings) -> Asked | None:
    """A row with its prompt; None where there is nothing to look at, or the row cannot be used. To
    leave it out (``Rows.use``) is the training's business: it may never draw this row.
    """
    if number in rows.left_out:
        return None
    try:
        row: Row = rows[number]
        return (row, encode_row(policy, row, settings)) if row.region is not None else None
    except (DataError, RowError):
        return None


def _told(policy: Policy, asked: Asked, tokens: Tensor, settings: Settings) -> dict[str, Any]:
    """What is kept of one response, (n,) token ids."""
    row, prompt = asked
    found = seen(policy, row, prompt, tokens, settings.layers)
    return {
        "id": row.id,
        "question": row.question,
        "answer": row.sample.answer,
        "response": found.response,
        "correct": Accuracy()([found.sample])[0],
        "share": found.share,
        "area": found.area,
        "image": png(row.images[0]),
        "boxes": [list(box) for box in row.boxes],
        "attention": found.attention.tolist(),
    }
