"""The gallery in a real browser: a hostile trace stays text, the filters work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines import build
from pipelines.config import BuildConfig
from pipelines.gallery import write_gallery
from tests.conftest import fake_models, record, write_rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")]
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script><svg onload=\"document.title='hacked'\">"


def _dump(page: Path, profile: Path) -> str:
    """The page's document after its scripts have run."""
    switches = "headless no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync dump-dom"
    command = [str(CHROMIUM), *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_hostile_row_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_models", lambda config: fake_models())
    traces = [{"text": f"{HOSTILE} There is a red square. The answer is red.", "model": HOSTILE}]
    rows = [record("a"), record("b", question=HOSTILE, traces=traces), record(HOSTILE, image="gone.jpg")]
    out = tmp_path / "dataset"
    build.build(BuildConfig(source=str(write_rows(tmp_path, rows)), out=out))
    page = write_gallery(out)
    document = _dump(page, tmp_path / "profile")
    assert "<title>Sightline gallery</title>" in document
    assert '<span id="shown">2 rows shown, 1 rejected</span>' in document  # the page's own script ran
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace('" rows shown"', '" rows counted"'))
    assert '<span id="shown"></span>' in _dump(changed, tmp_path / "profile")  # a script with another hash is refused
    assert re.search(r'<g class="h\d \w+">', document)
