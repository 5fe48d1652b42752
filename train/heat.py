"""Attention on an image as colours to lay over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Box = Sequence[float]
# From the coldest to the hottest cell: red, green, blue, opacity.
HEAT = np.array([(10, 10, 40, 0.4), (150, 25, 90, 0.5), (240, 80, 40, 0.65), (255, 225, 60, 0.8)])
WIDTH = 448  # pixels of a picture to look at
LINE = (0, 230, 160)  # of a box
THICK = 2  # pixels


def heat_image(attention: NDArray[Any]) -> Image.Image:
    """A grid (rows, columns) as an RGBA image of one pixel a cell, the hottest at full heat."""
    heat = attention / attention.max() if attention.max() > 0 else attention
    stops = np.linspace(0, 1, len(HEAT))
    channels = (HEAT * (1, 1, 1, 255)).T
    pixels = np.stack([np.interp(heat, stops, channel) for channel in channels], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8), "RGBA")


def overlaid(image: Image.Image, attention: NDArray[Any], boxes: Sequence[Box]) -> Image.Image:
    """The image in grey, ``WIDTH`` pixels wide, under its attention, with boxes x0, y0, x1, y1 in
    shares of its sides.
    """
    size = (WIDTH, max(1, round(WIDTH * image.height / image.width)))
    picture = image.convert("L").convert("RGBA").resize(size)
    heat = heat_image(attention).resize(size, Image.Resampling.BILINEAR)
    picture = Image.alpha_composite(picture, heat).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        corners = [edge * side for edge, side in zip(box, (*size, *size), strict=True)]
        pen.rectangle(corners, outline=LINE, width=THICK)
    return picture
