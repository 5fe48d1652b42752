"""What does the pipeline cost on top of its models, and does it stay flat?

Six figures, all within this one run on this one machine; all but the last are ratios:

- ``overhead``: wall time of a build over the wall time of the bare model forwards that it makes, replayed on the very tensors that it
passed (median of pairs, each of fifty rows; loading the models is outside both). The models have all cores but one, so that what
prepares images has one of its own, as it has beside a GPU;
- ``all_cores_overhead``: the same where the models have all cores, and give way to what prepares images;
- ``mixed_overhead``: the same on images of forty different sizes, as natural images have;
- ``time_per_row_ratio`` and ``memory_ratio``: time per row and peak memory of a build of ``--large`` rows over one of ``--small`` rows,
each in a process of its own;
- ``erase_seconds_per_megapixel``: CPU seconds to erase a third of the height of images of 0.3, 2 and 12 megapixels, with its control.

    python -m bench.labeling [--rows 100] [--mixed 300] [--small 200] [--large 2000]

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import bootstrap

from demo.questions import write_rows
from labeling import masks
from labeling.counterfactual import intervene
from pipelines.build import build
from pipelines.building.models import Models, load_models
from pipelines.config import BuildConfig
from rewardlib.console import console, table

PIECE = 50  # rows of a build whose overhead is measured
SIZES = 40  # of the images of the measurement on mixed sizes
RESULTS = Path(__file__).parent / "results" / "labeling.json"


def overhead(sources: Sequence[Path], folder: Path, repetitions: int) -> dict[str, float]:
    """Builds over bare forwards, in pairs of a few seconds, since the machine's speed drifts over minutes.

    A source after another is built and its forwards are replayed, ``repetitions`` times, and every other time the forwards come first.
    The median of the pairs' ratios, with the bootstrap's 95 % interval.
    """
    models = load_models(config_of(sources[0], folder / "unused"))
    builds, forwards, count = [], [], 0
    for source in sources:
        with recorded_forwards(models) as calls:
            build(config_of(source, folder / f"{source.parent.name}-recorded"))
        replay(calls)  # warm
        count += len(calls)
        for n in range(repetitions):
            config = config_of(source, folder / f"{source.parent.name}-{n}")
            if n % 2:
                forwards.append(timed(lambda calls=calls: replay(calls)))
            builds.append(timed(lambda config=config: build(config)))
            if not n % 2:
                forwards.append(timed(lambda calls=calls: replay(calls)))
    ratios = [b / f for b, f in zip(builds, forwards, strict=True)]
    low = high = ratios[0]
    if len(ratios) > 1:
        low, high = bootstrap((ratios,), np.median, rng=np.random.default_rng(0)).confidence_interval
    return {
        "overhead": statistics.median(ratios),
        "overhead_low": float(low),
        "overhead_high": float(high),
        "pairs": len(ratios),
        "build_seconds": sum(builds),
        "forward_seconds": sum(forwards),
        "forwards": count,
    }


def config_of(source: Path, out: Path) -> BuildConfig:
    return BuildConfig(source=str(source), out=out, license="cc0-1.0")


def pieces(rows: int) -> list[int]:
    return [min(PIECE, rows - first) for first in range(0, rows, PIECE)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many for the models."""
    usual = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    yield
    torch.set_num_threads(usual)


def alike(rows: int, repetitions: int) -> dict[str, float]:
    """The overhead on the demo's scenes."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [write_rows(Path(folder) / f"scenes-{n}", count, seed=1100 + n) for n, count in enumerate(pieces(rows))]
        return overhead(sources, Path(folder), repetitions)


def mixed(rows: int, repetitions: int) -> dict[str, float]:
    """The overhead on canvases of ``SIZES`` sizes, in turn."""
    sizes = [(100 + 37 * n % 60, 100 + 23 * n % 61) for n in range(SIZES)]
    assert len(set(sizes)) == SIZES
    with tempfile.TemporaryDirectory() as folder:
        sources = [write_rows(Path(folder) / f"scenes-{n}", count, 1300 + n, "canvas", sizes) for n, count in enumerate(pieces(rows))]
        figures = overhead(sources, Path(folder), repetitions)
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
    parser.add_argument("--rows", type=int, default=100, help="rows of the overhead measurement, fifty at a time")
    parser.add_argument("--mixed", type=int, default=300, help="rows of the measurement on mixed sizes, fifty at a time")
    parser.add_argument("--repetitions", type=int, default=3, help="times that each fifty rows are built, and their forwards replayed")
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--large", type=int, default=2000)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.measure:
        print(json.dumps(measure(a.measure)))
        return
    cores = torch.get_num_threads()
    with threads(cores - 1):
        overheads = {**alike(a.rows, a.repetitions), **mixed(a.mixed, a.repetitions)}
    all_cores = alike(PIECE, 2 * a.repetitions)
    result: dict[str, Any] = {
        **overheads,
        **{f"all_cores_{name}": all_cores[name] for name in ("overhead", "overhead_low", "overhead_high")},
        **growth(a.small, a.large),
        "erase_seconds_per_megapixel": erasing(),
    }
    result |= {"cores": cores, "torch": torch.__version__, "machine": platform.machine()}
    console.print(
        table("Labelling", ["", ""], [[k.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else str(v)] for k, v in result.items()])
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
