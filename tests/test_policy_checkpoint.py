"""The embedded policies are small and load as any Qwen2.5-VL does. One sees and says what it sees; the other has learnt not to look."""

import random
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from demo.tasks import KINDS, careless_trace, draw, right_trace  # noqa: E402
from demo.teach_policy import TEMPLATES, make_row, respond  # noqa: E402
from rewardlib import Accuracy, Format  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from train.engines import Sampling  # noqa: E402
from train.engines.local import LocalEngine  # noqa: E402
from train.loading import load_model  # noqa: E402
from train.sampling import texts  # noqa: E402

CHECKPOINTS = ROOT / "demo" / "checkpoints"


@pytest.fixture(scope="module", params=["policy", "policy-seeing"])
def policy(request):
    return load_model(str(CHECKPOINTS / request.param), "cpu")


@pytest.fixture(scope="module")
def careless():
    return load_model(str(CHECKPOINTS / "policy"), "cpu")


@pytest.fixture(scope="module")
def seeing():
    return load_model(str(CHECKPOINTS / "policy-seeing"), "cpu")


def rows(count, template="think-answer", task=None):
    rng = random.Random(f"rows of the tests, {template}")
    drawn = [draw(rng, *([task] if task else [])) for _ in range(count)]
    return [(scene, question, make_row(scene, question, template, str(n))) for n, (scene, (question,)) in enumerate(drawn)]


def answers(policy, rows, count=1, temperature=0.0, images=None):
    """Samples of ``count`` responses to every row, greedy by default."""
    prompts = [
        policy.encode(row.messages, [image] if image else row.images) for row, image in zip(rows, images or [None] * len(rows), strict=True)
    ]
    found = LocalEngine(policy).generate(prompts, count, Sampling(96, temperature), list(range(len(rows))))
    return [
        replace(row.sample, response=text)
        for row, group in zip(rows, found, strict=True)
        for text in texts(policy, [drawn.ids for drawn in group])
    ]


def mean(scores):
    return sum(scores) / len(scores)


def test_it_is_small(policy):
    assert 1e6 < sum(weight.numel() for weight in policy.model.parameters()) < 10e6
    for name in ("policy", "policy-seeing"):
        assert max(path.stat().st_size for path in (CHECKPOINTS / name).iterdir()) < 12 * 2**20


def test_its_heads_are_as_wide_as_engines_know(policy):
    text = policy.model.config.text_config
    assert text.hidden_size // text.num_attention_heads in (64, 80, 96, 128)


def test_any_text_can_be_encoded_and_a_token_added(policy):
    tokenizer, text = policy.processor.tokenizer, "Größe ≥ 3 px?\n\tEin <Focus> 🙂 {x}"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) < policy.model.get_input_embeddings().weight.shape[0]
    assert [tokenizer.decode(ids) for ids in policy.ends[:, None]] == ["<|im_end|>"]
    assert policy.model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_it_was_taught_is_right_and_well_formed(template):
    samples = [
        replace(row.sample, response=respond(right_trace(scene, question), template)) for scene, question, row in rows(200, template)
    ]
    assert set(Accuracy()(samples)) == {1.0}
    assert set(Format(template)(samples)) == {1.0}


@pytest.mark.parametrize("task", KINDS)
def test_who_does_not_look_is_right_by_luck_at_most(task):
    rng = random.Random(1)
    drawn = rows(200, task=task)
    samples = [replace(row.sample, response=careless_trace(rng, scene, question)) for scene, question, row in drawn]
    assert mean(Accuracy()(samples)) < 0.65
    assert set(Format("think-answer")(samples)) == {1.0}
    named = [all(f"{thing.name}." in s.response for thing in q.evidence) for (_, q, _), s in zip(drawn, samples, strict=True)]
    assert mean(named) < (0.6 if task == "faithful" else 0.35)  # who trusts the caption may have seen it


def test_the_seeing_one_answers_and_names_what_it_sees(seeing):
    drawn = rows(60)
    samples = answers(seeing, [row for *_, row in drawn])
    named = [all(f"{thing.name}." in s.response for thing in q.evidence) for (_, q, _), s in zip(drawn, samples, strict=True)]
    assert mean(Accuracy()(samples)) > 0.8
    assert mean(named) > 0.8


def test_without_the_image_it_does_not_know(seeing):
    drawn = [row for *_, row in rows(60)]
    blank = [row.images[0].point(lambda value: 150) for row in drawn]
    assert mean(Accuracy()(answers(seeing, drawn, images=blank))) < 0.6


def test_the_careless_one_is_right_more_or_less_by_luck(careless):
    drawn = [row for *_, row in rows(40)]
    samples = answers(careless, drawn, count=4, temperature=1.0)
    assert 0.35 <= mean(Accuracy()(samples)) <= 0.7


@pytest.mark.parametrize("template", TEMPLATES)
def test_sampled_groups_start_well_formed_in_every_template(careless, template):
    samples = answers(careless, [row for *_, row in rows(4, template)], count=8, temperature=1.0)
    assert mean(Format(template)(samples)) > 0.8
