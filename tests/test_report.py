"""The report of a run: points where they belong, gaps where nothing was measured, heat where the model looked, and nothing that runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.conftest import encode, run_module, scene
from train.curves import draw_curve, in_words, smooth, tick_labels, ticks_around, ticks_between
from train.methods import RECIPES
from train.reporting import changed_settings, draw_sections, heat_map, place_box, read_groups, read_metrics, view_maps, write_report
from train.settings import Settings, flags_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "</div></style><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">{{ 7*7 }}"


def completion(step: int = 0, name: str = "a", number: int = 0, **changes: Any) -> dict[str, Any]:
    """One row of a completions file: the first of a group has the image, the better ones come later."""
    row = {
        "step": step,
        "id": name,
        "question": "Which colour is the square?",
        "answer": "red",
        "completion": f"It is red, {name}, {number}.",
        "tokens": 7,
        "reward": float(number),
        "advantage": number - 0.5,
        "rewards/accuracy": float(number),
        "rewards/perception": None,
        "image": encode(scene()) if number == 0 else None,
        "boxes": [[0.125, 0.25, 0.5, 0.75]],
        "attention": [[0.01, 0.01, 0.01, 0.01], [0.01, 0.01, 0.03 + number / 10, 0.01]],
    }
    return row | changes


def write_run(out: Path, steps: int = 12, metrics: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A run's folder with settings and metrics, without completions."""
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(**{**asdict(RECIPES["sayo"]), "recipe": "sayo", "data": "shapes", "steps": 20, **changes})
    (out / "settings.json").write_text(json.dumps(flags_of(settings), default=str))
    lines = [{"step": i, "reward": i / 10, "reward_std": 0.1, "entropy": 1 / (i + 1), "skipped": 0.0} for i in range(steps)]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics or lines))
    return out


def write_completions(out: Path, step: int, rows: list[dict[str, Any]]) -> Path:
    path = out / "completions" / f"step-{step:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"image": pl.Binary, "attention": pl.List(pl.List(pl.Float64)), "rewards/perception": pl.Float64, "reward": pl.Float64}
    pl.DataFrame(rows, schema_overrides=types).write_parquet(path)
    return path


def groups_of(out: Path, files: int, names: str = "ab") -> None:
    for step in range(files):
        write_completions(out, step, [completion(step, name, number) for name in names for number in range(2)])


# -------------------------------------------------------------------------------------------------------------------- metrics


def test_the_last_line_of_a_step_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": 1}\n{"step": 1, "a": NaN}\n{"step": 1, "a": 3, "b": null}\n{"step": 2, "a": 4')
    assert read_metrics(path) == {0: {"a": 1.0}, 1: {"a": 3.0, "b": None}}
    with path.open("a") as file:  # the run goes on: its first line lands behind the half one
        file.write('{"step": 1, "a": 5}\n{"step": 2, "a": Infinity}\n')
    assert read_metrics(path) == {0: {"a": 1.0}, 1: {"a": 5.0}, 2: {"a": None}}


@pytest.mark.parametrize("text", [None, "", "\n", '{"step": 0, "rew'])
def test_a_run_without_metrics_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has no metrics: give a folder"):
        write_report(tmp_path)


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "a": 1}\nwhat?\n{"step": 1, "a": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: .*'what\?'; remove the line"):
        read_metrics(tmp_path / "metrics.jsonl")


# --------------------------------------------------------------------------------------------------------------------- curves


def test_what_was_not_measured_is_a_gap() -> None:
    values = [0.0, 1.0, None, None, 4.0, None, 6.0, 7.0]
    curve = draw_curve("m", range(8), values)
    assert [title for _, _, title in curve.dots] == ["step 0: 0", "step 1: 1", "step 4: 4", "step 6: 6", "step 7: 7"]
    assert curve.line.count("M") == 3
    assert curve.line.count("h0") == 1  # the lonely one
    assert "nan" not in curve.line.lower()


def test_dots_lie_where_the_ticks_say() -> None:
    curve = draw_curve("m", [10, 11, 20], [0.0, 0.5, 1.0])
    places = {label: y for y, label in curve.y_ticks}
    assert [(x, y) for x, y, _ in curve.dots] == [(46, places["0"]), (78, (places["0"] + places["1.0"]) / 2), (366, places["1.0"])]
    assert places["0"] > places["1.0"]
    assert (366, "20") in curve.x_ticks


def test_the_band_encloses_the_line_and_fits_the_chart() -> None:
    curve = draw_curve("reward", range(4), [1.0, 2.0, None, 3.0], [1.0, 1.0, None, 5.0])
    assert curve.band.count("Z") == 2
    heights = [float(y) for y in re.findall(r",([\d.]+)", curve.band)]
    assert min(heights) >= 10
    assert max(heights) <= 172
    assert [label for _, label in curve.y_ticks] == ["−2", "0", "2", "4", "6", "8"]


def test_smoothing_is_centred_and_skips_gaps() -> None:
    assert smooth([0.0, 3.0, 6.0, None, 2.0], 3) == [1.5, 3.0, 4.5, None, 2.0]
    straight = [float(i) for i in range(50)]
    assert smooth(straight, 5)[2:-2] == straight[2:-2]  # no lag


def test_a_long_run_draws_fewer_dots_but_its_last() -> None:
    curve = draw_curve("m", range(2500), [float(i) for i in range(2500)])
    assert len(curve.dots) == 834
    assert curve.dots[-1][2] == "step 2499: 2,499"
    assert curve.line.count(",") == 2500


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.0071, 0.0049, ["−0.010", "−0.005", "0", "0.005"]),
        (1.5e-6, 9e-6, ["0", "2e-6", "4e-6", "6e-6", "8e-6", "10e-6"]),
        (12_000.0, 17_900.0, ["12k", "14k", "16k", "18k"]),
        (1.0e6, 1.5e6, ["1.0M", "1.1M", "1.2M", "1.3M", "1.4M", "1.5M"]),
        (97.3, 98.1, ["97.2", "97.4", "97.6", "97.8", "98.0", "98.2"]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, labels: list[str]) -> None:
    ticks = ticks_around(low, high)
    assert tick_labels(ticks) == labels
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9


def test_steps_have_whole_ticks() -> None:
    assert ticks_between(3, 4) == [3, 4]
    assert ticks_between(0, 199) == [0, 50, 100, 150]
    assert tick_labels(ticks_between(0, 25_000)) == ["0", "5k", "10k", "15k", "20k", "25k"]


def test_numbers_are_short() -> None:
    values = [None, 1e-06, -0.25, 15018.2, 1e12, [60, 100], "a-b", 0.30000000000000004, True, -1e-10]
    assert [in_words(v) for v in values] == ["–", "1e-6", "−0.25", "15,018", "1e12", "60, 100", "a-b", "0.3", "True", "−1e-10"]


def test_metrics_come_in_sections() -> None:
    names = ["mystery", "loss", "entropy", "time/step_s", "rewards/format/mean", "reward", "reward_std", "flat", "gone"]
    columns: dict[str, list[float | None]] = {name: [0.0, 1.0] for name in names} | {"flat": [2.0, 2.0], "gone": [None, None]}
    placed = {section: [curve.name for curve in curves] for section, curves in draw_sections([0, 1], columns)}
    assert placed == {
        "Rewards": ["reward", "rewards/format/mean"],  # reward_std is the band
        "Policy": ["entropy", "loss"],
        "Speed": ["time/step_s"],
        "Other": ["mystery"],
    }


# ------------------------------------------------------------------------------------------------------------------- settings


def test_settings_that_are_not_the_recipes_are_listed(tmp_path: Path) -> None:
    assert changed_settings(json.loads((write_run(tmp_path) / "settings.json").read_text())) == []
    run = write_run(tmp_path, accuracy=0.5, learning_rate=1e-5, window=None, layers=(-1, -2), seed=7)
    assert changed_settings(json.loads((run / "settings.json").read_text())) == [
        ("accuracy", "0.5", "0"),
        ("window", "–", "60, 100"),
        ("layers", "-1, -2", "-1"),
        ("learning_rate", "1e-5", "5e-6"),
    ]
    page = write_report(run).read_text()
    assert "<li>learning_rate <b>1e-5</b>" in page
    assert "12 of 20" in page


def test_an_unknown_recipe_and_no_settings_at_all(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "settings.json").write_text('{"recipe": "of tomorrow", "kl": 3}')
    assert "knows no recipe of that name" in write_report(run).read_text()
    (run / "settings.json").unlink()
    assert "no settings.json" in write_report(run).read_text()
    (run / "settings.json").write_text("[1")
    with pytest.raises(ValueError, match=r"settings\.json is not a JSON object"):
        write_report(run)


# ---------------------------------------------------------------------------------------------------------------- completions


def test_the_hottest_cell_lights_its_place() -> None:
    attention = np.full((2, 4), 0.01)
    attention[1, 2] = 0.08
    found = heat_map(attention.tolist())
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["url"].partition(",")[2]))))
    assert pixels.shape == (2, 4, 4)
    brightness = pixels[..., :3].sum(-1)
    assert np.unravel_index(brightness.argmax(), (2, 4)) == (1, 2)
    assert pixels[1, 2].tolist() == [255, 225, 60, 204]
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, 4).tolist()}) == 2
    assert (found["peak"], found["whole"]) == pytest.approx((0.08, 0.15))


def test_a_map_without_attention_is_cold() -> None:
    found = heat_map([[0.0, math.nan]])
    assert (found["peak"], found["whole"]) == (0, 0)


def test_boxes_are_placed_in_pixels() -> None:
    assert place_box([0.125, 0.25, 0.5, 0.75], 64, 48) == {"x": 8, "y": 12, "width": 24, "height": 24}


def test_the_best_and_the_worst_that_were_measured_have_maps() -> None:
    rows = [completion(number=n) for n in range(4)]
    rows[3]["attention"] = rows[1]["reward"] = None
    ordered = [(n + 1, rows[n]) for n in (3, 2, 0, 1)]
    assert [(m["which"], m["number"]) for m in view_maps(ordered)] == [("best", 3), ("worst", 1)]
    assert [m["which"] for m in view_maps(ordered[1:2])] == ["the only one measured"]
    assert view_maps(ordered[:1]) == []


def test_early_and_late_groups_are_kept(tmp_path: Path) -> None:
    groups_of(tmp_path, files=4)
    kept, total = read_groups(tmp_path / "completions", 5)
    assert [(g[0]["step"], g[0]["id"], len(g)) for g in kept] == [(0, "a", 2), (0, "b", 2), (1, "a", 2), (3, "a", 2), (3, "b", 2)]
    assert total == 8
    assert len(read_groups(tmp_path / "completions", 8)[0]) == 8
    assert read_groups(tmp_path / "completions", 0) == ([], 8)


def test_a_group_is_shown_with_all_it_has(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_completions(run, 3, [completion(3, number=n) for n in range(2)] + [completion(3, "b", n, image=None) for n in range(2)])
    page = write_report(run).read_text()
    assert page.count("<article") == 2
    assert page.count('href="data:image/png') == 3  # the image once, and the maps of its two completions
    assert page.count('<use class="grey" href="#image-1"/>') == 2
    assert '<rect class="over" x="8.0" y="12.0" width="24.0" height="24.0"/>' in page
    assert "best: #2, reward 1.000 · the hottest cell has 13\u00a0% of the attention, the whole image 20\u00a0%" in page
    assert '<td class="number good">+0.500</td>' in page
    assert '<td class="number bad">−0.500</td>' in page
    assert '<th class="number">accuracy</th>' in page
    assert "perception</th>" not in page  # never scored


def test_nothing_of_a_run_becomes_markup(tmp_path: Path) -> None:
    metrics = [{"step": i, ATTACK: i} for i in range(3)]
    run = write_run(tmp_path, metrics=metrics, data=ATTACK, model=ATTACK)
    hostile = completion(name=ATTACK, question=ATTACK, answer=ATTACK, completion=ATTACK) | {f"rewards/{ATTACK}": 1.0}
    write_completions(run, 0, [hostile])
    page = write_report(run).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") > 6
    assert ' style="' not in page
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f'content="default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-{digest}&#39;"' in page


def test_a_page_of_the_little_there_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    page = write_report(run).read_text()
    assert "has kept no completions" in page
    assert "<b>The only step:</b> reward 0" in page
    assert "<circle" not in page
    write_completions(
        run, 0, [{k: v for k, v in completion(reward=math.nan, answer=None).items() if k not in ("attention", "boxes", "image")}]
    )
    page = write_report(run).read_text()
    assert "no gold answer" in page
    assert "<image" not in page
    assert "<b>–</b>" in page
    assert write_report(run).read_text() == page


def test_constant_and_missing_metrics_are_named_not_drawn(tmp_path: Path) -> None:
    metrics = [{"step": i, "reward": float(i), "skipped": 0.0, "kl": math.nan} for i in range(4)]
    page = write_report(write_run(tmp_path, metrics=metrics)).read_text()
    assert "<b>The same at every step:</b> skipped 0" in page
    assert "<b>Never measured:</b> kl" in page
    assert page.count("<figure") == 1
    assert page.count("<circle") == 4


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    path = write_completions(run, 0, [completion()])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"step-00000\.parquet cannot be read .*: remove it"):
        write_report(run)
    pl.DataFrame({"id": ["a"]}).write_parquet(path)
    with pytest.raises(ValueError, match=r"step-00000\.parquet has no column advantage, answer"):
        write_report(run)


def test_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    groups_of(run, files=2)
    status, last, errors = run_module("train.report", run, "--limit", "2")
    assert (status, last) == (0, f"wrote {run / 'report.html'}"), errors
    assert (run / "report.html").read_text().count("<article") == 2
    status, _, errors = run_module("train.report", tmp_path / "gone")
    assert status == 2
    assert "gone/metrics.jsonl has no metrics: give a folder" in " ".join(errors.split())
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")
def test_a_browser_applies_the_style_and_runs_nothing(tmp_path: Path) -> None:
    def load(page: Path) -> tuple[str, str]:
        switches = "headless no-sandbox disable-gpu no-first-run disable-background-networking disable-sync enable-logging=stderr dump-dom"
        command = [str(CHROMIUM), *(f"--{s}" for s in switches.split()), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    run = write_run(tmp_path / "run", data=ATTACK)
    write_completions(run, 0, [completion(number=n, completion=ATTACK) for n in range(2)])
    page = write_report(run)
    document, said = load(page)
    assert "<title>run · Sightline run</title>" in document
    assert "Content Security Policy" not in said
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace("<style>", "<style> "))
    assert "Content Security Policy" in load(changed)[1]  # another style is refused
