"""What paths mean where a flow is run by a worker."""

from __future__ import annotations

import re
from pathlib import Path

_FILE = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet)(\.\w+)?$")


class RelativePath(ValueError):
    """A path that means another place to the worker than to whoever named it."""


def refuse_relative(**paths: str) -> None:
    """``RelativePath`` for the first of these parameters that is a relative path. A Hub id is none, though it looks like one."""
    for name, path in paths.items():
        if is_relative(name, path):
            raise RelativePath(
                f"{name}={path} is a relative path, and would be one of the worker's folder, {Path.cwd()}, not of yours: "
                f"give -p {name}=$PWD/{path}"
            )


def is_relative(name: str, path: str) -> bool:
    """Whether a parameter is a path that starts from wherever somebody stands."""
    is_hub_id = name == "source" and path.count("/") < 2 and not path.startswith(".") and not _FILE.search(path)
    return not Path(path).is_absolute() and not is_hub_id
