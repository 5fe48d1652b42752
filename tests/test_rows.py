"""What a row says, in every spelling that tables have for it; and everybody who reads it reads the same."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rewardlib import Accuracy, Sample
from rewardlib.adapters.rows import to_sample, to_samples
from rewardlib.rows import DatasetRow, RowError
from rewardlib.rows.chat import PLACEHOLDER, Picture
from rewardlib.rows.images import Folders, load_image
from rewardlib.rows.values import is_missing
from tests.conftest import SIZE, encode, scene

NAN = float("nan")
PNG = encode(scene())
BASE64 = base64.b64encode(PNG).decode()


# ------------------------------------------------------------------------------------------ values


class NAType:
    """Like pandas' missing value, by its name."""


@pytest.mark.parametrize("value", [None, NAN, np.float32("nan"), "", " \n", "nan", "NaN", "<NA>", "\u200b", NAType()])
def test_values_that_state_nothing(value: Any) -> None:
    assert is_missing(value)
    row = DatasetRow(dict.fromkeys(("id", "split", "license", "answer", "choices", "image", "traces", "regions"), value))
    assert (row.id, row.split, row.license, row.answer, row.choices.texts) == (None, None, None, None, ())
    assert row.pictures == row.traces == row.regions == []


@pytest.mark.parametrize("value", [0, False, "0", "none", "None", "null", "Nan", "n/a", [], 0.0])
def test_values_that_state_something(value: Any) -> None:
    assert not is_missing(value)


# ------------------------------------------------------------------------------------------ choices

CHOICES = {
    "list": ["blue", "red"],
    "array": np.array(["blue", "red"]),
    "padded list": ["blue", "red", None, None],
    "JSON": '["blue", "red"]',
    "as Python prints it": "['blue', 'red']",
    "object": {"A": "blue", "B": "red"},
    "object in another order": {"B": "red", "A": "blue"},
    "padded object": {"A": "blue", "B": "red", "C": None, "D": NAN},
    "object in JSON": '{"A": "blue", "B": "red"}',
    "numbered object": {"0": "blue", "1": "red"},
    "object of lists": {"label": ["A", "B"], "text": ["blue", "red"]},
    "objects": [{"label": "A", "text": "blue"}, {"label": "B", "text": "red"}],
    "objects in another order": [{"key": "(b)", "value": "red"}, {"key": "(a)", "value": "blue"}],
    "labels in the texts": ["A. blue", "B. red"],
    "labels in brackets in the texts": ["(A) blue", "(B) red"],
    "one text": "A. blue B. red",
    "one text of lines": "(A) blue\n(B) red",
    "as numpy prints it": "['blue' 'red']",
    "objects with one text": [{"text": "blue"}, {"text": "red"}],
}


@pytest.mark.parametrize("name", ["choices", "options"])
@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_options_in_every_spelling(choices: Any, name: str) -> None:
    row = DatasetRow({"question": "Which?", "answer": "B", name: choices})
    assert (row.choices.texts, row.answer) == (("blue", "red"), "B")
    assert row.turns[0].text == "Which?\n(A) blue\n(B) red"
    assert row.question == "Which?"


@pytest.mark.parametrize(
    ("choices", "detail"),
    [
        ("blue, red", "expected a list of texts"),
        (7, "expected a list of texts"),
        ([{"colour": "blue"}], "expected a list of texts"),
        ([["blue"], ["red"]], "expected text"),
        (["blue", None, "red"], "option 2 of 3 in choices is empty"),
        ({"C": "blue", "D": "red"}, "the labels C, D, expected A, B"),
        ([{"label": "A", "text": "blue"}, {"label": "a", "text": "red"}], "two options of the same label"),
        ([str(n) for n in range(27)], "more than there are letters"),
    ],
)
def test_options_that_cannot_be_understood(choices: Any, detail: str) -> None:
    with pytest.raises(RowError, match=detail) as caught:
        DatasetRow({"choices": choices}).choices  # noqa: B018
    assert caught.value.reason == "bad choices"


def test_options_that_the_question_lists_are_not_listed_again() -> None:
    for text in ("Which? (A) blue (B) red", "Which?\nA. blue\nB. red", "Which?\nA: blue\nB: red"):
        assert DatasetRow({"problem": text, "choices": ["blue", "red"]}).turns[0].text == text
    assert DatasetRow({"problem": "Blue or red?", "choices": ["blue", "red"]}).turns[0].text == "Blue or red?\n(A) blue\n(B) red"


# ------------------------------------------------------------------------------------------ golds

GOLDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "text": ({"answer": " red "}, ("red",)),
    "a number": ({"answer": 4}, ("4",)),
    "a whole number of a table with gaps": ({"answer": 4.0}, ("4",)),
    "another number": ({"answer": 4.5}, ("4.5",)),
    "numpy's": ({"answer": np.int64(4)}, ("4",)),
    "zero": ({"answer": 0}, ("0",)),
    "tagged": ({"solution": "<answer> 3 </answer>"}, ("3",)),
    "half tagged": ({"solution": "3</answer>"}, ("3",)),
    "boxed in a sentence": ({"solution": r"The sum is \boxed{3}."}, ("3",)),
    "behind working": ({"answer": "Two and one make three.\n#### 3"}, ("3",)),
    "a thoughtful response": ({"solution": "<think>Two and one.</think> The answer is 3."}, ("3",)),
    "alternatives": ({"answer": ["red", "crimson"]}, ("red", "crimson")),
    "alternatives in JSON": ({"answer": '["red", "crimson"]'}, ("red", "crimson")),
    "annotators": ({"answers": [{"answer": "red", "answer_id": 1}, {"answer": "crimson"}, {"answer": "crimson"}]}, ("crimson", "red")),
    "one in a list": ({"answer": ["3"]}, ("3",)),
    "a number in a list": ({"answer": [3]}, ("3",)),
    "alternatives with a gap": ({"answer": ["red", None, NAN]}, ("red",)),
    "a box": ({"answer": [10, 20, 30, 40]}, ("[10, 20, 30, 40]",)),
    "lists in a list": ({"answer": [["red"], ["crimson"]]}, ("red", "crimson")),
    "SQuAD's": ({"answers": {"text": ["red", "crimson"], "answer_start": [3, 9]}}, ("red", "crimson")),
    "beside its alternatives": ({"answer": "red", "alternatives": ["crimson"]}, ("red", "crimson")),
    "the first that says something": ({"answer": NAN, "solution": "", "gt": "red"}, ("red",)),
    "none": ({"answer": "nan"}, ()),
    "an option by its letter": ({"answer": "B", "choices": ["blue", "red"]}, ("B",)),
    "an option by its text": ({"answer": "red", "choices": ["blue", "red"]}, ("red",)),
    "an option by its number": ({"answer": 1, "choices": ["blue", "red"]}, ("B",)),
    "the first option by its number": ({"answer": 0, "choices": ["blue", "red"]}, ("A",)),
    "an option by its number as text": ({"answer": "1", "choices": ["blue", "red"]}, ("B",)),
    "an option by its number with a gap beside": ({"answer": 1.0, "choices": ["blue", "red"]}, ("B",)),
    "an option by its label": ({"answer": "2", "choices": {"1": "blue", "2": "red"}}, ("B",)),
    "an option that is a number": ({"answer": 3, "choices": ["2", "3"]}, ("3",)),
    "an option that is a number with a unit": ({"answer": 3, "choices": ["2 cm", "3 cm"]}, ("B",)),
    "a letter that is an option": ({"answer": "x", "choices": ["x", "y"]}, ("x",)),
    "an option by its value": ({"answer": 10, "choices": ["10 cm", "20 cm"]}, ("A",)),
    "an option by its value in money": ({"answer": "5", "choices": ["$5", "$10"]}, ("A",)),
    "several options": ({"answer": "A, C", "choices": ["x", "y", "z"]}, ("A, C",)),
    "annotators in text": ({"answers": "[{'answer': 'red'}, {'answer': 'blue'}]"}, ("red", "blue")),
    "an object in text": ({"answer": "{'text': ['red'], 'answer_start': [1]}"}, ("red",)),
    "a list as numpy prints it": ({"answer": "['red' 'crimson']"}, ("red", "crimson")),
    "an empty tag": ({"answer": "<answer> </answer>", "gt": "red"}, ("red",)),
    "reward_model in text": ({"reward_model": '{"ground_truth": "red"}'}, ("red",)),
    "behind because": ({"solution": "The answer is B because the square is red.", "choices": ["blue", "red"]}, ("B",)),
    "options in verl's extra_info": ({"reward_model": {"ground_truth": 1}, "extra_info": {"choices": ["blue", "red"]}}, ("B",)),
    "a reply": (
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "It is so. The answer is red."}]},
        ("red",),
    ),
}


@pytest.mark.parametrize(("columns", "golds"), GOLDS.values(), ids=GOLDS)
def test_golds_in_every_spelling(columns: dict[str, Any], golds: tuple[str, ...]) -> None:
    assert DatasetRow(columns).golds == golds
    sample = to_sample("", columns)
    assert ((sample.answer, *sample.alternatives) if sample.answer else ()) == golds


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"answer": -1, "choices": ["blue", "red"]}, "is none of the options"),
        ({"answer": "purple", "choices": ["blue", "red"]}, "is none of the options"),
        ({"answer": "BC", "choices": ["blue", "red", "green"]}, "is none of the options"),
        ({"answer": [0, 1], "choices": ["blue", "red"]}, "is none of the options"),
        ({"answer": "$$"}, "which no response can match"),
        ({"answer": {"bbox": [1, 2, 3, 4]}}, "expected text, a number or a list of texts"),
        ({"answer": 2, "choices": ["blue", "red"]}, "counts the 2 options blue, red from 0, and there is none of that number"),
        (
            {"answer": "E", "choices": ["blue", "red"]},
            "the answer 'E' is none of the options blue, red; write the option's letter",
        ),
        ({"answer": 7, "choices": ["2", "3"]}, "the answer '7' is none of the options 2, 3"),
    ],
)
def test_golds_that_no_answer_can_match(columns: dict[str, Any], detail: str) -> None:
    with pytest.raises(RowError, match=detail) as caught:
        DatasetRow(columns).golds  # noqa: B018
    assert caught.value.reason == "bad answer"
    with pytest.warns(UserWarning, match="a row is not scored by rewards that need it"):
        sample = to_sample("<answer>red</answer>", columns)
    assert Accuracy()([sample]) == [None]


def test_any_of_several_golds_is_right() -> None:
    samples = [Sample(f"<answer>{said}</answer>", answer="red", alternatives=("crimson",)) for said in ("red", "crimson", "blue")]
    assert Accuracy()(samples) == [1.0, 1.0, 0.0]


def test_a_host_that_passes_lists_of_golds() -> None:
    right = "<think>Two and one.</think><answer>3</answer>"
    samples = to_samples([right] * 3, {"solution": ["3", "<answer> 3 </answer>", ["3"]]}, [], [])
    assert Accuracy()(samples) == [1.0] * 3


# ------------------------------------------------------------------------------------------ chats

IMAGE_PARTS: list[dict[str, Any]] = [
    {"type": "image", "image": "a.png"},
    {"type": "image", "path": "a.png"},
    {"type": "image", "url": "a.png"},
    {"type": "image_url", "image_url": "a.png"},
    {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}},
    {"type": "input_image", "image_url": "a.png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a.png"}},
    {"type": "image", "source": {"type": "url", "url": "a.png"}},
    {"image": "a.png"},
    {"type": "image", "image": "a.png", "text": None, "video": None},
]


@pytest.mark.parametrize("part", IMAGE_PARTS, ids=str)
@pytest.mark.parametrize("kind", ["text", "input_text"])
def test_images_that_a_chat_carries(part: dict[str, Any], kind: str) -> None:
    row = DatasetRow({"messages": [{"role": "user", "content": [part, {"type": kind, "text": "Which?"}]}]})
    assert row.pictures == ["a.png"]
    assert row.turns[0].parts == (Picture("a.png"), "Which?")
    assert row.question == "Which?"


def test_images_in_parts_and_in_columns() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "Is it like"}, {"type": "image", "image": "b.png"}]
    assert DatasetRow({"prompt": [{"role": "user", "content": content}], "images": ["a.png"]}).pictures == ["a.png", "b.png"]
    with pytest.raises(RowError, match="more places than images"):
        DatasetRow({"prompt": [{"role": "user", "content": content}]}).pictures  # noqa: B018


ROLES = [("human", "gpt"), ("user", "assistant"), ("USER", "ASSISTANT"), ("human", "chatgpt"), ("user", "model"), ("human", "bard")]


@pytest.mark.parametrize(("asks", "answers"), ROLES)
def test_the_reply_is_the_answer_and_never_in_the_prompt(asks: str, answers: str) -> None:
    talk = [{"from": asks, "value": "<image>\nWhich?"}, {"from": answers, "value": "red"}, {"from": "system", "value": "Be brief."}]
    row = DatasetRow({"image": "a.png", "conversations": talk})
    assert (row.answer, [turn.role for turn in row.turns], row.question) == ("red", ["user"], "Which?")


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(RowError, match="a message of the role 'narrator'"):
        DatasetRow({"messages": [{"role": "narrator", "content": "?"}]}).turns  # noqa: B018


def test_numpy_inside_of_chats() -> None:
    parts = np.array([{"type": "image", "image": "a.png"}, {"type": "text", "text": "Which?"}], dtype=object)
    row = DatasetRow({"messages": np.array([{"role": "user", "content": parts}], dtype=object), "answer": np.array(["red"])})
    assert (row.question, row.pictures, row.answer) == ("Which?", ["a.png"], "red")
    assert to_sample("<answer>red</answer>", row.columns).answer == "red"


@pytest.mark.parametrize("names", [("A", "B"), ("option_a", "option_b"), ("choice_a", "choice_b"), ("option1", "option2")])
def test_options_in_columns_of_their_own(names: tuple[str, str]) -> None:
    row = DatasetRow({"question": "Which?", "answer": "B", names[0]: "blue", names[1]: "red"})
    assert (row.choices.texts, row.answer) == (("blue", "red"), "B")


def test_an_empty_column_hides_no_other() -> None:
    row = DatasetRow({"images": [], "image": "a.png", "choices": [], "options": ["blue", "red"], "answer": "red"})
    assert (row.pictures, row.choices.texts) == (["a.png"], ("blue", "red"))


def test_names_of_columns_in_capitals() -> None:
    row = DatasetRow({"ID": "a", "Question": "Which?", "Answer": "B", "Choices": ["blue", "red"], "IMAGE": "a.png", "Other": 1})
    assert (row.id, row.question, row.answer, row.pictures) == ("a", "Which?", "B", ["a.png"])
    assert DatasetRow({"question": "this", "Question": "not this"}).question == "this"


def test_numbered_images() -> None:
    columns = {"question": "<image 1> Which?", "image_1": "a.png", "image_2": None, "image_10": "c.png", "image_3": "b.png"}
    assert DatasetRow(columns).pictures == ["a.png", "b.png", "c.png"]
    assert DatasetRow({"image": "a.png", "image_2": "b.png"}).pictures == ["a.png", "b.png"]


UNREAD: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": kind, kind: "x"}, {"type": "text", "text": "?"}]}]}
    for kind in ("video", "audio", "input_audio", "video_url", "file")
] + [
    {"question": "?", "videos": ["a.mp4"]},
    {"question": "?", "audio": {"array": [0.0]}},
    {"question": "?", "video_path": "a.mp4"},
    {"messages": [{"role": "user", "content": "Look. <video>\nWhat happens?"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "?", "video": "a.mp4"}]}]},
    {"problem": "<video>What happens?"},
    {"messages": [{"role": "user", "content": "<audio>\nWhat is said?"}]},
]


@pytest.mark.parametrize("columns", UNREAD, ids=str)
def test_what_is_not_read_is_named(columns: dict[str, Any]) -> None:
    with pytest.raises(RowError, match=r"only (texts and )?images are read") as caught:
        DatasetRow(columns).turns  # noqa: B018
    assert caught.value.reason.startswith("unread")


@pytest.mark.parametrize("columns", [{"videos": None}, {"videos": []}, {"audios": NAN}])
def test_columns_of_nothing_are_no_videos(columns: dict[str, Any]) -> None:
    assert DatasetRow({"question": "What does the <video> tag do?", **columns}).question == "What does the <video> tag do?"


QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "leading": ({"question": "<image>\nWhich?"}, "Which?"),
    "trailing": ({"question": "Which?\n<image>"}, "Which?"),
    "a word": ({"question": "Which tag draws it: <image> or <rect>?"}, "Which tag draws it: <image> or <rect>?"),
    "a word twice": ({"question": "<image>, <img> or <image/>? Not <image>."}, ", <img> or <image/>? Not <image>."),
    "a place and a word": ({"problem": "<image>Which tag draws it: <image> or <rect>?"}, "Which tag draws it: <image> or <rect>?"),
    "a place in a chat": ({"prompt": [{"role": "user", "content": "Look at <image>: which?"}]}, "Look at : which?"),
}


@pytest.mark.parametrize(("columns", "question"), QUESTIONS.values(), ids=QUESTIONS)
def test_places_of_images_and_words(columns: dict[str, Any], question: str) -> None:
    row = DatasetRow({**columns, "image": "a.png"})
    assert (row.question, len(row.turns[0].pictures)) == (question, 1)


@pytest.mark.parametrize("images", [[], None, ["a.png"] * 3])
def test_places_without_images(images: Any) -> None:
    with pytest.raises(RowError, match=r"places without images|placeholders without images"):
        DatasetRow({"problem": "Is <image> like <image> or <image> or <image>?", "images": images}).turns  # noqa: B018


# ------------------------------------------------------------------------------------------ images

PICTURES: dict[str, Any] = {
    "path": "a.png",
    "file address": "file://{folder}/a.png",
    "bytes": PNG,
    "struct": {"bytes": PNG, "path": "elsewhere.png"},
    "struct of a path": {"bytes": None, "path": "a.png"},
    "data URL": f"data:image/png;base64,{BASE64}",
    "data URL of many lines": "data:image/png;base64," + "\n".join(BASE64[n : n + 76] for n in range(0, len(BASE64), 76)),
    "base64": BASE64,
    "open": scene(),
    "an array": np.asarray(scene()),
    "one in a list": ["a.png"],
    "a list in JSON": '["a.png"]',
    "address as OpenAI has it": {"url": f"data:image/png;base64,{BASE64}"},
}


@pytest.mark.parametrize("name", ["image", "images", "image_path", "image_url", "file_name"])
@pytest.mark.parametrize("value", PICTURES.values(), ids=PICTURES)
def test_images_in_every_spelling(value: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    if isinstance(value, str):
        value = value.format(folder=tmp_path) if value.startswith("file") else value
    (picture,) = DatasetRow({name: value}).pictures
    assert np.array_equal(np.asarray(load_image(picture, Folders((tmp_path,)))), np.asarray(scene()))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("https://example.org/a.png", "image on the web"),
        ("s3://bucket/a.png", "image on the web"),
        ("data:image/png;base64,%%%", "unreadable image"),
        ("data:image/png;base64", "unreadable image"),
        (f"data:image/png;base64,{BASE64[:-80]}", "unreadable image"),
        ("data:image/svg+xml;utf8,<svg/>", "unreadable image"),
        (7, "bad image"),
        ({"bytes": None, "path": None}, "bad image"),
        ("x" * 100_000, "unreadable image"),
    ],
)
def test_images_that_cannot_be_read_are_named_in_short(value: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RowError) as caught:
        load_image(value, Folders((tmp_path,)))
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 300


def test_an_open_image_is_turned_as_a_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = scene().transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.size == SIZE[::-1]
        assert load_image(opened).size == load_image("a.jpg", Folders((tmp_path,))).size == SIZE
        sample = to_sample("", {"answer": "x", "images": [opened], "bbox": [40, 8, 60, 20]})
    assert sample.regions[0]["bbox"] == [40, 8, 60, 20]


# ------------------------------------------------------------------------------------------ regions

BOX = [10.0, 20.0, 30.0, 40.0]
BOXES: dict[str, dict[str, Any]] = {
    "a box": {"bbox": BOX},
    "boxes": {"bboxes": [BOX]},
    "regions": {"regions": [{"bbox": BOX}]},
    "a region": {"regions": {"bbox": BOX}},
    "boxes as regions": {"regions": [BOX]},
    "JSON": {"bboxes": json.dumps([BOX])},
    "numbers as text": {"regions": [{"bbox": ["10", "20.0", "30", "40"]}]},
    "a box of texts": {"bbox": ["10", "20", "30", "40"]},
    "a box as text": {"regions": [{"bbox": "[10, 20, 30, 40]"}]},
    "corners by name": {"regions": [{"bbox": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}]},
    "other corners by name": {"regions": [{"bbox": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}}]},
    "sides by name": {"regions": [{"bbox": {"x": 10, "y": 20, "width": 20, "height": 20}}]},
    "shares": {"regions": [{"bbox": [0.1, 0.25, 0.3, 0.5], "bbox_type": "norm1"}]},
    "shares as text": {"regions": [{"bbox": ["0.1", "0.25", "0.3", "0.5"], "bbox_type": "norm1"}]},
    "of an image of twice the size": {"bbox": [20, 40, 60, 80], "width": 200, "height": 160},
    "of an image of half the size, as text": {"bbox": [5, 10, 15, 20], "width": "50", "height": "40"},
    "of an image of this size": {"bbox": BOX, "width": 100, "height": 80},
    "a gap beside it": {"regions": [{"bbox": BOX, "phrase": NAN}, None]},
    "shares of an image whose size is stated": {
        "regions": [{"bbox": [0.1, 0.25, 0.3, 0.5], "bbox_type": "norm1"}],
        "width": 200,
        "height": 160,
    },
}


@pytest.mark.parametrize("columns", BOXES.values(), ids=BOXES)
def test_regions_in_every_spelling(columns: dict[str, Any]) -> None:
    (region,) = DatasetRow(columns).regions_on((100, 80))
    assert region["bbox"] == pytest.approx(BOX)
    assert (region["phrase"], region["flags"], region["mask"]) == ("", [], None)


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"bbox": BOX, "width": 80, "height": 100}, "the row says 80x100, the image is 100x80; it seems to be turned"),
        ({"bbox": BOX, "width": 300, "height": 200}, "the row says 300x200, the image is 100x80"),
        ({"bbox": BOX, "width": "wide", "height": 80}, "expected numbers of pixels"),
        ({"bbox": [10, 20, 300, 40]}, "does not lie on the image of 100x80"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "shares of the image need a bbox_type"),
        ({"regions": [{"bbox": BOX, "bbox_type": "norm1000"}]}, "expected real .* or norm1"),
        ({"bbox": ["a", "b", "c", "d"]}, "expected x0, y0, x1, y1"),
    ],
)
def test_regions_that_lie_nowhere(columns: dict[str, Any], detail: str) -> None:
    with pytest.raises(RowError, match=detail):
        DatasetRow(columns).regions_on((100, 80))


def test_a_unit_beside_the_boxes_is_theirs() -> None:
    (region,) = DatasetRow({"bboxes": [[0.1, 0.25, 0.3, 0.5]], "bbox_type": "norm1"}).regions_on((100, 80))
    assert region["bbox"] == pytest.approx(BOX)
    with pytest.raises(RowError, match="norm1000"):
        DatasetRow({"bboxes": [[100, 200, 300, 400]], "bbox_type": "norm1000"}).regions_on((1000, 800))


def test_masks_are_scaled_with_their_boxes() -> None:
    from rewardlib import rle

    mask = np.zeros((160, 200), bool)
    mask[40:80, 20:60] = True
    row = DatasetRow({"regions": [{"bbox": [20, 40, 60, 80], "mask": rle.encode(mask)}], "width": 200, "height": 160})
    (region,) = row.regions_on((100, 80))
    assert np.array_equal(rle.decode(region["mask"]), rle.from_box(BOX, 80, 100))


def test_a_phrase_that_nobody_can_see_is_left_out_with_a_flag() -> None:
    (region,) = DatasetRow({"regions": [{"bbox": BOX, "phrase": "\u200b"}]}).regions_on((100, 80))
    assert (region["phrase"], region["flags"]) == ("", ["invisible_phrase"])


# ------------------------------------------------------------------------------------------ traces

TRACES: dict[str, Any] = {
    "text": {"traces": "I see."},
    "texts": {"traces": ["I see."]},
    "objects": {"traces": [{"text": "I see.", "model": "m"}]},
    "objects with content": {"traces": [{"content": "I see."}]},
    "one object": {"trace": {"text": "I see."}},
    "JSON": {"traces": '[{"text": "I see."}]'},
    "a chat": {"traces": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "I see."}]},
    "response": {"response": "I see."},
    "rationale": {"rationale": "I see."},
    "cot": {"cot": "I see."},
    "solution": {"solution": "<think>I see.</think>"},
}


@pytest.mark.parametrize("columns", TRACES.values(), ids=TRACES)
def test_traces_in_every_spelling(columns: dict[str, Any]) -> None:
    (trace,) = DatasetRow({"answer": "red", **columns}).traces
    assert trace["text"] in ("I see.", "<think>I see.</think>")


# ------------------------------------------------------------------------------------------ everybody reads the same

words = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and not is_missing(text) and "<" not in text and "[" not in text and "{" not in text
)
numbers = st.integers(0, 4) | st.floats(0, 9) | st.just(NAN)
options = st.lists(words, min_size=1, max_size=4, unique=True)
choices = st.one_of(
    st.none(),
    options,
    options.map(json.dumps),
    options.map(lambda texts: dict(zip("ABCD", texts, strict=False))),
    options.map(lambda texts: [{"label": "ABCD"[n], "text": text} for n, text in enumerate(texts)]),
)
golds = st.one_of(
    words, numbers, st.lists(words, min_size=1, max_size=3), words.map(lambda w: f"<answer> {w} </answer>"), st.sampled_from("ABCD")
)
pictures = st.sampled_from([PNG, {"bytes": PNG, "path": None}, f"data:image/png;base64,{BASE64}", BASE64, "a.png"])


def chat(question: str, reply: str | None) -> list[dict[str, str]]:
    asked = [{"role": "user", "content": PLACEHOLDER + question}]
    return asked if reply is None else [*asked, {"role": "assistant", "content": reply}]


FORMATS = {
    "sightline": lambda q, c, g, i: {"question": q, "choices": c, "answer": g, "image": i},
    "easyr1": lambda q, c, g, i: {"problem": PLACEHOLDER + q, "choices": c, "answer": g, "images": [i]},
    "verl": lambda q, c, g, i: {
        "prompt": chat(q, None),
        "images": [i],
        "reward_model": {"style": "rule", "ground_truth": g},
        "extra_info": {"choices": c, "answer": "with its working"},
    },
    "ms-swift": lambda q, c, g, i: {"messages": chat(q, "as above"), "images": [i], "solution": g, "choices": c},
    "parts": lambda q, c, g, i: {
        "messages": [{"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": q}]}],
        "answer": g,
        "options": c,
    },
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(FORMATS)), question=words, choices=choices, gold=golds, picture=pictures)
def test_builds_trainers_and_adapters_agree(
    name: str, question: str, choices: Any, gold: Any, picture: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On gold, options, question and image of the same row, in every format; and on rows that cannot be used."""
    from pipelines.building.ingest import ingest, plan
    from pipelines.config import BuildConfig
    from pipelines.dataset.schema import Ledger
    from pipelines.rows.texts import Objects
    from train.data import to_row

    folder = tmp_path_factory.getbasetemp()
    (folder / "a.png").write_bytes(PNG)
    columns = {"id": "r", **FORMATS[name](question, choices, gold, picture)}
    config = BuildConfig(source=str(folder / "rows.jsonl"), out=folder / "out", license="mit", collector={"model": "vlm"})
    source, ledger = Objects([columns], "rows"), Ledger()
    built = [item.row for shard in plan(source, config) for item in ingest(shard, source, config, ledger)]
    try:
        trained = to_row(columns, "boxed", Folders((folder,)))
    except RowError:
        trained = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = to_sample("", columns)
    assert [reject.stage for reject in ledger.rejects] == ["ingest"] * (1 - len(built))
    if trained is None or trained.sample.answer is None:  # a trainer may do without an answer, a build may not
        assert not built
        assert sample.answer is None
        return
    (labelled,) = built
    golds = (labelled["answer"], *labelled["alternatives"])
    assert golds == (trained.sample.answer, *trained.sample.alternatives) == (sample.answer, *sample.alternatives)
    assert tuple(labelled["choices"]) == trained.sample.choices == sample.choices
    assert labelled["question"] == DatasetRow(columns).question
    assert np.array_equal(np.asarray(load_image(labelled["image"])), np.asarray(trained.images[0]))
    again = to_row(labelled, "boxed")
    assert (again.messages, again.sample.answer, again.sample.choices) == (
        trained.messages,
        trained.sample.answer,
        trained.sample.choices,
    )
