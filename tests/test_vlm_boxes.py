"""A vision-language model's boxes: only those that can be used, and never none for an error."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from labeling.boxes import Detection
from labeling.locators import Sought
from labeling.locators.base import Answered
from labeling.locators.vlm_boxes import (
    FACTOR,
    FEWEST,
    MOST,
    Coordinates,
    VlmBoxesLocator,
    boxes_request,
    check_reply,
    sent_size,
    usable,
)
from rewardlib.cache import ReplyCache
from rewardlib.judge import JudgeClient, JudgeEndpoint, JudgeError
from tests.conftest import ROOT
from tests.judge_server import Answer, Server, completion, failure

IMAGE = Image.new("RGB", (200, 100), "white")


def seek(*phrases: str) -> list[Sought]:
    return [Sought(phrase) for phrase in phrases]


def client(url: str, cache: ReplyCache | None = None) -> JudgeClient:
    return JudgeClient(JudgeEndpoint(model="vlm", base_url=url, retries=0, timeout=5), cache)


def shown(body: dict[str, Any]) -> Image.Image:
    url = body["messages"][1]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def asked(body: dict[str, Any]) -> list[str]:
    return list(json.loads(body["messages"][1]["content"][1]["text"])["phrases"])


def answer(*boxes: tuple[Any, str]) -> Answer:
    return completion(json.dumps({"boxes": [{"bbox_2d": b, "label": p} for b, p in boxes]}))


def whole(n: int, body: dict[str, Any]) -> Answer:
    """The left half of the image, in thousandths, for every phrase that is asked."""
    return answer(*(([0, 0, 500, 1000], phrase) for phrase in asked(body)))


@pytest.mark.parametrize("coordinates", ["pixels", "thousandths"])
def test_boxes_come_back_in_the_images_pixels(coordinates: Coordinates) -> None:
    def look(n: int, body: dict[str, Any]) -> Answer:
        w, h = shown(body).size if coordinates == "pixels" else (1000, 1000)
        return answer(([w / 4, h / 2, w / 2, h], "dog"))

    with Server(look).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates=coordinates)
        (found,) = locator.locate([IMAGE], [seek("dog", "cat")])
    assert isinstance(found, Answered)
    assert found.detections == (Detection("dog", (50.0, 50.0, 100.0, 100.0), 1.0, locator="vlm-boxes"),)


def test_unknown_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'inches'.*pixels, thousandths"):
        VlmBoxesLocator(client("http://127.0.0.1:9/v1"), coordinates=cast(Any, "inches"))


def test_what_cannot_be_used_is_dropped_and_counted() -> None:
    boxes = [
        ([0, 0, 500, 1000], "Dog."),  # a model's own case and full stop
        ([0, 0, 500, 1000], "dog"),  # again
        ([-10, 0, 1015, 1000], "cat"),  # a little outside
        ([0, 0, 1500, 1000], "cat"),
        ([700, 0, 300, 1000], "cat"),
        ([0, 0, "5", 1000], "cat"),
        ([0, 0, 5], "cat"),
        ([0, 0, 500, 1000], "horse"),
    ]
    with Server(lambda n, body: answer(*boxes)).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates="thousandths")
        (located,) = locator.locate([IMAGE], [seek("dog", "cat")])
    assert isinstance(located, Answered)
    assert {(d.phrase, d.bbox) for d in located.detections} == {
        ("dog", (0.0, 0.0, 100.0, 100.0)),
        ("cat", (0.0, 0.0, 200.0, 100.0)),
    }
    assert located.dropped_for == (
        "outside the image",
        "empty",
        "not four numbers",
        "not four numbers",
        "label was not asked for",
    )
    assert (located.requests, located.prompt_tokens, located.completion_tokens) == (1, 100, 10)


def test_an_error_is_kept_in_its_images_place() -> None:
    def look(n: int, body: dict[str, Any]) -> Answer:
        return failure(500) if "dog" in asked(body) else whole(n, body)

    with Server(look).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates="thousandths")
        found = locator.locate([IMAGE, IMAGE, IMAGE], [seek("cat"), seek("dog"), []])
    assert isinstance(found[0], Answered)
    assert [d.phrase for d in found[0].detections] == ["cat"]
    assert isinstance(found[1], JudgeError)
    assert found[2] == Answered(())


def test_an_answer_that_is_none_is_an_error_also_after_its_repair() -> None:
    with Server(lambda n, body: completion('{"boxes": "none"}')).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates="thousandths")
        (found,) = locator.locate([IMAGE], [seek("dog")])
    assert isinstance(found, JudgeError)
    assert found.reason == "invalid"


def test_many_phrases_are_asked_in_chunks_and_paid_together() -> None:
    many = [f"dog {n}" for n in range(60)]
    with Server(whole).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates="thousandths")
        (located,) = locator.locate([IMAGE], [seek(*many, *many)])
    assert isinstance(located, Answered)
    assert {d.phrase for d in located.detections} == set(many)
    assert (located.requests, located.prompt_tokens) == (4, 400)


def test_one_failed_chunk_is_the_images_error_with_all_that_was_paid() -> None:
    def look(n: int, body: dict[str, Any]) -> Answer:
        return failure(500) if "dog 0" in asked(body) else whole(n, body)

    with Server(look).running() as server:
        locator = VlmBoxesLocator(client(server.url), coordinates="thousandths")
        (located,) = locator.locate([IMAGE], [seek(*(f"dog {n}" for n in range(40)))])
    assert isinstance(located, JudgeError)
    assert (located.usage.requests, located.usage.failed, located.usage.prompt_tokens) == (
        2,
        1,
        200,
    )


def test_the_same_is_paid_for_once(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "replies.sqlite")
    with Server(whole).running() as server:
        locator = VlmBoxesLocator(client(server.url, cache), coordinates="thousandths")
        first = locator.locate([IMAGE], [seek("dog", "cat")])
        assert locator.locate([IMAGE.copy()], [seek("cat", "dog")]) == first
        assert len(server.requests) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_of_image_can_be_shown(mode: str) -> None:
    request = boxes_request(Image.new(mode, (1, 1)), ["dog"], "pixels")
    body = {"messages": request.messages()}
    assert (shown(body).mode, shown(body).size) == ("RGB", (56, 56))


def test_the_models_processor_leaves_alone_what_is_sent() -> None:
    rng = random.Random(0)
    sides = [round(math.exp(rng.uniform(0, 8))) for _ in range(1000)]
    sizes = zip(sides[::2], sides[1::2], strict=True)
    for width, height in [*sizes, (1, 1), (28, 28), (4000, 3000), (1, 3000)]:
        w, h = sent_size((width, height))
        assert FEWEST <= w * h <= MOST
        if max(w, h) / min(w, h) < 200:
            assert smart_resize(h, w, FACTOR, FEWEST, MOST) == (h, w)
        if 0.2 < width / height < 5 and width * height > 28 * 28 * 100:
            assert w / h == pytest.approx(width / height, rel=0.2)


def test_a_bare_list_is_a_reply() -> None:
    boxes = [{"bbox_2d": [1, 2, 3, 4], "label": "dog", "confidence": 1}]
    assert check_reply(boxes) == [{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]


@pytest.mark.parametrize(
    "value",
    [None, {}, {"boxes": [1]}, [{"label": "dog"}], [{"bbox_2d": [1]}]],
)
def test_another_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"boxes"):
        check_reply(value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, True, None, "1", 10**400])
def test_only_finite_numbers_make_a_box(bad: Any) -> None:
    assert usable([bad, 0, 10, 10], (10, 10), (10, 10)) == "not four numbers"


def test_what_decides_the_boxes_is_on_record() -> None:
    locator = VlmBoxesLocator(client("http://127.0.0.1:9/v1"), coordinates="pixels")
    info = locator.info().as_dict()
    assert (info["name"], info["coordinates"]) == ("vlm", "pixels")


def test_who_asks_an_endpoint_loads_no_torch() -> None:
    code = "import sys, labeling.locators.vlm_boxes, labeling.verify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
