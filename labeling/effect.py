"""Does the answer rest on a region? Erase it and see what becomes of the right answer.

A region's effect is how much the log-probability of the gold answer falls (nats) when the region is
erased, beyond its fall when the same silhouette is erased elsewhere, where nothing is labelled: log
p(answer | control) - log p(answer | erased). It is measured over several draws, each with a fill
and a place of the control of its own, and given with a 95 % interval of their mean.

Things of one phrase may stand in for each other (one of three stars, say). So all regions of a
phrase are erased together, too, and the larger of the two effects is the region's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from labeling import masks
from labeling.counterfactual import control_mask, erase, shaped
from labeling.draws import mean_with_interval
from labeling.info import ModelInfo
from labeling.intervention import FILLS, Shape
from rewardlib.judge import JudgeError

SHAPE: Shape = "dilated"


class Answerer(Protocol):
    """Somebody who answers questions about images, and says how likely an answer is to it."""

    name: str

    def log_probabilities(
        self, images: Sequence[Image.Image], question: str, choices: Sequence[str], answer: str
    ) -> list[float] | JudgeError:
        """The log-probability of ``answer`` (nats, summed over its tokens) given each of the
        images."""
        ...

    def info(self) -> ModelInfo:
        """For provenance."""
        ...


@dataclass(frozen=True)
class Weighed:
    """A region to weigh: its mask (bool, image height x width), xyxy box and phrase."""

    mask: masks.Mask
    bbox: Sequence[float]
    phrase: str


@dataclass(frozen=True)
class Effect:
    """The mean fall over the draws and its interval. ``of_group``: all regions of the phrase were
    erased together."""

    fall: float
    low: float
    high: float
    of_group: bool = False


def weigh(
    answerer: Answerer,
    image: Image.Image,
    question: str,
    choices: Sequence[str],
    answer: str,
    regions: Sequence[Weighed],
    draws: int,
    seed: str,
) -> list[Effect | None] | JudgeError:
    """The effect of every region, in order; None where there is no room for a control. One batch of
    images per region, and one more per phrase that has several."""
    gone = [shaped(region.mask, region.bbox, SHAPE) for region in regions]
    labelled = np.logical_or.reduce(gone)
    groups: dict[str, list[int]] = {}
    for n, region in enumerate(regions):
        groups.setdefault(region.phrase, []).append(n)
    units = [
        *([n] for n in range(len(regions))),
        *(members for members in groups.values() if len(members) > 1),
    ]
    effects: list[Effect | None] = []
    for unit in units:
        erased = np.logical_or.reduce([gone[n] for n in unit])
        pairs = _pairs(
            image,
            erased,
            labelled,
            draws,
            f"{seed}/{','.join(regions[n].phrase for n in unit)}/{unit}",
        )
        if not pairs:
            effects.append(None)
            continue
        scores = answerer.log_probabilities(
            [picture for pair in pairs for picture in pair], question, choices, answer
        )
        if isinstance(scores, JudgeError):
            return scores
        effects.append(effect_of(scores[::2], scores[1::2], of_group=len(unit) > 1))
    return [
        _larger(
            effects[n], *(effects[len(regions) + g] for g in _groups_of(n, units[len(regions) :]))
        )
        for n in range(len(regions))
    ]


def _groups_of(n: int, groups: Sequence[Sequence[int]]) -> list[int]:
    return [g for g, members in enumerate(groups) if n in members]


def _larger(*effects: Effect | None) -> Effect | None:
    return max(
        (effect for effect in effects if effect is not None),
        key=lambda effect: effect.fall,
        default=None,
    )


def _pairs(
    image: Image.Image, erased: masks.Mask, labelled: masks.Mask, draws: int, seed: str
) -> list[tuple[Image.Image, Image.Image]]:
    """For every draw the image without the region, and without the same silhouette elsewhere."""
    pixels = np.asarray(image.convert("RGB"))
    pairs = []
    for draw in range(draws):
        number = int.from_bytes(hashlib.sha256(f"{seed}/{draw}".encode()).digest()[:6], "big")
        control = control_mask(erased, np.random.default_rng(number), keep_off=labelled)
        if control is None:
            return []
        fill = FILLS[draw % len(FILLS)]
        pairs.append((erase(pixels, erased, fill, number), erase(pixels, control, fill, number)))
    return pairs


def effect_of(erased: Sequence[float], control: Sequence[float], of_group: bool = False) -> Effect:
    """The effect from the log-probabilities of 2 to ``MOST_DRAWS`` paired draws, with the 95 %
    interval of a mean of so many draws (Student's t)."""
    falls = [kept - gone for gone, kept in zip(erased, control, strict=True)]
    return Effect(*mean_with_interval(falls), of_group)
