"""``kill -9`` at any moment of a build, then the same command again: the dataset is that of an undisturbed run, byte for byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.questions import write_rows
from tests.conftest import ROOT, folder_bytes


def _start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.build_dataset", "--source", str(source), "--out", str(out), "--shard-size", "4"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _kill_and_resume(folder: Path, rows: int, kills: int, seed: int) -> int:
    source = write_rows(folder / "scenes", rows, seed=7)
    whole = folder / "whole" / "dataset"  # the card is titled after the folder, so all have the same name
    assert _start(source, whole).wait() == 0
    rng, interrupted = random.Random(seed), 0
    for n in range(kills):
        out = folder / f"killed-{n}" / "dataset"
        process = _start(source, out)
        # Wait for the work to begin, since loading Python takes longer than labelling; then strike anywhere within it.
        while process.poll() is None and not (out / ".work").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 4))
        interrupted += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert _start(source, out).wait() == 0
        assert folder_bytes(out) == folder_bytes(whole)
    return interrupted


def test_one_kill(tmp_path: Path) -> None:
    assert _kill_and_resume(tmp_path, rows=16, kills=1, seed=1) > 0


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    assert _kill_and_resume(tmp_path, rows=40, kills=20, seed=0) > 0
