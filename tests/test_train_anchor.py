"""Anchoring: the focus token's attention moves onto the region, and GRPO starts from what comes out."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.conftest import ROOT  # noqa: E402
from tests.test_grpo import dataset_folder, free_port, policy_folder, settings  # noqa: E402, F401
from train.anchor import FOCUS, AnchorSettings  # noqa: E402
from train.anchoring import anchor, learn, learn_from, load_with_focus  # noqa: E402
from train.data import load_rows  # noqa: E402
from train.loading import load_model  # noqa: E402
from train.loop import train  # noqa: E402


@pytest.fixture
def anchoring(settings, tmp_path):  # noqa: F811
    return AnchorSettings(data=settings.data, model=settings.model, out=tmp_path / "anchor", steps=15, rows=3, learning_rate=3e-3)


def test_attention_moves_onto_the_region_and_grpo_goes_on(anchoring, settings):  # noqa: F811
    folder = anchor(anchoring)
    shown = [json.loads(line) for line in (anchoring.out / "metrics.jsonl").read_text().splitlines()]
    assert shown[-1]["anchor_loss"] < 0.7 * shown[0]["anchor_loss"]
    assert shown[-1]["language_loss"] < shown[0]["language_loss"]
    assert shown[-1]["attention_on_region"] > shown[0]["attention_on_region"]
    assert min(line["rows_used"] for line in shown) < 1  # the row whose trace is wrong is left out
    train(replace(settings, model=str(folder), recipe="faithful-mr1", causal_attention=0.5, steps=1))
    assert len((settings.out / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_anchor_alone_moves_the_attention(anchoring):
    """Without it the language-model loss says nothing about where the token looks."""
    rows = load_rows(anchoring.data, anchoring.template)
    moved = {}
    for weight in (0.0, 20.0):
        policy = load_with_focus(anchoring)
        optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-3)
        for _ in range(20):
            seen = learn(policy, rows[0], replace(anchoring, weight=weight))
            optimizer.step()
            optimizer.zero_grad()
        moved[weight] = seen["attention_on_region"]
    assert moved[20.0] > moved[0.0] + 0.1


def test_the_focus_token_is_one_token_and_survives_saving(anchoring):
    policy = load_with_focus(anchoring)
    before = load_with_focus(anchoring).model.get_input_embeddings().weight[:100]
    ids = policy.processor.tokenizer(FOCUS + "a", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    again = load_with_focus(replace(anchoring, model=str(anchor(replace(anchoring, steps=1)))))
    assert again.processor.tokenizer(FOCUS + "a", add_special_tokens=False)["input_ids"] == ids
    assert torch.equal(policy.model.get_input_embeddings().weight[:100], before)


def test_rows_that_cannot_be_anchored_are_left_out(anchoring):
    rows = load_rows(anchoring.data, anchoring.template)
    policy = load_with_focus(anchoring)
    assert learn(policy, rows[5], anchoring) is None
    assert learn(policy, replace(rows[0], sample=replace(rows[0].sample, regions=())), anchoring) is None


def test_a_row_that_cannot_be_used_ends_no_anchoring(anchoring, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (112, 84)).save(tmp_path / "good.png")
    Image.new("RGB", (2400, 10)).save(tmp_path / "strip.png")
    row = {"question": "How many?", "answer": "4", "bbox": [1, 1, 9, 9], "traces": [{"text": "<answer>4</answer>", "correct": True}]}
    images = {"good": "good.png", "strip": "strip.png", "absent": "none.png"}
    rows = [{"id": name, "image": image, **row} for name, image in images.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    anchor(replace(anchoring, data=str(tmp_path / "rows.jsonl"), steps=2))
    said = capsys.readouterr().out
    assert said.count("left out row absent: missing image") == said.count("left out row strip: prompt cannot be encoded") == 1
    assert "2 of 3 rows could not be used: missing image (1), prompt cannot be encoded (1)" in said


def test_anchoring_goes_on_where_it_was_stopped(anchoring, monkeypatch):
    whole = anchor(replace(anchoring, out=anchoring.out.with_name("whole"), steps=6))
    short = replace(anchoring, steps=6, save_every=2)
    steps = []

    def stopped(*arguments):
        steps.append(1)
        if len(steps) == 3 * anchoring.rows + 1:
            raise KeyboardInterrupt
        return learn_from(*arguments)

    monkeypatch.setattr("train.anchoring.learn_from", stopped)
    with pytest.raises(KeyboardInterrupt):
        anchor(short)
    anchor(short)
    assert len(steps) == 3 * anchoring.rows + 1 + 4 * anchoring.rows  # from the checkpoint behind the second step
    one, two = (load_model(str(folder), "cpu").model.state_dict() for folder in (whole, anchoring.out / "model"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [json.loads(line)["step"] for line in (anchoring.out / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(6))


def test_a_run_of_other_settings_is_not_gone_on_with(anchoring):
    anchor(replace(anchoring, steps=1))
    with pytest.raises(ValueError, match="learning_rate was"):
        anchor(replace(anchoring, steps=2, learning_rate=1.0))


def test_two_processes_anchor_what_one_does(anchoring):
    whole = anchor(replace(anchoring, out=anchoring.out.with_name("whole"), steps=2))
    flags = {"data": anchoring.data, "model": anchoring.model, "out": anchoring.out, "steps": 2, "rows": 3, "learning-rate": 3e-3}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    given = [str(part) for flag, value in flags.items() for part in (f"--{flag}", value)]
    done = subprocess.run([*launch, "-m", "train.anchor", *given, "--device", "cpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_model(str(folder), "cpu").model.state_dict() for folder in (whole, anchoring.out / "model"))
    assert all(torch.allclose(one[name], two[name], atol=2e-4) for name in one)
