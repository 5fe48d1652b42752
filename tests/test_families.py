"""Every family of policies against its own model: what a group's forward says is what ordinary sequences say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from rewardlib.tokens import Tile, draw, painted  # noqa: E402
from tests.tiny_models import FAMILIES as CONFIGS  # noqa: E402
from tests.tiny_models import PROCESSORS, model  # noqa: E402
from train.engines import Sampling  # noqa: E402
from train.engines.local import rollout  # noqa: E402
from train.families import FAMILIES  # noqa: E402
from train.forward import forward, forward_all  # noqa: E402
from train.measures import ImageAttention, RegionAttention  # noqa: E402
from train.methods.vgpo import VisualFocus  # noqa: E402
from train.policy import Policy  # noqa: E402
from train.settings import Settings  # noqa: E402

BOX = (20.0, 10.0, 90.0, 60.0)
LENGTHS = (5, 1, 9, 3)
BROKEN_UP = {"internvl", "llava_onevision", "smolvlm"}  # into tiles


def picture(size=(150, 70), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def ask(text, images=1):
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}]


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def made(family):
    return Policy(model(CONFIGS[family]()), PROCESSORS[family]())


def prompts(made):
    """One image, two, none."""
    one, two = picture(), picture((90, 90), 1)
    return [
        made.encode(ask("how many?"), [one], draw(one.size, [BOX])),
        made.encode(ask("what differs?", 2), [one, two], draw(one.size, [BOX])),
        made.encode(ask("how are you?", 0), []),
    ]


def completions(seed=0):
    torch.manual_seed(seed)
    return [torch.randint(4, 100, (n,)) for n in LENGTHS]


def ordinary(made, prompt, completion):
    """What transformers' model makes of the sequence by itself."""
    ids = torch.cat([prompt.ids, completion])[None]
    types = (ids == made.family.image_token).int()
    named = {"gemma3": "token_type_ids"}.get(made.family.model_type, "mm_token_type_ids")
    extra = {named: types} if prompt.images and made.family.model_type not in BROKEN_UP else {}
    return made.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **extra, **prompt.images)


def of_completion(output, completion):
    logits = output.logits[0, -len(completion) - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, completion[:, None])[:, 0]


@pytest.mark.parametrize("sharing", [name for name, family in FAMILIES.items() if family.shares_prefix])
def test_prompts_in_one_row_say_what_each_says_by_itself(sharing):
    """With one image, two and none, and of other tiles; gradients of the tower too."""
    made = Policy(model(CONFIGS[sharing]()), PROCESSORS[sharing]())
    wide = made.encode(ask("how wide?"), [picture((300, 80), 2)])
    rows = [(prompt, completions(n)[: 4 - n]) for n, prompt in enumerate([*prompts(made), wide])]
    measures = [RegionAttention((0, -1)), ImageAttention((-1,)), VisualFocus()]
    together = forward_all(made, rows, measures=measures)
    alone = [forward(made, *row, measures=measures) for row in rows]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.completion_index, other.completion_index)
        assert torch.allclose(one.logprobs, other.logprobs, atol=1e-5)
        for name, values in one.measured.items():
            assert torch.allclose(values, other.measured[name], atol=1e-5, equal_nan=True), name
    gradients = []
    for outputs in (alone, together):
        made.model.zero_grad()
        sum(output.logprobs.sum() for output in outputs).backward()
        gradients.append({name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    scale = max(value.abs().max() for value in gradients[0].values())
    assert all(torch.allclose(value, gradients[1][name], atol=1e-5 * float(scale)) for name, value in gradients[0].items())


@torch.no_grad()
def test_log_probabilities_equal_those_of_ordinary_sequences(made):
    for prompt in prompts(made):
        scored = forward(made, prompt, completions())
        for n, completion in enumerate(completions()):
            expected = of_completion(ordinary(made, prompt, completion), completion)
            assert (scored.logprobs[scored.completion_index == n] - expected).abs().max() < 1e-4


def test_gradients_equal_those_of_ordinary_sequences(made):
    weights = [torch.randn(n) for n in LENGTHS]
    prompt = prompts(made)[0]

    def gradients(loss):
        made.model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}

    together = gradients(forward(made, prompt, completions()).logprobs @ torch.cat(weights))
    apart = gradients(sum(of_completion(ordinary(made, prompt, c), c) @ w for c, w in zip(completions(), weights, strict=True)))
    assert set(together) == set(apart)
    for name, gradient in apart.items():
        assert (together[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, name


@torch.no_grad()
def test_greedy_rollouts_equal_generate(made):
    asked = prompts(made)
    found = rollout(made, asked, 3, Sampling(max_tokens=10, temperature=0), [torch.Generator()] * 3)
    for prompt, group in zip(asked, found, strict=True):
        expected = []
        for _ in range(10):  # the likeliest token of an ordinary forward, again and again
            scores = ordinary(made, prompt, torch.tensor(expected, dtype=torch.long)).logits[0, -1]
            expected.append(int(scores.index_fill(0, made.suppressed, -torch.inf).argmax()))
            if expected[-1] in made.ends:
                break
        assert [row.tolist() for row in group] == [expected] * 3


@torch.no_grad()
def test_sampled_completions_end_and_hold_no_sign_of_an_image(made):
    made.ends = torch.arange(4, 20)  # many signs of an end, so that even a random model ends
    sampling = Sampling(max_tokens=30, temperature=5.0)
    (group,) = rollout(made, prompts(made)[:1], 40, sampling, [torch.Generator().manual_seed(0)])
    assert len({len(row) for row in group}) > 3
    for row in group:
        assert len(row) == 30 or row[-1] in made.ends
        assert not torch.isin(row, made.suppressed).any()
        assert not torch.isin(row[:-1], made.ends).any()


@torch.no_grad()
def test_attention_equals_that_of_eager_attention(made, family):
    eager = Policy(model(CONFIGS[family](), attention="eager"), PROCESSORS[family]())
    eager.model.get_decoder().set_attn_implementation("eager")
    prompt, layers = prompts(made)[0], [-1]
    scored = forward(made, prompt, completions(), measures=[RegionAttention(layers), ImageAttention(layers)])
    for n, completion in enumerate(completions()):
        ids = torch.cat([prompt.ids, completion])[None]
        types = (ids == made.family.image_token).int()
        named = {"gemma3": "token_type_ids"}.get(family, "mm_token_type_ids")
        extra = {} if family in BROKEN_UP else {named: types}
        output = eager.model(input_ids=ids, use_cache=False, output_attentions=True, **extra, **prompt.images)
        seen = output.attentions[-1][0].mean(dim=0)[-len(completion) :, : len(prompt.ids)]
        own = scored.completion_index == n
        assert torch.allclose(scored.measured["attention"][own][:, 0], seen @ prompt.region, atol=1e-5)
        assert torch.allclose(scored.measured["image_attention"][own], seen[:, prompt.image], atol=1e-5)


@torch.no_grad()
def test_no_score_depends_on_which_completions_go_together(made):
    prompt, group = prompts(made)[0], completions()
    measures = [RegionAttention(), VisualFocus()]
    whole = forward(made, prompt, group, measures=measures)
    for part in ([2], [3, 1], [1, 0, 3, 2]):
        some = forward(made, prompt, [group[i] for i in part], measures=measures)
        for j, i in enumerate(part):
            mine, same = some.completion_index == j, whole.completion_index == i
            assert torch.allclose(some.logprobs[mine], whole.logprobs[same], atol=1e-5)
            for name in ("attention", "visual_focus"):
                assert torch.allclose(some.measured[name][mine], whole.measured[name][same], atol=1e-5)


def test_what_a_family_says_of_its_images(made):
    prompt = prompts(made)[0]
    assert int(prompt.image.sum()) > 0
    assert 0 < float(prompt.region.sum()) < int(prompt.image.sum())
    assert len(made.family.sizes_seen(prompt.images, prompt.pictures)) == 1
    assert all(side > 0 for side in made.family.box_space(prompt.images, prompt.pictures))
    assert sum(p.numel() for p in made.family.tower.parameters()) > 0
    assert len(made.family.blocks) >= 4
    assert made.family.image_token in made.suppressed


def test_encoding_images_first_changes_nothing(made):
    assert made.family.takes_features
    prompt = prompts(made)[1]
    with torch.no_grad():
        kept = made.encode_images(prompt)
        assert torch.allclose(forward(made, kept, completions()).logprobs, forward(made, prompt, completions()).logprobs, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Pictures of what tokens hold


def test_one_grid_is_painted_as_it_is():
    tile = Tile((0, 0, 40, 20), np.array([[1, 2], [3, 4]]))
    values = np.arange(6, dtype=np.float32)
    assert painted([tile], values, (40, 20)).tolist() == [[1, 2], [3, 4]]


def test_tiles_and_thumbnail_are_laid_over_each_other():
    left, right = Tile((0, 0, 20, 20), np.array([[0, 1], [2, 3]])), Tile((20, 0, 40, 20), np.array([[4, 5], [6, 7]]))
    thumbnail = Tile((0, 0, 40, 20), np.array([[8, 9], [10, 11]]))
    values = np.array([1, 1, 1, 1, 3, 3, 3, 3, 8, 8, 8, 8], np.float32)
    amounts = painted([left, right, thumbnail], values, (40, 20), amounts=True)
    assert amounts.shape == (2, 4)
    assert amounts.sum() == pytest.approx(values.sum())
    assert amounts[0].tolist() == [5, 5, 7, 7]
    assert painted([left, right, thumbnail], values, (40, 20))[0].tolist() == [4.5, 4.5, 5.5, 5.5]
    assert replace(left, positions=left.positions).box == left.box


def test_prompts_are_not_put_together_where_completions_are_sequences_of_their_own(tmp_path, monkeypatch):
    """Said before anything is sampled."""
    import train.loop as loop

    made = Policy(model(CONFIGS["gemma3"]()), PROCESSORS["gemma3"]())
    monkeypatch.setattr(loop, "load_policy", lambda settings, device: made)
    rows = [{"id": str(n), "question": "How many?", "answer": "4"} for n in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(data=str(tmp_path / "rows.jsonl"), out=tmp_path / "run", tokens_per_forward=100, device="cpu", trackers=())
    with pytest.raises(ValueError, match="--tokens-per-forward: the completions of gemma3"):
        loop.train(settings)
