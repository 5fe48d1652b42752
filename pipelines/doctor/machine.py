"""What the machine offers: torch with its GPU, cores, memory, disk, and the embedded checkpoints.

torch is looked at in a process of its own, as a broken one may end the process that imports it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.doctor.check import Check
from pipelines.doctor.packages import parse_requirement, within

CHECKPOINTS = Path(__file__).resolve().parents[2] / "labeling" / "embedded"
LEAST_DISK = 1.0  # GiB; a shard of photographs with two counterfactuals a row takes some hundred MiB
_GIB = 2**30

_PROBE = """
import json, torch
about = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "mps": torch.backends.mps.is_available()}
try:
    import torchvision
    about["torchvision"] = torchvision.__version__
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except Exception as error:
    about["pair_error"] = f"{type(error).__name__}: {error}"
try:
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.ones(1, device=f"cuda:{n}").sum().item()
        free, total = torch.cuda.mem_get_info(n)
        about["gpus"].append([torch.cuda.get_device_name(n), free, total])
except Exception as error:
    about["gpu_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(about))
"""
_PROBE_SECONDS = 30  # from a cold disk torch takes its time


@functools.cache
def _torch() -> dict[str, Any]:
    """What torch says about itself, or ``{"error": why not}``."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"not within {_PROBE_SECONDS} s", "late": True}
    except OSError as error:
        return {"error": f"{sys.executable} cannot be started: {error.strerror}"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return {"error": last}
    about: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return about


def torch_pair() -> Check:
    """torch and torchvision load, call each other's operators, and are of versions that belong together."""
    if importlib.util.find_spec("torch") is None:
        return Check("torch", "missing", "not installed; text rewards do without", "pip install 'sightline[label]'")
    about = _torch()
    if "late" in about:  # a slow disk or a busy machine, more likely than a broken installation
        return Check("torch", "missing", f"did not load within {_PROBE_SECONDS} s", "try again when the machine is less busy")
    if "error" in about:
        return Check("torch", "failed", f"torch does not load: {about['error']}", "pip install --force-reinstall torch torchvision")
    pair = f"torch {about['torch']}, torchvision {about.get('torchvision', 'missing')}"
    remedy = "pip install --upgrade torch torchvision, both from the same index"
    if "pair_error" in about:
        return Check("torch", "failed", f"{pair}: {about['pair_error']}", remedy)
    for line in metadata.requires("torchvision") or []:
        wanted = parse_requirement(line)
        if wanted.name == "torch" and not within(about["torch"], wanted.versions):
            return Check("torch", "failed", f"{pair}, which wants torch {wanted.versions}", remedy)
    return Check("torch", "ok", pair)


def gpu() -> Check:
    """The GPUs that torch can compute on; one that only the driver sees is a failure."""
    driver = _driver()
    about: dict[str, Any] = _torch() if importlib.util.find_spec("torch") else {"error": "torch is not installed"}
    if "gpu_error" in about:
        return Check("gpu", "failed", about["gpu_error"], "nvidia-smi shows who uses it and its driver; --device cpu works without")
    if gpus := about.get("gpus"):
        names = [f"{name}, {free / _GIB:.0f} of {total / _GIB:.0f} GiB free" for name, free, total in gpus]
        return Check("gpu", "ok", f"{'; '.join(names)}; driver {driver or 'unknown'}, CUDA {about['cuda']}: --device cuda")
    if about.get("mps"):
        return Check("gpu", "ok", "Apple's GPU: --device mps")
    if driver and "error" not in about:
        built = f"torch is built for CUDA {about['cuda']}" if about["cuda"] else "torch is built without CUDA"
        remedy = "pip install a torch whose CUDA the driver knows; --device cpu works meanwhile"
        return Check("gpu", "failed", f"the driver {driver} sees a GPU, torch does not: {built}", remedy)
    return Check("gpu", "missing", "none: --device cpu" + (f" ({about['error']})" if "error" in about else ""))


def _driver() -> str | None:
    """The NVIDIA driver's version, if there is one and it sees a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    versions = done.stdout.split()
    return versions[0] if done.returncode == 0 and versions else None


# --- the machine and the embedded models ---


def headroom() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    found = f"{cores} core{'s' * (cores != 1)}, {_memory()}, {free:.1f} GiB free in {Path.cwd()}"
    if free < LEAST_DISK:
        return Check("machine", "failed", found, f"free at least {LEAST_DISK:.0f} GiB, or work in a folder of another disk")
    return Check("machine", "ok", found)


def _memory() -> str:
    """What may be used: of the machine, or of the container where that is less."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB of memory"
    try:
        folder = Path("/sys/fs/cgroup")
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):
        pass  # no container, or one without a limit
    return f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB of memory free"


def checkpoints() -> Check:
    """The embedded models are there and whole."""
    names = ("detector", "segmenter")
    broken = [name for name in names if not _is_whole(CHECKPOINTS / name / "model.safetensors")]
    if not broken:
        return Check("checkpoints", "ok", f"{', '.join(names)} (they know the shapes world only)")
    remedy = "check the repository out again (with Git LFS, if it was moved there), or install Sightline again"
    return Check("checkpoints", "failed", f"missing or damaged in {CHECKPOINTS}: {', '.join(broken)}", remedy)


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
