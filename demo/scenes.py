"""The shapes world: procedural scenes with exact ground truth.

Three families. A *strip* is drawn the way NLVR v1 draws its images (400x100 pixels, three light boxes on grey, towers of squares or
scattered shapes); a *canvas* goes beyond it (any size, textured backgrounds, overlaps, letters); a *board* is a canvas whose objects,
each of another shape, keep to cells of their own, so that a small policy can see them well. Every object knows its visible box and mask,
so a labeller, a reward or a policy can be scored without a human.

    python -m demo.scenes --out scenes.png      # a contact sheet to look at
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLORS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "yellow": (255, 255, 0),
    "blue": (0, 153, 255),
    "red": (220, 40, 40),
    "green": (40, 160, 70),
    "orange": (255, 140, 0),
    "purple": (140, 60, 170),
    "white": (255, 255, 255),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
LETTERS = "ABCDEFGH"
SIZES = {"small": (9, 13), "medium": (18, 24), "large": (28, 40)}  # side in pixels, inclusive
NLVR_COLORS, NLVR_SHAPES = ("black", "yellow", "blue"), ("circle", "square", "triangle")
NLVR_SIDES = {"small": 10, "medium": 20, "large": 30}
STRIP_SIZE = (400, 100)
CANVAS_SIZE = (112, 112)  # as questions are asked about; any other does as well
BOARD_CELL = 28  # pixels, of which a board has four by four: what the demo's policy sees as one token
STRIP_BOXES = {"left": (0, 0, 100, 100), "middle": (150, 0, 250, 100), "right": (300, 0, 400, 100)}
_OVERSAMPLE = 4
Family = Literal["strip", "canvas", "board"]
_MIN_VISIBLE = 0.5  # an object of which less than this can be seen is not part of the ground truth


@dataclass(frozen=True)
class Thing:
    """One visible object. ``bbox`` is xyxy pixels, tight around ``mask`` (bool, image height x width)."""

    color: str
    shape: str
    size: str
    place: str  # "left", "middle", "right" of a strip; "" on a canvas
    bbox: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def name(self) -> str:
        """The phrase that grounds it: ``black square``, ``letter a``."""
        return self.shape if self.shape.startswith("letter") else f"{self.color} {self.shape}"

    @property
    def center(self) -> tuple[float, float]:
        return (self.bbox[0] + self.bbox[2]) / 2, (self.bbox[1] + self.bbox[3]) / 2


@dataclass(frozen=True)
class Scene:
    kind: Family
    image: Image.Image
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class _Placed:
    """An object as it is going to be drawn, before anything covers it."""

    color: str
    shape: str
    size: str
    place: str
    x: int
    y: int
    side: int


def make_scene(rng: random.Random, kind: Family | None = None, size: tuple[int, int] = CANVAS_SIZE) -> Scene:
    """Draw one scene, by default a strip or a canvas. ``size`` (width, height) is used by canvases; strips are 400x100, boards 112x112."""
    kind = kind or rng.choice(("strip", "canvas"))
    if kind == "strip":
        background, placed = _strip_background(rng), _strip_objects(rng)
    elif kind == "board":
        return make_board(rng)
    else:
        background, placed = _canvas_background(rng, size), _canvas_objects(rng, size)
    return _paint(rng, kind, background, placed)


def make_board(rng: random.Random, fewest: int = 4, alike: bool = True) -> Scene:
    """Draw a board of ``fewest`` to six objects; some may be ``alike`` in colour, since there are but four."""
    return _paint(rng, "board", _canvas_background(rng, CANVAS_SIZE), _board_objects(rng, fewest, alike))


# ------------------------------------------------------------------------------------------------------------------ placing


def _strip_objects(rng: random.Random) -> list[_Placed]:
    nlvr = rng.random() < 0.6
    colors = NLVR_COLORS if nlvr else tuple(rng.sample([c for c in COLORS if c != "white"], 4))  # white vanishes on light grey
    if rng.random() < 0.5:
        return [p for place in STRIP_BOXES for p in _tower(rng, place, colors)]
    shapes = NLVR_SHAPES if nlvr else SHAPES
    return [p for place in STRIP_BOXES for p in _scatter(rng, place, colors, shapes, exact=nlvr)]


def _tower(rng: random.Random, place: str, colors: tuple[str, ...]) -> list[_Placed]:
    x = STRIP_BOXES[place][0] + (40 if rng.random() < 0.7 else rng.randint(0, 80))
    return [_Placed(rng.choice(colors), "square", "medium", place, x, 80 - 21 * level, 20) for level in range(rng.randint(1, 4))]


def _scatter(rng: random.Random, place: str, colors: tuple[str, ...], shapes: tuple[str, ...], exact: bool) -> list[_Placed]:
    left, top, right, bottom = STRIP_BOXES[place]
    placed: list[_Placed] = []
    for _ in range(rng.randint(0 if exact else 1, 7)):
        size = rng.choice(list(SIZES))
        side = NLVR_SIDES[size] if exact else rng.randint(*SIZES[size])
        for _ in range(20):
            x, y = rng.randint(left, right - side), rng.randint(top, bottom - side)
            if rng.random() < 0.2:  # NLVR likes objects that touch a wall
                x, y = rng.choice(((left, y), (right - side, y), (x, top), (x, bottom - side)))
            if all(_apart(x, y, side, p) for p in placed):
                placed.append(_Placed(rng.choice(colors), rng.choice(shapes), size, place, x, y, side))
                break
    return placed


def _canvas_objects(rng: random.Random, size: tuple[int, int]) -> list[_Placed]:
    width, height = size
    placed: list[_Placed] = []
    for _ in range(rng.randint(2, 7)):
        word = rng.choice(list(SIZES))
        side = min(rng.randint(*SIZES[word]) + 3, width, height)
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        if rng.random() < 0.12:
            word, side, shape = "medium", rng.randint(18, 26), f"letter {rng.choice(LETTERS).lower()}"
        overlap_allowed = rng.random() < 0.15
        for _ in range(20):
            x, y = rng.randint(0, width - side), rng.randint(0, height - side)
            if overlap_allowed or all(_apart(x, y, side, p) for p in placed):
                placed.append(_Placed(color, shape, word, "", x, y, side))
                break
    return placed


def _board_objects(rng: random.Random, fewest: int, alike: bool) -> list[_Placed]:
    """Objects of different shapes, a cell each."""
    shapes = rng.sample(SHAPES, rng.randint(fewest, 6))
    colors = rng.choices(rng.sample(list(COLORS), 4), k=len(shapes)) if alike else rng.sample(list(COLORS), len(shapes))
    placed = []
    for shape, color, cell in zip(shapes, colors, rng.sample(range(16), len(shapes)), strict=True):
        side = rng.randint(18, 24)
        x, y = (BOARD_CELL * at + rng.randint(1, BOARD_CELL - side - 1) for at in divmod(cell, 4))
        placed.append(_Placed(color, shape, "medium", "", x, y, side))
    return placed


def _apart(x: int, y: int, side: int, other: _Placed) -> bool:
    return x >= other.x + other.side or other.x >= x + side or y >= other.y + other.side or other.y >= y + side


# ----------------------------------------------------------------------------------------------------------------- painting


def _strip_background(rng: random.Random) -> np.ndarray:
    light, dark = (211, 128) if rng.random() < 0.7 else (rng.randint(180, 235), rng.randint(90, 150))
    pixels = np.full((STRIP_SIZE[1], STRIP_SIZE[0], 3), dark, np.float32)
    for x0, y0, x1, y1 in STRIP_BOXES.values():
        pixels[y0:y1, x0:x1] = light
    return pixels


def _canvas_background(rng: random.Random, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    grey = rng.randint(130, 180)  # muted, so that every colour of the palette stands out
    base = np.array([grey + rng.randint(-25, 25) for _ in range(3)], np.float32)
    pixels = np.broadcast_to(base, (height, width, 3)).copy()
    style = rng.choice(("plain", "gradient", "noise", "stripes"))
    if style == "gradient":
        pixels += np.linspace(-25, 25, width, dtype=np.float32)[None, :, None]
    elif style == "noise":
        pixels += np.random.default_rng(rng.getrandbits(32)).normal(0, 8, (height, width, 1)).astype(np.float32)
    elif style == "stripes":
        pixels += 12 * (((np.arange(height) // rng.randint(4, 10)) % 2) * 2 - 1)[:, None, None].astype(np.float32)
    return np.clip(pixels, 0, 255)


def _paint(rng: random.Random, kind: Family, pixels: np.ndarray, placed: list[_Placed]) -> Scene:
    masks: list[np.ndarray] = []
    for p in placed:
        color = np.clip(np.array(COLORS[p.color], np.float32) + rng.uniform(-12, 12) * (rng.random() < 0.4), 0, 255)
        alpha = _coverage(p)[..., None]
        patch = pixels[p.y : p.y + p.side, p.x : p.x + p.side]
        patch[:] = patch * (1 - alpha) + color * alpha
        drawn = np.zeros(pixels.shape[:2], bool)
        drawn[p.y : p.y + p.side, p.x : p.x + p.side] = alpha[..., 0] >= 0.5
        for earlier in masks:
            earlier &= ~drawn
        masks.append(drawn)
    things = [_thing(p, mask) for p, mask in zip(placed, masks, strict=True)]
    return Scene(kind, Image.fromarray(pixels.round().astype(np.uint8)), tuple(t for t in things if t is not None))


def _coverage(p: _Placed) -> np.ndarray:
    """Anti-aliased coverage in [0, 1] of the object inside its own square, (side, side) float32."""
    n = p.side * _OVERSAMPLE
    canvas = Image.new("L", (n, n))
    draw = ImageDraw.Draw(canvas)
    if p.shape.startswith("letter"):
        font = ImageFont.load_default(size=n)
        left, top, right, bottom = draw.textbbox((0, 0), p.shape[-1].upper(), font=font)
        draw.text(((n - right - left) / 2, (n - bottom - top) / 2), p.shape[-1].upper(), fill=255, font=font, stroke_width=n // 40)
    elif p.shape == "circle":
        draw.ellipse((0, 0, n - 1, n - 1), fill=255)
    elif p.shape == "square":
        draw.rectangle((0, 0, n - 1, n - 1), fill=255)
    else:
        draw.polygon([(x * (n - 1), y * (n - 1)) for x, y in _outline(p.shape)], fill=255)
    return np.asarray(canvas.resize((p.side, p.side), Image.Resampling.BOX), np.float32) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """The polygon of a shape in the unit square."""
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "diamond":
        return [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]
    if shape == "cross":
        a, b = 0.33, 0.67
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    if shape == "star":
        radii = (0.5, 0.22)
        angles = [np.pi * (i / 5 - 0.5) for i in range(10)]
        return [(0.5 + radii[i % 2] * np.cos(a), 0.5 + radii[i % 2] * np.sin(a)) for i, a in enumerate(angles)]
    raise ValueError(f"unknown shape {shape!r}; expected one of {SHAPES}")


def _thing(p: _Placed, mask: np.ndarray) -> Thing | None:
    ys, xs = np.nonzero(mask)
    if len(xs) < max(4, _MIN_VISIBLE * (_coverage(p) >= 0.5).sum()):
        return None
    bbox = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    return Thing(p.color, p.shape, p.size, p.place, bbox, mask)


def contact_sheet(scenes: list[Scene], columns: int = 3) -> Image.Image:
    """Scenes side by side with their boxes, for a human to look at."""
    cell = (408, 120)
    sheet = Image.new("RGB", (cell[0] * columns, cell[1] * -(-len(scenes) // columns)), "white")
    for i, scene in enumerate(scenes):
        view = scene.image.copy()
        draw = ImageDraw.Draw(view)
        for thing in scene.things:
            draw.rectangle((thing.bbox[0], thing.bbox[1], thing.bbox[2] - 1, thing.bbox[3] - 1), outline="magenta")
        sheet.paste(view, (cell[0] * (i % columns), cell[1] * (i // columns)))
    return sheet


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Draw a contact sheet of random scenes.")
    parser.add_argument("--out", default="scenes.png")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator = random.Random(args.seed)
    contact_sheet([make_scene(generator) for _ in range(args.count)]).save(args.out)
    print(f"{args.count} scenes drawn in {args.out}")
