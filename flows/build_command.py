"""The command that builds a dataset: ``sightline build``, or ``python -m flows.build_dataset``.

    sightline build --source rows.jsonl --out dataset --license cc-by-4.0          # here and now, no server
    sightline build --source rows.jsonl --out dataset --dry-run                    # what the language models would cost
    sightline build --source rows.jsonl --out dataset --runner ray --workers 8     # by Ray: docs/clusters.md
    sightline build --config build.yaml --out dataset

Image questions with traces in, located evidence out. All settings of ``pipelines.config`` are flags; ``--config FILE.yaml`` reads them
from a file, flags come on top. A build that was interrupted, however rudely, goes on where it stopped when the same command is given
again. Where ``PREFECT_API_URL`` names a Prefect server, the build reports to it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
import yaml
from pydantic import ValidationError

from pipelines.config import BuildConfig, BuildOptions
from rewardlib.console import failing_clearly, quiet_libraries
from rewardlib.program import program


class Command(BuildConfig):
    """A build as the command line has it."""

    dry_run: bool = False
    """Say what the language models would be asked and what that would cost, and stop."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line; returns the manifest, of a dry run an empty one."""
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")  # a setting's error says its name, its value and what it may be
    with failing_clearly(ValueError, ValidationError, OSError):
        command = parse(list(sys.argv[1:] if arguments is None else arguments))
        config = BuildConfig(**command.model_dump(exclude={"dry_run"}))
    quiet_libraries()
    from flows.building import run  # loads the models' libraries, which --help does without

    return run(config, command.dry_run)


def exit_status(manifest: dict[str, Any]) -> int:
    """1 for a build that kept no row, so that no script takes it for one that worked; 0 for others, and for a dry run."""
    return 1 if manifest and not manifest["rows"] else 0


def parse(arguments: Sequence[str]) -> Command:
    """Flags over the YAML file of ``--config`` over the defaults."""
    arguments = list(arguments)
    given: dict[str, Any] = {}
    if "--config" in arguments:
        at = arguments.index("--config")
        file = Path(arguments[at + 1]) if at + 1 < len(arguments) else Path("--config")
        given = yaml.safe_load(file.read_text()) or {}
        del arguments[at : at + 2]
        if not isinstance(given, dict):
            raise ValueError(f"{file} holds a {type(given).__name__}, expected settings such as `shard_size: 128`")
    options = BuildOptions.model_validate({k: v for k, v in given.items() if k not in ("source", "out")})
    places = {"source": given.get("source", tyro.MISSING), "out": Path(given["out"]) if "out" in given else tyro.MISSING}
    default = Command.model_construct(**dict(options), **places)
    return tyro.cli(Command, args=arguments, default=default, prog=program(), description=__doc__)


if __name__ == "__main__":
    sys.exit(exit_status(main()))
