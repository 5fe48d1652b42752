"""What the language models of a dataset take: tokens by model, and dollars where prices are known.

Two accounts are kept, for two questions.

The manifest's says what the labels of this dataset took. It is summed from the shards' counts: for every question that its rows ask,
all that was ever paid for an answer, whether it was usable or not, in this build or in one before. The reply cache remembers that by
question (``JudgeReply``, ``JudgeError.usage``), so a shard that is built anew, after a kill or because the judge failed, counts what
its earlier attempts paid, and a build that was interrupted ends with the same manifest as one that was not.

The cache's own, ``ReplyCache.spending``, says what was ever paid in this folder, also under settings that were given up since; it is
what ``--max-cost`` limits. It is never less than the manifest's at the same prices, as far as the cache has been kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.config import BuildConfig, EndpointConfig
from rewardlib.endpoint import JudgeEndpoint, Usage


def cost(config: BuildConfig, counts: Mapping[str, int]) -> dict[str, Any]:
    """The manifest's account, from the tokens that the labels took, whenever they were paid. Models that were not asked are left out."""
    models = [line(endpoint, counts, stage) for stage, endpoint in endpoints(config).items()]
    known = [model["dollars"] for model in models if model["dollars"] is not None]
    return {"dollars": sum(known) if models and len(known) == len(models) else None, "models": models}


def endpoints(config: BuildConfig) -> dict[str, EndpointConfig]:
    """The language models that a build asks, by the prefix of their counts."""
    asked: dict[str, EndpointConfig] = {}
    if config.collector.model:
        asked["collector"] = config.collector
    if config.annotator.model != "rules":
        asked["judge"] = config.annotator
    return asked


def line(endpoint: EndpointConfig, counts: Mapping[str, int], stage: str) -> dict[str, Any]:
    """What one model takes."""
    taken = {name: counts.get(f"{stage}_{name}", 0) for name in ("requests", "prompt_tokens", "completion_tokens")}
    priced = JudgeEndpoint(str(endpoint.model), price_in=endpoint.price_in, price_out=endpoint.price_out)
    return {"stage": stage, "model": endpoint.model, **taken, "dollars": priced.dollars(Usage(**taken))}


def cost_rows(account: Mapping[str, Any]) -> list[list[str]]:
    """The account as a table's rows: model, requests, prompt and completion tokens, dollars."""
    lines = [*account["models"]]
    if len(lines) > 1:
        total = {name: sum(m[name] for m in lines) for name in ("requests", "prompt_tokens", "completion_tokens")}
        lines.append({"model": "together", **total, "dollars": account["dollars"]})
    return [
        [m["model"], *(f"{m[name]:,}" for name in ("requests", "prompt_tokens", "completion_tokens")), _money(m["dollars"])] for m in lines
    ]


def _money(dollars: float | None) -> str:
    return "price unknown" if dollars is None else f"${dollars:,.4f}" if dollars < 100 else f"${dollars:,.0f}"
