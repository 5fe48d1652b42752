"""A shard is a task: labelled by whichever worker takes it, and given to another one only if that worker dies.

Prefect runs these tasks in threads or on other machines (``flows.runners``). They have a module of their own because Ray's workers import
them by name.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows.runners import RunnerError, Workers, outcome_of
from pipelines.build import about, build_shard
from pipelines.building.code import code_version
from pipelines.building.ingest import Shard, source_of
from pipelines.building.models import ModelError, load_models
from pipelines.config import BuildConfig
from pipelines.dataset.store import ShardRecord
from pipelines.rows.base import Source
from rewardlib.console import quiet_libraries
from rewardlib.judge import BudgetSpent


@dataclass(frozen=True)
class Home:
    """The flow's own process: where it runs and with which code. A worker elsewhere has to see the same folders and run the same code."""

    machine: str
    process: int
    folder: Path
    code: str

    @classmethod
    def here(cls) -> Home:
        return cls(platform.node(), os.getpid(), Path.cwd(), code_version())

    def settle(self, out: Path) -> None:
        """Make relative paths mean what they mean in the flow; ``RunnerError`` on a machine that cannot take part."""
        machine = platform.node()
        if (machine, os.getpid()) == (self.machine, self.process):
            return
        quiet_libraries()
        if not self.folder.is_dir():
            raise RunnerError(
                f"{machine} has no folder {self.folder}, where the flow runs; start the flow in a folder that all machines share"
            )
        os.chdir(self.folder)
        if not (out / ".work" / "lock").exists():
            raise RunnerError(f"{machine} does not see the flow's folder {out}; give an --out that all machines share")
        if code_version() != self.code:
            raise RunnerError(f"{machine} has code {code_version()}, the flow {self.code}; install the same version on every machine")


@functools.lru_cache(maxsize=2)
def opened(settings: str) -> Source:
    """The source, indexed once per process rather than once per shard."""
    return source_of(BuildConfig.model_validate_json(settings))


# Finished shards are found on disk, whoever made them; Prefect's own cache would only repeat that.
@task(name="label-shard", task_run_name="label-{shard.name}", retries=1, retry_delay_seconds=5, cache_policy=NO_CACHE)
def label_shard(shard: Shard, config: BuildConfig, home: Home) -> ShardRecord:
    """Label one shard on whatever worker this runs; models are loaded once per process."""
    home.settle(config.out)
    return build_shard(shard, opened(config.model_dump_json()), config, load_models(config))


@task(name="describe-models", cache_policy=NO_CACHE)
def describe_models(config: BuildConfig, home: Home) -> dict[str, Any]:
    """The manifest's fixed part, from where the models are: the machine of the flow may have no GPU for them."""
    home.settle(config.out)
    return about(config, load_models(config))


def label_all(workers: Workers, shards: Sequence[Shard], config: BuildConfig) -> Iterator[tuple[Shard, ShardRecord | BaseException]]:
    """Every shard with its record or its error, as they get done; ``config.workers`` of them are in work at a time.

    An error of one shard leaves the others to be made. Models that do not load, machines that
    cannot take part, and a limit of costs that is reached are raised at once.
    """
    home = Home.here()
    done: SimpleQueue[tuple[Shard, PrefectFuture[Any]]] = SimpleQueue()
    waiting = iter(shards)

    def submit(shard: Shard) -> None:
        future = workers.submit(label_shard, {"shard": shard, "config": config, "home": home})
        future.add_done_callback(lambda finished: done.put((shard, finished)))

    for shard in islice(waiting, config.workers):
        submit(shard)
    for _ in shards:
        shard, future = done.get()
        outcome = outcome_of(future, shard.name)
        if isinstance(outcome, ModelError | RunnerError | BudgetSpent):
            raise outcome
        if (following := next(waiting, None)) is not None:
            submit(following)
        yield shard, outcome
