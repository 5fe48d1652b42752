"""What the efficacy bench computes from its runs, and the regions that must not pay."""

import math

import numpy as np
import polars
import pytest

pytest.importorskip("torch")

from bench import efficacy
from bench.answers import spoil
from bench.completions import within_groups
from bench.efficacy import BUDGET, CONTROLS, HEADLINES, OWN, SETTINGS, SHOW_EVERY, completions_until, difference, interval, summarise
from bench.efficacy_page import differences, plot, settings
from bench.regions import relabel


def figures(accuracy, curve):
    return dict.fromkeys(efficacy.MEASURES, 0.5) | {"accuracy": accuracy, "curve": curve}


@pytest.fixture(scope="module")
def result():
    found = {name: [figures(0.5 + 0.01 * seed, [0.5, 0.6, 0.7]) for seed in range(3)] for name in SETTINGS}
    found["credit: look"] = [figures(0.8 + 0.01 * seed + 0.001 * (seed == 1), [0.5, 0.7, 0.9]) for seed in range(3)]
    start = dict.fromkeys(efficacy.MEASURES, 0.4)
    return summarise(found, dict.fromkeys(SETTINGS, 1e-4), dict.fromkeys(("credit", "perception", "faithful", "long"), start))


def test_pairs_differ_by_seed_and_settings_share_a_task():
    for one, other, measure in [*HEADLINES.values(), *CONTROLS.values()]:
        assert SETTINGS[one].task == SETTINGS[other].task
        assert measure in efficacy.MEASURES


def test_the_paired_difference_is_surer_than_its_parts():
    one, other = [0.5, 0.7, 0.9], [0.4, 0.61, 0.8]
    paired = difference(one, other)
    assert paired["difference"] == pytest.approx(0.1, abs=0.01)
    assert 0 < paired["low"] < paired["difference"] < paired["high"]
    assert interval(one)["high"] - interval(one)["low"] > paired["high"] - paired["low"]
    assert math.isnan(interval([0.5])["low"])


def test_completions_are_counted_until_three_points_are_good_enough():
    per_point = BUDGET["prompts"] * BUDGET["num_generations"] * SHOW_EVERY
    assert completions_until([[0.5] * 5 + [0.9] * 5], 0.7) == 6 * per_point
    assert completions_until([[0.5] * 10], 0.7) is None
    assert completions_until([[0.5] * 10, [1.0] * 10], 0.7) == 2 * per_point


def test_headlines_are_of_the_right_runs(result):
    look = result["headlines"]["look"]
    assert look["difference"] == pytest.approx(0.3, abs=0.01)
    assert look["low"] > 0
    assert set(result["headlines"]) == set(HEADLINES)


def test_own_rewards_are_against_the_start_or_the_first_steps(result):
    assert set(result["own_rewards"]) == set(OWN)
    assert result["own_rewards"]["sayo, unseen rows"]["difference"] == pytest.approx(0.1)  # 0.5 against 0.4
    assert result["own_rewards"]["sayo"]["difference"] == pytest.approx(0.5)  # a gain is a difference itself
    assert "| sayo, unseen rows | credit: sayo | the start | +0.100 released contrast |" in differences(result["own_rewards"])


def test_the_page_says_which_differences_are_sure(result):
    table = differences(result["headlines"])
    assert table.splitlines()[3].startswith("| look | credit: look | accuracy | +0.300 accuracy |")
    assert table.splitlines()[3].endswith("more |")
    assert "| *before* | | 0.400 |" in settings(result)
    assert plot(result).startswith("<svg")
    assert plot(result).count("<polyline") >= 8


def test_correlations_are_within_groups_alone():
    groups = [{"a": np.array([0.0, 1.0]), "b": np.array([5.0, 6.0])}, {"a": np.array([10.0, 11.0]), "b": np.array([1.0, 2.0])}]
    assert within_groups(groups, "a", "b") == pytest.approx(1.0)
    assert within_groups([{"a": np.ones(3), "b": np.arange(3.0)}], "a", "b") == 0


@pytest.fixture
def dataset(tmp_path):
    def region(x, role):
        return {"phrase": f"at {x}", "bbox": [float(x), 0.0, float(x + 20), 20.0], "role": role, "mask": None}

    rows = [
        {"id": "a", "width": 112, "height": 112, "regions": [region(0, "evidence"), region(40, "context")]},
        {"id": "b", "width": 112, "height": 112, "regions": [region(80, "evidence")]},
    ]
    schema = {"phrase": polars.String, "bbox": polars.Array(polars.Float32, 4), "role": polars.String, "mask": polars.String}
    (tmp_path / "made" / "data").mkdir(parents=True)
    polars.DataFrame(rows, schema_overrides={"regions": polars.List(polars.Struct(schema))}).write_parquet(
        tmp_path / "made" / "data" / "train-00000.parquet"
    )
    return tmp_path / "made"


def regions_of(folder):
    return [row["regions"] for row in polars.read_parquet(folder / "data" / "*.parquet").to_dicts()]


def test_other_regions_than_the_evidence(dataset, tmp_path):
    own = regions_of(dataset)
    assert regions_of(relabel(dataset, tmp_path / "shuffled", "shuffled")) == [own[1], own[0]]
    mentions = regions_of(relabel(dataset, tmp_path / "mentions", "mentions"))
    assert [[region["role"] for region in of_row] for of_row in mentions] == [["evidence", "evidence"], ["evidence"]]
    elsewhere = regions_of(relabel(dataset, tmp_path / "elsewhere", "elsewhere"))
    assert [len(of_row) for of_row in elsewhere] == [1, 1]
    for (moved,), of_row in zip(elsewhere, own, strict=True):
        x0, y0, x1, y1 = moved["bbox"]
        assert (x1 - x0, y1 - y0) == pytest.approx((20, 20), abs=1e-3)
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 112
        assert y1 <= 112
        assert x0 >= of_row[0]["bbox"][2] or x1 <= of_row[0]["bbox"][0] or y0 >= 20
    assert regions_of(relabel(dataset, tmp_path / "elsewhere", "elsewhere")) == elsewhere


FACTS = [{"phrase": "red star", "role": "evidence"}, {"phrase": "green circle", "role": "context"}, {"phrase": "", "role": "context"}]


def test_unreliable_open_answers_have_a_colour_of_something_else_that_is_mentioned(tmp_path):
    rows = [{"id": str(n), "answer": "red and blue", "choices": [], "annotations": FACTS[: 1 + n % 2]} for n in range(30)]
    (tmp_path / "made" / "data").mkdir(parents=True)
    polars.DataFrame(rows, schema_overrides={"choices": polars.List(polars.String)}).write_parquet(tmp_path / "made" / "data" / "0.parquet")
    spoilt = polars.read_parquet(spoil(tmp_path / "made", tmp_path / "spoilt") / "data" / "*.parquet")["answer"].to_list()
    assert set(spoilt) == {"red and blue", "green and blue", "red and green"}
    assert spoilt[::2] == ["red and blue"] * 15  # those rows mention nothing else
    assert spoilt.count("red and blue") == 20


def test_unreliable_answers_are_the_other_choice_in_a_third_of_the_rows(tmp_path):
    rows = [{"id": str(n), "answer": "red", "choices": ["blue", "red"], "annotations": FACTS} for n in range(30)]
    (tmp_path / "made" / "data").mkdir(parents=True)
    polars.DataFrame(rows).write_parquet(tmp_path / "made" / "data" / "train-00000.parquet")
    spoilt = polars.read_parquet(spoil(tmp_path / "made", tmp_path / "spoilt") / "data" / "*.parquet")
    assert spoilt["id"].to_list() == [row["id"] for row in rows]
    assert spoilt["answer"].to_list().count("blue") == 10
    assert polars.read_parquet(spoil(tmp_path / "made", tmp_path / "spoilt") / "data" / "*.parquet").equals(spoilt)


def test_settings_that_differ_in_other_things_share_a_learning_rate():
    assert all(name.partition(",")[0] in SETTINGS for name in SETTINGS)
