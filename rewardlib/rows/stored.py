"""Images of many rows at once: each is kept as its file's bytes and decoded when it is looked at.

A decoded image takes ten times the memory of its file, and a training step holds those of hundreds of rows. ``StoredImage`` is a Pillow
image in every respect but that: of all of them together, only those that were looked at last are decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from PIL import Image

from rewardlib.bounded import Bounded, new_key

MOST = 128 * 2**20  # bytes of decoded images
_IM: Any = Image.Image.im


class StoredImage(Image.Image):
    """An RGB image that ``decode`` makes of what is kept of it. Changing it in place makes it an ordinary image."""

    def __init__(self, decode: Callable[[], Image.Image]) -> None:
        super().__init__()
        self._decode, self._key = decode, new_key()
        opened = self.opened()
        self._mode, self._size, self.readonly = opened.mode, opened.size, 1

    def opened(self) -> Image.Image:
        """The image, decoded."""
        return _opened.get(self._key, self._decode)

    @property
    def im(self) -> Any:
        """Pillow's own memory of the image, which all its operations ask for."""
        return self.opened().im if self._im is None else _IM.fget(self)

    @im.setter
    def im(self, changed: Any) -> None:
        _IM.fset(self, changed)

    def load(self) -> Any:
        """As Pillow says: access to the pixels."""
        return self.im.pixel_access(self.readonly)

    def __reduce__(self) -> Any:
        return (StoredImage, (self._decode,)) if self._im is None else (copy, (self.copy(),))


def _bytes_of(image: Image.Image) -> int:
    return 4 * image.width * image.height  # Pillow gives every pixel of RGB four bytes


_opened: Bounded[Image.Image] = Bounded(MOST, _bytes_of)
