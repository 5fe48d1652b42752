"""From regions of an image to image tokens: how much of each token's patch of the image lies in a region.

Every model family lays image tokens out in its own way: resized grids, tiles with a thumbnail, crops, unpadded grids with line ends. Here
each layout is a list of ``Tile``: a grid of token positions and the rectangle of the original image that it shows. Regions are scaled to
the tiles, never clamped before, and a token's weight is the exact share of its patch that the region covers.

    tiles = image_tiles(processor, inputs, sizes=[[(640, 480)]])       # rows -> images -> tiles
    region = token_weights(tiles[0][0], draw((640, 480), boxes=[(10, 20, 200, 240)]), length=inputs["input_ids"].shape[1])
    image = image_mask(tiles[0], length=inputs["input_ids"].shape[1])

Knows Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, Gemma 3, LLaVA-OneVision and SmolVLM through their transformers processors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardlib.rle import decode

Size = tuple[int, int]  # width, height in pixels of the original image
Box = Sequence[float]  # x0, y0, x1, y1 in pixels of the original image
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A grid of image tokens: ``positions`` (rows, columns) in the sequence, showing the rectangle ``box`` of the original image."""

    box: tuple[float, float, float, float]
    positions: NDArray[np.int64]


def image_tiles(processor: Any, inputs: Mapping[str, Any], sizes: Sequence[Sequence[Size]], **settings: Any) -> list[list[list[Tile]]]:
    """Where the images' tokens are in every row of a processor's output: rows -> images -> tiles.

    processor: the transformers processor that made ``inputs``.
    inputs: its output: input_ids (B, T), and image_grid_thw where the family has it.
    sizes: for every row the (width, height) of its images, as they were given to the processor.
    settings: image settings that the processor was called with, other than its own (such as ``max_patches=6``).
    """
    family = type(processor).__name__
    if family not in _LAYOUTS:
        raise ValueError(f"the token layout of {family} is unknown; known are {', '.join(_LAYOUTS)}")
    ids = np.asarray(inputs["input_ids"])
    if len(ids) != len(sizes):
        raise ValueError(f"{len(ids)} rows of input_ids, but sizes of {len(sizes)} rows")
    placeholder = processor.tokenizer.image_token_id if family == "Gemma3Processor" else processor.image_token_id
    grids = iter(np.asarray(inputs["image_grid_thw"])) if "image_grid_thw" in inputs else iter(())
    found = []
    for r, row in enumerate(ids):
        row_grids = [next(grids, None) for _ in sizes[r]]
        images = _Images(processor, sizes[r], row_grids, settings)
        found.append(_row_tiles(r, np.flatnonzero(row == placeholder), [layout(images) for layout in _LAYOUTS[family]]))
    return found


def _row_tiles(row: int, positions: NDArray[np.int64], candidates: Sequence[list[_Layout]]) -> list[list[Tile]]:
    """Give the row's image tokens, in order, to its images' grids, in the candidate layout of as many tokens."""
    counts = [sum(layout.tokens for layout in layouts) for layouts in candidates]
    if len(positions) not in counts:
        raise ValueError(
            f"row {row} holds {len(positions)} image tokens, its {len(candidates[0])} images make {' or '.join(map(str, counts))}: was the "
            "prompt truncated, or the processor called with other images or settings?"
        )
    layouts = candidates[counts.index(len(positions))]
    found, start = [], 0
    for layout in layouts:
        tiles = []
        for grid in layout.grids:
            count = grid.rows * (grid.columns + grid.line_end)
            index = positions[start : start + count].reshape(grid.rows, -1)[:, : grid.columns]
            tiles.append(Tile(grid.box, index))
            start += count
        start += layout.trailing
        found.append(tiles)
    return found


# ---------------------------------------------------------------------------------------------------------------------------------------
# Regions


def draw(size: Size, boxes: Iterable[Box] = (), masks: Iterable[Mapping[str, Any]] = ()) -> Weights:
    """A region as a picture (height, width): 1 inside, 0 outside, the covered share for pixels on a box's edge.

    boxes: xyxy in pixels; parts outside the image are left out. masks: COCO run-length encodings of the image's size.
    """
    width, height = size
    region = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in boxes:
        if not (x1 > x0 and y1 > y0):
            raise ValueError(f"box {(x0, y0, x1, y1)} is empty: expected x0 < x1 and y0 < y1")
        rows, columns = _overlap(np.array([y0, y1]), height), _overlap(np.array([x0, x1]), width)
        region = np.maximum(region, rows.T @ columns)
    for rle in masks:
        mask = decode(rle)
        if mask.shape != region.shape:
            raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels for an image of {width}x{height}")
        region = np.maximum(region, mask)
    return region


def draw_regions(size: Size, regions: Iterable[Mapping[str, Any]]) -> Weights:
    """Labelled regions ``{"bbox": ..., "mask": ...}`` as a picture: a mask says it better than its box."""
    known = list(regions)
    return draw(size, [r["bbox"] for r in known if not r.get("mask")], [r["mask"] for r in known if r.get("mask")])


def token_weights(tiles: Sequence[Tile], region: Weights, length: int) -> Weights:
    """Share of each token's patch that lies in the region: (length,) in [0, 1], 0 for tokens that are not of this image."""
    weights = np.zeros(length, np.float32)
    height, width = region.shape
    for tile in tiles:
        x0, y0, x1, y1 = tile.box
        rows, columns = tile.positions.shape
        covered_y = _overlap(np.linspace(y0, y1, rows + 1), height)  # (rows, height)
        covered_x = _overlap(np.linspace(x0, x1, columns + 1), width)  # (columns, width)
        patch = (y1 - y0) * (x1 - x0) / (rows * columns)
        weights[tile.positions] = np.clip(covered_y @ region @ covered_x.T / patch, 0.0, 1.0)
    return weights


def painted(tiles: Sequence[Tile], values: NDArray[Any], size: Size, amounts: bool = False) -> NDArray[np.float64]:
    """Values (length,) of a row's tokens as one picture of the image: a grid (rows, columns) as fine as its finest tile.

    Where tiles overlap, as a thumbnail does with all others, their values are averaged; ``amounts``, such as attention, of which a small
    patch holds less, are spread over the patch and added up.
    """
    if len(tiles) == 1:
        return np.asarray(values[tiles[0].positions], np.float64)
    width, height = size
    finest = [((t.box[2] - t.box[0]) / t.positions.shape[1], (t.box[3] - t.box[1]) / t.positions.shape[0]) for t in tiles]
    columns, rows = round(width / min(w for w, _ in finest)), round(height / min(h for _, h in finest))
    x, y = ((np.arange(n) + 0.5) * side / n for n, side in ((columns, width), (rows, height)))
    total, covered = np.zeros((rows, columns)), np.zeros((rows, columns))
    for tile, (w, h) in zip(tiles, finest, strict=True):
        column, row = np.floor((x - tile.box[0]) / w).astype(int), np.floor((y - tile.box[1]) / h).astype(int)
        inside = np.outer((row >= 0) & (row < tile.positions.shape[0]), (column >= 0) & (column < tile.positions.shape[1]))
        index = tile.positions[row.clip(0, tile.positions.shape[0] - 1)][:, column.clip(0, tile.positions.shape[1] - 1)]
        share = (width / columns) * (height / rows) / (w * h) if amounts else 1.0
        total += np.where(inside, values[index] * share, 0.0)
        covered += inside
    return total if amounts else total / covered.clip(min=1)


def image_mask(images: Iterable[Sequence[Tile]], length: int) -> NDArray[np.bool_]:
    """Which positions of a row hold tokens of its images (line ends are none): (length,)."""
    mask = np.zeros(length, bool)
    for tiles in images:
        for tile in tiles:
            mask[tile.positions] = True
    return mask


def _overlap(edges: NDArray[np.float64], pixels: int) -> NDArray[np.float32]:
    """Length that each interval between neighbouring ``edges`` shares with each pixel: (intervals, pixels)."""
    start = np.arange(pixels)
    shared = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return np.clip(shared, 0.0, None).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Layouts, as each family's processor makes them


@dataclass(frozen=True)
class _Grid:
    """One block of tokens, row by row; ``line_end`` tokens close every row."""

    box: tuple[float, float, float, float]
    rows: int
    columns: int
    line_end: int = 0


@dataclass(frozen=True)
class _Layout:
    """The blocks of one image in order, and how many tokens without a place in it follow them."""

    grids: list[_Grid]
    trailing: int = 0

    @property
    def tokens(self) -> int:
        return self.trailing + sum(grid.rows * (grid.columns + grid.line_end) for grid in self.grids)


@dataclass(frozen=True)
class _Images:
    """The images of one row, and the processor that made tokens of them."""

    processor: Any
    sizes: Sequence[Size]
    grids: list[Any]  # (time, height, width) in patches, for Qwen
    settings: Mapping[str, Any]

    @property
    def side(self) -> int:
        """Tokens along either side of a square tile."""
        names = ("image_seq_length", "num_image_tokens", "image_seq_len")  # InternVL and Gemma 3, LLaVA-OneVision, SmolVLM
        return math.isqrt(next(getattr(self.processor, name) for name in names if hasattr(self.processor, name)))

    def setting(self, name: str, default: Any) -> Any:
        """An image setting: as passed to the call, else the image processor's own, else the family's."""
        return self.settings.get(name) or getattr(self.processor.image_processor, name, None) or default


def _whole(size: Size) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(size[0]), float(size[1])


def _qwen(images: _Images) -> list[_Layout]:
    """The whole image resized to a grid of patches, merge x merge of them to a token."""
    if any(grid is None for grid in images.grids):
        raise ValueError("inputs['image_grid_thw'] has fewer images than sizes")
    merge = images.processor.image_processor.merge_size
    return [
        _Layout([_Grid(_whole(size), int(grid[1]) // merge, int(grid[2]) // merge)])
        for size, grid in zip(images.sizes, images.grids, strict=True)
    ]


def _internvl(images: _Images) -> list[_Layout]:
    """The image stretched over a grid of square tiles, then, if there are several, a thumbnail of the whole."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    side = images.side
    tile = images.processor.image_processor.size
    layouts = []
    for width, height in images.sizes:
        columns, rows = get_optimal_tiled_canvas(
            (height, width), (tile["height"], tile["width"]), images.setting("min_patches", 1), images.setting("max_patches", 12)
        )
        layouts.append(_tiled((width, height), rows, columns, side))
    return layouts


def _tiled(size: Size, rows: int, columns: int, side: int) -> _Layout:
    """Tiles that share the image evenly, then, if there are several, the whole of it."""
    w, h = size[0] / columns, size[1] / rows
    grids = [_Grid((c * w, r * h, (c + 1) * w, (r + 1) * h), side, side) for r in range(rows) for c in range(columns)]
    return _Layout(grids if len(grids) == 1 else [*grids, _Grid(_whole(size), side, side)])


def _smolvlm(images: _Images) -> list[_Layout]:
    """The image enlarged to a longest side, stretched over a grid of square tiles, then the whole squeezed into one."""
    from transformers.models.smolvlm.image_processing_smolvlm import get_resize_output_image_size

    settings = images.processor.image_processor
    tile = settings.max_image_size["longest_edge"]
    layouts = []
    for width, height in images.sizes:
        picture = np.broadcast_to(0, (height, width))
        high, wide = get_resize_output_image_size(picture, settings.size["longest_edge"]) if settings.do_resize else (height, width)
        aspect = wide / high
        if wide >= high:
            columns = math.ceil(wide / tile)
            rows = math.ceil(int(columns * tile / aspect) / tile)
        else:
            rows = math.ceil(high / tile)
            columns = math.ceil(int(rows * tile * aspect) / tile)
        layouts.append(_tiled((width, height), rows, columns, images.side))
    return layouts


def _squeezed(images: _Images) -> list[_Layout]:
    """The whole image squeezed into one square: InternVL and SmolVLM without tiles, Gemma 3 without pan-and-scan."""
    return [_Layout([_Grid(_whole(size), images.side, images.side)]) for size in images.sizes]


def _pan_and_scan(images: _Images) -> list[_Layout]:
    """Gemma 3 with pan-and-scan: the squeezed whole, then crops of a long image along its longer side."""
    side = images.side
    return [_Layout([_Grid(box, side, side) for box in (_whole(size), *_crops(images, size))]) for size in images.sizes]


def _crops(images: _Images, size: Size) -> list[tuple[float, float, float, float]]:
    long, short = max(size), min(size)
    smallest = images.setting("pan_and_scan_min_crop_size", 256)
    if long / short < images.setting("pan_and_scan_min_ratio_to_activate", 1.2):
        return []
    count = max(2, min(math.floor(long / short + 0.5), math.floor(long / smallest)))
    step = math.ceil(long / min(images.setting("pan_and_scan_max_num_crops", 4), count))
    if min(step, short) < smallest:
        return []
    ends = [(float(start), float(min(start + step, long))) for start in range(0, long, step)]
    return [(a, 0.0, b, float(short)) if size[0] >= size[1] else (0.0, a, float(short), b) for a, b in ends]


def _llava_onevision(images: _Images) -> list[_Layout]:
    """A squeezed whole image, then a finer grid without its padding, each row closed by a line end; several images: padded squares."""
    side = images.side
    if len(images.sizes) > 1:
        return [_Layout([_Grid(_squared(size), side, side)], trailing=1) for size in images.sizes]
    return [_Layout([_Grid(_whole(size), side, side), _fine_grid(images.processor, size, side)]) for size in images.sizes]


def _squared(size: Size) -> tuple[float, float, float, float]:
    """The image with borders that make it a square, in its own pixels."""
    width, height = size
    longest = max(size)
    x, y = -((longest - width) // 2), -((longest - height) // 2)
    return float(x), float(y), float(x + longest), float(y + longest)


def _fine_grid(processor: Any, size: Size, side: int) -> _Grid:
    """LLaVA-OneVision's high-resolution grid: fitted into the best canvas, padded there, and stripped of rows or columns of padding."""
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    images = processor.image_processor
    tile = images.size.get("height") or images.size["shortest_edge"]
    canvas_h, canvas_w = select_best_resolution((height, width), images.image_grid_pinpoints)
    scale = min(canvas_w / width, canvas_h / height)
    fitted_w, fitted_h = min(math.ceil(width * scale), canvas_w), min(math.ceil(height * scale), canvas_h)
    rows, columns = side * (canvas_h // tile), side * (canvas_w // tile)
    cell_h, cell_w = canvas_h / rows, canvas_w / columns
    cut_rows = cut_columns = 0
    if width / height > columns / rows:
        cut_rows = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        cut_columns = (columns - int(round(width * (rows / height), 7))) // 2
    rows, columns = rows - 2 * cut_rows, columns - 2 * cut_columns
    # Canvas pixels, less the padding in front of the image, scaled back to the original.
    x, y = cut_columns * cell_w - (canvas_w - fitted_w) // 2, cut_rows * cell_h - (canvas_h - fitted_h) // 2
    to_x, to_y = width / fitted_w, height / fitted_h
    box = (x * to_x, y * to_y, (x + columns * cell_w) * to_x, (y + rows * cell_h) * to_y)
    most = int(processor.vision_aspect_ratio.removeprefix("anyres_max_"))
    shrink = math.sqrt(rows * columns / (most * side**2))
    if shrink > 1.1:
        rows, columns = int(rows // shrink), int(columns // shrink)
    return _Grid(box, rows, columns, line_end=1)


# Where a setting decides between layouts, the number of tokens tells which it was.
_LAYOUTS: dict[str, tuple[Callable[[_Images], list[_Layout]], ...]] = {
    "Qwen2VLProcessor": (_qwen,),
    "Qwen2_5_VLProcessor": (_qwen,),
    "Qwen3VLProcessor": (_qwen,),
    "InternVLProcessor": (_internvl, _squeezed),
    "Gemma3Processor": (_squeezed, _pan_and_scan),
    "LlavaOnevisionProcessor": (_llava_onevision,),
    "SmolVLMProcessor": (_smolvlm, _squeezed),
}
