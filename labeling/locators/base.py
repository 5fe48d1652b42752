"""What every locator is: images and the phrases of their facts in, places out.

A locator is one class in one file of this folder. It says which kinds of facts it serves; which
locators a build uses, and in which order, is said in ``pipelines.building.models``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from labeling.boxes import Detection
from labeling.facts import Kind
from labeling.info import ModelInfo
from rewardlib.judge import JudgeError


@dataclass(frozen=True)
class Sought:
    """What to look for in an image.

    phrase: normalised (``labeling.facts.normalize_phrase``), not empty, distinct within its image.
    kind: of the fact that names it.
    quote: the trace's own words, in their own case.
    """

    phrase: str
    kind: Kind = "object"
    quote: str = ""


@dataclass(frozen=True)
class Answered:
    """What a locator that asks somebody was told about an image.

    dropped_for: the reason of every place that was named and is not usable.
    requests, prompt_tokens, completion_tokens: what it took.
    """

    detections: tuple[Detection, ...]
    dropped_for: tuple[str, ...] = ()
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Answered) -> Answered:
        """Both, as if they had been one."""
        return Answered(
            self.detections + other.detections,
            self.dropped_for + other.dropped_for,
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


class Locator(Protocol):
    """Finds what is sought.

    name: a word for ``regions[].locator``: "grounding-dino", "ocr".
    kinds: the kinds of facts that it serves.
    threshold: the lowest score of a detection.
    """

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> frozenset[Kind]: ...

    @property
    def threshold(self) -> float: ...

    def locate(
        self,
        images: Sequence[Image.Image],
        sought: Sequence[Sequence[Sought]],
        threshold: float | None = None,
    ) -> Sequence[list[Detection] | Answered | JudgeError]:
        """What each image shows of what is sought in it, best first; a detection's phrase is that
        of its ``Sought``. What an image shows does not depend on the other images, nor on the order
        of what is sought.

        threshold: instead of the locator's own.

        A locator that asks somebody returns ``Answered``, or the ``JudgeError`` in the place of
        what it was not told.
        """
        ...

    def info(self) -> ModelInfo:
        """For provenance."""
        ...
