"""A sheet of facts for a person: lines, and a page that shows what one has to see, is answered by keys, and saves the lines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipelines.agreement import read_gold
from pipelines.sheet import write_page, write_sheet
from tests.conftest import encode, scene
from tests.devtools import CHROMIUM, browser

HOSTILE = "</script><script>document.title='hacked'</script>"
ROWS = [
    {"id": name, "image": {"bytes": encode(scene(color))}, "question": question, "choices": [], "answer": color}
    for name, color, question in (("a", "red", "Which colour?"), ("b", "blue", HOSTILE))
]
LINES = [
    {"id": "a", "trace_id": "t0", "fact": "There is a red square.", "present": None, "trace": "I see a red square."},
    {"id": "a", "trace_id": "t0", "fact": "There is a blue square.", "present": None, "trace": "I see a red square."},
    {"id": "b", "trace_id": "t0", "fact": HOSTILE, "present": None, "trace": HOSTILE},
]


def test_nobodys_work_is_written_over(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.jsonl", LINES)
    assert [json.loads(line) for line in (tmp_path / "sheet.jsonl").read_text().splitlines()] == LINES
    with pytest.raises(FileExistsError):
        write_sheet(tmp_path / "sheet.jsonl", LINES)


def test_the_page_holds_all_and_nothing_of_it_becomes_markup(tmp_path: Path) -> None:
    write_page(tmp_path / "sheet.html", LINES, ROWS, "facts")
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Does the trace state this fact" in page
    assert HOSTILE not in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")
def test_it_is_answered_by_keys_and_saved(tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    write_page(tmp_path / "sheet.html", LINES, ROWS, "facts")
    with browser(tmp_path / "profile", tmp_path / "saved") as page:
        page.size(1200, 700)
        page.open(tmp_path / "sheet.html")
        page.until("document.getElementById('image').complete")
        page.keys("y", "n")
        assert page.value("document.getElementById('progress').textContent") == "2 of 3 answered"
        assert page.value("document.getElementById('question').textContent") == HOSTILE
        page.keys("y", "u", "s")
        saved = tmp_path / "saved" / "sheet.jsonl"
        end = time.monotonic() + 30
        while not saved.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert page.value("document.title") == "Sightline sheet"
        assert not page.problems
    assert read_gold(saved) == {("a", "t0", LINES[0]["fact"]): True, ("a", "t0", LINES[1]["fact"]): False}
