"""How much of the bare ``openai`` client's throughput does the judge client keep, and how does it stand to its peers?

Three clients ask the same questions of a server on the loopback that answers after 200 ms, with the same settings and as many requests in
flight. Every trace is another one, of 1,500 characters, behind the annotator's prompt and schema; no reply is asked for twice.

    bare       ``openai.AsyncOpenAI`` and a semaphore: nothing is parsed, checked, counted or kept
    sightline  ``rewardlib.judge.JudgeClient`` with a new cache file, opened and closed within the time
    distilabel, distilabel-task, curator   two labelling libraries at their fastest (see ``bench/judge_peer.py``)

    python -m bench.judge [--requests 2000] [--concurrency 64] [--latency 0.2] [--repetitions 3]

``make peers`` installs them, each in an environment of its own; a ratio over one that is not there is null. distilabel sends a batch of as
many requests as may be in flight and waits for all of it before the next. Curator, in its fastest settings, comes so near to what the
latency allows (64 in flight, 200 ms: 320 a second) that no client can be twice as fast as it here.

A time is from handing over the requests to having all replies. In each repetition every client has its turn, in changing order, and the
ratios are medians over the repetitions: ``efficiency`` is Sightline's rate over the bare client's, ``peer_ratio`` over that of
distilabel's pipeline, which keeps its replies as Sightline does; ``ratios`` has all of them. Prints a table, writes
bench/results/judge.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from bench.judge_server import reply, serving
from bench.text_rewards import make_reasoning
from labeling.annotate import INSTRUCTIONS, SCHEMA, check_reply
from rewardlib.cache import ReplyCache
from rewardlib.console import console, say, table
from rewardlib.judge import JudgeClient, JudgeEndpoint, JudgeReply, JudgeRequest

RESULTS = Path(__file__).parent / "results" / "judge.json"
PEERS = Path(__file__).parents[1] / ".venv-peer"  # an environment for each
PEER_SCRIPT = Path(__file__).with_name("judge_peer.py")
CHARACTERS = 1500  # of a trace
QUESTION = "How many of the towers are as wide as the scale?"

Client = Callable[[JudgeEndpoint, Sequence[JudgeRequest]], float]


def make_requests(count: int, seed: int) -> list[JudgeRequest]:
    """What the annotator asks about distinct traces, none shared with another seed."""
    draw, requests = random.Random(seed), []
    for n in range(count):
        reasoning = " ".join([f"Figure {seed}.{n}.", *(make_reasoning(draw) for _ in range(4))])
        trace = f"<think>{reasoning[:CHARACTERS]}</think><answer>{n % 7}</answer>"
        user = json.dumps({"question": QUESTION, "trace": trace}, ensure_ascii=False)
        requests.append(JudgeRequest(INSTRUCTIONS, user, SCHEMA, check_reply))
    return requests


def messages_of(request: JudgeRequest) -> list[Any]:
    return [{"role": "system", "content": request.prompt}, {"role": "user", "content": request.user}]


def settings_of(endpoint: JudgeEndpoint) -> dict[str, Any]:
    """What all requests share, as the judge client sends it."""
    format = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    e = endpoint
    return {"model": e.model, "temperature": e.temperature, "max_tokens": e.max_tokens, "seed": e.seed, "response_format": format}


# --- the clients: seconds until all replies are there ---


def bare(endpoint: JudgeEndpoint, requests: Sequence[JudgeRequest]) -> float:
    settings = settings_of(endpoint)

    async def ask_all() -> None:
        gate = asyncio.Semaphore(endpoint.concurrency)

        async def ask(client: AsyncOpenAI, request: JudgeRequest) -> Any:
            async with gate:
                return await client.chat.completions.create(messages=messages_of(request), **settings)

        options = {"base_url": endpoint.base_url, "timeout": endpoint.timeout, "max_retries": endpoint.retries}
        async with AsyncOpenAI(api_key="none", **options) as client:
            await asyncio.gather(*(ask(client, request) for request in requests))

    started = time.perf_counter()
    asyncio.run(ask_all())
    return time.perf_counter() - started


def sightline(endpoint: JudgeEndpoint, requests: Sequence[JudgeRequest]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cache = ReplyCache(Path(folder) / "replies.sqlite")
        replies = JudgeClient(endpoint, cache).ask_all(requests)
        cache.close()
        seconds = time.perf_counter() - started
    if not all(isinstance(r, JudgeReply) and r.value and not r.cached for r in replies):
        raise AssertionError(f"not every reply is a new one: {next(r for r in replies if not isinstance(r, JudgeReply) or r.cached)!r}")
    return seconds


def peers() -> list[str]:
    """The peers that are installed."""
    return [name for name in ("distilabel", "distilabel-task", "curator") if (_environment(name) / "ready").exists()]


def _environment(name: str) -> Path:
    return PEERS / name.partition("-")[0]


def peer(name: str, endpoint: JudgeEndpoint, requests: Sequence[JudgeRequest]) -> float:
    return ask_peer(name, endpoint, requests)["seconds"]


def ask_peer(name: str, endpoint: JudgeEndpoint, requests: Sequence[JudgeRequest]) -> dict[str, Any]:
    """What the peer's script prints: ``seconds``, and the peer's ``version``."""
    job = json.dumps({"settings": settings_of(endpoint), "messages": [messages_of(r) for r in requests]})
    command = [str(_environment(name) / "bin" / "python"), str(PEER_SCRIPT), name, str(endpoint.base_url), str(endpoint.concurrency)]
    done = subprocess.run(command, input=job, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed, `make peers` installs the version that was measured:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the measurement ---


def measure(endpoint: JudgeEndpoint, clients: dict[str, Client], count: int, repetitions: int) -> dict[str, list[float]]:
    """Seconds of every client in every repetition; who is first changes from one to the next."""
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    names = list(clients)
    for seed in range(1, repetitions + 1):
        requests = make_requests(count, seed)
        first = seed % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            seconds[name].append(clients[name](endpoint, requests))
    return seconds


def server_ceiling(count: int, concurrency: int) -> float:
    """Requests a second that the server answers, without latency, to a client that does nothing but write and read bytes."""
    request = make_requests(1, seed=0)[0]
    body = json.dumps({**settings_of(JudgeEndpoint("judge")), "messages": messages_of(request)}).encode()
    sent = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def ask(port: int, times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(times):
            writer.write(sent)
            await reader.readexactly(len(reply()))
        writer.close()

    async def ask_all(port: int) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(ask(port, count // concurrency + 1) for _ in range(concurrency)))
        return (count // concurrency + 1) * concurrency / (time.perf_counter() - started)

    with serving(latency=0) as url:
        return asyncio.run(ask_all(int(urlsplit(url).port or 0)))


def paired(times: Sequence[float], ours: Sequence[float]) -> float:
    """How many times the other's rate ours is."""
    return statistics.median(t / o for t, o in zip(times, ours, strict=True))


def run(count: int, concurrency: int, latency: float, repetitions: int) -> dict[str, Any]:
    """The ratios, and what they are made of: rates in requests a second, and the seconds of every repetition."""
    clients: dict[str, Client] = {"bare": bare, "sightline": sightline, **{name: partial(peer, name) for name in peers()}}
    ceiling = server_ceiling(4 * count, concurrency)
    with serving(latency) as url:
        endpoint = JudgeEndpoint("judge", url, concurrency=concurrency)
        warm = make_requests(2 * concurrency, seed=0)
        bare(endpoint, warm)
        sightline(endpoint, warm)
        versions = {name: ask_peer(name, endpoint, warm)["version"] for name in peers()}
        seconds = measure(endpoint, clients, count, repetitions)
    ratios = {name: paired(times, seconds["sightline"]) for name, times in seconds.items() if name != "sightline"}
    return {
        "efficiency": ratios["bare"],
        "peer_ratio": ratios.get("distilabel"),
        "ratios": ratios,
        "versions": versions,
        **{f"{name}_per_second": count / statistics.median(times) for name, times in seconds.items()},
        "latency_bound_per_second": concurrency / latency,
        "server_ceiling_per_second": ceiling,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="of each client in each repetition")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="of the server, in seconds")
    parser.add_argument("--repetitions", type=int, default=3)
    a = parser.parse_args()
    if len(peers()) < 3:
        say(f"installed of the peers: {', '.join(peers()) or 'none'}; `make peers` installs distilabel and Curator")
    result = run(a.requests, a.concurrency, a.latency, a.repetitions)
    figures = {name: value for name, value in result.items() if isinstance(value, float)} | {
        f"over {name}": ratio for name, ratio in result["ratios"].items()
    }
    rows = [[name.replace("_", " "), f"{value:,.3f}" if value < 10 else f"{value:,.0f}"] for name, value in figures.items()]
    console.print(table("Asking a judge", ["", ""], rows))
    result |= {**vars(a), "openai": version("openai"), "python": platform.python_version(), "machine": platform.machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
