"""The requests of ``bench.judge`` asked by another labelling client; run by that bench in the client's own environment.

    .venv-peer/distilabel/bin/python bench/judge_peer.py distilabel URL CONCURRENCY < requests.json

``requests.json`` holds ``settings``, the body that all requests share, and ``messages``, one conversation for each request. Prints one line
of JSON: the peer's version, and ``seconds`` from handing over the rows to having all replies. Imports, making the client, and a warm-up of
as many requests as may be in flight are outside that time.

Each peer has the settings with which it was fastest, and the response format among its generation parameters, so that the bodies are those
of the other clients. ``distilabel``: a pipeline of one task with its cache in a new folder, in batches of as many requests as may be in
flight. ``distilabel-task``: the task by itself, which keeps nothing. ``curator``: its ``openai`` backend, its default cache in a new
folder, no limit besides the concurrency, no live display. (Its own ``response_format`` parses each reply more than once, and first tries
the server.)
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
    if (litellm := importlib.util.find_spec("litellm")) and litellm.origin:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers")


def distilabel(url: str, concurrency: int, settings: dict[str, Any], messages: list[Any]) -> float:
    """Seconds until the data set of all replies is there, checked."""
    from datasets import Dataset
    from distilabel.pipeline import Pipeline

    rows = Dataset.from_list([{"messages": conversation} for conversation in messages])
    with tempfile.TemporaryDirectory() as folder:
        with Pipeline(name="judge", cache_dir=folder) as pipeline:
            _task(url, concurrency, settings)
        started = time.perf_counter()
        labelled = pipeline.run(dataset=rows, use_cache=True)["default"]["train"]
        seconds = time.perf_counter() - started
        check([json.loads(text)["facts"] for text in labelled["generation"]], len(rows))
    return seconds


def distilabel_task(url: str, concurrency: int, settings: dict[str, Any], messages: list[Any]) -> float:
    """Seconds until all replies are there, checked."""
    task = _task(url, concurrency, settings)
    task.load()
    rows = [{"messages": conversation} for conversation in messages]
    started = time.perf_counter()
    labelled = [row for at in range(0, len(rows), concurrency) for row in next(task.process(rows[at : at + concurrency]))]
    seconds = time.perf_counter() - started
    check([json.loads(row["generation"])["facts"] for row in labelled], len(rows))
    return seconds


def _task(url: str, concurrency: int, settings: dict[str, Any]) -> Any:
    from distilabel.models.llms import OpenAILLM
    from distilabel.steps.tasks import ChatGeneration

    extra = {name: settings[name] for name in ("seed", "response_format")}
    parameters = {"temperature": settings["temperature"], "max_new_tokens": settings["max_tokens"], "extra_body": extra}
    llm = OpenAILLM(model=settings["model"], base_url=url, api_key="none", generation_kwargs=parameters)
    return ChatGeneration(llm=llm, input_batch_size=concurrency)


def curator(url: str, concurrency: int, settings: dict[str, Any], messages: list[Any]) -> float:
    """Seconds until the data set of all replies is there, checked."""
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
        check(labelled["facts"], len(rows))
    return seconds


def check(facts: Any, wanted: int) -> None:
    if len(facts) != wanted or not all(facts):
        raise AssertionError(f"the peer brought {len(facts)} replies to {wanted} requests")


PEERS = {  # with their distributions
    "distilabel": (distilabel, "distilabel"),
    "distilabel-task": (distilabel_task, "distilabel"),
    "curator": (curator, "bespokelabs-curator"),
}


def main() -> None:
    (ask, distribution), url, concurrency = PEERS[sys.argv[1]], sys.argv[2], int(sys.argv[3])
    job = json.load(sys.stdin)
    offline()
    ask(url, concurrency, job["settings"], job["messages"][:concurrency])
    seconds = ask(url, concurrency, job["settings"], job["messages"])
    print(json.dumps({"version": importlib.metadata.version(distribution), "seconds": seconds}))


if __name__ == "__main__":
    main()
