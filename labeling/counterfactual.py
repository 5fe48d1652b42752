"""Counterfactual images: the evidence removed, and a matched control where something else of the
same area and shape is removed.

A model that relies on the evidence changes its mind on the first image and not on the second. For
that comparison to mean anything: nothing outside the mask changes by one bit; the fill does not
leak what it hides; the control consists of the very same silhouettes, moved to where they do not
touch any evidence; and whoever wants to know whether the evidence is really gone asks a detector
(``verify_removal``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeling import masks
from labeling.boxes import Detection, iou_matrix
from labeling.intervention import FILLS, Fill, Intervention, Role, Shape
from labeling.locators.base import Sought
from labeling.locators.chain import Located, LocatorChain

Pixels = NDArray[np.uint8]
FINEST = (
    6.0  # pixels: the standard deviation that a blur is made with, at a resolution that suits it
)


Region = tuple[masks.Mask, masks.Box]  # the object's mask (height, width) and its xyxy box


def intervene(
    image: Image.Image,
    evidence: Sequence[Region],
    context: Sequence[Region] = (),
    *,
    fill: Fill,
    shape: Shape,
    seed: int,
) -> list[Intervention]:
    """The image without its ``evidence`` and, where there is room for it, its control: the same
    silhouettes elsewhere; and, where something else is mentioned, the image without that
    ``context``. The same seed gives the same images."""
    pixels = np.asarray(image.convert("RGB"))
    gone = silhouettes(evidence, shape)
    erased: list[tuple[Role, masks.Mask]] = [("evidence", gone)]
    control = control_mask(gone, np.random.default_rng(seed))
    if control is not None:
        erased.append(("control", control))
    if context and (beside := silhouettes(context, shape) & ~gone).any():
        erased.append(("context", beside))
    return [
        Intervention(role, fill, shape, erase(pixels, mask, fill, seed), mask, seed)
        for role, mask in erased
    ]


def silhouettes(regions: Sequence[Region], shape: Shape) -> masks.Mask:
    """All that is erased for some regions, of which there is at least one."""
    return np.logical_or.reduce([shaped(mask, box, shape) for mask, box in regions])


def shaped(mask: masks.Mask, box: masks.Box, shape: Shape) -> masks.Mask:
    """The silhouette that is erased for a region. The dilated one is the mask's convex hull, grown:
    it hides the object's anti-aliased rim and whatever bite the segmenter has left out, and its
    outline tells less of the shape."""
    if shape == "box":
        return masks.from_box(box, *mask.shape) | mask
    if shape == "mask" or not mask.any():
        return mask
    x0, y0, x1, y1 = masks.bounding_box(mask)
    return masks.dilate(masks.convex_hull(mask), max(2, round(0.08 * max(x1 - x0, y1 - y0))))


def control_mask(
    evidence: masks.Mask, rng: np.random.Generator, keep_off: masks.Mask | None = None
) -> masks.Mask | None:
    """Each connected piece of the evidence moved, uniformly at random, to a place where it overlaps
    neither evidence, nor another piece, nor what it is to ``keep_off``. None where no room is left.

    The places are found exactly: correlating the forbidden area with a piece's silhouette counts
    its overlap at every position.
    """
    height, width = evidence.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        evidence.astype(np.uint8), connectivity=8
    )
    control = np.zeros_like(evidence)
    taken = evidence if keep_off is None else evidence | keep_off
    for i in sorted(
        range(1, count), key=lambda i: -int(stats[i, cv2.CC_STAT_AREA])
    ):  # the largest while there is most room
        x, y, w, h = (int(v) for v in stats[i, :4])
        silhouette = labels[y : y + h, x : x + w] == i
        forbidden = (taken | control).astype(np.float32)
        overlap = cv2.filter2D(
            forbidden,
            cv2.CV_32F,
            silhouette.astype(np.float32),
            anchor=(0, 0),
            borderType=cv2.BORDER_CONSTANT,
        )
        rows, columns = np.nonzero(overlap[: height - h + 1, : width - w + 1] < 0.5)
        if len(rows) == 0:
            return None
        place = rng.integers(len(rows))
        control[rows[place] : rows[place] + h, columns[place] : columns[place] + w] |= silhouette
    return None if (control & taken).any() else control


def erase(pixels: Pixels, mask: masks.Mask, fill: Fill, seed: int) -> Image.Image:
    """A copy of (height, width, 3) uint8 pixels with the mask filled from what surrounds it."""
    result = pixels.copy()
    if mask.any() and not mask.all():
        result[mask] = _filling(pixels, mask, fill, seed)[mask]
    elif mask.any():
        result[:] = 128  # nothing is left to fill from
    return Image.fromarray(result)


def _filling(pixels: Pixels, mask: masks.Mask, fill: Fill, seed: int) -> Pixels:
    if fill == "inpaint":
        return cv2.inpaint(
            np.ascontiguousarray(pixels), mask.astype(np.uint8), 3, cv2.INPAINT_TELEA
        )
    if fill == "blur":
        return _blur_without(pixels, mask)
    mean, deviation = (told[:, 0] for told in cv2.meanStdDev(pixels, mask=_visible(mask)))
    if fill == "mean":
        return np.broadcast_to(mean.round().astype(np.uint8), pixels.shape)
    if fill == "noise":
        filling = pixels.copy()
        size = (np.count_nonzero(mask), 3)
        noise = np.random.default_rng(seed).normal(mean, deviation, size)
        filling[mask] = noise.round().clip(0, 255).astype(np.uint8)
        return filling
    raise ValueError(f"unknown fill {fill!r}; expected one of {', '.join(FILLS)}")


def _visible(mask: masks.Mask) -> Pixels:
    """Where something is left to be seen, as OpenCV has it."""
    return (~mask).astype(np.uint8)


def _blur_without(pixels: Pixels, mask: masks.Mask) -> Pixels:
    """A Gaussian blur whose weights skip the masked pixels, so that nothing of what is hidden
    shines through."""
    sigma = max(
        3.0, float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3).max())
    )  # reaches the middle of the widest part
    height, width = mask.shape
    # What a wide kernel makes is as smooth at a lower resolution, where it costs the same for every
    # size of mask.
    shrink = max(1, int(sigma // FINEST))
    size = (max(1, width // shrink), max(1, height // shrink))
    visible = (~mask).astype(np.float32)
    weight = cv2.resize(visible, size, interpolation=cv2.INTER_AREA)
    colours = cv2.resize(pixels * visible[..., None], size, interpolation=cv2.INTER_AREA)
    weight = cv2.GaussianBlur(weight, (0, 0), sigma / shrink)[..., None]
    blurred = cv2.GaussianBlur(colours, (0, 0), sigma / shrink)
    mean = np.array(cv2.mean(pixels, mask=_visible(mask))[:3], np.float32)
    # Deep inside a large mask the kernel sees next to nothing; the mean takes over smoothly.
    filling = (blurred + 1e-3 * mean) / (weight + 1e-3)
    filling = cv2.resize(filling, (width, height), interpolation=cv2.INTER_LINEAR)
    return filling.round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Removal:
    """Locators' scores of what was found, at the places where it was found. ``verified`` is what
    the image was made for: nothing of what was erased is still found there, or everything of the
    evidence is, where something else was erased. None where no locator saw the evidence itself, or
    one could not be asked again.

    asked: what locators that ask somebody answered, or could not, to be accounted for.
    """

    verified: bool | None
    score_before: float | None
    score_after: float | None
    asked: Located | None = field(default=None, compare=False, repr=False)


UNSEEN = Removal(None, None, None)


@dataclass(frozen=True)
class Case:
    """Interventions on an image, what was sought on it, and what of the ``evidence`` and the
    ``context`` was found."""

    made: Sequence[Intervention]
    sought: Sequence[Sought]
    evidence: Sequence[Detection]
    context: Sequence[Detection] = ()

    def watched(self, made: Intervention) -> Sequence[Detection]:
        """What has to be gone from, or still be there on, an image."""
        return self.context if made.role == "context" else self.evidence


def verify_removal(
    locators: LocatorChain, cases: Sequence[Case], *, same_place: float = 0.3
) -> list[list[Removal]]:
    """Ask the locators again, on the interventions of each case, for what they had found on the
    case's original image.

    Scores are the strongest remaining one of what was erased, the weakest remaining one on a
    control.
    """
    asked = [(case, made) for case in cases for made in case.made if case.watched(made)]
    images = [made.image for _, made in asked]
    answers = iter(
        locators.look_again(
            images, [case.sought for case, _ in asked], [case.watched(made) for case, made in asked]
        )
    )
    return [
        [
            _removal(made, case.watched(made), next(answers), locators, same_place)
            if case.watched(made)
            else UNSEEN
            for made in case.made
        ]
        for case in cases
    ]


def _removal(
    made: Intervention,
    before: Sequence[Detection],
    again: Located,
    locators: LocatorChain,
    same_place: float,
) -> Removal:
    if again.failures:
        return replace(UNSEEN, asked=again)
    scores = [_score_at(region, again.detections, same_place) for region in before]
    is_seen = [
        score >= locators.threshold(region.locator)
        for region, score in zip(before, scores, strict=True)
    ]
    if made.role == "control":
        return Removal(all(is_seen), min(d.score for d in before), min(scores), again)
    return Removal(not any(is_seen), max(d.score for d in before), max(scores), again)


def _score_at(region: Detection, detections: Sequence[Detection], same_place: float) -> float:
    here = [d for d in detections if d.phrase == region.phrase]
    overlap = iou_matrix([region.bbox], [d.bbox for d in here])[0]
    return max(
        (d.score for d, o in zip(here, overlap, strict=True) if o >= same_place), default=0.0
    )
