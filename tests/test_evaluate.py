"""Evaluation: what is measured on a row, and the statistics over rows."""

import json
import subprocess
import sys
from dataclasses import replace

import polars
import pytest

torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from tests.conftest import ROOT  # noqa: E402
from tests.test_grpo import dataset_folder, free_port, policy_folder, settings  # noqa: E402, F401
from train.data import load_rows  # noqa: E402
from train.evaluate import EvaluateSettings  # noqa: E402
from train.evaluation import compare, encode, evaluate, examine, summarise  # noqa: E402
from train.intervals import mcnemar, mean, share  # noqa: E402
from train.loading import load_model  # noqa: E402


@pytest.fixture
def evaluation(settings, tmp_path):  # noqa: F811
    return EvaluateSettings(data=settings.data, model=settings.model, out=tmp_path / "evaluation", max_tokens=8)


def test_an_evaluation_writes_its_figures_and_responses(evaluation):
    polars = pytest.importorskip("polars")
    summary = evaluate(evaluation)
    assert summary == json.loads((evaluation.out / "evaluation.json").read_text())
    rows = polars.read_parquet(evaluation.out / "responses.parquet").to_dicts()
    assert [row["id"] for row in rows] == [f"row{n}" for n in range(6)]
    assert summary["accuracy"]["value"] == 0  # random letters
    assert summary["length"]["value"] <= 8
    assert -1 < summary["attention_contrast"]["low"] < summary["attention_contrast"]["high"] < 1
    assert summary["drop_without_evidence"]["n"] == summary["drop_without_control"]["n"] == summary["pointing_game"]["n"] == 6
    again = evaluate(replace(evaluation, out=evaluation.out.with_name("again"), against=evaluation.out))
    assert again["against"] == {"rows": 6, "gained": 0, "lost": 0, "p": 1.0}
    assert {k: v for k, v in again.items() if k != "against"} == summary  # greedy: the same again


def test_what_to_compare_with_is_read_before_the_first_row(evaluation, tmp_path):
    with pytest.raises(ValueError, match=r"--against .*nowhere: responses.parquet cannot be read"):
        evaluate(replace(evaluation, model="no such model", against=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"--batch 0: give 1 or more"):
        evaluate(replace(evaluation, model="no such model", batch=0))


def test_an_evaluation_that_compares_with_nothing_is_kept(evaluation, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    polars.DataFrame([{"id": "of other data", "correct": 1.0, "response": "4"}]).write_parquet(other / "responses.parquet")
    with pytest.raises(ValueError, match="no row in common"):
        evaluate(replace(evaluation, against=other))
    assert (evaluation.out / "evaluation.json").exists()
    assert (evaluation.out / "responses.parquet").exists()


def test_rows_without_labels_are_left_out_of_what_needs_them(evaluation):
    policy, rows = load_model(evaluation.model), load_rows(evaluation.data, evaluation.template)
    bare = replace(rows[0], sample=replace(rows[0].sample, regions=(), answer=None, evidence_image=None, control_image=None))
    (found,) = examine(policy, [encode(policy, bare, evaluation)], evaluation)
    assert [found[k] for k in ("correct", "attention_contrast", "pointing", "correct_without_evidence")] == [None] * 4
    summary = summarise([found])
    assert summary["accuracy"] == {"value": None, "low": None, "high": None, "n": 0}
    assert summary["length"]["n"] == 1


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 5), (2, 10), (4, 2), (30, 31), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


@pytest.mark.parametrize(("ones", "n"), [(0, 12), (5, 12), (12, 12), (300, 700)])
def test_shares_have_wilsons_interval(ones, n):
    interval = stats.binomtest(ones, n).proportion_ci(0.95, method="wilson")
    found = share([1.0] * ones + [0.0] * (n - ones) + [None])
    assert (found["value"], found["n"]) == (ones / n, n)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-4)


def test_means_leave_missing_values_out():
    found = mean([1.0, None, 3.0, 2.0])
    assert (found["value"], found["n"]) == (2, 3)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / 3**0.5)


def test_drops_and_comparisons_are_paired_by_row():
    found = [
        {"id": str(n), "correct": c, "format": 1.0, "length": 3, "attention_contrast": 0.1, "pointing": 1.0}
        for n, c in enumerate((1, 1, 0, 1))
    ]
    for row, without in zip(found, (0, 1, 0, None), strict=True):
        row |= {"correct_without_evidence": without, "correct_without_control": 1.0}
    assert summarise(found)["drop_without_evidence"]["value"] == pytest.approx(1 / 3)
    other = [{"id": "3", "correct": 0}, {"id": "2", "correct": 1}, {"id": "0", "correct": 1}, {"id": "9", "correct": 1}]
    assert compare(found, other) == {"rows": 3, "gained": 1, "lost": 1, "p": 1.0}
    with pytest.raises(ValueError, match="no row in common"):
        compare(found, other[-1:])


def test_rows_with_and_without_image_are_answered_together(evaluation, tmp_path):
    from PIL import Image

    Image.new("RGB", (112, 84)).save(tmp_path / "0.png")
    rows = [{"image": image, "question": "How many?", "answer": "4"} for image in ("0.png", None, "0.png", "none.png")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = evaluate(replace(evaluation, data=str(tmp_path / "rows.jsonl"), out=tmp_path / "out", batch=4))
    assert summary["accuracy"]["n"] == 3
    assert [left["reason"] for left in summary["left_out"]] == ["missing image"]


def test_the_page_shows_rows_and_what_was_gained(evaluation, monkeypatch):
    evaluate(evaluation)
    alone = (evaluation.out / "evaluation.html").read_text()
    assert alone.count("<article") == 6
    assert alone.count('aria-label="attention of the response"') == 6
    assert "gained" not in alone
    responses = polars.read_parquet(evaluation.out / "responses.parquet")
    right = responses.with_columns(correct=polars.Series([1.0, 0.0, None, 0.0, 0.0, 1.0]))
    right.write_parquet(evaluation.out / "responses.parquet")
    again = replace(evaluation, out=evaluation.out.with_name("again"), against=evaluation.out)
    evaluate(again)
    page = (again.out / "evaluation.html").read_text()
    assert '<label for="f-lost">lost 2</label>' in page
    assert page.count('<article class="card wrong lost">') == 2
    assert "<script" not in page
    assert "Content-Security-Policy" in page


def test_an_evaluation_goes_on_where_it_was_stopped(evaluation, monkeypatch):
    whole = evaluate(replace(evaluation, out=evaluation.out.with_name("whole")))
    asked = []

    def stopped(policy, rows, *others, **more):
        asked.append([each.row.id for each in rows])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return examine(policy, rows, *others, **more)

    monkeypatch.setattr("train.evaluation.examine", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(replace(evaluation, batch=2))
    assert evaluate(replace(evaluation, batch=2)) == whole
    assert asked[2] == asked[1] != asked[0]
    assert not (evaluation.out / "parts").exists()


def test_parts_of_another_evaluation_are_not_taken(evaluation, monkeypatch):
    stopped = iter([False, True])

    def once(*given, **more):
        if next(stopped):
            raise KeyboardInterrupt
        return examine(*given, **more)

    monkeypatch.setattr("train.evaluation.examine", once)
    with pytest.raises(KeyboardInterrupt):
        evaluate(replace(evaluation, batch=2))
    assert (evaluation.out / "parts" / "00000000.json").exists()
    monkeypatch.undo()
    assert evaluate(replace(evaluation, max_tokens=3))["length"]["value"] <= 3


def test_two_processes_evaluate_what_one_does(evaluation):
    whole = evaluate(replace(evaluation, out=evaluation.out.with_name("whole")))
    flags = {"data": evaluation.data, "model": evaluation.model, "out": evaluation.out, "batch": 1, "max-tokens": evaluation.max_tokens}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    given = [str(part) for flag, value in flags.items() for part in (f"--{flag}", value)]
    done = subprocess.run([*launch, "-m", "train.evaluate", *given, "--device", "cpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    together = json.loads((evaluation.out / "evaluation.json").read_text())
    assert set(together) == set(whole)
    for name in set(whole) - {"left_out"}:
        assert together[name] == pytest.approx(whole[name], abs=1e-6), name
    one, two = (polars.read_parquet(folder / "responses.parquet") for folder in (evaluation.out, evaluation.out.with_name("whole")))
    assert one["id"].to_list() == two["id"].to_list()
    assert one["response"].to_list() == two["response"].to_list()


def test_what_was_found_of_rows_that_cannot_be_used_is_not_kept(evaluation):
    with pytest.raises(ValueError, match="can be used: prompt too long"):
        evaluate(replace(evaluation, max_prompt=5))
    assert not (evaluation.out / "parts").exists()  # the rows may be mended before the next time
