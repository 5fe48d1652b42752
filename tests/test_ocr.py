"""What is written is found where it is written, and nothing else is."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from labeling.boxes import Detection
from labeling.facts import Kind, normalize_phrase
from labeling.locators.base import Sought
from labeling.locators.ocr import OcrLocator, _places
from labeling.locators.text.letters import patches
from labeling.locators.text.matching import Line, find
from labeling.locators.text.signs import at_gaps
from labeling.locators.text.wanted import wanted

REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mathvision"


# ---------------------------------------------------------------------- matching, without an engine


def _line(text: str, score: float = 1.0, top: float = 0.0) -> Line:
    """A line whose signs are boxes of 10 x 20 pixels."""
    corners = np.array([[0, 0], [10, 0], [10, 20], [0, 20]], float)
    return Line(text, score, tuple(corners + np.array([10 * i, top]) for i in range(len(text))))


def _find(
    quote: str,
    *lines: str,
    kind: Kind = "text",
    phrase: str = "",
) -> list[tuple[str, float]]:
    sought = Sought(normalize_phrase(phrase or quote), kind, quote)
    want = wanted(sought)
    at = [_line(text, top=40.0 * i) for i, text in enumerate(lines)]
    return [(m.text, round(m.score, 2)) for m in (find(want, at) if want else [])]


@pytest.mark.parametrize(
    ("quote", "lines", "found"),
    [
        # numbers are whole
        ("2", ["12", "2.5", "x2", "20", "2a", "1:2"], []),
        ("2", ["2", "(2)", "2,", "= 2"], [("2", 1.0)] * 4),
        ("2.5", ["2.5 cm", "25"], [("2.5", 1.0)]),
        ("1,000", ["1000", "1,000"], [("1000", 1.0), ("1,000", 1.0)]),
        ("-3", ["-3", "3"], [("-3", 1.0)]),
        ("3", ["-3", "7-3"], [("3", 1.0)]),
        # units
        (r"$48^\circ$", ["∠ABC = 48°"], [("48°", 1.0)]),
        (r"48^\circ", ["48 cm"], []),
        (r"$10 \mathrm{~km}$", ["10km", "10 m"], [("10km", 1.0)]),
        ("2 cm", ["2 cm", "2"], [("2 cm", 1.0)]),
        ("2 cm", ["2"], [("2", 0.85)]),
        ("20%", ["20"], []),
        (r"9 \mathrm{~cm}^2", ["9 cm2", "9 cm"], [("9 cm2", 1.0)]),
        ("9 cm", ["9 cm2"], []),
        ("5 inches", ["5 in."], [("5 in", 1.0)]),
        # mistakes of reading
        ("48°", ["486"], [("486", 0.7)]),
        ("48°", ["48o"], [("48o", 0.75)]),
        ("48°", ["48°", "480"], [("48°", 1.0)]),
        ("12", ["l2"], [("l2", 0.75)]),
        ("5", ["S"], [("S", 0.45)]),
        ("5", ["S", "5"], [("5", 1.0)]),
        ("kangaroo", ["KangarOo", "kangoroos"], [("KangarOo", 1.0)]),
        ("name length", ["namelength"], [("namelength", 1.0)]),
        ("frequency", ["frequencv of"], [("frequencv", 0.89)]),
        ("not", ["note", "knot", "nut"], []),
        # letters have a case, and stand alone
        ("B", ["B", "b", "AB", "B is a point"], [("B", 1.0)]),
        ("B", ["AB", "BCB", "ABCD", "Bob"], [("B", 0.6)] * 3),
        ("$b$", ["B", "b"], [("b", 1.0)]),
        ("letter S", ["5"], []),
        ("point O", ["0"], [("0", 0.75)]),
        ("P_1", ["P1", "P"], [("P1", 1.0)]),
        ("circle C", ["(circle) (C)", "see (c)"], [("C", 1.0)]),
        ("(C)", ["C", "(C)", "C)"], [("(C)", 1.0), ("C)", 1.0)]),
        # figures
        (r"\angle ABC", ["A", "B", "C"], [("A B C", 1.0)]),
        (r"\angle ABC", ["A", "B", "C", "A"], []),
        (r"\triangle PQR", ["P", "Q"], []),
        ("line AB", ["• A", "B."], [("A B", 1.0)]),
        (r"\overline{AB}", ["AB", "A", "B"], [("AB", 1.0)]),
        ("angle ABC", ["∠ABC = 48°"], [("ABC", 1.0)]),
        # what has no number and no name
        ("(2, 4)", ["(2,4)"], [("(2,4)", 1.0)]),
        ("10:20", ["10:20", "10:2"], [("10:20", 1.0)]),
        (r"\frac{1}{2}", ["1/2", "12"], [("1/2", 1.0)]),
        ("+", ["十"], []),
    ],
)  # fmt: skip
def test_matches(quote: str, lines: list[str], found: list[tuple[str, float]]) -> None:
    assert _find(quote, *lines) == found


@pytest.mark.parametrize(
    ("phrase", "kind", "quote", "lines", "found"),
    [
        ("angle of 48°", "measure", "an angle of 48 degrees", ["48°"], ["48°"]),
        ("side of 5 cm by 3 cm", "measure", "", ["5 cm", "3 cm"], []),
        ("the text tea", "text", '"Tea"', ["Tea", "Team"], ["Tea"]),
        ("circle a", "text", "a circle A", ["a", "A"], ["A"]),
        ("label 5", "text", "", ["5", "15"], ["5"]),
        ("side ab", "text", "", ["A", "B"], ["A B"]),
    ],
)
def test_phrases_of_other_readers(
    phrase: str,
    kind: Kind,
    quote: str,
    lines: list[str],
    found: list[str],
) -> None:
    want = wanted(Sought(phrase, kind, quote))
    assert want is not None
    at = [_line(text, top=40.0 * i) for i, text in enumerate(lines)]
    assert [m.text for m in find(want, at)] == found


def test_a_match_says_what_is_not_exact() -> None:
    want = wanted(Sought("48°", "measure", "48°"))
    assert want is not None
    assert [m.exact for m in find(want, [_line("486")])] == [False]
    hull = wanted(Sought("ab", "text", "AB"))
    assert hull is not None
    assert [m.inferred for m in find(hull, [_line("A"), _line("B", top=90)])] == [True]


def test_a_part_of_a_line_has_its_own_place() -> None:
    want = wanted(Sought("48°", "measure", "48°"))
    assert want is not None
    (match,) = find(want, [_line("x = 48°")])
    assert match.polygon.min(0).tolist() == [40, 0]
    assert match.polygon.max(0).tolist() == [70, 20]


def test_words_of_a_row_that_stand_far_apart_are_one_text() -> None:
    def at(x: float, line: Line) -> Line:
        return Line(line.text, line.score, tuple(place + np.array([x, 0.0]) for place in line.places))

    left, right = _line("TOTAL", 0.9), at(300, _line("8.70", 0.8, top=2))
    below, other = at(300, _line("2.40", top=40)), at(150, _line("TAX"))
    want = wanted(Sought("total 8.70", "text", "TOTAL 8.70"))
    assert want is not None
    (match,) = find(want, [below, right, left])
    assert (match.text, match.score, match.exact) == ("TOTAL 8.70", 0.8, True)
    assert (match.polygon.min(0).tolist(), match.polygon.max(0).tolist()) == ([0, 0], [340, 22])
    assert not [m for m in find(want, [left, other, right]) if m.exact]  # something else lies between
    assert not [m for m in find(want, [left, below]) if m.exact]  # not of one row


@pytest.mark.parametrize("phrase", ["circle", "red mug", "square"])
def test_things_that_are_counted_are_not_read(phrase: str) -> None:
    assert wanted(Sought(phrase, "count", phrase)) is None
    assert wanted(Sought("number 5", "count", "number 5")) is not None


def test_signs_without_places_are_spread_along_their_line() -> None:
    line = np.array([[0, 0], [40, 0], [40, 10], [0, 10]], float)
    places = _places("ab c", line, [], np.full((10, 40, 3), 255, np.uint8))
    assert [p[:, 0].min() for p in places] == [0, 10, 20, 30]


def _block(x0: float, x1: float, rise: float = 0.0) -> NDArray[np.float64]:
    return np.array([[x0, 2], [x1, 2 + rise], [x1, 18 + rise], [x0, 18]], float)


@pytest.mark.parametrize("paper", [255, 20])
def test_signs_end_in_the_gaps_between_them(paper: int) -> None:
    pixels = np.full((20, 100, 3), paper, np.uint8)
    for x0, x1 in ((10, 20), (26, 36), (60, 70)):
        pixels[4:16, x0:x1] = 255 - paper
    rough = [_block(10, 24), _block(29, 40), _block(63, 70)]  # the second and third begin too late
    first, second, third = at_gaps(pixels, _block(10, 70), rough)
    assert (first[0, 0], third[1, 0]) == (10, 70)  # the ends are the line's
    assert 20 <= first[1, 0] <= 23 <= second[0, 0] <= 26
    assert 36 <= second[1, 0] < 40
    assert 56 < third[0, 0] <= 60
    assert np.array_equal(at_gaps(pixels, _block(10, 70, rise=8), rough), rough)  # not level


@pytest.mark.parametrize("away", [(0, -30), (0, 30), (-200, 0), (200, 0)])
def test_a_line_outside_the_picture_stays_as_it_was_read(away: tuple[int, int]) -> None:
    rough = [_block(10, 24) + away, _block(29, 40) + away]
    found = at_gaps(np.full((20, 60, 3), 255, np.uint8), _block(10, 40) + away, rough)
    assert np.array_equal(found, rough)


def test_touching_signs_part_where_the_ink_is_least() -> None:
    pixels = np.full((20, 60, 3), 255, np.uint8)
    pixels[4:16, 10:50] = 0
    pixels[4:14, 28:30] = 255
    left, right = at_gaps(pixels, _block(10, 50), [_block(10, 24), _block(24, 50)])
    assert (left[1, 0], right[0, 0]) == (pytest.approx(29, abs=0.1), pytest.approx(29, abs=0.1))


# ---------------------------------------------------------------------------------- with the engine


@pytest.fixture(scope="module")
def locator() -> OcrLocator:
    pytest.importorskip("rapidocr")
    return OcrLocator()


def _draw(
    *texts: tuple[int, int, str],
    size: tuple[int, int] = (300, 200),
    font: int = 20,
) -> Image.Image:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for x, y, text in texts:
        draw.text((x, y), text, fill="black", font=ImageFont.load_default(font))
    return image


FIGURE = _draw(
    (20, 15, "A"),
    (260, 15, "B"),
    (140, 165, "C"),
    (60, 80, "x = 48°"),
    (40, 120, "12 cm"),
)


def _at(locator: OcrLocator, image: Image.Image, *phrases: str) -> list[Detection]:
    sought = [Sought(normalize_phrase(p), "text", p) for p in phrases]
    return locator.locate([image], [sought])[0]


@pytest.mark.parametrize(
    ("before", "part", "after"),
    [("Harbour  ", "3 km", ""), ("Total ", "8.80", " EUR"), ("", "EXIT", " 27"), ("x = ", "48°", "")],
)
@pytest.mark.parametrize("size", [20, 40])
def test_the_place_of_a_part_has_all_of_its_ink_and_none_of_its_neighbours(
    locator: OcrLocator, before: str, part: str, after: str, size: int
) -> None:
    font = ImageFont.load_default(size)
    starts = [20 + font.getlength(text) for text in (before, before + part)]
    whole = _draw((20, 30, before + part + after), size=(440, 120), font=size)
    (found,) = _at(locator, whole, part)
    ink = np.asarray(whole.convert("L")) < 128
    inked = np.flatnonzero(ink.any(axis=0))
    own = inked[(inked >= starts[0] - 1) & (inked < starts[1])]
    assert found.bbox[0] <= own.min()
    assert own.max() < found.bbox[2] + 1
    others = inked[(inked < starts[0] - 1) | (inked >= starts[1])]
    assert not ((others > found.bbox[0]) & (others < found.bbox[2] - 1)).any()


def _inside(box: tuple[float, ...], x0: int, y0: int, x1: int, y1: int) -> bool:
    return x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1


def test_what_is_written_is_found_where_it_is(locator: OcrLocator) -> None:
    (found,) = _at(locator, FIGURE, "48°")
    assert (found.phrase, found.text, found.flags, found.locator) == ("48°", "48°", (), "ocr")
    assert _inside(found.bbox, 88, 70, 150, 110)
    assert found.score > 0.8
    assert found.mask is not None
    assert found.mask.shape == (200, 300)
    assert found.mask.dtype == bool
    ys, xs = np.nonzero(found.mask)
    assert found.bbox[0] - 1 <= xs.min() <= xs.max() <= found.bbox[2] + 1
    assert found.bbox[1] - 1 <= ys.min() <= ys.max() <= found.bbox[3] + 1
    assert _at(locator, FIGURE, "2", "4", "8°", "a", "D") == []


@pytest.mark.parametrize("turns", [1, -1])
@pytest.mark.parametrize("text", ["Spaghetti", "Number of people", "250 kg"])
def test_what_runs_upwards_or_downwards_is_read(locator: OcrLocator, text: str, turns: int) -> None:
    """As the names below a chart's bars do. 1: upwards."""
    level = _draw((30, 20, text), size=(260, 60), font=22)
    turned = Image.fromarray(np.rot90(np.asarray(level), turns))
    (found,) = _at(locator, turned, text)
    assert found.text.replace(" ", "") == text.replace(" ", "")
    ys, xs = np.nonzero(np.asarray(turned.convert("L")) < 128)
    assert found.bbox[0] <= xs.min() + 1 <= xs.max() - 1 <= found.bbox[2]
    assert found.bbox[1] <= ys.min() + 1 <= ys.max() - 1 <= found.bbox[3]


def test_a_part_of_what_runs_upwards_has_its_own_place(locator: OcrLocator) -> None:
    level = _draw((30, 20, "Harbour    3 km"), size=(300, 60), font=22)
    (found,) = _at(locator, Image.fromarray(np.rot90(np.asarray(level))), "3 km")
    assert found.bbox[3] < 300 - 30 - 70  # the first words stand at the bottom
    assert found.bbox[1] > 100


def test_letters_that_are_no_line(locator: OcrLocator) -> None:
    image = Image.new("RGB", (420, 340), "white")
    draw = ImageDraw.Draw(image)
    for x in range(40, 400, 80):
        for y in range(40, 300, 80):
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill="black")
    draw.line((40, 280, 360, 40), fill="black", width=3)
    for x, y, text in ((10, 295, "A"), (378, 14, "C"), (288, 124, "B")):
        draw.text((x, y), text, fill="black", font=ImageFont.load_default(26))
    (triangle,) = _at(locator, image, "triangle ABC")
    assert triangle.text == "A B C"
    assert _at(locator, image, "O", "0", "o") == []


def test_patches_are_signs_by_size_and_ink() -> None:
    pixels = np.full((200, 300, 3), 255, np.uint8)
    pixels[20:50, 20:24] = pixels[20:24, 20:40] = pixels[34:38, 20:36] = 0  # an F
    pixels[100:130, 100:130] = 0  # a blot
    pixels[150:152, 10:290] = 0  # a line
    assert patches(pixels, []) == [(20, 20, 40, 50)]
    assert patches(255 - pixels, []) == [(20, 20, 40, 50)]
    assert patches(pixels, [(30, 30, 60, 60)]) == []


def test_figures_lie_between_their_letters(locator: OcrLocator) -> None:
    (angle,) = _at(locator, FIGURE, "angle ABC")
    assert angle.flags == ("inferred",)
    assert angle.text == "A B C"
    assert angle.mask is not None
    assert angle.mask[60, 150]
    assert not angle.mask[180, 20]
    (point,) = _at(locator, FIGURE, "point A")
    assert point.flags == ()
    assert _inside(point.bbox, 10, 5, 45, 45)
    assert _at(locator, FIGURE, "triangle ABD") == []


@pytest.mark.parametrize("font", [12, 16, 24, 40])
def test_lone_letters_of_every_size(locator: OcrLocator, font: int) -> None:
    image = _draw((30, 30, "B"), (200, 120, "K"), font=font)
    assert [d.text for d in _at(locator, image, "letter B", "letter K")] == ["B", "K"]


def test_neither_company_nor_order_nor_history_matters(locator: OcrLocator) -> None:
    other = _draw((30, 30, "48°"))
    phrases = [
        Sought("48°", "measure", "48°"),
        Sought("12 cm", "measure"),
        Sought("b", "text", "B"),
    ]
    alone = locator.locate([FIGURE], [phrases])[0]
    together = locator.locate([other, FIGURE], [phrases[:1], phrases[::-1]])[1]
    assert together == alone == OcrLocator().locate([FIGURE], [phrases])[0]
    assert len(alone) == 3
    assert [d.score for d in alone] == sorted((d.score for d in alone), reverse=True)


def test_a_higher_threshold_keeps_fewer(locator: OcrLocator) -> None:
    sought = [[Sought("12 m", "measure"), Sought("12", "measure")]]
    assert [d.phrase for d in locator.locate([_draw((40, 60, "12"))], sought, 0.5)[0]] == [
        "12",
        "12 m",
    ]
    assert [d.phrase for d in locator.locate([_draw((40, 60, "12"))], sought, 0.9)[0]] == ["12"]


def test_a_text_in_several_places_is_found_in_each(locator: OcrLocator) -> None:
    found = _at(locator, _draw((20, 20, "36"), (200, 20, "36"), (110, 150, "36")), "number 36")
    assert len(found) == 3
    assert len({d.bbox for d in found}) == 3


def test_other_kinds_are_none_of_its_business(locator: OcrLocator) -> None:
    assert locator.locate([FIGURE], [[Sought("a", "object", "A")]]) == [[]]
    assert locator.kinds == {"text", "measure", "count"}


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_any_mode(locator: OcrLocator, mode: str) -> None:
    assert len(_at(locator, FIGURE.convert(mode), "12 cm")) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (40, 40)])
def test_nothing_is_written_on_an_empty_picture(locator: OcrLocator, size: tuple[int, int]) -> None:
    assert _at(locator, Image.new("RGB", size, "white"), "A", "angle ABC", "5") == []


def test_it_is_silent(
    locator: OcrLocator,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        _at(OcrLocator(), Image.new("RGB", (60, 60), "white"), "A")
        _at(locator, _draw((10, 10, "quiet")), "quiet")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_provenance(locator: OcrLocator) -> None:
    assert locator.info().as_dict()["name"] == "PP-OCRv6-small"
    assert str(locator.info().revision).startswith("rapidocr-3.")


@pytest.mark.skipif(not REAL.exists(), reason="no data")
@pytest.mark.parametrize(
    ("row", "phrase", "places"),
    [
        ("mathvision-2281", "angle RFS", 1),
        ("mathvision-2281", "triangle FDX", 0),
        ("mathvision-1657", "26 cm", 1),
        ("mathvision-2466", "(2,4)", 1),
        ("mathvision-422", "325 cm", 1),
    ],
)
def test_real_figures(locator: OcrLocator, row: str, phrase: str, places: int) -> None:
    with (REAL / "rows.jsonl").open() as file:
        path = next(r["image"] for r in map(json.loads, file) if r["id"] == row)
    with Image.open(REAL / path) as image:
        assert len(_at(locator, image, phrase)) == places


@pytest.mark.parametrize(
    ("quote", "kind", "line"),
    [
        # another number is another text
        ("Q1 2020", "text", "Q2 2020"),
        ("Room 12", "text", "Room 13"),
        ("March 3, 2020", "text", "March 8, 2020"),
        ("Point (-1, 2) here", "text", "Point (1, 2) here"),
        ("increase", "text", "decrease"),
        # the number of something else, or a part of another
        ("5 meters", "measure", "5 cm"),
        ("48 °F", "measure", "48 cm"),
        ("5 apples", "measure", "5"),
        ("3", "measure", "3 000"),
        ("7", "measure", "7 million"),
        ("7", "measure", "7 1/2"),
        ("5 m", "measure", "5 m/s"),
        ("3 cm", "measure", "Table 3"),
        (r"$4^\circ$", "measure", "46"),
        # letters of words, units and functions
        ("point A", "text", "USA"),
        ("(A)", "text", "P(A) = 0.5"),
        ("A", "text", "5 A"),
        ("20", "measure", "2D"),
    ],
)
def test_what_reads_like_it_is_something_else(quote: str, kind: Kind, line: str) -> None:
    assert _find(quote, line, kind=kind) == []


@pytest.mark.parametrize(
    ("quote", "line", "found"),
    [
        ("5 meters", "5 m", "5 m"),
        ("20°C", "20 °C", "20 °C"),
        ("300", "100 200 300", "300"),
        ("100", "50 100", "100"),
        ("1/2", "0 1/2 1", "1/2"),
        ("3.50", "Coffee - 3.50", "3.50"),
        ("20", "10 - 20", "20"),
        ("5 pounds", "5 lbs", "5 lbs"),
        ("5 dollars", "$5", "5"),
        ("68 degrees Fahrenheit", "68°F", "68°F"),
        ("5 km/h", "5 km/h", "5 km/h"),
        ("Manicotti", "Macoti", ""),
        ("Manicotti", "Manicoti", "Manicoti"),
        ("the text Room ten", "Roam ten", "Roam ten"),
    ],
)
def test_units_and_mistakes_of_reading(quote: str, line: str, found: str) -> None:
    assert [text for text, _ in _find(quote, line, kind="measure")] == ([found] if found else [])


@pytest.mark.parametrize(("quote", "line"), [("Spain", "Spa1n"), ("Tea 12", "Tea I2"), ("point B", "A 5 B"), ("A", "1 A 2 B")])
def test_letters_and_digits_that_look_alike(quote: str, line: str) -> None:
    assert _find(quote, line) != []
