"""What does the pipeline cost on top of its models, and does it stay flat?

Five figures, all within this one run on this one machine; all but the last are ratios:

- ``overhead``: wall time of a build over the wall time of the bare model forwards that it makes, replayed on the very tensors that it
passed (median of paired repetitions; loading the models is outside both);
- ``mixed_overhead``: the same on images of forty different sizes, as natural images have;
- ``time_per_row_ratio`` and ``memory_ratio``: time per row and peak memory of a build of ``--large`` rows over one of ``--small`` rows,
each in a process of its own;
- ``erase_seconds_per_megapixel``: CPU seconds to erase a third of the height of images of 0.3, 2 and 12 megapixels, with its control.

    python -m bench.labeling [--rows 60] [--mixed 300] [--small 200] [--large 2000]

Prints a table, writes bench/results/labeling.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from demo.questions import write_rows
from labeling import masks
from labeling.counterfactual import intervene
from pipelines.build import build
from pipelines.building.models import Models, load_models
from pipelines.config import BuildConfig
from rewardlib.console import console, table

SIZES = 40  # of the images of the measurement on mixed sizes
RESULTS = Path(__file__).parent / "results" / "labeling.json"


def overhead(source: Path, folder: Path, repetitions: int) -> dict[str, float]:
    """Build over bare forwards, paired: one of each, in turn."""

    def config(name: str) -> BuildConfig:
        return BuildConfig(source=str(source), out=folder / name, license="cc0-1.0")

    models = load_models(config("recorded"))
    with recorded_forwards(models) as calls:
        build(config("recorded"))
    replay(calls)  # warm
    builds, forwards = [], []
    for n in range(repetitions):
        builds.append(timed(lambda n=n: build(config(f"build-{n}"))))
        forwards.append(timed(lambda: replay(calls)))
    ratios = [b / f for b, f in zip(builds, forwards, strict=True)]
    return {
        "overhead": statistics.median(ratios),
        "overhead_min": min(ratios),
        "overhead_max": max(ratios),
        "build_seconds": statistics.median(builds),
        "forward_seconds": statistics.median(forwards),
        "forwards": len(calls),
    }


def alike(rows: int, repetitions: int) -> dict[str, float]:
    """The overhead on the demo's scenes."""
    with tempfile.TemporaryDirectory() as folder:
        return overhead(write_rows(Path(folder) / "scenes", rows, seed=11), Path(folder), repetitions)


def mixed(rows: int, repetitions: int) -> dict[str, float]:
    """The overhead on canvases of ``SIZES`` sizes, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(100 + 37 * n % 60, 100 + 23 * n % 61) for n in range(SIZES)]
        assert len(set(sizes)) == SIZES
        source = write_rows(Path(folder) / "scenes", rows, 13, "canvas", sizes)
        figures = overhead(source, Path(folder), repetitions)
    return {f"mixed_{name}": value for name, value in figures.items()}


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@contextmanager
def recorded_forwards(models: Models) -> Iterator[list[Call]]:
    """Every call of the locators' and the segmenter's networks, with what it was given."""
    calls: list[Call] = []
    networks = [(locator.model, "forward") for locator in models.locators.locators if hasattr(locator, "model")]
    networks += [(models.segmenter.model, "forward"), (models.segmenter.model, "get_image_embeddings")]
    # Readers of text are made for every build, so what they call is found by its class.
    networks += [(type(locator.engine), "__call__") for locator in models.locators.locators if hasattr(locator, "engine")]
    originals = [(owner, name, getattr(owner, name)) for owner, name in networks]

    def recording(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((function, args, kwargs))
            return function(*args, **kwargs)

        return call

    for owner, name, function in originals:
        setattr(owner, name, recording(function))
    try:
        yield calls
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


@torch.inference_mode()
def replay(calls: list[Call]) -> None:
    for function, args, kwargs in calls:
        function(*args, **kwargs)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def growth(small: int, large: int) -> dict[str, float]:
    """Time per row and peak memory at two sizes, each in its own process."""
    measured = {}
    for name, rows in (("small", small), ("large", large)):
        reply = subprocess.run(
            [sys.executable, "-m", "bench.labeling", "--measure", str(rows)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        measured[name] = json.loads(reply.splitlines()[-1])
    a, b = measured["small"], measured["large"]
    return {
        "time_per_row_ratio": b["seconds_per_row"] / a["seconds_per_row"],
        "memory_ratio": b["peak_mib"] / a["peak_mib"],
        "seconds_per_row": b["seconds_per_row"],
        "small_peak_mib": a["peak_mib"],
        "large_peak_mib": b["peak_mib"],
        "small_rows": small,
        "large_rows": large,
    }


def measure(rows: int) -> dict[str, float]:
    """One build in this process: seconds per row without loading the models, and the process's peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder) / "scenes", rows, seed=12)
        config = BuildConfig(source=str(source), out=Path(folder) / "out", license="cc0-1.0")
        load_models(config)
        seconds = timed(lambda: build(config))
    return {"seconds_per_row": seconds / rows, "peak_mib": peak_mib()}


def erasing() -> dict[str, float]:
    """CPU seconds a megapixel of an image's counterfactuals, by its megapixels; the median of three."""
    seconds = {}
    for width, height in ((640, 480), (1920, 1080), (4000, 3000)):
        image = Image.effect_noise((width, height), 80).convert("RGB")
        side = height // 3
        box = (50.0, 50.0, 50.0 + side, 50.0 + side)
        region = masks.from_box(box, height, width), box
        taken = []
        for _ in range(3):
            began = time.process_time()
            intervene(image, [region], fill="blur", shape="dilated", seed=0)
            taken.append(time.process_time() - began)
        megapixels = width * height / 1e6
        seconds[f"{megapixels:.1f}"] = statistics.median(taken) / megapixels
    return seconds


def peak_mib() -> float:
    """This process's own peak; getrusage would report its parent's where that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=60, help="rows of the overhead measurement")
    parser.add_argument("--mixed", type=int, default=300, help="rows of the measurement on mixed sizes")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--large", type=int, default=2000)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.measure:
        print(json.dumps(measure(a.measure)))
        return
    result: dict[str, Any] = {
        **alike(a.rows, a.repetitions),
        **mixed(a.mixed, a.repetitions),
        **growth(a.small, a.large),
        "erase_seconds_per_megapixel": erasing(),
    }
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    console.print(
        table("Labelling", ["", ""], [[k.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else str(v)] for k, v in result.items()])
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
