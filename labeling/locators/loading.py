"""The locator that a checkpoint is for, by the architecture that its ``config.json`` names."""

from __future__ import annotations

from typing import Any

from labeling.checkpoints import of_family
from labeling.locators.grounding_dino import GroundingDinoLocator
from labeling.locators.owlv2 import Owlv2Locator
from labeling.locators.sam3 import Sam3Locator
from labeling.locators.zero_shot import ZeroShotLocator

# SAM 3's checkpoints hold the locator and the tracker; they call themselves "sam3_video".
FAMILIES: dict[str, type[ZeroShotLocator]] = {
    "grounding-dino": GroundingDinoLocator,
    "mm-grounding-dino": GroundingDinoLocator,
    "owlv2": Owlv2Locator,
    "owlvit": Owlv2Locator,
    "sam3": Sam3Locator,
    "sam3_video": Sam3Locator,
}


def load_locator(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    threshold: float | None = None,
    **settings: Any,
) -> ZeroShotLocator:
    """The locator of a Hub id or a local folder.

    threshold: without one, the architecture's own.
    settings: what all of them take: nms_iou, max_area, batch_size.

    ``ValueError`` if the checkpoint is of another architecture, or the dtype of no known name.
    """
    kind = of_family(FAMILIES, name, revision, "locates nothing")
    settings |= {"revision": revision, "device": device, "dtype": dtype, "threshold": threshold}
    return kind.from_pretrained(name, **settings)
