"""Which images a row has, and what each of them is: the bytes of a file, a path, or an image that is open already.

    "images/1.png"   "file:///data/1.png"                a path
    "data:image/png;base64,iVBOR..."   "iVBOR..."        bytes, written as text
    {"bytes": ..., "path": ...}                          as `datasets` stores them
    b"\\x89PNG..."                                        bytes

Addresses on the web are named in the error, not fetched: a training set that is somewhere else tomorrow is none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from rewardlib.rows.values import RowError, decoded, listed, plain, reading, stated

PICTURES = ("images", "image", "image_path", "image_url", "file_name")
_NUMBERED = re.compile(r"image_?\d+")

_BASE64 = re.compile(r"[A-Za-z0-9+/_-][A-Za-z0-9+/_\s-]{30,}={0,2}\s*")
# How files of images begin: PNG, JPEG, GIF, WebP (in a RIFF), BMP, TIFF twice, AVIF and HEIC (in an ISO box).
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x00")


def picture_columns(names: Collection[str]) -> list[str]:
    """Which of a row's columns hold images, those of a number (image_1, image_2, as MMMU has them) in their order behind the others."""
    numbered = sorted((name for name in names if _NUMBERED.fullmatch(name)), key=lambda name: int(re.sub(r"\D", "", name)))
    return [*(name for name in PICTURES if name in names), *numbered]


def read_pictures(columns: Mapping[str, Any]) -> list[Any]:
    """The row's images as they are stored, unopened; an empty list for a question without one.

    They are in one column; an image is in the column before those of a number.
    """
    names = [name for name in picture_columns(columns) if _images_in(columns, name)]
    if not names:
        return []
    numbered = [name for name in names if _NUMBERED.fullmatch(name)]
    several = [names[0], *numbered] if names[0] in ("image", "image_path", "image_url") else numbered or names[:1]
    if names[0] == "images" or not numbered:
        several = names[:1]
    return [image for name in dict.fromkeys(several) for image in _images_in(columns, name)]


def _images_in(columns: Mapping[str, Any], name: str) -> list[Any]:
    value = decoded(columns.get(name))
    images = listed(value)
    if images and isinstance(value, list | tuple) and len(images) < len(value):
        raise RowError("missing image", f"{len(value) - len(images)} of the {len(value)} images in {name} are empty: give them")
    return images


def located(value: Any) -> bytes | str | Any:
    """What an image's value says: the bytes of a file, a path as text, or an image that is open already."""
    value = plain(value)
    if isinstance(value, Mapping):
        fields = stated(value)
        value = next((fields[name] for name in ("bytes", "path", "url", "image") if name in fields), None)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bytes) or hasattr(value, "getexif"):  # Pillow's images have it
        return value
    if getattr(value, "ndim", 0) == 3:
        return _of_array(value)
    raise RowError("bad image", f"the image is {value!r:.60}, expected a path, the bytes of a file, or base64")


def _of_array(pixels: Any) -> Any:
    """An open image of an array (height, width, channels) of bytes."""
    import numpy as np
    from PIL import Image

    values = np.asarray(pixels)
    if values.dtype != np.uint8 or values.shape[2] not in (3, 4):
        raise RowError("bad image", f"the image is an array {values.shape} of {values.dtype}, expected (height, width, 3) of uint8")
    return Image.fromarray(values)


def _of_text(written: str) -> bytes | str:
    scheme = re.match(r"(?i)(data|file|https?|s3|gs|hdfs|ftp):", written)
    if scheme is None:
        return _as_base64(written) or written
    if scheme[1].lower() == "data":
        return _of_data_url(written)
    if scheme[1].lower() == "file":
        with reading():
            return unquote(urlsplit(written).path)
    raise RowError("image on the web", f"{written:.80} is an address, and images are read from files: download it, and name the file")


def _of_data_url(written: str) -> bytes:
    head, comma, body = written.partition(",")
    if not comma:
        raise RowError("unreadable image", f"the data URL {head[:40]!r} has no comma and so no data")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(body.encode("utf-8", "replace"))
    data = _decoded_base64(unquote(body))
    if not data:
        raise RowError("unreadable image", f"the data URL {head[:40]!r} holds {len(body):,} characters that are no base64")
    return data


def _as_base64(written: str) -> bytes | None:
    """The bytes of an image that is written as base64; None for a path."""
    if not _BASE64.fullmatch(written):
        return None
    data = _decoded_base64(written)
    return data if data is not None and data.startswith(_MAGIC) else None


def _decoded_base64(written: str) -> bytes | None:
    squeezed = "".join(written.split()).translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(squeezed + "=" * (-len(squeezed) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def upright(image: Any) -> Any:
    """A Pillow image as it is meant to be seen: turned as its EXIF orientation says."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block says nothing about orientation, and is no reason to lose the picture
        return image
