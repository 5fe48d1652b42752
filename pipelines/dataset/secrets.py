"""No secret goes up: what is about to be published is searched for the passwords, keys and tokens that this process knows.

Traces and errors are written by programs that saw an environment full of keys; a key in a public dataset is a key lost. Looked for are the
values of environment variables whose names look secret, and the Hub token in use. A value is never shown, only the variable's name.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import get_token

from rewardlib.redact import SHORTEST, named_secrets

Secrets = dict[str, str]  # value -> the name of what holds it


def known_secrets() -> Secrets:
    """Every secret that this process could have leaked, by value."""
    token = get_token() or ""
    return ({token: "the Hub token in use"} if len(token) >= SHORTEST else {}) | named_secrets()


def find_secrets(path: Path, secrets: Secrets) -> Iterator[tuple[str, str]]:
    """Where a file holds a secret, and the name of its holder: in Parquet the row, elsewhere the line."""
    forms = {form.encode(): name for value, name in secrets.items() for form in (value, html.escape(value), json.dumps(value)[1:-1])}
    for place, values in _places(path):
        held = {name for value in values for form, name in forms.items() if form in value}
        yield from ((place, name) for name in sorted(held))


def _places(path: Path) -> Iterator[tuple[str, Iterable[bytes]]]:
    if path.suffix != ".parquet":
        with path.open("rb") as lines:
            yield from ((f"line {n}", [line]) for n, line in enumerate(lines, start=1))
        return
    file, n = pq.ParquetFile(path), 0
    for group in range(file.num_row_groups):
        for row in file.read_row_group(group).to_pylist():
            yield f"row {n} (id {row.get('id')!r})", list(_leaves(row))
            n += 1


def _leaves(value: Any) -> Iterator[bytes]:
    """Every text and every run of bytes in a nested value."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from (leaf for part in value.values() for leaf in _leaves(part))
    elif isinstance(value, list):
        yield from (leaf for part in value for leaf in _leaves(part))
