"""Other things that a policy can be shown in place of a row's images: without the evidence, with
patches missing, with none at all.

The same completions are scored under a view, a forward without gradient for each, or some are
sampled under it. A view gives the prompt that shows it, or None for a row that has none such. What
is random about it is drawn from a generator that follows from the run's seed, the prompt's number
and the view's name alone.

Views are values: two methods that want the same one share its forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from train.data import Row
    from train.policy import Prompt
    from train.shown import Shown

Images = tuple[Any, ...]
PATCH = 14  # pixels, as the released code of PAPO and VPPO has it


class View(Protocol):
    """One other thing to be shown."""

    @property
    def name(self) -> str: ...

    def prompt(self, shown: Shown, generator: np.random.Generator) -> Prompt | None: ...


@dataclass(frozen=True)
class ImageView:
    """Other images in place of the row's own. ``change`` gives them, or None where the row has none
    such.
    """

    name: str
    change: Callable[[Row, np.random.Generator], Images | None]

    def prompt(self, shown: Shown, generator: np.random.Generator) -> Prompt | None:
        images = self.change(shown.row, generator)
        return None if images is None else shown.with_images(images)


@dataclass(frozen=True)
class NoImages:
    """The question alone."""

    name: str = "no_images"

    def prompt(self, shown: Shown, generator: np.random.Generator) -> Prompt | None:
        return shown.without_images() if shown.row.images else None


@dataclass(frozen=True)
class Unattended:
    """The prompt as it is, of which no token attends to an image token; all others keep their
    positions.
    """

    name: str = "unattended"

    def prompt(self, shown: Shown, generator: np.random.Generator) -> Prompt | None:
        prompt = shown.prompt
        if not bool(prompt.image.any()):
            return None
        text = prompt.ids != shown.policy.family.image_token
        return replace(
            prompt,
            ids=prompt.ids[text],
            positions=prompt.positions[:, text],
            images={},
            features=None,
            pictures=(),
            tiles=(),
            image=prompt.image[text],
            region=prompt.region[text],
        )


def _first(row: Row, image: Any) -> Images | None:
    return None if image is None else (image, *row.images[1:])


def without_evidence(row: Row, generator: np.random.Generator) -> Images | None:
    """The first image with its evidence erased."""
    return _first(row, row.sample.evidence_image)


def without_control(row: Row, generator: np.random.Generator) -> Images | None:
    """The first image with something else of the same shape erased."""
    return _first(row, row.sample.control_image)


EVIDENCE = ImageView("evidence", without_evidence)
CONTROL = ImageView("control", without_control)


@dataclass(frozen=True)
class random_patches:  # noqa: N801  called like a function: ImageView("masked", random_patches(0.6))
    """Every patch of all images blackened with this probability."""

    share: float

    def __call__(self, row: Row, generator: np.random.Generator) -> Images | None:
        return tuple(blacken(image, self.share, generator) for image in row.images) or None


def blacken(image: Any, share: float, generator: np.random.Generator) -> Any:
    """A Pillow image of which square patches are black, each with this probability."""
    rows, columns = -(-image.height // PATCH), -(-image.width // PATCH)
    gone = generator.random((rows, columns)) < share
    changed = image.copy()
    black = (0,) * len(image.getbands())
    for row, column in zip(*gone.nonzero(), strict=True):
        left, top = int(column) * PATCH, int(row) * PATCH
        right, bottom = min(left + PATCH, image.width), min(top + PATCH, image.height)
        changed.paste(black, (left, top, right, bottom))
    return changed
