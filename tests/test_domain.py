"""A checkpoint knows which images and words it was taught, and a checkpoint without a domain knows
everything."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

import labeling.domain
from demo.calibrate import calibrate, disturb, draw, flat
from demo.questions import make_row
from labeling.domain import FILE, Domain
from labeling.rules import facts_of

CHECKPOINTS = Path(__file__).parents[1] / "labeling" / "embedded"
DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="shared data not present")
Painter = Callable[[random.Random, tuple[int, int]], Image.Image]
SIZES = [(112, 112), (160, 120), (400, 100), (640, 480)]


@pytest.fixture(scope="module")
def domain() -> Domain:
    found = Domain.read(CHECKPOINTS / "detector")
    assert found is not None
    return found


def test_the_detector_and_the_segmenter_know_the_same_world(domain: Domain) -> None:
    assert Domain.read(CHECKPOINTS / "segmenter") == domain
    assert domain.about == "the shapes world"
    assert domain.cure == "IDEA-Research/grounding-dino-base"


def test_a_folder_without_the_file_claims_no_domain(tmp_path: Path) -> None:
    assert Domain.read(tmp_path) is None
    assert Domain.read("IDEA-Research/grounding-dino-base") is None


def test_a_domain_is_read_as_it_was_written(domain: Domain, tmp_path: Path) -> None:
    assert Domain.read(domain.write(tmp_path).parent) == domain


def test_calibration_follows_from_its_seed() -> None:
    assert calibrate(20, seed=3) == calibrate(20, seed=3) != calibrate(20, seed=4)


def test_new_scenes_are_known_moved_by_a_pixel_and_as_jpeg_too(domain: Domain) -> None:
    rng = random.Random(400)
    scenes = [draw(rng).image for _ in range(60)]
    assert all(map(domain.knows, scenes))
    assert all(domain.knows(disturb(rng, image)) for image in scenes)


def test_every_small_move_of_a_scene_is_known(domain: Domain) -> None:
    image = draw(random.Random(401)).image
    moves = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert all(domain.knows(ImageChops.offset(image, x, y)) for x, y in moves)


def bars(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    pen, (width, height) = ImageDraw.Draw(image), size
    for n in range(5):
        top = rng.randint(10, height - 20)
        left = width * (n + 0.2) / 5
        pen.rectangle((left, top, left + width / 8, height - 12), fill=(0, 153, 255))
    pen.line((0, height - 12, width, height - 12), fill="black")
    return image


def curve(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    points = [(x, rng.randint(10, size[1] - 10)) for x in range(0, size[0], 8)]
    ImageDraw.Draw(image).line(points, fill=(220, 40, 40), width=2)
    return image


def table(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    pen, (width, height) = ImageDraw.Draw(image), size
    for n in range(5):
        pen.line((0, height * n / 5, width, height * n / 5), fill="black")
        pen.text((4, height * n / 5 + 4), f"{rng.random():.3f}  {rng.randint(1, 99)}", fill="black")
    return image


def text(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, (190, 190, 190))
    for y in range(0, size[1], 12):
        words = ("".join(rng.choices("etaoinshr", k=5)) for _ in range(size[0] // 30))
        ImageDraw.Draw(image).text((2, y), " ".join(words), fill="black")
    return image


def figure(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Outlines of a triangle and a circle, as in a textbook."""
    image = Image.new("RGB", size, "white")
    pen, (width, height) = ImageDraw.Draw(image), size
    corners = [(rng.randint(0, width), rng.randint(0, height)) for _ in range(3)]
    pen.polygon(corners, outline="black")
    pen.ellipse((width / 4, height / 4, width / 2, height / 2), outline="black", width=2)
    pen.text(corners[0], "A", fill="black")
    return image


def circle(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    x, y = rng.randint(0, size[0] - 40), rng.randint(0, size[1] - 40)
    ImageDraw.Draw(image).ellipse((x, y, x + 40, y + 40), fill=(40, 160, 70))
    return image


def photograph(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Soft colours and a little grain."""
    noise = np.random.default_rng(rng.getrandbits(32))
    soft = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.array(soft.resize(size, Image.Resampling.BICUBIC), float)
    pixels += noise.normal(0, 4, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def snow(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32))
    return Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("paint", [curve, table, text, figure, photograph, snow])
def test_other_pictures_are_not_known(domain: Domain, paint: Painter) -> None:
    """But for one that JPEG has blurred until its lines are as thick as small shapes."""
    rng = random.Random(402)
    pictures = [paint(rng, size) for size in SIZES]
    assert not any(map(domain.knows, pictures))
    assert sum(domain.knows(disturb(rng, image)) for image in pictures) <= 1


@pytest.mark.parametrize("paint", [circle, bars])
def test_solid_colours_on_paper_are_shapes_to_it(domain: Domain, paint: Painter) -> None:
    """Of such a chart it is the words that it does not know."""
    assert domain.knows(paint(random.Random(405), (112, 112)))
    assert not domain.knows_phrase("blue bar")


def test_the_reason_is_said_for_what_is_not_known(domain: Domain) -> None:
    paper = Image.new("RGB", (112, 112), "white")
    assert domain.distance(paper) > 0
    assert "white 1.000" in domain.why(paper)
    assert domain.why(draw(random.Random(403)).image) == ""


@pytest.mark.parametrize("side", [1, 2, 3, 9])
def test_tiny_images_are_measured_like_any_other(domain: Domain, side: int) -> None:
    assert not domain.knows(Image.new("L", (side, side), 255))


def test_a_phrase_is_known_by_its_words(domain: Domain) -> None:
    known = ["black square", "Circle.", "small red star", "letter A", "blue object"]
    assert all(map(domain.knows_phrase, known))
    unknown = ["mug", "square root", "pink square", "red circles", "number 5", "", "?!"]
    assert not any(map(domain.knows_phrase, unknown))


def test_every_phrase_of_the_demos_questions_is_known(domain: Domain) -> None:
    rng = random.Random(404)
    for n in range(40):
        row, _ = make_row(rng, str(n))
        for trace in row["traces"]:
            phrases = [fact.phrase for fact in facts_of(trace["text"]) if fact.phrase]
            assert all(map(domain.knows_phrase, phrases))


def test_the_file_can_be_read_by_people(domain: Domain) -> None:
    told = json.loads((CHECKPOINTS / "detector" / FILE).read_text())
    assert set(told["kinds"]) == {"strip", "canvas", "paper"}
    assert all(low < high for ranges in told["kinds"].values() for low, high in ranges.values())


@needs_data
def test_real_strips_are_known(domain: Domain) -> None:
    pictures = sorted((DATA / "nlvr" / "images").iterdir())[::4]
    assert all(domain.knows(flat(path)) for path in pictures)


@needs_data
def test_real_diagrams_are_not_known(domain: Domain) -> None:
    pictures = sorted((DATA / "mathvision" / "images").iterdir())[::4]
    assert sum(domain.knows(flat(path)) for path in pictures) <= len(pictures) // 20


def test_an_image_is_measured_once_while_it_lives(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    own = labeling.domain.measure
    monkeypatch.setattr(labeling.domain, "measure", lambda *told: taken.append(1) or own(*told))
    other = Domain.read(CHECKPOINTS / "segmenter")
    assert other is not None
    image = Image.new("RGB", (112, 112), (120, 120, 120))
    assert domain.distance(image) == domain.distance(image) == other.distance(image)
    assert len(taken) == 1
    known = len(labeling.domain._KNOWN)
    del image
    assert len(labeling.domain._KNOWN) == known - 1
