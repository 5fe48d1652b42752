"""A second opinion is given on the region alone, and an error is no opinion."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labeling.verify import Claim, Verdict, Verifier, check_reply, crop, with_margin
from rewardlib.cache import ReplyCache
from rewardlib.judge import JudgeClient, JudgeEndpoint, JudgeError
from tests.conftest import BOX, COLORS, scene
from tests.judge_server import Answer, Server, completion, failure


def judge(n: int, body: dict[str, Any]) -> Answer:
    """Sees the colour in the middle of what it is shown."""
    image, text = body["messages"][1]["content"]
    url = image["image_url"]["url"]
    part = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    pixel = part.getpixel((part.width // 2, part.height // 2))
    color = next((name for name, rgb in COLORS.items() if rgb == pixel), "nothing")
    if color == "green":
        return failure(500)
    phrase = json.loads(text["text"])["phrase"]
    return completion(json.dumps({"shows": color in phrase, "reason": f"It is {color}."}))


def verifier(url: str, cache: ReplyCache | None = None) -> Verifier:
    endpoint = JudgeEndpoint(model="judge", base_url=url, retries=0, timeout=5)
    return Verifier(JudgeClient(endpoint, cache))


def test_a_region_is_judged_by_itself() -> None:
    claims = [
        Claim(scene("red"), BOX, "red square"),
        Claim(scene("blue"), BOX, "red square"),
        Claim(scene("red"), (40, 25, 60, 45), "red square"),
        Claim(scene("green"), BOX, "green square"),
    ]
    with Server(judge).running() as server:
        first, second, third, fourth = verifier(server.url).verify(claims)
    assert first == Verdict(True, "It is red.", 1, 100, 10)
    assert second == Verdict(False, "It is blue.", 1, 100, 10)
    assert isinstance(third, Verdict)
    assert not third.shows
    assert isinstance(fourth, JudgeError)


def test_nothing_is_asked_of_nothing() -> None:
    assert verifier("http://127.0.0.1:9/v1").verify([]) == []


def test_the_same_region_is_paid_for_once(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "replies.sqlite")
    with Server(judge).running() as server:
        asking = verifier(server.url, cache)
        once = asking.verify([Claim(scene("red"), BOX, "red square")])
        assert asking.verify([Claim(scene("red"), BOX, "red square")]) == once
        asking.verify([Claim(scene("red"), BOX, "square")])
        assert len(server.requests) == 2


def test_a_verdict_is_true_or_false() -> None:
    assert check_reply({"shows": False, "reason": " a dog ", "sure": 1}) == (False, "a dog")
    for value in (None, [], {"shows": "yes", "reason": ""}, {"shows": 1, "reason": ""}):
        with pytest.raises(ValueError, match=r"true or false"):
            check_reply(value)
    with pytest.raises(ValueError, match="reason"):
        check_reply({"shows": True})


def test_a_tiny_region_is_enlarged_and_a_large_one_is_not() -> None:
    image = Image.new("L", (900, 600))
    assert crop(image, (100, 100, 110, 105)).size == (112, 56)  # 14 by 7 pixels, eightfold
    assert crop(image, (100, 100, 180, 140)).size == (224, 112)
    assert crop(image, (0, 0, 900, 600)).size == (900, 600)
    assert crop(image, (0, 0, 900, 600)).mode == "RGB"


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((10, 10, 30, 20), (7, 8, 33, 22)),
        ((0, 0, 100, 50), (0, 0, 100, 50)),
        ((99.9, 49.9, 100, 50), (99, 49, 100, 50)),
        ((5, 5, 5, 5), (5, 5, 6, 6)),
        ((200, 200, 300, 300), (99, 49, 100, 50)),
        ((-50, -50, -10, -10), (0, 0, 1, 1)),
    ],
)
def test_a_region_has_a_margin_within_the_image(
    box: tuple[float, ...],
    pixels: tuple[int, ...],
) -> None:
    assert with_margin(box, (100, 50)) == pixels


def test_the_smallest_image_can_be_shown() -> None:
    assert crop(Image.new("RGBA", (1, 1)), (0, 0, 1, 1)).size == (8, 8)


def test_what_decides_a_verdict_is_on_record() -> None:
    info = verifier("http://127.0.0.1:9/v1").info().as_dict()
    assert (info["name"], info["prompt"]) == ("judge", "verify-1")
