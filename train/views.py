"""Further images under which a row's completions are scored again: without its evidence, with patches missing, ...

A view is a name and a function of a row: the images that take the place of the row's own, or None where the row has none such. Random
views draw from a generator that follows from the run's seed, the prompt's number and the view's name alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from rewardlib.sample import Sample

Images = tuple[Any, ...]
PATCH = 14  # pixels, as the released code of PAPO and VPPO has it


class Pictured(Protocol):
    """What a view looks at of a row."""

    @property
    def images(self) -> Images: ...

    @property
    def sample(self) -> Sample: ...


@dataclass(frozen=True)
class View:
    """Images for the same completions. ``images`` gets a row and a generator of its own."""

    name: str
    images: Callable[[Pictured, np.random.Generator], Images | None]


def without_evidence(row: Pictured, generator: np.random.Generator) -> Images | None:
    """The first image with its evidence erased."""
    return _first(row, row.sample.evidence_image)


def control(row: Pictured, generator: np.random.Generator) -> Images | None:
    """The first image with something else of the same shape erased."""
    return _first(row, row.sample.control_image)


EVIDENCE, CONTROL = View("evidence", without_evidence), View("control", control)


@dataclass(frozen=True)
class random_patches:  # noqa: N801  called like a function: View("masked", random_patches(0.6))
    """Every patch of all images blackened with this probability."""

    share: float

    def __call__(self, row: Pictured, generator: np.random.Generator) -> Images | None:
        return tuple(blacken(image, self.share, generator) for image in row.images) or None


def blacken(image: Any, share: float, generator: np.random.Generator) -> Any:
    """A Pillow image of which square patches are black, each with this probability."""
    rows, columns = -(-image.height // PATCH), -(-image.width // PATCH)
    gone = generator.random((rows, columns)) < share
    changed = image.copy()
    black = (0,) * len(image.getbands())
    for row, column in zip(*gone.nonzero(), strict=True):
        left, top = int(column) * PATCH, int(row) * PATCH
        changed.paste(black, (left, top, min(left + PATCH, image.width), min(top + PATCH, image.height)))
    return changed


def _first(row: Pictured, image: Any) -> Images | None:
    return None if image is None else (image, *row.images[1:])
