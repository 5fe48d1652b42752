"""Images that are kept as their files' bytes are Pillow images in every respect."""

import copy
import io
import pickle
import threading

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageOps

from rewardlib.bounded import Bounded, new_key
from rewardlib.rows import stored
from rewardlib.rows.images import keep_image, load_image
from rewardlib.rows.stored import StoredImage
from rewardlib.rows.values import RowError


def encoded(size=(40, 30), mode="RGB", format="PNG", seed=0):
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], bands), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels if bands > 1 else pixels[..., 0], mode).save(buffer, format)
    return buffer.getvalue()


OPERATIONS = {
    "array": np.asarray,
    "bytes": lambda image: image.tobytes(),
    "size": lambda image: (image.size, image.width, image.height, image.mode, image.getbands()),
    "resize": lambda image: np.asarray(image.resize((11, 7))),
    "reduce": lambda image: np.asarray(image.reduce(2)),
    "crop": lambda image: np.asarray(image.crop((3, 4, 20, 21))),
    "convert": lambda image: np.asarray(image.convert("L")),
    "same mode": lambda image: np.asarray(image.convert("RGB")),
    "copy": lambda image: np.asarray(image.copy()),
    "transpose": lambda image: np.asarray(image.transpose(Image.Transpose.ROTATE_90)),
    "turn": lambda image: np.asarray(image.rotate(30)),
    "pixel": lambda image: (image.getpixel((3, 3)), image.load()[4, 5]),
    "histogram": lambda image: image.histogram(),
    "colours": lambda image: (image.getextrema(), len(image.getcolors(10_000))),
    "split": lambda image: [np.asarray(band) for band in image.split()],
    "difference": lambda image: np.asarray(ImageChops.invert(image)),
    "contain": lambda image: np.asarray(ImageOps.contain(image, (16, 16))),
    "upright": lambda image: np.asarray(ImageOps.exif_transpose(image)),
    "png": lambda image: saved(image, "PNG"),
    "jpeg": lambda image: saved(image, "JPEG"),
    "pickle": lambda image: np.asarray(pickle.loads(pickle.dumps(image))),
    "deep copy": lambda image: np.asarray(copy.deepcopy(image)),
    "blend": lambda image: np.asarray(Image.blend(image, Image.new("RGB", image.size, "red"), 0.5)),
    "pasted": lambda image: pasted(image),
}


def saved(image, format):
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def pasted(image):
    board = Image.new("RGB", (60, 60))
    board.paste(image, (5, 5))
    return np.asarray(board)


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(stored._opened, "_most", 0)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kept", [True, False])
def test_every_operation_is_that_of_the_decoded_image(operation, kept, request):
    if not kept:
        request.getfixturevalue("nothing_kept")
    data = encoded()
    image = keep_image(data)
    assert isinstance(image, StoredImage)
    for _ in range(2):
        keep_image(encoded(seed=1))  # another is decoded meanwhile
        np.testing.assert_equal(OPERATIONS[operation](image), OPERATIONS[operation](load_image(data)))


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("L", "PNG"), ("L", "JPEG"), ("RGB", "BMP"), ("LA", "PNG")])
def test_images_of_other_modes_are_converted_each_time(mode, format, nothing_kept):
    data = encoded(mode=mode, format=format)
    image = keep_image(data)
    keep_image(encoded(seed=1))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(load_image(data)))


def test_turned_photographs_are_upright(nothing_kept):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    load_image(encoded()).save(buffer, "JPEG", exif=exif)
    image = keep_image(buffer.getvalue())
    assert image.size == (30, 40)
    assert np.array_equal(np.asarray(image), np.asarray(load_image(buffer.getvalue())))


def test_what_is_changed_in_place_stays_changed(nothing_kept):
    image = keep_image(encoded())
    ImageDraw.Draw(image).rectangle((0, 0, 9, 9), fill="red")
    keep_image(encoded(seed=1))
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert pickle.loads(pickle.dumps(image)).getpixel((5, 5)) == (255, 0, 0)
    image.thumbnail((8, 8))
    assert image.size == (8, 6)
    assert np.asarray(image).shape == (6, 8, 3)
    image.close()
    with pytest.raises(ValueError, match="closed image"):
        image.copy()


def test_a_broken_file_is_refused_when_it_is_read():
    with pytest.raises(RowError, match="unreadable image"):
        keep_image(encoded()[:200])


def test_an_image_that_is_open_already_stays_so():
    image = Image.new("RGB", (20, 10), "red")
    assert not isinstance(keep_image(image), StoredImage)


# ---------------------------------------------------------------------------------------------------------------------------------------
# What is kept


def test_the_least_recently_used_goes_first():
    made = []

    def make(value):
        made.append(value)
        return value

    kept = Bounded(10, len)
    one, two, three = new_key(), new_key(), new_key()
    assert [kept.get(one, lambda: make("aaaa")), kept.get(two, lambda: make("bbbb"))] == ["aaaa", "bbbb"]
    kept.get(one, lambda: make("aaaa"))
    kept.get(three, lambda: make("cccc"))  # twelve bytes: the second goes
    kept.get(one, lambda: make("aaaa"))
    assert made == ["aaaa", "bbbb", "cccc"]
    kept.get(two, lambda: make("bbbb"))
    assert made == ["aaaa", "bbbb", "cccc", "bbbb"]


def test_what_is_larger_than_all_is_kept_alone():
    kept = Bounded(10, len)
    key = new_key()
    assert kept.get(key, lambda: "x" * 50) == "x" * 50
    assert kept.get(key, lambda: pytest.fail("made again")) == "x" * 50
    kept.get(new_key(), lambda: "y")
    assert kept.get(key, lambda: "z") == "z"


def test_threads_see_their_own_values(nothing_kept):
    images = [keep_image(encoded(seed=n)) for n in range(8)]
    expected = [load_image(encoded(seed=n)).tobytes() for n in range(8)]
    wrong = []

    def look(n):
        wrong.extend(n for _ in range(50) if images[n].tobytes() != expected[n])

    threads = [threading.Thread(target=look, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
