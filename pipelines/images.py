"""Image bytes in, one upright RGB image out; everything else is refused with a reason.

Normalised once, at ingest: EXIF orientation applied, transparency laid over white, 16-bit and palette images converted. Bytes that need
none of this are stored untouched, so a JPEG is never compressed twice.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipelines.schema import Rejected

MAX_PIXELS = 64_000_000
MIN_SIDE = 8
_STORABLE = {"PNG", "JPEG", "WEBP"}


def normalize(data: bytes) -> tuple[Image.Image, bytes]:
    """The upright RGB image, and the bytes to store for it. ``Rejected`` for what is no usable picture."""
    if not data:
        raise Rejected("empty image", "the file has no bytes; restore it or drop the row")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            _check_header(image)
            image.load()
        if image.mode == "RGB" and image.format in _STORABLE and _is_upright(image) and "transparency" not in image.info:
            return image, data
        rgb = to_rgb(ImageOps.exif_transpose(image) if not _is_upright(image) else image)
        return rgb, png(rgb)
    except Rejected:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Rejected("image too large", f"{error}; resize it to at most {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise Rejected("unreadable image", f"not an image format that can be read; it begins with {data[:16]!r}") from error
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, ValueError, EOFError
        raise Rejected("unreadable image", f"{type(error).__name__}: {error}; the file may be truncated or no image") from error


def _is_upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1)
    except Exception:  # a damaged EXIF block says nothing about orientation, and is no reason to lose the picture
        return True


def _check_header(image: Image.Image) -> None:
    """What can be refused before a single pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Rejected("image too large", f"{width}x{height} pixels; resize it to at most {MAX_PIXELS:,}")
    if min(width, height) < MIN_SIDE:
        raise Rejected("image too small", f"{width}x{height} pixels; at least {MIN_SIDE} on each side are needed")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones write MPO: one photo and its thumbnail
        raise Rejected("animated image", f"{frames} frames; export the frame that the question is about")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any Pillow mode."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 and 32 bits a pixel: Pillow would clip, not scale
        values = np.asarray(image, np.float64)
        highest = values.max(initial=0)
        top = 1 if image.mode == "F" and highest <= 1 else 65535 if highest <= 65535 else highest
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
