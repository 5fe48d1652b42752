"""A flow that is called from Python where no Prefect server is named: Prefect starts one for as long as the flow runs.

Two such servers may start at once, on one database file. Both would make its tables, where it is new or of an older Prefect, and enter the
kinds of blocks that there are; one would break. So the tables are made beforehand, behind a lock, and no blocks are entered, which flows of
this project have no use for.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import prefect
from prefect import Flow
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

P = ParamSpec("P")
R = TypeVar("R")
UPGRADE = (sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y")


class OwnServerFlow(Flow[P, R]):
    """A flow that several processes may call at once, each with a server of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if PREFECT_API_URL.value() is None:
            make_tables(Path(PREFECT_HOME.value()))
            os.environ.setdefault("PREFECT_SERVER_REGISTER_BLOCKS_ON_START", "false")
        return super().__call__(*args, **kwargs)


def flow(name: str) -> Callable[[Callable[P, R]], OwnServerFlow[P, R]]:
    """``prefect.flow`` for flows of this project."""

    def made(function: Callable[P, R]) -> OwnServerFlow[P, R]:
        return OwnServerFlow(function, name=name, validate_parameters=True)

    return made


def make_tables(home: Path) -> None:
    """Make the tables of Prefect's database, or wait for whoever is making them. A few seconds the first time, nothing later.

    A failure is left to the server, which tries again and says what it is.
    """
    home.mkdir(parents=True, exist_ok=True)
    done = home / f".tables-of-{prefect.__version__}"
    with (home / ".tables.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() and subprocess.run(UPGRADE, capture_output=True).returncode == 0:
            done.touch()
