"""Where a row's evidence is: boxes x0, y0, x1, y1 in pixels of the image that is shown, with phrase and mask.

A box may be in shares of the image where the row says so (``bbox_type`` norm1), and in pixels of an image of another size
where the row states that size (columns ``width`` and ``height``, as COCO and Visual-CoT have them): it is then scaled. No
unit is guessed: what lies off the image, or on a single pixel, is a ``RowError``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rewardlib import rle
from rewardlib.ink import has_ink
from rewardlib.rows.values import RowError, decoded, is_missing, listed, number, plain, stated, text

REGIONS = ("regions", "objects", "bboxes", "bboxs", "bbox")
SIZE = ("width", "height")
ROLES = ("evidence", "context", "unknown")
Size = tuple[int, int]  # width, height

_CORNERS = (("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_PHRASES = ("phrase", "label", "name")
_SIDES_OF_MODE = {"xyxy": False, "xyxy_abs": False, "0": False, "xywh": True, "xywh_abs": True, "1": True}  # detectron2's modes
_OVERSHOOT = 0.05  # of a side: annotators are a little off at the borders; what lies further out is of another image


def read_regions(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row's regions as it states them: each a mapping with ``bbox``, in the row's unit. ``RowError`` if one is none."""
    name = next((name for name in REGIONS if listed(decoded(columns.get(name)))), None)
    if name is None:
        return []
    value = decoded(columns[name])
    if isinstance(value, str):
        raise RowError("bad regions", f"{name} is {value!r:.80}, which is no list and no JSON; give a list of regions")
    if name == "objects":
        return list(_objects(value, columns))
    if not hasattr(value, "__iter__"):
        raise RowError("bad regions", f"{name} is {value!r:.80}, expected a list")
    if isinstance(value, Mapping) or not any(isinstance(plain(item), list | tuple | Mapping) for item in value):
        value = [value]  # a single region or box
    regions = []
    for n, region in enumerate(map(plain, listed(value))):
        if isinstance(region, list | tuple):
            region = {"bbox": region}
        if not isinstance(region, Mapping):
            raise RowError("bad region", f"{name}[{n}] is {region!r:.80}, expected an object with a bbox")
        regions.append({**_unit(columns), **{name: value for name, value in region.items() if value is not None}})
    return regions


def _unit(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of the numbers of all its boxes."""
    return {name: columns[name] for name in ("bbox_type", "bbox_mode") if not is_missing(columns.get(name))}


def fitted(regions: Sequence[Mapping[str, Any]], size: Size, of: Size | None = None) -> list[dict[str, Any]]:
    """Regions in pixels of an image of ``size``, clipped to it, with ``phrase``, ``bbox``, ``mask`` and ``flags``.

    of: the (width, height) that the row states, which its boxes in pixels and its masks are of; ``size`` where it states
    none. ``RowError`` for a region that does not lie on the image.
    """
    scale = scale_of(of, size)
    return [_fitted(n, region, size, of or size, scale) for n, region in enumerate(regions)]


def to_look_at(regions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The regions that the answer rests on: those whose role is evidence, and those of which nobody says a role.

    A region that is merely mentioned, or of which nobody could tell, is none to be rewarded for looking at.
    """
    return [dict(region) for region in regions if region.get("role") in (None, "", "evidence")]


def stated_size(columns: Mapping[str, Any]) -> Size | None:
    """The (width, height) that a row says its image has; None where it says nothing."""
    values = [columns.get(name) for name in SIZE]
    if any(is_missing(value) for value in values):
        return None
    try:
        width, height = (round(number(value)) for value in values)
    except (ValueError, OverflowError):
        raise RowError("bad size", f"width and height are {values!r:.60}, expected numbers of pixels") from None
    if min(width, height) < 1:
        raise RowError("bad size", f"the image's size is stated as {width}x{height}")
    return width, height


def scale_of(stated: Size | None, size: Size) -> tuple[float, float]:
    """What turns pixels of an image of the stated size into those of the image of ``size``, along x and y.

    ``RowError`` where one is no smaller or larger copy of the other: then nobody knows where the boxes are.
    """
    if stated is None or stated == size:
        return 1.0, 1.0
    (width, height), (other_width, other_height) = size, stated
    # Each side of a copy is rounded to whole pixels.
    drift = abs(width * other_height - height * other_width)
    if drift > max(width, height, other_width, other_height):
        turned = "; it seems to be turned" if stated == size[::-1] else ""
        raise RowError(
            "image of another size",
            f"the row says {other_width}x{other_height}, the image is {width}x{height}{turned}: convert the boxes to pixels of "
            "the image as it is shown, and its size with them",
        )
    return width / other_width, height / other_height


def _fitted(n: int, region: Mapping[str, Any], size: Size, of: Size, scale: tuple[float, float]) -> dict[str, Any]:
    fields = stated(region)
    box = _corners(n, fields)
    unit = fields.get("bbox_type", "real")
    if unit == "norm1":
        box = [value * side for value, side in zip(box, (*size, *size), strict=True)]
    elif unit == "real":
        if max(box) <= 1:
            raise RowError("bad region", f"regions[{n}].bbox {box} lies on one pixel; shares of the image need a bbox_type of norm1")
        box = [value * factor for value, factor in zip(box, (*scale, *scale), strict=True)]
    else:
        raise RowError(
            "bad region", f"the boxes have the bbox_type {unit!r}, expected real (pixels) or norm1 (shares of the image); convert yours"
        )
    clipped = clip(box, size, f"regions[{n}].bbox")
    phrase = phrase_of(region)
    flags = ["clipped"] if any(abs(a - b) > 0.01 for a, b in zip(clipped, box, strict=True)) else []
    if isinstance(phrase, str) and phrase.strip() and not has_ink(phrase):
        flags.append("invisible_phrase")
    return {
        "phrase": "" if is_missing(phrase) else text(phrase, f"regions[{n}].phrase", "bad region"),
        "bbox": clipped,
        "mask": _mask(n, _drawn(fields), clipped, size, of),
        "role": _role(n, region.get("role")),
        "flags": flags,
    }


def phrase_of(region: Mapping[str, Any]) -> Any:
    """What a region is called, as the row says it; empty where it says nothing."""
    return next((region[name] for name in _PHRASES if region.get(name) not in (None, "")), "")


def _role(n: int, role: Any) -> str | None:
    """What a region is to the answer, where the row says it."""
    if is_missing(role) or role == "":
        return None
    if role not in ROLES:
        raise RowError("bad region", f"regions[{n}].role is {role!r:.40}, expected one of {', '.join(ROLES)}, or none")
    return str(role)


def clip(box: Sequence[float], size: Size, what: str) -> list[float]:
    """A box without the little that reaches beyond the image; ``RowError`` for one that is not on it."""
    (x0, y0, x1, y1), (width, height) = box, size
    near = x1 <= (1 + _OVERSHOOT) * width and y1 <= (1 + _OVERSHOOT) * height
    clipped = [round(v, 2) for v in (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))]
    covers = clipped[0] < clipped[2] and clipped[1] < clipped[3]
    if not (all(map(math.isfinite, box)) and near and covers):
        written = ", ".join(f"{v:g}" for v in box)
        raise RowError(
            "bad region",
            f"{what} [{written}] does not lie on the image of {width}x{height}: boxes are x0, y0, x1, y1 in pixels of the image "
            "as it is shown, or of the size that the columns width and height state; convert yours",
        )
    return clipped


def _corners(n: int, fields: Mapping[str, Any]) -> list[float]:
    """A region's box as four numbers."""
    box = decoded(fields.get("bbox"))
    has_sides = not isinstance(box, Mapping) and _has_sides(n, fields)  # names say it themselves
    if isinstance(box, Mapping):
        corners = next((names for names in _CORNERS if set(names) <= set(box)), None)
        sides = next((names for names in _SIDES if set(names) <= set(box)), None)
        if corners:
            box = [box[name] for name in corners]
        elif sides:
            box = [box[name] for name in sides]
            box = [box[0], box[1], f"{number(box[0]) + number(box[2])}", f"{number(box[1]) + number(box[3])}"]
    try:
        x0, y0, x1, y1 = (number(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        raise RowError("bad region", f"regions[{n}].bbox is {box!r:.80}, expected x0, y0, x1, y1") from None
    return [x0, y0, x0 + x1, y0 + y1] if has_sides else [x0, y0, x1, y1]


def _has_sides(n: int, fields: Mapping[str, Any]) -> bool:
    """Whether a box says its width and height, by its ``bbox_mode``; without one it says its corners."""
    mode = fields.get("bbox_mode", "xyxy")
    mode = str(int(mode) if isinstance(mode, float) and mode.is_integer() else mode).lower().rpartition(".")[2]
    if mode not in _SIDES_OF_MODE:
        detail = f"regions[{n}].bbox_mode is {mode!r:.40}, expected xyxy (corners) or xywh (width and height); convert it"
        raise RowError("bad region", detail)
    return _SIDES_OF_MODE[mode]


def _mask(n: int, encoded: Any, box: Sequence[float], size: Size, of: Size) -> dict[str, Any] | None:
    """A region's mask in the image's size; None where it has none, and somebody has to draw it."""
    if is_missing(encoded):
        return None
    try:
        encoded = rle.compressed(decoded(encoded), of[1], of[0])
        mask = rle.decode(encoded)
    except Exception as error:  # pycocotools raises bare Exceptions
        raise RowError(
            "bad region",
            f"regions[{n}].mask is {encoded!r:.60}, expected COCO's run lengths or polygons ({error}); correct it, or leave it out and "
            "it is drawn",
        ) from None
    shape = (size[1], size[0])
    if mask.shape != shape:
        if mask.shape != (of[1], of[0]):
            raise RowError("bad region", f"regions[{n}].mask has the size {list(mask.shape)}, the image {list(shape)} (height, width)")
        mask = _resized(mask, shape)
        encoded = rle.encode(mask)
    if not (mask & rle.from_box(box, *shape)).any():
        raise RowError("bad region", f"regions[{n}].mask does not overlap its box {list(box)}")
    return {"size": list(shape), "counts": encoded["counts"]}


def _drawn(fields: Mapping[str, Any]) -> Any:
    """A region's mask as it is written; COCO's ``segmentation`` counts as one where it is no file's name."""
    if fields.get("mask"):
        return fields["mask"]
    other = decoded(fields.get("segmentation"))
    return other if isinstance(other, Mapping | list) and other else None


def _resized(mask: rle.Mask, shape: tuple[int, int]) -> rle.Mask:
    """The nearest pixel of a mask for every pixel of another size."""
    rows, columns = (np.arange(to) * have // to for to, have in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _phrases(ref: Any) -> list[Any]:
    """A phrase for each box; of a box without one the empty phrase, which keeps its place."""
    ref = decoded(ref)
    if is_missing(ref):
        return [""]
    values = ref if isinstance(ref, list | tuple) else [ref]
    return ["" if is_missing(value) else value for value in values] or [""]


def _objects(objects: Any, columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """ms-swift's boxes, each with its phrase: as many phrases as boxes, or one for all of them.

    Other ``objects``, such as the Hub's for detection, hold boxes of x, y, width, height: these have no ``ref`` and are
    left alone.
    """
    is_theirs = isinstance(objects, Mapping) and ("ref" in objects or "messages" in columns)
    if not is_theirs or is_missing(objects.get("bbox")):
        return
    boxes, phrases = listed(objects["bbox"]), _phrases(objects.get("ref"))
    if len(phrases) not in (1, len(boxes)):
        raise RowError(
            "bad regions", f"objects has {len(boxes)} boxes and {len(phrases)} phrases in ref; give a phrase for each, or one for all"
        )
    if any(listed(objects.get("image_id"))):
        raise RowError("bad regions", "objects.image_id names other images than the first; regions are of the first image: split the row")
    unit = _unit(objects)
    for n, box in enumerate(boxes):
        yield {"phrase": phrases[n if len(phrases) > 1 else 0], "bbox": box, **unit}
