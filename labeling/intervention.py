"""What an intervention is: something erased from an image. Light, for whoever only names its kinds;
``labeling.counterfactual`` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from PIL import Image

    from rewardlib.rle import Mask

Fill = Literal["mean", "blur", "noise", "inpaint"]
Shape = Literal["mask", "dilated", "box"]
Role = Literal["evidence", "control", "context"]
FILLS: tuple[Fill, ...] = get_args(Fill)
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Intervention:
    """``image`` equals the original bit for bit outside ``mask``."""

    role: Role
    fill: Fill
    shape: Shape
    image: Image.Image
    mask: Mask
    seed: int
