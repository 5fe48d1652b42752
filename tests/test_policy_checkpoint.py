"""The embedded policy is small, loads as any Qwen2.5-VL does, keeps to its templates, looks at its image, and is right half the time."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from demo.questions import write_trace  # noqa: E402
from demo.teach_policy import TEMPLATES, draw, held_out, make_row, mean, respond, respond_to, sample_groups  # noqa: E402
from rewardlib import Accuracy, Format  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loading import load_model  # noqa: E402

FOLDER = ROOT / "demo" / "checkpoints" / "policy"


@pytest.fixture(scope="module")
def policy():
    return load_model(str(FOLDER), "cpu")


def test_it_is_small(policy):
    assert 2e6 < sum(weight.numel() for weight in policy.model.parameters()) < 10e6
    assert max(path.stat().st_size for path in FOLDER.iterdir()) < 8 * 2**20


def test_any_text_can_be_encoded_and_a_token_added(policy):
    tokenizer, text = policy.processor.tokenizer, "Größe ≥ 3 px?\n\tEin <Focus> 🙂 {x}"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) < policy.model.get_input_embeddings().weight.shape[0]
    assert [tokenizer.decode(ids) for ids in policy.ends[:, None]] == ["<|im_end|>"]
    assert policy.model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_it_was_taught_is_right_and_well_formed(template):
    rng = random.Random(1)
    samples = []
    for _ in range(200):
        scene, (question,) = draw(rng, 1)
        row = make_row(scene, question, template)
        samples.append(replace(row.sample, response=respond(write_trace(rng, scene, question, right=True), template)))
    assert set(Accuracy()(samples)) == {1.0}
    assert set(Format(template)(samples)) == {1.0}


def test_it_is_right_about_half_the_time_and_well_formed(policy):
    samples = respond_to(policy, held_out(40, seed=1))
    assert 0.3 <= mean(Accuracy()(samples)) <= 0.8
    assert mean(Format()(samples)) > 0.8


@pytest.mark.parametrize("template", TEMPLATES)
def test_sampled_groups_start_well_formed_in_every_template(policy, template):
    samples = [sample for group in sample_groups(policy, held_out(3, template, seed=2), 8) for sample in group]
    assert mean(Format(template)(samples)) > 0.8


def test_another_image_makes_its_response_unlikely(policy):
    """The right response must lose probability when the image is exchanged for a blank one of the same size."""
    rng, losses = random.Random(3), []
    for _ in range(12):
        scene, (question,) = draw(rng, 1)
        row = make_row(scene, question, "think-answer")
        ids = torch.tensor(policy.processor.tokenizer(write_trace(rng, scene, question, right=True))["input_ids"])
        blank = Image.new("RGB", scene.image.size, (150, 150, 150))
        with torch.no_grad():
            seen, unseen = (forward(policy, policy.encode(row.messages, [image]), [ids]).logprobs.sum() for image in (scene.image, blank))
        losses.append(float(seen - unseen))
    assert np.mean(losses) > 2
