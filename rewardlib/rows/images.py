"""An image as a row has it in, one upright RGB image out; everything else is refused with a reason.

EXIF orientation is applied, transparency laid over white, 16-bit and palette images are converted. Bytes that need none of
this are kept untouched, so that a JPEG is never compressed twice.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from rewardlib.rows.pictures import located, upright
from rewardlib.rows.stored import StoredImage
from rewardlib.rows.values import RowError

MAX_PIXELS = 64_000_000
MIN_SIDE = 8
_STORABLE = {"PNG", "JPEG", "WEBP"}


@dataclass(frozen=True)
class Folders:
    """Where the files are that rows name.

    places: folders that a relative path may start from, in the order in which they are tried.
    is_closed: whether only files below them count. A dataset that is published must not hold whatever file of this machine
        a row names. Links inside the folders are followed: whoever laid them meant it, and the Hub's cache is made of them.
    """

    places: tuple[Path, ...] = ()
    is_closed: bool = False

    def find(self, path: str) -> Path:
        """The file that a row names; ``RowError`` if there is none."""
        if not self.places:
            raise RowError("missing image", f"{path!r:.100} is a path, and this source has no image folder; give one with --image-root")
        given = [Path(os.path.normpath(place / path)) for place in self.places]
        below = [file for file, place in zip(given, self.places, strict=True) if file.is_relative_to(os.path.normpath(place))]
        if self.is_closed and not below:
            raise RowError(
                "path outside the image folder",
                f"{path!r:.100} leads out of {self.places[0].name}/; use paths below it, or --image-root with a folder above both",
            )
        try:
            file = next((file for file in (below if self.is_closed else given) if file.is_file()), None)
        except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
            raise RowError("unreadable image", f"{path!r:.100}: {getattr(error, 'strerror', None) or error}") from None
        if file is None:
            if any(place.is_dir() for place in below):
                raise RowError("unreadable image", f"{path!r:.100} is a folder")
            remedy = "give --image-root" if self.is_closed else "write its absolute path"
            where = "" if os.path.isabs(path) else f" in {self.places[0].name}/"
            raise RowError("missing image", f"the file {path!r:.100} does not exist{where}; put it there, or {remedy}")
        return file


def load_image(value: Any, folders: Folders = Folders()) -> Image.Image:
    """The upright RGB image of a row's value; ``RowError`` for what is no usable picture."""
    content = _content(value, folders)
    return _image_of(content) if isinstance(content, bytes) else to_rgb(upright(content))


def keep_image(value: Any, folders: Folders = Folders()) -> Image.Image:
    """The same for many rows at once: of an image that has a file its bytes are kept, and decoded when it is looked at."""
    content = _content(value, folders)
    return StoredImage(partial(_image_of, content)) if isinstance(content, bytes) else to_rgb(upright(content))


def load_stored(value: Any, folders: Folders = Folders()) -> tuple[Image.Image, bytes]:
    """The same with the bytes to store for it."""
    content = _content(value, folders)
    return normalize(content if isinstance(content, bytes) else png(to_rgb(upright(content))))


def normalize(data: bytes) -> tuple[Image.Image, bytes]:
    """The upright RGB image of a file's bytes, and the bytes to store for it; ``RowError`` for what is no usable picture."""
    image, is_plain = _decoded(data)
    return image, data if is_plain else png(image)


def _content(value: Any, folders: Folders) -> bytes | Image.Image:
    """The bytes of an image's file, or an image that is open already."""
    content = located(value)
    if not isinstance(content, str):
        return content
    path = folders.find(content)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RowError("unreadable image", f"{path.name!r}: {error.strerror}") from None


def _image_of(data: bytes) -> Image.Image:
    return _decoded(data)[0]


def _decoded(data: bytes) -> tuple[Image.Image, bool]:
    """The upright RGB image of a file's bytes, and whether they say just that."""
    if not data:
        raise RowError("empty image", "the file has no bytes; restore it or drop the row")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            _check_header(image)
            image.load()
        is_upright = _is_upright(image)
        if image.mode == "RGB" and image.format in _STORABLE and is_upright and "transparency" not in image.info:
            return image, True
        return to_rgb(image if is_upright else upright(image)), False
    except RowError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RowError("image too large", f"{error}; resize it to at most {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise RowError("unreadable image", f"not an image format that can be read; it begins with {data[:16]!r}") from error
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, ValueError, EOFError
        raise RowError("unreadable image", f"{type(error).__name__}: {error}; the file may be truncated or no image") from error


def _is_upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1)
    except Exception:  # a damaged EXIF block says nothing about orientation, and is no reason to lose the picture
        return True


def _check_header(image: Image.Image) -> None:
    """What can be refused before a single pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise RowError("image too large", f"{width}x{height} pixels; resize it to at most {MAX_PIXELS:,}")
    if min(width, height) < MIN_SIDE:
        raise RowError("image too small", f"{width}x{height} pixels; at least {MIN_SIDE} on each side are needed")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones write MPO: one photo and its thumbnail
        raise RowError("animated image", f"{frames} frames; export the frame that the question is about")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any Pillow mode."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 and 32 bits a pixel: Pillow would clip, not scale
        values = np.nan_to_num(np.asarray(image, np.float64))
        highest = values.max(initial=0)
        tops = [1] * (image.mode == "F") + [255] * (image.mode in ("I", "F")) + [65535]
        top = next((top for top in tops if highest <= top), highest)
        return Image.fromarray((values.clip(0) / top * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def png(image: Image.Image) -> bytes:
    """Lossless bytes; fast rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, icc_profile=None, exif=b"")
    return buffer.getvalue()
