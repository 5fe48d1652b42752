"""Kappa against its definition, and the agreement report against judges whose mistakes are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.judge import judge as rules
from pipelines import agreement
from pipelines.dataset import store
from pipelines.dataset.kappa import agreement as compare
from pipelines.dataset.kappa import kappa
from tests.conftest import fake_models, record, scene, write_rows
from tests.judge_server import Answer, Server, completion


def _naive(a: list[bool], b: list[bool]) -> float:
    """Cohen's kappa, written down from its definition."""
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    expected = sum((a.count(v) / n) * (b.count(v) / n) for v in (True, False))
    return (observed - expected) / (1 - expected)


def test_kappa_of_a_published_example() -> None:
    assert kappa(np.array([20, 5, 10, 15])) == pytest.approx(0.4)  # the example of Wikipedia's page on it


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_agreement_equals_the_definition_and_lies_in_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    a, b = ({i: pair[k] for i, pair in enumerate(pairs)} for k in (0, 1))
    found = compare(a, b, {i: f"row {i}" for i in a}, draws=200)
    first, second = list(a.values()), list(b.values())
    if len({*first}) == len({*second}) == 1 and first[0] == second[0]:
        assert found["kappa"] is None  # chance alone explains it
        return
    assert found["kappa"] == pytest.approx(_naive(first, second), abs=1e-4)
    assert -1 <= found["low"] <= found["high"] <= 1


def test_verdicts_about_one_row_count_as_one() -> None:
    """Ten copies of a verdict within a row say no more than one: the interval must not shrink."""
    verdicts = [(True, True), (False, False), (True, False), (False, False), (True, True), (False, True)] * 3
    alone = compare({i: v[0] for i, v in enumerate(verdicts)}, {i: v[1] for i, v in enumerate(verdicts)}, {i: str(i) for i in range(18)})
    units = [(i, copy) for i in range(18) for copy in range(10)]
    copied = compare({u: verdicts[u[0]][0] for u in units}, {u: verdicts[u[0]][1] for u in units}, {u: str(u[0]) for u in units})
    assert (copied["low"], copied["high"], copied["kappa"]) == (alone["low"], alone["high"], alone["kappa"])


def test_raters_who_share_nothing_have_no_kappa() -> None:
    assert compare({1: True}, {2: True}, {1: "a", 2: "b"})["kappa"] is None


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from pipelines import build
    from pipelines.config import BuildConfig

    monkeypatch.setattr(build, "load_models", lambda config: fake_models())
    colors = ["red", "blue", "green"]
    rows = [record(f"r{n}", colors[n % 3]) for n in range(6)]
    source = write_rows(tmp_path, rows, {f"r{n}.png": scene(colors[n % 3]) for n in range(6)})
    build.build(BuildConfig(source=str(source), out=tmp_path / "out"))
    return tmp_path / "out"


def _honest(n: int, body: dict[str, Any]) -> Answer:
    asked = json.loads(body["messages"][1]["content"])
    return completion(json.dumps(rules(asked["facts"], asked["response"])))


def _moody(n: int, body: dict[str, Any]) -> Answer:
    """Seed 1 calls everything present, and lists its verdicts backwards."""
    asked = json.loads(body["messages"][1]["content"])
    if body["seed"] == 0:
        return _honest(n, body)
    return completion(json.dumps({"verdicts": [{"id": f["id"], "present": True} for f in reversed(asked["facts"])]}))


def _run(dataset: Path, *arguments: str) -> dict[str, Any]:
    import tyro

    tyro.cli(agreement.main, args=[str(dataset), "--judge.model", "judge", *arguments])
    return json.loads((dataset / "agreement.json").read_text())


def test_an_honest_judge_agrees_with_a_person_and_a_moody_one_not_with_itself(dataset: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.jsonl"
    agreement.main(dataset, sheet=sheet)
    lines = [json.loads(line) for line in sheet.read_text().splitlines()]
    assert (len(lines), {line["present"] for line in lines}) == (12, {None})
    filled = [{**line, "present": line["fact"].lower()[11:-1] in line["trace"]} for line in lines]
    sheet.write_text("".join(json.dumps(line) + "\n" for line in filled[:10]) + json.dumps(lines[10]) + "\n")
    with Server(_honest).running() as server:
        found = _run(dataset, "--judge.base-url", server.url, "--gold", str(sheet))
    (pair,) = found["pairs"]
    assert (pair["b"], pair["units"], pair["kappa"], pair["agreement"]) == ("a person", 10, 1.0, 1.0)
    assert (found["own_found"], found["foreign_rejected"], found["units"]) == (1.0, 1.0, 12)
    with Server(_moody).running() as server:
        found = _run(dataset, "--judge.base-url", server.url, "--seeds", "0", "1")
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"], pair["kappa"], pair["agreement"]) == ("judge, seed 0", "judge, seed 1", 0.0, 0.5)


def test_a_judge_that_fails_is_left_out_and_said(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(lambda n, body: completion("no")).running() as server:
        found = _run(dataset, "--judge.base-url", server.url, "--other.model", "b", "--other.base-url", server.url)
    assert found["own_found"] is None
    assert found["pairs"][0]["units"] == 0
    assert "judge failed on 6 of 6 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 1"), ('{"id": "r0"}', "trace_id"), ("[1]", "expected an object with id, trace_id, fact and present")]
)
def test_a_broken_gold_file_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "gold.jsonl").write_text(line + "\n")
    with pytest.raises(agreement.AgreementError, match=message):
        agreement.read_gold(tmp_path / "gold.jsonl")


def test_without_a_judge_there_is_a_remedy(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        agreement.main(dataset)
    assert "--judge.model" in capsys.readouterr().err
    assert store.read_manifest(dataset)["rows"] == 6
