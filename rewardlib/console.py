"""What every command prints with: tables, and errors that read like sentences."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from rewardlib.ink import printable
from rewardlib.redact import redact

console = Console(highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table; the last column is right-aligned."""
    view = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        view.add_column(column, justify="right" if i == len(columns) - 1 else "left", overflow="fold")
    for row in rows:
        view.add_row(*row)
    return view


def say(text: str) -> None:
    """A line as it is: not wrapped, so that paths can be copied, and without markup."""
    console.print(printable(text), markup=False, soft_wrap=True)


def only_results() -> None:
    """From here on nothing is printed but results and errors: ``--json`` of the command ``sightline``."""
    console.quiet = True


def tell(values: Mapping[str, Any], *, always: bool = False) -> None:
    """What a command has done, as a line of JSON: where it was asked for, or ``always``, behind what was printed for people."""
    if always or console.quiet:
        print(json.dumps(values, default=str))


def quiet_libraries() -> None:
    """Keep the commands' output to what a user asked for: no bars for loading small weights, no reminder that a timeout is off."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("math_verify").setLevel(logging.ERROR)


@contextmanager
def failing_clearly(*expected: type[Exception]) -> Iterator[None]:
    """Errors of the kinds that have a remedy end the program with their message; any other keeps its traceback."""
    try:
        yield
    except expected as error:
        Console(stderr=True, highlight=False).print(f"error: {redact(str(error))}", markup=False, style="red")
        sys.exit(2)
