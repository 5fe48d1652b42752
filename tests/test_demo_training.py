"""The end of the demo: a short GRPO run of the embedded policy, and its report."""

import json

import pytest

pytest.importorskip("torch")

from demo.run import learn
from tests.test_grpo import dataset_folder  # noqa: F401  a fixture


def test_the_demo_trains_on_its_dataset_and_shows_it(dataset_folder, tmp_path, capsys):  # noqa: F811
    learn(tmp_path, dataset_folder, dataset_folder, steps=2)
    lines = [json.loads(line) for line in (tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(line["rewards/format/mean"] > 0.2 for line in lines)
    assert lines[0]["rewards/attention_contrast/missing"] == 0
    report = (tmp_path / "grpo" / "report.html").read_text()
    assert "How many? 1" in report
    assert "attention_contrast" in (tmp_path / "grpo" / "settings.json").read_text()
    assert "data:image/png" in report
    said = capsys.readouterr().out.replace("\n", "")
    assert str(tmp_path / "grpo" / "report.html") in said
    assert "attention on the evidence" in said
