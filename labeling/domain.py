"""Is this the kind of image that a checkpoint was taught on?

A small detector is sure of itself on pictures it knows nothing about: taught coloured shapes only,
it finds circles in any diagram. A checkpoint that knows little says so in ``domain.json`` beside
its ``config.json``: the words it was taught, and for each kind of its images the range of a few
plain statistics of the pixels. They depend on no weights, so that a detector and a segmenter taught
on the same world share the file. A checkpoint without one knows everything.

    domain = Domain.read("labeling/embedded/detector")
    if domain and not domain.knows(image):
        print(f"taught {domain.about} only: {domain.why(image)}; use {domain.cure}")

``demo.calibrate`` writes the file.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeling.facts import normalize_phrase

FILE = "domain.json"
Range = tuple[float, float]
Color = tuple[int, int, int]
Grounds = tuple[int, int, int]
Statistics = dict[str, float]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LARGEST = 640  # pixels: of a longer image, no detail is looked at
_SMALL = 100  # pixels of the shorter side: about the taught size
_NEAR = 32  # levels of a channel: a colour as it looks after JPEG, or with a little shading
_STEP = 40  # levels between neighbours, from which on there is an edge


@dataclass(frozen=True)
class Domain:
    """What a checkpoint was taught.

    ``about`` names it, ``cure`` a checkpoint that knows more. ``words`` are lower-case. ``colors``
    are RGB levels of objects; ``grounds`` is what lies behind these: the darkest and the lightest
    level, and how far apart the channels of one pixel may be. ``kinds`` has each kind's ranges by
    the name of the statistic (see ``statistics``). ``threshold`` is the lowest score of a detection
    that is usually right, where it is another than the model family's.
    """

    about: str
    cure: str
    words: frozenset[str]
    colors: Mapping[str, Color]
    grounds: Grounds
    kinds: Mapping[str, Mapping[str, Range]]
    threshold: float | None = None

    @classmethod
    def read(cls, folder: Path | str) -> Domain | None:
        """The domain of the checkpoint in a folder; None where it claims none, as checkpoints of
        the Hub do."""
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
        told["words"] = frozenset(told["words"])
        told["colors"] = {name: tuple(color) for name, color in told["colors"].items()}
        told["grounds"] = tuple(told["grounds"])
        for ranges in told["kinds"].values():
            ranges |= {name: tuple(within) for name, within in ranges.items()}
        return cls(**told)

    def write(self, folder: Path | str) -> Path:
        """Say so in a checkpoint's folder; returns the file's path."""
        path = Path(folder) / FILE
        told = self.__dict__ | {"words": sorted(self.words)}
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return path

    def knows(self, image: Image.Image) -> bool:
        """Whether every statistic of the image is within the range of one kind."""
        return self.distance(image) == 0

    def knows_phrase(self, phrase: str) -> bool:
        """Whether every word of the phrase was taught."""
        words = normalize_phrase(phrase).split()
        return bool(words) and self.words.issuperset(words)

    def distance(self, image: Image.Image) -> float:
        """How far the image is from the nearest kind: 0 within its ranges, 1 where a statistic is
        as far outside as its range is wide."""
        return self._nearest(image)[0]

    def why(self, image: Image.Image) -> str:
        """The statistic that sets the image apart most, in words; empty for one that is known."""
        far, kind, name, value = self._nearest(image)
        low, high = self.kinds[kind][name]
        return f"{name} {value:.3f}, {kind} images have {low:.3f} to {high:.3f}" if far else ""

    def _nearest(self, image: Image.Image) -> tuple[float, str, str, float]:
        """Of the kind that is nearest, the statistic that is furthest: distance, kind, name and
        value."""
        views = _measured(image, tuple(self.colors.values()), self.grounds)
        return min(self._furthest(kind, views) for kind in self.kinds)

    def _furthest(self, kind: str, views: list[Statistics]) -> tuple[float, str, str, float]:
        ranges = self.kinds[kind]
        found = [(name, view[name]) for view in views for name in ranges]
        return max((_outside(value, ranges[name]), kind, name, value) for name, value in found)


def _outside(value: float, within: Range) -> float:
    low, high = within
    return max(low - value, value - high, 0.0) / max(high - low, 1e-3)


# While an image lives: the detector's domain asks, and then the segmenter's, which is the same.
_KNOWN: dict[tuple[int, tuple[Color, ...], Grounds], list[Statistics]] = {}


def _measured(image: Image.Image, colors: tuple[Color, ...], grounds: Grounds) -> list[Statistics]:
    key = (id(image), colors, grounds)
    if key not in _KNOWN:
        _KNOWN[key] = measure(image, colors, grounds)
        weakref.finalize(image, _KNOWN.pop, key, None)
    return _KNOWN[key]


def measure(image: Image.Image, colors: Sequence[Color], grounds: Grounds) -> list[Statistics]:
    """The statistics of an image as it is, where lines and grain show, and as small as the taught
    ones are, where what is thick for its size does not pass for an area."""
    views = [_LARGEST / max(image.size), _SMALL / min(image.size)]
    scales = sorted({min(1.0, scale) for scale in views})
    return [statistics(_pixels(image, scale), colors, grounds) for scale in scales]


def statistics(pixels: Pixels, colors: Sequence[Color], grounds: Grounds) -> Statistics:
    """Shares, in [0, 1], of RGB levels (height, width, 3):

    - white: lighter than any ground, as paper is;
    - muted: such as lie behind the objects;
    - span: of all levels, those between the darkest and the lightest of these, a twentieth left
      out at either end;
    - taught: near one of the colours;
    - strange: none of these, and not on an edge, where colours blend;
    - edges: much unlike a neighbour;
    - thin: of all that is not muted, what is part of a line rather than of an area;
    - lines: the same of what is neither muted nor white, as drawings on paper are.
    """
    red, green, blue = cv2.split(pixels)
    low, high = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    dark, light, spread = grounds
    muted = (low >= dark) & (high <= light) & (high - low <= spread)
    edge = _edges(pixels)
    taught = _near(tuple(colors))[red, green, blue] & ~muted
    return {
        "white": float((low > light).mean()),
        "muted": float(muted.mean()),
        "span": _span(pixels[muted].mean(1)),
        "taught": float(taught.mean()),
        "strange": float((~taught & ~muted & ~edge).mean()),
        "edges": float(edge.mean()),
        "thin": _thin(~muted),
        "lines": _thin(~muted & (low <= light)),
    }


def _pixels(image: Image.Image, scale: float) -> Pixels:
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small)


@functools.lru_cache(maxsize=2)
def _near(colors: tuple[Color, ...]) -> Mask:
    """Whether an RGB level is near one of the colours, (256, 256, 256)."""
    near = np.zeros((256, 256, 256), bool)
    for color in colors:
        near[tuple(slice(max(0, level - _NEAR), level + _NEAR + 1) for level in color)] = True
    return near


def _span(levels: NDArray[np.float64]) -> float:
    low, high = np.quantile(levels, (0.05, 0.95)) if levels.size else (0.0, 0.0)
    return float(high - low) / 255


def _edges(pixels: Pixels) -> Mask:
    """Pixels that differ much from the one before or after, down or across, (height, width)."""
    edge = np.zeros(pixels.shape[:2], bool)
    across = _unlike(pixels[:, 1:], pixels[:, :-1])
    down = _unlike(pixels[1:], pixels[:-1])
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _unlike(pixels: Pixels, others: Pixels) -> Mask:
    if not pixels.size:
        return np.zeros(pixels.shape[:2], bool)
    red, green, blue = cv2.split(cv2.absdiff(pixels, others))
    return np.asarray(cv2.max(cv2.max(red, green), blue) > _STEP)


def _thin(things: Mask) -> float:
    """The share of a mask (height, width) that no 3x3 square within it covers."""
    square = np.ones((3, 3), np.uint8)
    thick = cv2.morphologyEx(things.astype(np.uint8), cv2.MORPH_OPEN, square)
    return 1 - float(thick.sum() / things.sum()) if things.any() else 0.0
