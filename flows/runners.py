"""Where shards are labelled: in threads of this process, or by the workers of Ray, on this machine or on many.

    python -m flows.build_dataset --source rows.jsonl --out dataset --runner ray --workers 4
    python -m flows.build_dataset --source rows.jsonl --out dataset --runner ray --workers 32 --ray-address 10.0.0.1:6379 --device cuda

Prefect's engine runs the same task either way, so states, retries and logs look alike. See docs/clusters.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.settings import (
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    temporary_settings,
)
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipelines.config import BuildConfig
from rewardlib.redact import redact

Workers = TaskRunner[Any]
PATIENCE = 10  # seconds for a server to say that it is there
RETRIES = 3  # how often a shard is given to another worker after its own has died


class RunnerError(RuntimeError):
    """Shards cannot be handed out, or not to some machine; the message says why and what to do."""


class ShardLost(RuntimeError):
    """Worker after worker died with a shard."""


def check(config: BuildConfig) -> None:
    """``RunnerError`` if this machine cannot hand out shards as the configuration wants it."""
    if config.runner == "ray" and find_spec("prefect_ray") is None:
        raise RunnerError("runner 'ray' needs prefect-ray, which is not installed here; pip install '.[ray]', or use --runner threads")
    if config.ray_address and not PREFECT_API_URL.value():
        raise RunnerError(
            f"the workers of Ray at {config.ray_address} report to a Prefect server, and none is named; "
            "set PREFECT_API_URL to one that every machine reaches"
        )


def require_server(api: str) -> None:
    """``RunnerError`` where no Prefect server answers at the address that the environment names."""
    try:
        httpx.get(f"{api.rstrip('/')}/health", timeout=PATIENCE, verify=not PREFECT_API_TLS_INSECURE_SKIP_VERIFY.value())
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        why = redact(str(error)) or type(error).__name__
        raise RunnerError(
            f"no Prefect server answers at PREFECT_API_URL={redact(api)} ({why}): start it, e.g. with `prefect server start` or "
            "`make serve`, or unset the variable to build without one"
        ) from None


@contextmanager
def running(config: BuildConfig) -> Iterator[Workers]:
    """The started task runner that a configuration names; ``RunnerError`` if it cannot start."""
    check(config)
    if config.runner == "threads":
        with ThreadPoolTaskRunner[Any](config.workers) as threads:
            yield threads
    else:
        with _ray(config) as workers:
            yield workers


@contextmanager
def _ray(config: BuildConfig) -> Iterator[Workers]:
    import ray  # here, since only this needs them
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    gpus = 1 if config.device == "cuda" else 0
    # max_calls: by default Ray ends a process that had a GPU after one task, and the next would load the models again.
    options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": RETRIES, "max_calls": 0}
    runner = RayTaskRunner(address=config.ray_address, init_kwargs=_own_ray(config) if config.ray_address is None else {})
    # The client starts Prefect's temporary server where no other is named; workers have to use that one and not start their own.
    client = get_client(sync_client=True)
    with temporary_settings({PREFECT_API_URL: str(client.api_url)}), remote_options(**options), runner as workers:
        if gpus and config.ray_address is None and not ray.cluster_resources().get("GPU"):
            raise RunnerError("device 'cuda' needs a GPU, and Ray finds none on this machine; give --device cpu")
        yield workers


def _own_ray(config: BuildConfig) -> dict[str, Any]:
    """A Ray for this run alone: no more processes than shards in work, no dashboard, no statistics sent."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return {
        "address": "local",
        "num_cpus": config.workers,
        "object_store_memory": 128 * 2**20,  # bytes; shards travel by name, not by content
        "include_dashboard": False,
        "logging_level": "ERROR",
        "_system_config": {"task_oom_retries": RETRIES},  # without end by default
    }


def outcome_of(future: PrefectFuture[Any], shard: str) -> Any:
    """What a shard's task returned or raised; ``ShardLost`` if no worker lived to do either."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError  # threads have no errors of their own

        if not isinstance(error, NodeDiedError | OutOfMemoryError | WorkerCrashedError):
            raise
        return ShardLost(
            f"no worker lived to finish shard {shard}, with {RETRIES} retries ({type(error).__name__}). The usual cause is memory: "
            "try a smaller --shard-size or fewer --workers; the same command makes only what is missing"
        )
