"""The requests of ``bench.judge`` asked by Bespoke Curator; run by that bench in the peer's own environment (``make .venv-peer/ready``).

    .venv-peer/bin/python bench/judge_peer.py URL CONCURRENCY < requests.json

``requests.json`` holds ``settings``, the body that all requests share, and ``messages``, one conversation for each request. Prints one line
of JSON: the peer's name and version, and ``seconds`` from handing over the rows to having the data set of all replies. Imports, making the
client, and a warm-up of as many requests as may be in flight are outside that time.

The peer has its cache as it is by default, in a new folder, and the settings with which it was fastest: its ``openai`` backend, no limit
besides the concurrency, no live display, and the response format among the generation parameters, so that the bodies are those of the other
clients. (Its own ``response_format`` parses each reply more than once, and first tries whether the server knows structured output.)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

UNLIMITED = 1_000_000_000  # a minute, of requests and of tokens


def offline() -> None:
    """Nothing is reported to anybody, and the table for counting tokens comes from the one that litellm brings, not from the network."""
    os.environ |= {"TELEMETRY_ENABLED": "False", "DO_NOT_TRACK": "1", "CURATOR_VIEWER": "False", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "none"}
    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers")


def ask(url: str, concurrency: int, settings: dict[str, Any], messages: list[Any]) -> float:
    """Seconds until all replies are there, checked."""
    from bespokelabs import curator

    class Annotator(curator.LLM):
        def prompt(self, row: Any) -> Any:
            return row["messages"]

        def parse(self, row: Any, response: Any) -> Any:
            return {"facts": json.loads(response)["facts"]}

    limits = {"max_concurrent_requests": concurrency, "max_requests_per_minute": UNLIMITED, "max_tokens_per_minute": UNLIMITED}
    parameters = {name: value for name, value in settings.items() if name != "model"}
    annotator = Annotator(settings["model"], backend="openai", generation_params=parameters, backend_params={"base_url": url, **limits})
    rows = [{"messages": conversation} for conversation in messages]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        labelled = annotator(rows, working_dir=folder).dataset
        seconds = time.perf_counter() - started
        if len(labelled) != len(rows) or not all(labelled["facts"]):
            raise AssertionError(f"the peer brought {len(labelled)} replies to {len(rows)} requests")
    return seconds


def main() -> None:
    url, concurrency = sys.argv[1], int(sys.argv[2])
    job = json.load(sys.stdin)
    offline()
    ask(url, concurrency, job["settings"], job["messages"][:concurrency])
    seconds = ask(url, concurrency, job["settings"], job["messages"])
    name = "bespokelabs-curator"
    print(json.dumps({"peer": name, "peer_version": importlib.metadata.version(name), "seconds": seconds}))


if __name__ == "__main__":
    main()
