"""Measure what images of the shapes world look like, for the embedded checkpoints to know their own
kind.

Draws thousands of scenes, half of them moved by a pixel and saved as JPEG, takes the statistics of
``labeling.domain`` and writes their ranges, with some room on either side, to ``domain.json``
beside each model's weights. Then says how many new scenes are known, and of how many pictures in a
folder.

    python -m demo.calibrate                                # two minutes on one core
    python -m demo.calibrate --images ../shared/data/nlvr/images      # measures those too
"""

from __future__ import annotations

import argparse
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from demo.scenes import CANVAS_SIZE, COLORS, LETTERS, SHAPES, SIZES, Scene, make_scene
from labeling.domain import Domain, Range, measure

CHECKPOINTS = Path(__file__).parents[1] / "labeling" / "embedded"
TAUGHT = ("detector", "segmenter")
GROUNDS = (75, 238, 70)  # levels of what is drawn, and room for noise, stripes and JPEG
THRESHOLD = 0.21  # where the detector finds what there is, little else, and the same again (bench.grounding)
RARE = 0.001  # of the scenes may be beyond either end, before there is
MOST_WHITE = 0.995  # of a sheet with anything on it
MOST_LINES = 0.35  # of what is drawn there; more is a drawing, not shapes
# As drawing programs have them.
PURE = {
    "pure red": (255, 0, 0),
    "pure green": (0, 255, 0),
    "pure blue": (0, 0, 255),
    "half green": (0, 128, 0),
    "half purple": (128, 0, 128),
    "full orange": (255, 165, 0),
}
ROOM = 0.4  # of a range's width, added below and above
LEAST_ROOM = 0.01
WORDS = [*COLORS, *SHAPES, *SIZES, "object", "letter", *LETTERS.lower()]


def draw(rng: random.Random) -> Scene:
    """A scene of either kind as the models were taught them, never an empty one."""
    size = CANVAS_SIZE if rng.random() < 0.5 else (rng.randint(100, 160), rng.randint(100, 160))
    scene = make_scene(rng, size=size)
    return scene if scene.things else draw(rng)


def disturb(rng: random.Random, image: Image.Image) -> Image.Image:
    """The image moved by up to a pixel either way and saved as JPEG: the same to anybody who looks
    at it."""
    moved = ImageChops.offset(image, rng.randint(-1, 1), rng.randint(-1, 1))
    file = io.BytesIO()
    moved.save(file, "JPEG", quality=rng.randint(75, 95))
    return Image.open(file).convert("RGB")


def calibrate(scenes: int, seed: int) -> Domain:
    """The domain that so many scenes span."""
    rng = random.Random(seed)
    colors = {name: tuple(color) for name, color in (COLORS | PURE).items()}
    seen: dict[str, dict[str, list[float]]] = {"strip": {}, "canvas": {}, "paper": {}}
    for n in range(scenes):
        scene = draw(rng)
        kind, plain = scene.kind, scene.image
        if scene.kind == "canvas" and n % 4 < 2:
            kind, plain = "paper", on_paper(scene)
        image = disturb(rng, plain) if n % 2 else plain
        for view in measure(image, list(colors.values()), GROUNDS):
            for name, value in view.items():
                seen[kind].setdefault(name, []).append(value)
    ranges = {kind: _ranges(found) for kind, found in seen.items()}
    ranges["paper"] |= {"white": (ranges["paper"]["white"][0], MOST_WHITE), "lines": (0.0, MOST_LINES)}
    return Domain(
        about="the shapes world",
        cure="IDEA-Research/grounding-dino-base",
        words=frozenset(WORDS),
        colors=colors,
        grounds=GROUNDS,
        kinds=ranges,
        threshold=THRESHOLD,
    )


def on_paper(scene: Scene) -> Image.Image:
    """The objects of a scene on white, as people draw them."""
    pixels = np.asarray(scene.image).copy()
    pixels[~np.logical_or.reduce([thing.mask for thing in scene.things])] = 255
    return Image.fromarray(pixels)


def _ranges(found: dict[str, list[float]]) -> dict[str, Range]:
    return {name: _range(values) for name, values in found.items()}


def _range(values: list[float]) -> Range:
    low, high = np.quantile(values, (RARE, 1 - RARE))
    room = max(LEAST_ROOM, ROOM * (high - low))
    return max(0.0, round(float(low - room), 4)), min(1.0, round(float(high + room), 4))


def flat(path: Path) -> Image.Image:
    """A file's picture on white paper."""
    image = Image.open(path).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the shapes world; write domain.json.")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders to measure too")
    a = parser.parse_args()
    domain = calibrate(a.scenes, a.seed)
    for name in TAUGHT:
        print(domain.write(a.out / name))
    generator = random.Random(a.seed + 1)
    fresh = [draw(generator).image for _ in range(1000)]
    print(f"new scenes known: {sum(map(domain.knows, fresh))} of {len(fresh)}")
    moved = [disturb(generator, image) for image in fresh]
    print(f"the same, moved and as JPEG: {sum(map(domain.knows, moved))} of {len(moved)}")
    for folder in a.images:
        pictures = [flat(path) for path in sorted(folder.iterdir())]
        print(f"{folder}: {sum(map(domain.knows, pictures))} of {len(pictures)} known")
