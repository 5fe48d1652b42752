"""What a build would ask of its language models, before any of them is asked: requests, tokens and dollars.

Reads a sample of the rows, checks their traces' answers as the build does, and writes down the very requests that it would send. Nothing is
loaded, asked or written. Tokens are counted as characters / 4 and an image as one token for each 28 x 28 pixels, as Qwen-VL has it: the
figure is for deciding, not for accounting.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from labeling.annotate import annotation_request
from labeling.collect import trace_requests
from labeling.facts import normalize_phrase
from labeling.rules import facts_of
from pipelines.building.asked import asked_of, named_in_question
from pipelines.building.cost import cost, endpoints
from pipelines.building.endpoints import endpoint_of
from pipelines.building.ingest import Shard, ingest, plan, source_of
from pipelines.building.steps.check import Check
from pipelines.building.steps.collect import question_of, wants_traces
from pipelines.config import BuildConfig, EndpointConfig
from pipelines.dataset.schema import Item, Ledger
from rewardlib.cache import ReplyCache
from rewardlib.endpoint import CHARACTERS
from rewardlib.judge import JudgeClient, JudgeRequest

SAMPLE = 200  # rows that are read; the rest is taken to be like them
_PIXELS = 28 * 28  # in an image's token
_LOOK = 600  # tokens of a question about one picture
# Tokens of a reply, where none has been seen yet.
_COMPLETION = {"collector": 400, "judge": 250, "verifier": 40, "vlm-boxes": 120}


@dataclass(frozen=True)
class Estimate:
    """What is known before a build. ``account`` is for all rows, in the manifest's form; ``rejects`` are of the sample."""

    rows: int
    sampled: int
    rejects: dict[str, int]
    account: dict[str, Any]
    paid: int  # requests of the sample whose replies are in the cache
    regions: int = 0  # that an answerer would weigh, one a phrase
    images: int = 0  # that it would look at: each region erased, and a control, in every draw


def estimate(config: BuildConfig) -> Estimate:
    """Look at a source; ``SourceError`` as for a build."""
    source = source_of(config)
    shards = plan(source, config)
    rows = sum(len(shard.indices) for shard in shards)
    ledger = Ledger()
    items = [item for shard in _first(shards, SAMPLE) for item in ingest(shard, source, config, ledger)]
    sampled = ledger.counts["rows_in"]
    told = _right_traces(config, items, ledger)
    phrases = _phrases(told)
    requests = _requests(config, items, told)
    replies = config.out / ".work" / "replies.sqlite"
    cache = ReplyCache(replies) if replies.exists() else None
    counts: Counter[str] = Counter()
    for stage, asked in requests.items():
        counts[f"{stage}_requests"] = len(asked)
        counts[f"{stage}_prompt_tokens"] = sum(map(_prompt_tokens, asked))
        counts[f"{stage}_completion_tokens"] = len(asked) * _completion_tokens(endpoints(config)[stage], stage, cache)
    # Boxes are asked for on the image, and again on what is made of it: the evidence, a control, the context.
    images = 1 + 3 * config.counterfactual.pairs
    for stage, looks in (("verifier", sum(map(len, phrases.values()))), ("vlm-boxes", len(phrases) * images)):
        if stage in endpoints(config):
            counts[f"{stage}_requests"] = looks
            counts[f"{stage}_prompt_tokens"] = looks * _LOOK
            counts[f"{stage}_completion_tokens"] = looks * _COMPLETION[stage]
    scaled = {name: round(count * rows / sampled) for name, count in counts.items()}
    rejects = Counter(reject.reason for reject in ledger.rejects)
    clients = {stage: JudgeClient(endpoint_of(endpoint), cache) for stage, endpoint in endpoints(config).items()}
    paid = sum(clients[stage].knows(request) for stage, asked in requests.items() for request in asked)
    regions = round(sum(map(len, phrases.values())) * rows / sampled) if config.answerer else 0
    erased = regions * 2 * config.answerer_draws
    return Estimate(rows, sampled, dict(rejects), cost(config, scaled), paid, regions, erased)


def _first(shards: Sequence[Shard], rows: int) -> list[Shard]:
    """The shards, or parts of them, that hold the first rows."""
    taken, left = [], rows
    for shard in shards:
        if left > 0:
            taken.append(Shard(shard.name, shard.split, shard.indices[:left], shard.duplicates))
            left -= len(shard.indices)
    return taken


def _right_traces(config: BuildConfig, items: Sequence[Item], ledger: Ledger) -> list[tuple[Item, str]]:
    """The traces that would be read. Those that are yet to be collected are taken to be right, and of the usual length."""
    wanting = [item for item in items if config.collector.model and wants_traces(item)]
    checked = Check().run([item for item in items if item not in wanting and item.row["traces"]], ledger)
    told = [(item, trace["text"]) for item in checked for trace in item.row["traces"] if trace["correct"]]
    usual = "x" * CHARACTERS * _COMPLETION["collector"]
    return told + [(item, usual) for item in wanting for _ in range(config.collector.draws)]


def _phrases(told: Sequence[tuple[Item, str]]) -> dict[str, set[str]]:
    """The phrases to look for in every row, as the built-in reader reads them: its traces', or else its question's.

    Who finds nothing of the traces' is asked for the question's, too; how often cannot be known before."""
    phrases: dict[str, set[str]] = {}
    for item, trace in told:
        found = {normalize_phrase(fact.phrase) for fact in facts_of(trace)} - {""}
        phrases.setdefault(item.row["id"], set()).update(found)
    for item, _ in told:
        if not phrases[item.row["id"]]:
            phrases[item.row["id"]] = {sought.phrase for sought in named_in_question(item.row)}
    return {row_id: named for row_id, named in phrases.items() if named}


def _requests(config: BuildConfig, items: Sequence[Item], told: Sequence[tuple[Item, str]]) -> dict[str, list[JudgeRequest]]:
    """The requests of a build that can be written down, by the prefix of their counts."""
    asked = endpoints(config)
    requests: dict[str, list[JudgeRequest]] = {}
    if "collector" in asked:
        wanting = [item for item in items if wants_traces(item)]
        requests["collector"] = [r for item in wanting for r in trace_requests(question_of(item), config.collector.draws)]
    if "judge" in asked:
        requests["judge"] = [annotation_request(asked_of(item.row, trace)) for item, trace in told]
    return requests


def _prompt_tokens(request: JudgeRequest) -> int:
    schema = json.dumps(request.schema) if request.schema else ""
    tokens = (len(request.prompt) + len(request.user) + len(schema)) // CHARACTERS
    return tokens + (_image_tokens(request.image) if request.image else 0)


def _image_tokens(url: str) -> int:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return max(1, image.width * image.height // _PIXELS)


def _completion_tokens(endpoint: EndpointConfig, stage: str, cache: ReplyCache | None) -> int:
    """The mean length of the replies that this model has given, or the usual one."""
    seen = [line for line in cache.spending() if line["model"] == endpoint.model] if cache else []
    return round(seen[0]["completion_tokens"] / seen[0]["requests"]) if seen else _COMPLETION[stage]
