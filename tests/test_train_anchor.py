"""Anchoring: the focus token's attention moves onto the region, and GRPO starts from what comes out."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.test_grpo import dataset_folder, policy_folder, settings  # noqa: E402, F401
from train.anchor import FOCUS, AnchorSettings  # noqa: E402
from train.anchoring import anchor, learn, load_with_focus  # noqa: E402
from train.data import load_rows  # noqa: E402
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
    assert learn(policy, replace(rows[0], region=None), anchoring) is None


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
