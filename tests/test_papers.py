"""The field's methods, each against a second implementation written from its formulas alone (``tests.oracles``), in loops."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tests.oracles import cgpo, dyco, ease, gdpo, noisyrollout, pepo, pgpo, top_entropy, tor  # noqa: E402
from tests.test_train_core import policy  # noqa: E402
from train.data import to_row  # noqa: E402
from train.divergence import kl_to_reference  # noqa: E402
from train.engines.local import LocalEngine  # noqa: E402
from train.limits import all_within  # noqa: E402
from train.loop import make_methods  # noqa: E402
from train.methods import METHODS, field_of  # noqa: E402
from train.methods.base import Method, Scores, Tokens  # noqa: E402
from train.methods.cgpo import CGPO  # noqa: E402
from train.methods.dyco_rl import DyCoRL, alignment, fisher_rao  # noqa: E402
from train.methods.ease import EASE, EvidenceDivergence, divergence, evenly_spaced, gaussian_mixture  # noqa: E402
from train.methods.gdpo import GDPO  # noqa: E402
from train.methods.noisyrollout import Noised, NoisyRollout, signal_left  # noqa: E402
from train.methods.othink_mr1 import OThinkMR1  # noqa: E402
from train.methods.pepo import PEPO  # noqa: E402
from train.methods.pgpo import PGPO  # noqa: E402
from train.methods.top_entropy import TopEntropy  # noqa: E402
from train.methods.tor import ToR, nucleus_entropy  # noqa: E402
from train.methods.visionary_r1 import VisionaryR1  # noqa: E402
from train.plan import OneProcess, Plan  # noqa: E402
from train.rewards import needs_of  # noqa: E402
from train.sampling import Sampler  # noqa: E402
from train.settings import Settings  # noqa: E402
from train.views import EVIDENCE, NoImages, Unattended  # noqa: E402

SEEDS = range(4)
LENGTHS = [(5, 1, 7, 3), (2, 9), (4, 4, 4, 1)]


def group(seed, lengths, views=(), measured=(), rewards=()):
    """Scores of a group, and advantages of its tokens."""
    draw = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    count = len(index)
    scores = Scores(
        index,
        -3 * torch.rand(count, generator=draw),
        2 * torch.rand(count, generator=draw),
        {view: -3 * torch.rand(count, generator=draw) for view in views},
        {name: torch.rand(count, generator=draw) for name in measured},
        {name: torch.randint(0, 3, (len(lengths),), generator=draw).double() for name in rewards},
        {name: 0.5 + n for n, name in enumerate(rewards)},
    )
    return scores, torch.randn(len(lengths), generator=draw)[index]


def batch(seed, **wants):
    """Three groups of different sizes: their scores, and their advantages."""
    pairs = [group(10 * seed + n, lengths, **wants) for n, lengths in enumerate(LENGTHS)]
    return [scores for scores, _ in pairs], [own for _, own in pairs]


def nested(scores, values):
    """Values (N,) of a group's tokens, by completion."""
    return [values[scores.completion_index == n].tolist() for n in range(len(scores.lengths))]


def flat(lists):
    return torch.tensor([value for own in lists for value in own])


def assert_factors(method, scores, advantages, wanted, **tolerance):
    """The method multiplies every group's advantages by ``wanted``, by completion."""
    shaped = method.advantages(list(advantages), scores, OneProcess())
    for own, after, factors in zip(advantages, shaped, wanted, strict=True):
        assert torch.allclose(after, own * flat(factors), **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


# ------------------------------------------------------------------------------------------ a second view


@pytest.mark.parametrize("seed", SEEDS)
def test_tor(seed):
    scores, advantages = batch(seed, views=[NoImages()], measured=["nucleus_entropy"])
    for score in scores:  # most tokens are not in doubt at all
        score.measured["nucleus_entropy"][score.measured["nucleus_entropy"] < 0.6] = 0.0
    entropy = [nested(score, score.measured["nucleus_entropy"]) for score in scores]
    own = [nested(score, score.logprobs) for score in scores]
    blind = [nested(score, score.views[NoImages()]) for score in scores]
    assert_factors(ToR(), scores, advantages, tor.tor_weights(own, blind, entropy, ties="all", positive_only=True))


def test_tors_entropy_is_that_of_the_nucleus():
    logits = 3 * torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    wanted = [tor.top_p_entropy(row.tolist(), 0.95) for row in logits.double().softmax(dim=-1)]
    assert nucleus_entropy(logits.double(), 0.95).tolist() == pytest.approx(wanted, abs=1e-9)
    assert nucleus_entropy(torch.tensor([[20.0, 0.0, 0.0]]), 0.95).tolist() == [0.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_pgpo(seed):
    scores, advantages = batch(seed, views=[Unattended()])
    own = [nested(score, score.logprobs) for score in scores]
    blind = [nested(score, score.views[Unattended()]) for score in scores]
    assert_factors(PGPO(), scores, advantages, pgpo.pgpo_weights(pgpo.dependence(own, blind)))


def test_pgpo_where_all_tokens_depend_alike():
    scores, own = group(0, (3, 1), views=[Unattended()])
    scores.views[Unattended()].copy_(scores.logprobs - 0.5)
    (shaped,) = PGPO().advantages([own], [scores], OneProcess())
    assert torch.allclose(shaped, own)


@pytest.mark.parametrize("seed", SEEDS)
def test_cgpo(seed):
    scores, advantages = batch(seed, views=[EVIDENCE])
    pairs = [(nested(s, s.logprobs), nested(s, s.views[EVIDENCE])) for s in scores]
    dependence = [[cgpo.k3_dependence(p, q) for p, q in zip(*pair, strict=True)] for pair in pairs]
    entropy = [nested(score, score.entropy) for score in scores]
    assert_factors(CGPO(), scores, advantages, cgpo.cgpo_factors(dependence, entropy))


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 2 / 3, 0.8, 0.95])
def test_noisyrollouts_noise_falls(progress):
    assert replace(NoisyRollout(), progress=progress).step == noisyrollout.noise_step(progress)


@pytest.mark.parametrize("step", [0, 1, 250, 499])
def test_noisyrollouts_noise(step):
    assert signal_left(step) == pytest.approx(noisyrollout.alpha_bar(step), rel=1e-9)
    pixels = np.random.default_rng(0).random((8, 6, 3))
    noise = np.random.default_rng(1).standard_normal(pixels.shape)
    shown = SimpleNamespace(pixels=[pixels], with_pixels=lambda images: images)
    (noised,) = Noised(step).prompt(shown, np.random.default_rng(1))
    assert np.allclose(noised.clip(0, 1), noisyrollout.add_noise(pixels, step, noise), atol=1e-9)


@pytest.mark.parametrize("count", [2, 5, 12])
def test_noisyrollout_samples_half_of_the_completions_from_noise(count):
    under = NoisyRollout().sampled_under(count)
    assert under[: count - count // 2] == [None] * (count - count // 2)
    assert under[count - count // 2 :] == [Noised(NoisyRollout().step)] * (count // 2)


# ------------------------------------------------------------------------------------------ similarity and attention


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_pepo(seed, progress):
    scores, advantages = batch(seed, measured=["image_similarity"])
    wanted = []
    for score in scores:
        pairs = zip(nested(score, score.measured["image_similarity"]), nested(score, score.entropy), strict=True)
        wanted.append([[1 - progress + progress * w for w in pepo.pepo_weights(*pair)] for pair in pairs])
    assert_factors(replace(PEPO(), progress=progress), scores, advantages, wanted)


def attention_rows(seed, tokens, image, text):
    """Attention of a completion's tokens, each on the image, the text behind it and the tokens before its own predecessor."""
    draw = np.random.default_rng(seed)
    rows = draw.random((tokens, image + text + tokens)) ** 3
    for t in range(tokens):
        rows[t, image + text + t :] = 0  # what predicts token t sees the t tokens before it
    return rows / rows.sum(axis=1, keepdims=True) * 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_dyco_rl_reads_attention_as_its_formula_does(seed):
    rows = attention_rows(seed, 9, 6, 4)
    image = torch.tensor([True] * 6 + [False] * 4)
    read = alignment(torch.tensor(rows), image, 0.05)
    wanted = dyco.dyco_tokens([row[:6].tolist() for row in rows], [row[6 : 10 + t].tolist() for t, row in enumerate(rows)])
    for value, (_, _, role, s) in zip(read[1:].tolist(), wanted, strict=True):
        assert (role == dyco.NEUTRAL) == math.isnan(value)
        if role != dyco.NEUTRAL:
            assert value == pytest.approx(s, rel=1e-5)
    assert math.isnan(read[0])


def test_fisher_rao():
    for seed in SEEDS:
        p, q = np.random.default_rng(seed).random((2, 7))
        assert fisher_rao(torch.tensor(p), torch.tensor(q)).item() == pytest.approx(dyco.fisher_rao(p.tolist(), q.tolist()), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_dyco_rls_factors(seed):
    draw = random.Random(seed)
    lengths = [3, 80, 61, 59, 70]
    tokens = [[draw.random() if draw.random() < 0.7 else math.nan for _ in range(n)] for n in lengths]
    tokens[1] = [math.nan] * 80  # all of them neutral
    index = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    sums = [[s for s in own if not math.isnan(s)] for own in tokens]
    scores = [1 / (1 + math.exp(-sum(own) / len(own))) if own else 0.5 for own in sums]
    wanted = dyco.dyco_factors(scores, lengths)
    assert DyCoRL().factors(flat(tokens), index).tolist() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (4, 4), (1, 6)])
def test_eases_target(rows, columns):
    boxes = [(0.1, 0.2, 0.5, 0.7), (0.6, 0.0, 0.9, 0.3)]
    in_tokens = [(x0 * columns, y0 * rows, x1 * columns, y1 * rows) for x0, y0, x1, y1 in boxes]
    prompt = SimpleNamespace(region=torch.zeros(1), image=torch.ones(rows * columns, dtype=torch.bool), boxes=boxes)
    target = EvidenceDivergence(64, 0.25, 0.1).target(prompt, (rows, columns))
    assert target.tolist() == pytest.approx(ease.ease_target(rows, columns, in_tokens), rel=1e-4, abs=1e-6)
    assert gaussian_mixture(torch.tensor(boxes), rows, columns, 0.25).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_eases_divergence(seed):
    draw = np.random.default_rng(seed)
    attention, target = draw.random((4, 7)), draw.random(7)
    target = target / target.sum()
    wanted = [ease.ease_token_loss(row.tolist(), target.tolist()) for row in attention]
    assert divergence(torch.tensor(attention), torch.tensor(target)).tolist() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("length", "limit"), [(1, 4), (4, 4), (5, 4), (100, 64), (129, 64)])
def test_ease_chooses_tokens_evenly(length, limit):
    index = torch.tensor([0, 0] + [1] * length)
    chosen = evenly_spaced(index, limit)
    assert chosen[:2].all()
    assert chosen[2:].nonzero()[:, 0].tolist() == ease.ease_positions(length, limit)


def test_ease_draws_only_responses_that_earn_something():
    index = torch.tensor([0, 0, 0, 1, 1])
    drawn = torch.tensor([1.0, math.nan, 3.0, 5.0, 7.0], requires_grad=True)
    tokens = Tokens(index, torch.zeros(5), torch.zeros(5), {}, {"evidence_divergence": drawn}, torch.tensor([0.5, 0.4]), None)
    penalty = EASE(weight=0.1).penalty(tokens)
    # the mean over the chosen tokens of a completion, as the mean over all of its tokens
    assert penalty[:3].mean().item() == pytest.approx(0.1 * (1 + 3) / 2)
    assert penalty[3:].tolist() == [0, 0]
    penalty.sum().backward()
    assert drawn.grad[[0, 2]].tolist() == pytest.approx([0.15, 0.15])
    assert drawn.grad[3:].tolist() == [0, 0]


# ------------------------------------------------------------------------------------------ rewards, entropy, divergence


@pytest.mark.parametrize("seed", SEEDS)
def test_gdpo(seed):
    scores, advantages = batch(seed, rewards=["a", "b", "c"])
    scores[0].rewards["b"][1] = math.nan
    scores[1].rewards["a"][:] = math.nan
    for rewards in scores[2].rewards.values():
        rewards[0] = math.nan  # nobody could score it
    rewards = {name: [None if math.isnan(v) else v for s in scores for v in s.rewards[name].tolist()] for name in "abc"}
    places = [n for n, score in enumerate(scores) for _ in score.lengths]
    wanted = gdpo.gdpo_advantages(rewards, scores[0].weights, places, variant="trl")
    shaped = GDPO().advantages(advantages, scores, OneProcess())
    of_completions = [
        after[score.completion_index == n][0].item() for after, score in zip(shaped, scores, strict=True) for n in range(len(score.lengths))
    ]
    assert of_completions == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.37, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_top_entropy(seed, share):
    scores, advantages = batch(seed)
    rows = [row for score in scores for row in nested(score, score.entropy)]
    mask = iter(top_entropy.top_entropy_mask(rows, share))
    wanted = [[[float(m) for m in next(mask)] for _ in score.lengths] for score in scores]
    assert_factors(TopEntropy(share=share), scores, advantages, wanted)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.99])
def test_the_weight_of_the_divergence_changes_on_the_way(progress):
    logprobs, ref = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -0.5])
    tokens = Tokens(torch.tensor([0, 0]), logprobs, logprobs, {}, {}, torch.zeros(1), ref)
    falling = replace(VisionaryR1(), progress=progress).penalty(tokens)
    rising = replace(OThinkMR1(kl_first=0.01, kl_last=0.05), progress=progress).penalty(tokens)
    k3 = torch.tensor([math.exp(d) - d - 1 for d in (-0.5, 1.5)])
    assert torch.allclose(kl_to_reference(logprobs, ref), k3)
    assert torch.allclose(falling, 0.02 * (1 + math.cos(math.pi * progress)) * k3)
    assert torch.allclose(rising, (0.01 + 0.04 * progress) * k3)


# ------------------------------------------------------------------------------------------ all of them


class Processes(OneProcess):
    """One of several processes that run a method side by side: values are gathered as they would be."""

    def __init__(self, gathered):
        self.gathered, self.calls = gathered, 0

    def gather(self, parts):
        self.calls += 1
        return self.gathered[self.calls - 1]


class Listening(OneProcess):
    """Remembers what a process gives."""

    def __init__(self):
        self.given = []

    def gather(self, parts):
        self.given.append(super().gather(parts))
        return self.given[-1]


BATCHED = [name for name, method in METHODS.items() if method.sees_batch]


@pytest.mark.parametrize("name", BATCHED)
def test_two_processes_shape_what_one_does(name):
    method = METHODS[name]()
    wants = {"views": method.views(), "measured": [measure.name for measure in method.measures()], "rewards": ["a", "b"]}
    scores, advantages = batch(3, **wants)
    whole = Listening()
    together = method.advantages(list(advantages), scores, whole)
    for part in (slice(0, 1), slice(1, 3), slice(0, 0)):
        alone = method.advantages(list(advantages[part]), scores[part], Processes(whole.given))
        for mine, theirs in zip(alone, together[part], strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_groups_changes_nothing(name):
    method = replace(METHODS[name](), progress=0.5)
    measured = [measure.name for measure in method.measures()]
    scores, advantages = batch(5, views=method.views(), measured=measured, rewards=["a", "b"])
    there = method.advantages(list(advantages), scores, OneProcess())
    back = method.advantages(list(advantages)[::-1], scores[::-1], OneProcess())
    for one, other in zip(there, back[::-1], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


# ToR has a share of all tokens, whatever they show.
BY_IMAGE = [name for name, method in METHODS.items() if method().requires & {"image", "evidence_image"} and name != "tor"]


@pytest.mark.parametrize("name", BY_IMAGE)
def test_a_row_that_shows_nothing_is_learnt_from_as_by_grpo(name):
    """No other view of it, nothing measured of an image."""
    method = METHODS[name]()
    scores, own = group(0, (4, 2), measured=[measure.name for measure in method.measures()])
    for values in scores.measured.values():
        values.fill_(math.nan)
    (shaped,) = method.advantages([own], [scores], OneProcess())
    assert torch.equal(shaped, own)


def test_equal_rewards_teach_nothing_under_gdpo_exactly():
    scores, advantages = batch(1, rewards=["a", "b"])
    for rewards in scores[1].rewards.values():
        rewards.fill_(0.3)
    shaped = GDPO().advantages(advantages, scores, OneProcess())
    assert not shaped[1].any()
    assert shaped[0].any()


def test_completions_come_in_the_order_in_which_views_are_given():
    """However views alternate, no two completions of a prompt share their random numbers."""

    @dataclass(frozen=True)
    class Alternating(Method):
        name = "alternating"

        def sampled_under(self, count):
            return [Noised(400) if n % 2 else None for n in range(count)]

    made = policy("qwen2_5_vl")
    row = to_row({"image": Image.effect_noise((112, 84), 60).convert("RGB"), "question": "how many?", "answer": "4"}, "boxed")
    settings = Settings(data="", num_generations=4, max_tokens=12, device="cpu")
    plan = Plan(settings, [], [Alternating()])
    (group,) = Sampler(made, LocalEngine(made), plan).sample([row], [0], [0])
    (plain,) = Sampler(made, LocalEngine(made), Plan(replace(settings, num_generations=2), [])).sample([row], [0], [0])
    texts = [ids.tolist() for ids in group.completions]
    assert len({tuple(ids) for ids in texts}) == 4
    assert texts[::2] == [ids.tolist() for ids in plain.completions]


def test_two_methods_that_measure_differently_under_one_name_are_refused():
    plan = Plan(Settings(data=""), [], [ToR(), ToR(top_p=0.5)])
    with pytest.raises(ValueError, match="want nucleus_entropy measured differently"):
        plan.measures  # noqa: B018
    assert len(Plan(Settings(data=""), [], [ToR(), ToR()]).measures) == 1


def test_a_need_or_a_label_that_nobody_knows_is_said():
    reward = SimpleNamespace(name="odd", needs={"atention"}, requires={"images"})
    with pytest.raises(ValueError, match="the reward odd needs 'atention', which nobody measures; there are attention, "):
        Plan(Settings(data=""), [reward]).needs  # noqa: B018
    with pytest.raises(ValueError, match="requires 'images', which is no label; there are answer, "):
        needs_of([reward])


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        (EASE(tokens=0), "--ease.tokens 0: give 1 or more"),
        (PGPO(tau=1.0), "--pgpo.tau 1.0: give more than 0 and less than 1"),
        (ToR(reasoning=0.0), "--tor.reasoning 0.0: give more than 0 and at most 1"),
        (ToR(reasoning=2.0), "--tor.reasoning 2.0"),
        (PEPO(temperature=0.0), "--pepo.temperature 0.0: give a number above 0"),
        (NoisyRollout(noise=2000), "--noisyrollout.noise 2000: give 0 or more, and less than 1000"),
        (CGPO(scale=math.nan), "--cgpo.scale nan"),
        (OThinkMR1(kl_last=math.inf), "--othink-mr1.kl-last inf"),
        (EASE(width=0.0), "--ease.width 0.0"),
    ],
)
def test_nonsense_of_a_method_is_refused(method, flag):
    name = field_of(method.name)
    settings = Settings(data="", methods=(method.name,), method=replace(Settings(data="").method, **{name: method}))
    with pytest.raises(ValueError, match=re.escape(flag)):
        make_methods(settings)


@pytest.mark.parametrize("name", METHODS)
def test_the_values_of_every_method_have_limits_and_keep_them(name):
    method = METHODS[name]()
    assert {*method.limits} == {each.name for each in fields(method)} - {"progress"}
    all_within(method, method.limits)


def test_noise_is_the_same_for_all_completions_of_a_prompt():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    shown = SimpleNamespace(pixels=[np.asarray(image) / 255], with_pixels=lambda images: images)
    first, second = (Noised(100).prompt(shown, np.random.default_rng(4))[0] for _ in range(2))
    assert np.array_equal(first, second)
