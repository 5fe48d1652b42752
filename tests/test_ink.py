"""What a reader cannot see counts as nothing, and what no file can hold is told apart."""

from __future__ import annotations

import pytest

from rewardlib.ink import has_ink, is_encodable

INVISIBLE = {
    "nothing": "",
    "white space": " \t\n\u3000\u00a0",
    "zero-width space": "\u200b",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "braille blank": "\u2800",
    "Hangul filler": "\u3164",
    "byte order mark": "\ufeff",
    "variation selector": "\ufe0f",
    "tag characters": "\U000e0041\U000e007f",
    "control characters": "\x00\x1b\x7f\x85",
    "direction marks": "\u200e\u202e\u2066",
    "half an emoji": "\ud83d",
}


@pytest.mark.parametrize("kind", INVISIBLE)
def test_what_cannot_be_seen_has_no_ink(kind: str) -> None:
    assert not has_ink(INVISIBLE[kind])
    assert has_ink(INVISIBLE[kind] + "square")


@pytest.mark.parametrize("text", ["a", "\u7ea2", "\U0001f600", "7", "\u2801", "\ufffd", "-"])
def test_what_can_be_seen_has_ink(text: str) -> None:
    assert has_ink(text)


def test_half_a_surrogate_pair_cannot_be_stored() -> None:
    for text in ("half \ud83d", "\ude00", "\ude00\ud83d"):
        assert not is_encodable(text)
    for text in ("", "\U0001f600", "\u200b", "red square"):
        assert is_encodable(text)
        text.encode()
