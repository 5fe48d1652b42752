"""The review page in a real browser: typed at, clicked at, saved, closed and opened again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.reviewing import corrections
from pipelines.reviewing.correct import apply
from pipelines.reviewing.page import write_page
from pipelines.validate import validate
from tests.devtools import CHROMIUM, Page, browser
from tests.review_data import row, write

pytest.importorskip("websockets")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed"),
]

HACK = "document.title='hacked'"
HOSTILE = f'</script><img src=x onerror="{HACK}"><script>{HACK}</script>'


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    hostile = row(HOSTILE, question=HOSTILE, answer=HOSTILE, choices=[HOSTILE, "red"])
    hostile["regions"][0] |= {"phrase": HOSTILE, "text": HOSTILE, "flags": [HOSTILE]}
    hostile["traces"][0]["model"] = HOSTILE
    rows = [
        row("a", (640, 480)),
        row("strip", (400, 100)),
        row("photo", (2000, 1500)),
        hostile,
        row("__proto__"),
    ]
    return write(tmp_path / "dataset", [rows])


@pytest.fixture
def page(tmp_path: Path, dataset: Path) -> Iterator[Page]:
    write_page(dataset)
    with browser(tmp_path / "profile", tmp_path) as opened:
        opened.size(1280, 800)
        opened.open(dataset / "review.html")
        yield opened
        assert not opened.problems


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Through points in pixels of the image."""
    left, top, scale = page.value(
        "(r => [r.left, r.top, scale])($('overlay').getBoundingClientRect())",
    )
    page.drag(*[(left + x * scale, top + y * scale) for x, y in points])


def saved(page: Page, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The entries of the file that the page saves, by row."""
    for old in folder.glob("corrections-*.json"):
        old.unlink()
    page.keys("s")
    end = time.monotonic() + 20
    while not (found := list(folder.glob("corrections-*.json"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    rows: dict[str, list[dict[str, Any]]] = {}
    for entry in json.loads(found[0].read_text())["corrections"]:
        rows.setdefault(entry.pop("row"), []).append(entry)
    return rows


def test_every_key_does_what_it_says(page: Page, dataset: Path, tmp_path: Path) -> None:
    page.keys("c", "j", "x", "j", "a")  # red is context, blue rejected, green accepted
    page.keys("j", "u", "j", "x", "z")  # a fact unknown; one rejected, and that undone
    assert saved(page, tmp_path) == {
        "a": [
            {"region": "r0", "action": "role", "role": "unknown"},  # follows its fact
            {"region": "r1", "action": "reject"},
            {"region": "r2", "action": "accept"},
            {"annotation": "a0", "action": "role", "role": "unknown"},
        ]
    }
    page.keys("Enter", "r", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter")
    assert page.value("document.getElementById('progress').textContent") == "3 of 5 rows reviewed"
    rows = saved(page, tmp_path)
    assert rows["a"][0] == {"action": "accept"}
    assert (rows["strip"], rows["photo"]) == ([{"action": "reject"}], [{"action": "accept"}])


def test_boxes_are_drawn_in_pixels_of_the_image(page: Page, dataset: Path, tmp_path: Path) -> None:
    page.keys("d")
    drag(page, (100, 100), (150, 150), (222, 190))  # anew
    page.keys("ArrowRight", "j")
    drag(page, (262.5, 41.5), (270, 60), (290, 70))  # by its lower right corner
    page.keys("ArrowRight")
    drag(page, (400, 400), (450, 420), (500, 500))  # moved
    page.keys("n")
    drag(page, (1000, 1000), (1400, 1300))
    page.write("a long  arrow")
    page.keys("Enter", "c")
    rows = saved(page, tmp_path)
    assert rows["a"] == [{"region": "r0", "action": "redraw", "bbox": [100, 100, 222, 190]}]
    assert rows["strip"] == [{"region": "r1", "action": "redraw", "bbox": [188, 17, 290, 70]}]
    moved, added = rows["photo"]
    assert moved == {"region": "r0", "action": "redraw", "bbox": [350, 350, 725, 725]}
    assert added["phrase"] == "a long arrow"
    assert added["role"] == "context"
    assert added["bbox"] == pytest.approx([1000, 1000, 1400, 1300], abs=2)
    found = corrections.read(next(tmp_path.glob("corrections-*.json")), dataset)
    assert apply(dataset, found, tmp_path / "corrected")["rows"] == 5
    assert validate(tmp_path / "corrected")["valid"]


def test_closing_loses_nothing(page: Page, dataset: Path, tmp_path: Path) -> None:
    page.keys("c", "Enter", "r")
    before = saved(page, tmp_path)
    page.open(dataset / "review.html")
    assert page.value("current().id") == "photo"  # the first that nobody has looked at
    assert saved(page, tmp_path) == before
    kept = next(tmp_path.glob("corrections-*.json")).rename(tmp_path / "kept.json")
    page.value("localStorage.clear()")
    page.open(dataset / "review.html")
    assert saved(page, tmp_path) == {}
    page.give("#file", kept)
    page.until("document.getElementById('progress').textContent === '2 of 5 rows reviewed'")
    assert saved(page, tmp_path) == before
    other = tmp_path / "other.json"
    other.write_text(kept.read_text().replace(corrections.dataset_hash(dataset), "0" * 64))
    page.give("#file", other)
    page.until("document.getElementById('say').textContent.includes('about another dataset')")
    assert saved(page, tmp_path) == before


def test_a_hostile_row_runs_nothing_and_is_named_like_any(page: Page, tmp_path: Path) -> None:
    page.keys("ArrowRight", "ArrowRight", "ArrowRight", "j", "k", "e", "Enter", "c", "Enter")
    assert page.value("document.title") == "Sightline review"
    assert page.value("document.querySelectorAll('img').length") == 1
    rows = saved(page, tmp_path)
    assert rows[HOSTILE] == [{"action": "accept"}, {"region": "r0", "action": "accept"}]
    assert rows["__proto__"] == [
        {"action": "accept"},
        {"region": "r0", "action": "role", "role": "context"},
    ]


def test_rows_are_shown_by_what_was_done(page: Page) -> None:
    page.keys("c", "Enter", "r", "ArrowRight")
    counts = {}
    for name in ("all", "open", "accept", "reject", "changed", "evidence", "context", "unknown"):
        page.value(f"$('filter').value = '{name}'; $('filter').dispatchEvent(new Event('change'))")
        counts[name] = page.value("shown.length")
    expected = {
        "all": 5,
        "open": 3,
        "accept": 1,
        "reject": 1,
        "changed": 2,
        "evidence": 5,
        "context": 5,
        "unknown": 5,
    }
    assert counts == expected  # the fact of the region that is now context is still evidence


def test_images_fit_their_room(page: Page) -> None:
    inside = """(([f, r]) => f.left >= r.left - 1 && f.top >= r.top - 1 &&
        f.right <= r.right + 1 && f.bottom <= r.bottom + 1)(
        [frame, room].map(e => e.getBoundingClientRect()))"""
    for size in ((1280, 800), (1000, 620), (1920, 1200)):
        page.size(*size)
        for _ in range(3):
            page.until(inside)
            assert page.value("document.documentElement.scrollWidth") <= size[0]
            page.keys("ArrowRight")
        page.keys("ArrowLeft", "ArrowLeft", "ArrowLeft")
