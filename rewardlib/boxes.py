"""Where does the response say that something is? VLM-R1's reward for boxes (arXiv 2504.07615; om-ai-lab/VLM-R1, iou_reward).

A model writes the box that it is asked for into its answer, in coordinates of its own: pixels of the image as its processor has resized it
(Qwen2.5-VL), thousandths of the sides (Qwen3-VL), or pixels of the image. ``Sample.box_space`` says how wide and high the image is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rewardlib.sample import Sample, Score
from rewardlib.templates import find_blocks

Box = tuple[float, float, float, float]  # x0, y0, x1, y1

_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")


def written_box(answer: str) -> Box | None:
    """The first four coordinates in brackets that stand inside an object, as in {"bbox_2d": [1, 2, 3, 4]}; None if there are none."""
    start, end = answer.find("{"), answer.rfind("}")
    box = _BOX.search(answer, start, end) if 0 <= start < end else None
    if box is None:
        return None
    x0, y0, x1, y1 = map(float, box.groups())
    return x0, y0, x1, y1


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 for a box without an area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@dataclass(frozen=True)
class BoxIoU:
    """Overlap of the box in the answer with the row's region that fits it best, in [0, 1]; None for a row without image or region.

    Departures from the released code: decimals count as numbers, the box has to stand inside an object in one closed answer, and an overlap
    of a single pixel counts as what it is.
    """

    name: str = "box_iou"
    about: ClassVar[str] = "the box in the answer lying on the labelled region (VLM-R1)"
    needs: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset({"regions"})

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        if not sample.images or not sample.regions:
            return None
        answers = find_blocks(sample.response, "answer")
        box = written_box(answers[0]) if len(answers) == 1 else None
        if box is None:
            return 0.0
        width, height = sample.images[0].size
        across, down = sample.box_space or (width, height)
        x, y = width / across, height / down
        on_image = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        return max(iou(on_image, tuple(region["bbox"])) for region in sample.regions)
