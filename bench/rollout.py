"""How fast completions are sampled, and what a step costs as it grows.

    python -m bench.rollout                                    # the local decoder
    python -m bench.rollout --vllm .venv-hosts/vllm/bin/vllm   # and a vLLM server beside it, in the same run

- ``vllm_over_local``: tokens a second of ``vllm serve`` over those of the local decoder, the same policy (the demo's), the same prompts,
  completions of the same length; by the shape of the step (prompts x completions x tokens).
- ``memory_64_over_4``: peak memory of a step, sampled and learnt from, of 64 prompts over one of 4, 16 completions each.
- ``memory_64_over_4_photographs``: the same with three JPEGs of two megapixels a row: the image, without its evidence, and a control.
- ``time_per_token_growth``: time a sampled token of 64 prompts x 16 over that of 4 x 16.
- ``growth``: seconds and peak memory of sampling and learning by completions, by length and by prompts, each in a process of its own.

Writes bench/results/rollout.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.labeling import peak_mib, timed
from bench.policy import POLICY
from demo.serving import serving
from demo.tasks import draw
from demo.teach_policy import make_row
from rewardlib.console import console, say, table
from train.batch import Group, Normalizer
from train.data import load_rows
from train.distributed import World
from train.engines import Completion, Engine, Sampling
from train.engines.local import LocalEngine
from train.engines.transport import ByFolder
from train.engines.vllm_server import VLLMServer
from train.loading import load_model
from train.plan import Plan
from train.policy import Policy
from train.rewards import make_rewards
from train.sampling import Sampler
from train.settings import Settings
from train.step import step

ROOT = Path(__file__).parents[1]
SIDE = 1450  # pixels of a photograph's sides
RESULTS = ROOT / "bench" / "results" / "rollout.json"
SHAPES = ((4, 16, 64), (64, 16, 64), (8, 16, 512))  # prompts, completions of each, tokens of each
BY = {
    "completions": ((4, 4, 64), (4, 16, 64), (4, 64, 64)),
    "length": ((4, 16, 64), (4, 16, 256), (4, 16, 1024)),
    "prompts": ((4, 16, 64), (16, 16, 64), (64, 16, 64)),
}
Shape = tuple[int, int, int]


def endless() -> Policy:
    """The demo's policy, which never ends a completion: all are equally long."""
    policy = load_model(str(POLICY), "cpu")
    policy.suppressed = torch.cat([policy.suppressed, policy.ends])
    return policy


def rows(count: int) -> list[Any]:
    """Questions about boards, as the demo's policy is asked."""
    rng = random.Random(5)
    return [make_row(scene, question, "think-answer", str(n)) for n in range(count) for scene, (question,) in [draw(rng)]]


def photographs(folder: Path, count: int) -> list[Any]:
    """Questions about images as cameras make them, with changed ones, read from files as a run reads them."""
    rng = np.random.default_rng(5)
    lines = []
    for n in range(count):
        for name in ("image", "evidence", "control"):
            grain = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
            grain.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{n}-{name}.jpg")
        changed = {name: f"{n}-{name}.jpg" for name in ("evidence", "control")}
        region = {"phrase": "star", "bbox": [100, 100, 700, 500]}
        row = {"id": str(n), "image": f"{n}-image.jpg", "question": "What color is the star?", "answer": "red"}
        lines.append(json.dumps(row | {"regions": [region], "counterfactuals": changed}))
    source = folder / "rows.jsonl"
    source.write_text("\n".join(lines) + "\n")
    loaded = load_rows(str(source), "think-answer")
    return [loaded[n] for n in range(count)]


def sample(engine: Engine, policy: Policy, shape: Shape) -> list[list[Completion]]:
    """The completions of a step of that shape."""
    prompts, count, tokens = shape
    encoded = [policy.encode(row.messages, row.images) for row in rows(prompts)]
    return engine.generate(encoded, count, Sampling(max_tokens=tokens), list(range(prompts)))


# ------------------------------------------------------------------------------------------------------------------- growth


def measure(shape: Shape, of_photographs: bool = False) -> dict[str, float]:
    """A step in this process: seconds to sample and to learn from it, and the process's peak memory."""
    policy = endless()
    prompts, count, tokens = shape
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data="", out=Path(folder), num_generations=count, max_tokens=tokens, device="cpu", trackers=(), format=1.0)
        plan = Plan(settings, make_rewards(settings), [], World.of(settings))
        sampler = Sampler(policy, LocalEngine(policy), plan)
        groups: list[Group] = []
        numbers = list(range(prompts))
        asked = photographs(Path(folder), prompts) if of_photographs else rows(prompts)
        sampled = timed(lambda: groups.extend(sampler.sample(asked, numbers, numbers)))
        sampler.score_texts(groups)
        for group in groups:  # rewards that differ, so that there is something to learn
            group.scores["format"] = [float(n % 2) for n in range(count)]
        normalizer = Normalizer(prompts * count, prompts * count * tokens)
        learnt = timed(lambda: step(policy, groups, plan, normalizer))
    return {"sampling_seconds": sampled, "learning_seconds": learnt, "peak_mib": peak_mib()}


def in_a_process(shape: Shape, of_photographs: bool = False) -> dict[str, float]:
    """``measure``, in a process of its own."""
    command = [sys.executable, "-m", "bench.rollout", "--measure", *map(str, shape), *(["--photographs"] if of_photographs else [])]
    reply = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(reply.splitlines()[-1])
    prompts, count, tokens = shape
    return found | {"microseconds_per_token": 1e6 * found["sampling_seconds"] / (prompts * count * tokens)}


def growth(repetitions: int) -> dict[str, Any]:
    """Of every shape the medians of some repetitions, taken in turn."""
    shapes = sorted({shape for shapes in BY.values() for shape in shapes})
    runs: dict[Shape, list[dict[str, float]]] = {shape: [] for shape in shapes}
    for _ in range(repetitions):
        for shape in shapes:
            runs[shape].append(in_a_process(shape))
            say(f"{_name(shape)}: {runs[shape][-1]}")
    medians = {shape: {name: median(run[name] for run in found) for name in found[0]} for shape, found in runs.items()}
    small, large = medians[4, 16, 64], medians[64, 16, 64]
    few, many = (median(in_a_process((prompts, 16, 8), True)["peak_mib"] for _ in range(repetitions)) for prompts in (4, 64))
    say(f"photographs: {few:.0f} MiB with 4, {many:.0f} MiB with 64")
    return {
        "memory_64_over_4": large["peak_mib"] / small["peak_mib"],
        "memory_64_over_4_photographs": many / few,
        "time_per_token_growth": large["microseconds_per_token"] / small["microseconds_per_token"],
        "growth": {by: {_name(shape): medians[shape] for shape in shapes} for by, shapes in BY.items()},
    }


# --------------------------------------------------------------------------------------------------------------------- vLLM


def against_vllm(vllm: str, repetitions: int) -> dict[str, float]:
    """Tokens a second of vLLM over those of the local decoder, in turn; the median ratio by shape."""
    policy = endless()
    found = {}
    with tempfile.TemporaryDirectory() as folder, serving(vllm, POLICY) as url:
        settings = Settings(data="", out=Path(folder), device="cpu", trackers=())
        world = World.of(settings)
        server = VLLMServer(policy, world, [url], ByFolder(policy, world, Path(folder) / "engine"))
        engines: Sequence[Engine] = (LocalEngine(policy), server)
        for shape in SHAPES:
            ratios = []
            for repetition in range(repetitions + 1):  # the first one warms up
                local, remote = (timed(lambda engine=engine, shape=shape: sample(engine, policy, shape)) for engine in engines)
                if repetition:
                    ratios.append(local / remote)
            found[_name(shape)] = median(ratios)
            say(f"{_name(shape)}: vLLM over local {found[_name(shape)]:.2f}")
    return found


def _name(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", help="the vllm command of an environment that has it")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--measure", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--photographs", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.measure:
        print(json.dumps(measure(tuple(a.measure), a.photographs)))
        return
    result: dict[str, Any] = {"vllm_over_local": against_vllm(a.vllm, a.repetitions) if a.vllm else {}}
    result |= growth(a.repetitions)
    lines = [
        [f"{by}: {shape}", *(f"{value:.2f}" for value in figures.values())]
        for by, shapes in result["growth"].items()
        for shape, figures in shapes.items()
    ]
    console.print(table("A step", ["prompts x completions x tokens", "sampling s", "learning s", "peak MiB", "µs a token"], lines))
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in ("vllm_over_local", "memory_64_over_4", "time_per_token_growth")}))


if __name__ == "__main__":
    main()
