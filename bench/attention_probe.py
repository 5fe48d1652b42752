"""What does it cost to read attention? Three forwards of one random model in one run:

    plain   the fused kernel, nothing read
    probe   the same with ``AttentionProbe``: masses of 512 response rows on 1,024 image keys, every layer and head
    eager   ``attn_implementation="eager"`` with ``output_attentions=True``, the way that needs no probe

    python -m bench.attention_probe                 # float32 on the CPU, T = 2,048
    python -m bench.attention_probe --device cuda   # bfloat16, T = 8,192, a model of three billion parameters

Time is the median of repetitions taken in turn; memory is what a forward adds to its own fresh process at its peak; the error is the
largest difference between the probe's masses and those of the eager maps. Ratios are over ``plain``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rewardlib.probe import AttentionProbe

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("plain", "probe", "eager")


@dataclass(frozen=True)
class Shape:
    """A text stack of Qwen2.5-VL, and how much of its attention is read."""

    device: str
    dtype: torch.dtype
    length: int
    rows: int
    keys: int
    layers: int
    hidden: int
    heads: int
    key_heads: int
    intermediate: int


SHAPES = {
    "cpu": Shape("cpu", torch.float32, 2048, 512, 1024, layers=8, hidden=1024, heads=16, key_heads=16, intermediate=2816),
    "cuda": Shape("cuda", torch.bfloat16, 8192, 2048, 4096, layers=36, hidden=2048, heads=16, key_heads=2, intermediate=11008),
}


class Bench:
    """One model, and its three forwards."""

    def __init__(self, shape: Shape) -> None:
        from transformers import Qwen2Config, Qwen2Model

        self.shape = shape
        config = Qwen2Config(
            vocab_size=1000,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_heads,
            max_position_embeddings=shape.length,
        )
        torch.manual_seed(0)
        with torch.device(shape.device):
            self.model = Qwen2Model(config).to(shape.dtype).eval()
            self.ids = torch.randint(1000, (1, shape.length))
            position = torch.arange(shape.length)[None]
        self.rows = position >= shape.length - shape.rows
        self.keys = {"image": (position >= 16) & (position < 16 + shape.keys), "region": (position >= 100) & (position < 164)}

    @torch.no_grad()
    def run(self, variant: str, length: int | None = None) -> Any:
        """One forward; the masses (L, 1, H, R, 2) that it saw, None for the plain one."""
        length = length or self.shape.length
        inputs = {"input_ids": self.ids[:, :length], "use_cache": False}
        self.model.set_attn_implementation("eager" if variant == "eager" else "sdpa")
        if variant == "probe":
            rows, keys = self.rows[:, -length:], {name: key[:, :length] for name, key in self.keys.items()}
            with AttentionProbe(self.model).watch(rows, keys) as mass:
                self.model(**inputs)
            return mass.values
        if variant == "eager":
            maps = self.model(**inputs, output_attentions=True).attentions
            sets = torch.stack([key[0, :length] for key in self.keys.values()], dim=-1).to(maps[0].dtype)
            return torch.stack([layer[:, :, self.rows[0, -length:]] @ sets for layer in maps])
        self.model(**inputs)
        return None


def measure_time(bench: Bench, repetitions: int) -> dict[str, Any]:
    """Seconds of every variant, in turn, and the probe's largest error."""
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    masses = {variant: bench.run(variant) for variant in VARIANTS}  # warm
    for n in range(repetitions):
        for variant in VARIANTS if n < repetitions / 4 else VARIANTS[:2]:  # the slow one need not run as often
            seconds[variant].append(timed(lambda variant=variant: bench.run(variant), bench.shape.device))
    ratios = {v: statistics.median(a / b for a, b in zip(seconds[v], seconds["plain"], strict=False)) for v in VARIANTS}
    return {
        "time_ratio": ratios["probe"],
        "eager_time_ratio": ratios["eager"],
        "max_error": (masses["probe"].float() - masses["eager"].float()).abs().max().item(),
        **{f"{v}_seconds": statistics.median(seconds[v]) for v in VARIANTS},
    }


def timed(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def extra_memory(bench: Bench, variant: str) -> float:
    """MiB that one forward adds to this process at its peak."""
    bench.run(variant, length=128)  # whatever is allocated once
    if bench.shape.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        bench.run(variant)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    bench.run(variant)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def measure_memory(device: str) -> dict[str, float]:
    """Extra memory of every variant, each in a process of its own."""
    # What is freed leaves the process at once, so that its peak is that of live tensors and repeats to a megabyte.
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    extra = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "bench.attention_probe", "--device", device, "--memory-of", variant]
        extra[variant] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings).stdout.split()[-1])
    return {
        "memory_ratio": extra["probe"] / extra["plain"],
        "eager_memory_ratio": extra["eager"] / extra["plain"],
        **{f"{v}_extra_mib": extra[v] for v in VARIANTS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SHAPES), default="cpu")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    bench = Bench(SHAPES[a.device])
    if a.memory_of:
        print(extra_memory(bench, a.memory_of))
        return
    result = measure_time(bench, a.repetitions) | measure_memory(a.device)
    print(f"{'':8}{'seconds':>10}{'ratio':>8}{'extra MiB':>12}{'ratio':>8}")
    for v in VARIANTS:
        ratio = {"plain": 1.0, "probe": result["time_ratio"], "eager": result["eager_time_ratio"]}[v]  # of runs in turn, not of the medians
        extra = result[f"{v}_extra_mib"]
        print(f"{v:8}{result[f'{v}_seconds']:10.2f}{ratio:8.2f}{extra:12.0f}{extra / result['plain_extra_mib']:8.2f}")
    shape = {k: str(v) for k, v in vars(SHAPES[a.device]).items()}
    result |= {"shape": shape, "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"attention_probe_{a.device}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
