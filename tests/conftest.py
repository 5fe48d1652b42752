"""Small pictures, rows and models that several test files share."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from labeling import masks
from labeling.annotate import Annotated, Asked
from labeling.boxes import Detection
from labeling.facts import KINDS, Fact
from labeling.info import ModelInfo
from labeling.locators.base import Sought

if TYPE_CHECKING:  # these load torch, which most tests can do without
    from labeling.segmenters import Segment
    from pipelines.building.models import Models

# The tests' models are so small that a second thread costs more than it does; read when torch is loaded, here and in subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0)}
SIZE = (64, 48)
BOX = (8, 8, 20, 20)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def scene(color: str = "red", box: tuple[int, int, int, int] = BOX) -> Image.Image:
    """A square of one colour on grey."""
    image = Image.new("RGB", SIZE, (200, 200, 200))
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLORS[color])
    return image


def record(name: str = "a", color: str = "red", **changes: Any) -> dict[str, Any]:
    """A raw row about the scene in ``NAME.png``; a change to None removes the column."""
    row = {
        "id": name,
        "image": f"{name}.png",
        "question": "Which colour is the square?",
        "answer": color,
        "traces": [{"text": f"There is a {color} square. The answer is {color}.", "model": "writer"}],
        "license": "cc0-1.0",
    }
    return {k: v for k, v in {**row, **changes}.items() if v is not None}


def write_rows(folder: Path, records: Iterable[dict[str, Any]], images: dict[str, Image.Image | bytes] | None = None) -> Path:
    """``rows.jsonl`` in a folder, with its pictures: the ones given, and a red scene for every other ``NAME.png`` that a row names."""
    folder.mkdir(parents=True, exist_ok=True)
    records, pictures = list(records), dict(images or {})
    for row in records:
        name = row.get("image")
        if isinstance(name, str) and re.fullmatch(r"\w+\.png", name) and name not in pictures and not (folder / name).exists():
            pictures[name] = scene()
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture if isinstance(picture, bytes) else encode(picture))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@dataclass
class FakeAnnotator:
    """Reads "a red square" out of a trace."""

    name: str = "fake"

    def annotate(self, traces: Sequence[Asked]) -> list[Any]:
        return [Annotated(tuple(self._facts(asked.trace))) for asked in traces]

    def _facts(self, text: str) -> Iterable[Fact]:
        for match in re.finditer(r"a (\w+ square)", text):
            yield Fact("object", f"There is {match[0]}.", match[1], match[0], match.start(), match.end())

    def info(self) -> ModelInfo:
        return ModelInfo(self.name)


@dataclass
class FakeLocator:
    """Finds what has exactly the phrase's colour, and remembers how many images it was asked to label."""

    threshold: float = 0.3
    name: str = "fake"
    kinds: frozenset[str] = frozenset(KINDS)
    labelled: int = field(default=0, compare=False)

    def locate(
        self, images: Sequence[Image.Image], sought: Sequence[Sequence[Sought]], threshold: float | None = None
    ) -> list[list[Detection]]:
        self.labelled += len(images) if threshold is None else 0
        return [[d for s in wanted for d in self._find(image, s.phrase)] for image, wanted in zip(images, sought, strict=True)]

    def _find(self, image: Image.Image, phrase: str) -> Iterable[Detection]:
        mask = (np.asarray(image) == COLORS.get(phrase.split()[0], (1, 2, 3))).all(2)
        if mask.any():
            x0, y0, x1, y1 = masks.bounding_box(mask)
            yield Detection(phrase, (float(x0), float(y0), float(x1), float(y1)), 0.9)

    def info(self) -> ModelInfo:
        return ModelInfo("fake", "1", {"threshold": self.threshold})


class FakeSegmenter:
    """Draws a box as its own mask."""

    def segment(self, images: Sequence[Image.Image], boxes: Sequence[Sequence[masks.Box]]) -> list[list[Segment]]:
        from labeling.segmenters import Segment

        pairs = zip(images, boxes, strict=True)
        return [[Segment(masks.from_box(b, image.height, image.width), 0.8, "sam") for b in wanted] for image, wanted in pairs]

    def info(self) -> ModelInfo:
        return ModelInfo("fake", "1", {"backend": "fake"})


def fake_models(threshold: float = 0.3) -> Models:
    from labeling.locators.chain import LocatorChain
    from pipelines.building.models import Models

    return Models(FakeAnnotator(), LocatorChain([FakeLocator(threshold)]), FakeSegmenter())


def folder_bytes(folder: Path, hidden: bool = False) -> dict[str, str]:
    """Every file below a folder with the hash of its contents; hidden folders only if wanted."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    names = {f.relative_to(folder).as_posix(): f for f in files}
    return {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in names.items() if hidden or not n.startswith(".")}


def run_module(module: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, last line of stdout, and stderr of ``python -m MODULE ARGUMENTS``."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``datasets`` keeps its copies of Parquet files where the test ends, not in the home folder."""
    import datasets

    cache = tmp_path / "datasets_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    return cache
