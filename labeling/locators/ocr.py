"""Reading: where does the picture say what a trace says that it read?

A detector of things looks for what "48°" or "angle ABC" might look like, and finds something. OCR
reads what is there: PP-OCR through ``rapidocr``, whose wheel has the models, so nothing is ever
downloaded. A picture is read once; what a phrase asks for is then looked up in its lines
(``labeling.locators.text.matching``), and a match of a part of a line has the place of that part.

    locator = OcrLocator()
    found = locator.locate([image], [[Sought("48°", kind="measure")]])[0]
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeling.boxes import Detection
from labeling.facts import Kind
from labeling.info import ModelInfo
from labeling.locators.base import Sought
from labeling.locators.text.letters import PLAIN, STROKES, crop, is_as_tall, patches
from labeling.locators.text.matching import SURE, Line, Match, Polygon, clean, find
from labeling.locators.text.signs import at_gaps
from labeling.locators.text.wanted import wanted
from rewardlib.rle import Mask

MODELS = ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")
_KEPT = 16  # readings in memory: a picture is asked about again when its control is checked
_MOST_PLACES = 10  # of one phrase

# Found by trying on figures of geometry, whose lone letters PP-OCR was not made for: it overlooks
# those near the border, and is less sure of them than of lines.
_MARGIN = 32
_SURE_OF_LETTERS, _SURE_OF_STROKES = 0.95, 0.98
_ROOM = 1.3  # the height of the engine's boxes to that of a letter in them
_UPRIGHT = 1.5  # height to width from which on the engine turns a line
_AROUND = 2  # pixels
_MOST_OBLONG = 5  # longer side to shorter
_DETECTION = {"thresh": 0.2, "box_thresh": 0.3, "limit_side_len": 416}


class OcrLocator:
    """PP-OCR's reading, and what of it is sought."""

    name: ClassVar[str] = "ocr"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"text", "measure", "count"})

    def __init__(self, *, threshold: float = 0.5, threads: int = 1) -> None:
        """``threads`` that one reading may use."""
        self.threshold = threshold
        self.engine = _load(threads)
        self._lock = threading.Lock()  # the engine keeps the settings of a call in itself
        self._readings: OrderedDict[bytes, tuple[Line, ...]] = OrderedDict()

    def info(self) -> ModelInfo:
        revision = f"rapidocr-{version('rapidocr')}"
        return ModelInfo("PP-OCRv6-small", revision, {"threshold": self.threshold})

    def locate(
        self,
        images: Sequence[Image.Image],
        sought: Sequence[Sequence[Sought]],
        threshold: float | None = None,
    ) -> list[list[Detection]]:
        """Where each image has its own phrases in writing, best first."""
        least = self.threshold if threshold is None else threshold
        return [
            sorted(self._find(image, phrases, least), key=lambda d: (-d.score, d.phrase, d.bbox))
            for image, phrases in zip(images, sought, strict=True)
        ]

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """The lines of an image."""
        pixels = _flat(image)
        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        with self._lock:
            if key not in self._readings:
                lines = list(_read(self.engine, pixels))
                lines += _read_letters(self.engine, pixels, lines)
                self._readings[key] = tuple(lines)
            self._readings.move_to_end(key)
            while len(self._readings) > _KEPT:
                self._readings.popitem(last=False)
            return self._readings[key]

    def _find(
        self,
        image: Image.Image,
        sought: Sequence[Sought],
        least: float,
    ) -> Iterator[Detection]:
        for one in sought:
            want = wanted(one) if one.kind in self.kinds else None
            matches = find(want, self.read(image)) if want else []
            for match in [m for m in matches if m.score >= least][:_MOST_PLACES]:
                if detection := _detection(one.phrase, match, image.size):
                    yield detection


def _detection(phrase: str, match: Match, size: tuple[int, int]) -> Detection | None:
    """A match in the pixels of its image; None where it has no area there."""
    corners = np.clip(match.polygon, 0, np.array(size))
    (x0, y0), (x1, y1) = corners.min(0).round(2).tolist(), corners.max(0).round(2).tolist()
    if x0 >= x1 or y0 >= y1:
        return None
    flags = [("approximate", not match.exact), ("inferred", match.inferred)]
    return Detection(
        phrase,
        (x0, y0, x1, y1),
        round(min(1.0, match.score), 4),
        _filled(corners, size),
        match.text,
        tuple(flag for flag, holds in flags if holds),
        OcrLocator.name,
    )


def _filled(polygon: Polygon, size: tuple[int, int]) -> Mask:
    canvas = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(canvas, [polygon.round().astype(np.int32)], 1)
    return canvas.astype(bool)


# --------------------------------------------------------------------------------------- the engine


def _load(threads: int) -> Any:
    """PP-OCR, silent, from the files of the wheel."""
    import rapidocr  # not before a reading is wanted: it brings onnxruntime

    models = Path(rapidocr.__file__).parent / "models"
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,  # nothing is upside down, and "6" is not "9"
            "Global.text_score": 0.0,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.model_path": str(models / MODELS[0]),
            "Rec.model_path": str(models / MODELS[1]),
            **{f"Det.{name}": value for name, value in _DETECTION.items()},
        }
    )


def _flat(image: Image.Image) -> NDArray[np.uint8]:
    """BGR; what shines through is white, as paper is."""
    rgba = image.convert("RGBA")
    paper = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return np.ascontiguousarray(np.asarray(paper)[:, :, ::-1])


def _read(engine: Any, pixels: NDArray[np.uint8]) -> Iterator[Line]:
    padded, offset = _with_margin(pixels)
    result = engine(padded, use_det=True, return_word_box=True, return_single_char_box=True)
    if result.boxes is None:
        return
    lines = len(result.txts)
    signs = result.word_results if len(result.word_results or ()) == lines else [()] * lines
    read = zip(result.boxes, result.txts, result.scores, signs, strict=True)
    for box, text, score, of_line in read:
        polygon = np.asarray(box, np.float64) - offset
        places = [(s, np.asarray(corners, np.float64) - offset) for s, _, corners in of_line]
        line = Line(clean(text), float(score), _places(text, polygon, places, pixels))
        upwards = _read_upwards(engine, pixels, polygon) if _is_upright(polygon) else None
        yield upwards if upwards and upwards.score > line.score else line


def _is_upright(polygon: Polygon) -> bool:
    across, down = np.ptp(polygon, axis=0)
    return bool(down >= _UPRIGHT * across)


def _read_upwards(engine: Any, pixels: NDArray[np.uint8], polygon: Polygon) -> Line | None:
    """A line that runs upwards, as the names below a chart's bars do; the engine reads what is
    upright as if it ran downwards.
    """
    height, width = pixels.shape[:2]
    x0, y0 = np.floor(polygon.min(0) - _AROUND).clip(0).astype(int).tolist()
    x1, y1 = np.ceil(polygon.max(0) + _AROUND).clip(0, (width, height)).astype(int).tolist()
    turned = np.ascontiguousarray(np.rot90(pixels[y0:y1, x0:x1], -1))
    if not turned.size:
        return None
    result = engine(turned, use_det=False, return_word_box=True, return_single_char_box=True)
    if not result.txts or len(result.txts[0].strip()) < 2:  # a 1 is upright, and no line
        return None
    text, long, thick = result.txts[0], y1 - y0, x1 - x0
    level = np.array([[0, 0], [long, 0], [long, thick], [0, thick]], np.float64)
    places = _places(text, level, (), turned)
    back = [np.stack([x0 + place[:, 1], y1 - place[:, 0]], axis=1) for place in places]
    return Line(clean(text), float(result.scores[0]), tuple(back))


def _read_letters(engine: Any, pixels: NDArray[np.uint8], lines: Sequence[Line]) -> list[Line]:
    """Signs that stand alone and are on none of the lines, and no taller than what is."""
    around = [np.concatenate(line.places) for line in lines]
    taken = [(*p.min(0).astype(int).tolist(), *p.max(0).astype(int).tolist()) for p in around]
    found = []
    for x0, y0, x1, y1 in patches(pixels, taken):
        result = engine(crop(pixels, (x0, y0, x1, y1)), use_det=False)
        text, score = (clean(result.txts[0]), result.scores[0]) if result.txts else ("", 0.0)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
        found.append(Line(text, float(score), (corners,)))
    tall = [_height(line) / _ROOM for line in lines if line.score >= SURE]
    found = [n for n in found if not tall or _height(n) <= np.median(tall)]
    sure = [n for n in found if n.text in PLAIN and n.score >= _SURE_OF_LETTERS]
    strokes = [n for n in found if n.text in STROKES and n.score >= _SURE_OF_STROKES]
    tall += map(_height, sure)
    return [*sure, *(n for n in strokes if is_as_tall(_height(n), tall))]


def _height(line: Line) -> float:
    return float(np.ptp(line.places[0][:, 1]))


def _with_margin(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture with a margin, and where its corner then is. A strip gets a wide one: the engine
    scales by the shorter side."""
    height, width = pixels.shape[:2]
    y = max(_MARGIN, (width // _MOST_OBLONG - height) // 2)
    x = max(_MARGIN, (height // _MOST_OBLONG - width) // 2)
    padded = cv2.copyMakeBorder(pixels, y, y, x, x, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8), np.array([x, y], np.float64)


def _places(
    text: str,
    polygon: Polygon,
    signs: Sequence[tuple[str, Polygon]],
    pixels: NDArray[np.uint8],
) -> tuple[Polygon, ...]:
    """Where each sign of a line is: about where the engine says, or else evenly along the line."""
    seen = [i for i, sign in enumerate(text) if not sign.isspace()]
    if len(seen) == 1:
        return (polygon,) * len(text)
    if [sign for sign, _ in signs] != [text[i] for i in seen]:
        return tuple(_slice(polygon, i / len(text), (i + 1) / len(text)) for i in range(len(text)))
    places = [corners for _, corners in signs]
    if not _is_upright(polygon):  # the ends are the line's own, where signs are cut short
        places[0][[0, 3]] = polygon[[0, 3]]
        places[-1][[1, 2]] = polygon[[1, 2]]
        places = at_gaps(pixels, polygon, places)
    of_sign = dict(zip(seen, places, strict=True))
    return tuple(of_sign.get(i, polygon) for i in range(len(text)))


def _slice(polygon: Polygon, start: float, end: float) -> Polygon:
    """A part of a line, along its upper and its lower edge."""
    upper, lower = polygon[1] - polygon[0], polygon[2] - polygon[3]
    above = [polygon[0] + start * upper, polygon[0] + end * upper]
    return np.array([*above, polygon[3] + end * lower, polygon[3] + start * lower])
