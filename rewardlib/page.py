"""What pages to look at are made of: one file with everything inside, which runs nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from typing import Any

MAX_SIDE = 640  # pixels of a picture on a page


def data_url(image: Any) -> str:
    """A Pillow image as part of a page, made smaller where it is larger than a page needs."""
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def inert(data: Any) -> str:
    """JSON for a data block of a page: nothing in it can end the block."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def content_policy(page: str) -> str:
    """The content-security policy of a page: its own script and style sheet by their hashes, its own pictures, and nothing else."""
    sources = ["default-src 'none'", "img-src data:"]
    for tag in ("script", "style"):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        if inline:
            digest = base64.b64encode(hashlib.sha256(inline.group(1).encode()).digest()).decode()
            sources.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join(sources)
