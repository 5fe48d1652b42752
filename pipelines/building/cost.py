"""What the language models of a dataset take: tokens by model, and dollars where prices are known.

Two accounts are kept, for two questions.

The manifest's says what the labels took. It is summed from the shards' counts: the tokens of every
reply, whenever they were paid, for the cache remembers them; and those of replies that were of no use.
A shard that is built anew, because the judge failed, carries over what its earlier attempts paid in
vain (``steps.carry_over``). An attempt that did not come to its end has no record, so that a build
which was killed, however often, ends with the same manifest as one that was not.

The cache's, ``ReplyCache.spending``, says what was paid in this folder by whatever attempt, under
whatever settings. It is what ``--max-cost`` limits. The two agree where nothing was cut short, no
setting was changed, and no two rows ask the same.
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
        if config.verify:
            asked["verifier"] = config.annotator
    if config.boxes.model:
        asked["vlm-boxes"] = config.boxes
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
