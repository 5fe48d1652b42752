"""Can a text be seen, and can it be stored? White space is not all that shows as nothing, and not
every string is Unicode.

has_ink("\\u200b")               # False: a zero-width space is no white space, yet nothing is seen
is_encodable("half \\ud83d")     # False: JSON may hold half an emoji; no file can
"""

from __future__ import annotations

import re

# A character that leaves ink: neither space nor control, nor half a surrogate pair, nor one of
# those that fonts show as nothing (Unicode's Default_Ignorable_Code_Point, marks of direction and
# annotation, the blanks of Hangul and Braille).
_INK = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_HALF = re.compile(r"[\ud800-\udfff]")


def has_ink(text: str) -> bool:
    """Whether a reader would see anything of a text."""
    return _INK.search(text) is not None


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; half a surrogate pair, of a cut emoji, cannot."""
    return _HALF.search(text) is None


def printable(text: str) -> str:
    """A text for a screen or a file: half characters and control characters as escapes, so that none of them does anything."""
    return _UNPRINTABLE.sub(lambda sign: ascii(sign[0])[1:-1], text)


_UNPRINTABLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f-\x9f]")
