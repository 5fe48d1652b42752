"""What papers change of GRPO, each against a second implementation written from its formulas, in loops and on padded batches."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from train.flat import completion_mean, top_share  # noqa: E402
from train.methods import METHODS, RECIPES  # noqa: E402
from train.methods.base import Scores, Tokens, overrides  # noqa: E402
from train.methods.dependence import k3  # noqa: E402
from train.methods.papo import PAPO  # noqa: E402
from train.methods.vppo import VPPO  # noqa: E402
from train.plan import OneProcess  # noqa: E402
from train.views import PATCH, blacken, random_patches  # noqa: E402

LOOP = ["loop", "step", "plan", "forward", "measures", "sampling", "asking", "batch", "losses", "record", "missing", "packing"]
LOOP += ["engines/__init__", "engines/local"]
ROOT = Path(__file__).resolve().parents[1]


def group(seed, lengths=(5, 1, 7, 3), spread=1.0):
    """Scores of a group, and advantages of its tokens."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    logprobs = -torch.rand(len(index), generator=generator)
    masked = logprobs + spread * torch.randn(len(index), generator=generator)
    advantages = torch.randn(len(lengths), generator=generator)[index]
    entropy = torch.rand(len(index), generator=generator)
    views = dict.fromkeys((PAPO().view, VPPO().view), masked)
    return Scores(index, logprobs, entropy, views, {}, {}, {}), advantages


def tokens_of(scores, logprobs, views=None):
    """The same tokens as they are learnt from."""
    views = scores.views if views is None else views
    rewards = torch.zeros(len(scores.lengths))
    return Tokens(scores.completion_index, logprobs, scores.entropy, views, {}, rewards, None)


def masked_of(scores):
    return scores.views[PAPO().view]


@pytest.mark.parametrize(
    "name",
    [
        "loop",
        "step",
        "plan",
        "forward",
        "measures",
        "sampling",
        "asking",
        "batch",
        "losses",
        "record",
        "missing",
        "packing",
        "engines/local",
    ],
)
def test_the_loop_knows_no_method_by_name(name):
    text = (ROOT / "train" / f"{name}.py").read_text().lower()
    for method in (*METHODS, "sayo", "perception-r1", "faithful-mr1"):
        assert not re.search(rf"\b{method}\b", text), f"train/{name}.py names {method}"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_recipe(name):
    assert RECIPES[name].methods[0] == name
    assert METHODS[name].name == name


# ------------------------------------------------------------------------------------------ k3, shares and means


def slow_k3(logprob, other):
    difference = min(20.0, max(-20.0, other - logprob))
    return min(10.0, math.exp(difference) - difference - 1)


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_k3(spread):
    scores, _ = group(0, spread=spread)
    wanted = [slow_k3(*pair) for pair in zip(scores.logprobs.tolist(), masked_of(scores).tolist(), strict=True)]
    assert k3(scores.logprobs, masked_of(scores)).tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_top_share(share, seed):
    scores, _ = group(seed)
    values, index = scores.entropy, scores.completion_index
    wanted = []
    for completion in range(4):
        own = values[index == completion].tolist()
        count = math.ceil(round(share * len(own), 9))
        best = sorted(range(len(own)), key=lambda i, own=own: (-own[i], i))[:count]
        wanted += [i in best for i in range(len(own))]
    assert top_share(values, index, share).tolist() == wanted


def test_top_share_among_equals_takes_the_earlier_ones():
    index = torch.tensor([0, 0, 0, 0, 1, 1])
    assert top_share(torch.zeros(6), index, 0.5).tolist() == [True, True, False, False, True, False]


def test_completion_mean():
    scores, _ = group(1)
    wanted = [scores.entropy[scores.completion_index == i].mean().item() for i in range(4)]
    assert completion_mean(scores.entropy, scores.completion_index).tolist() == pytest.approx(wanted)


# ------------------------------------------------------------------------------------------ PAPO


@pytest.mark.parametrize(("weight", "cost"), [(0.01, 0.0), (0.02, 0.05), (0.0, 0.03)])
def test_papo_as_its_formula_has_it(weight, cost):
    scores, _ = group(2)
    logprobs = scores.logprobs.clone().requires_grad_()
    penalty = PAPO(perception_kl=weight, entropy_cost=cost).penalty(tokens_of(scores, logprobs))
    pairs = list(zip(scores.logprobs.tolist(), masked_of(scores).tolist(), strict=True))
    assert penalty.tolist() == pytest.approx([-weight * slow_k3(p, q) - cost * p for p, q in pairs], rel=1e-4, abs=1e-6)
    penalty.sum().backward()
    slopes = [(1 - math.exp(q - p)) * (slow_k3(p, q) < 10) for p, q in pairs]
    assert logprobs.grad.tolist() == pytest.approx([-weight * slope - cost for slope in slopes], rel=1e-4, abs=1e-6)


def test_papo_on_a_row_without_image_costs_entropy_alone():
    scores, _ = group(3)
    penalty = PAPO(entropy_cost=0.5).penalty(tokens_of(scores, scores.logprobs, {}))
    assert torch.equal(penalty, -0.5 * scores.logprobs)


# ------------------------------------------------------------------------------------------ VPPO


def released_vppo(batches, kept, lowest):
    """The released code on a padded batch of all completions, its minimum, maximum and mean over that whole batch."""
    lengths = [len(logprobs) for logprobs, _, _ in batches]
    width = max(lengths)
    shape = (len(batches), width)
    old, aug, advantages, mask = (torch.zeros(shape) for _ in range(4))
    for n, (logprobs, masked, own) in enumerate(batches):
        old[n, : lengths[n]], aug[n, : lengths[n]], advantages[n, : lengths[n]], mask[n, : lengths[n]] = logprobs, masked, own, 1
    difference = (aug - old).clamp(-20.0, 20.0)
    low_var_kl = (difference.exp() - difference - 1).clamp(0.0, 10.0)
    valid = mask.sum(dim=1)
    scores = (low_var_kl * mask).sum(dim=1) / valid
    order = low_var_kl.masked_fill(mask == 0, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    ranks = torch.arange(width).expand(shape) < torch.ceil(valid * kept - 1e-6)[:, None]
    top = torch.zeros(shape, dtype=torch.bool).scatter_(1, order, ranks)
    factor = torch.ones(len(batches))
    if scores.max() - scores.min() > 1e-6:
        normal = (scores - scores.min()) / (scores.max() - scores.min())
        highest = lowest + (1.0 - lowest) / (normal.mean() + 1e-8)
        factor = lowest + normal * (highest - lowest)
    shaped = advantages * factor[:, None] * top
    return torch.cat([shaped[n, :length] for n, length in enumerate(lengths)])


def split(scores, values):
    return [values[scores.completion_index == i] for i in range(len(scores.lengths))]


@pytest.mark.parametrize("kept", [0.2, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_vppo_as_released_but_over_the_whole_batch(kept, seed):
    groups = [group(10 * seed + n, lengths) for n, lengths in enumerate([(5, 1, 7, 3), (2, 9), (4, 4, 4)])]
    method = VPPO(kept=kept)
    shaped = method.advantages([own for _, own in groups], [scores for scores, _ in groups], OneProcess())
    rows = []
    for scores, own in groups:
        parts = (split(scores, scores.logprobs), split(scores, masked_of(scores)), split(scores, own))
        rows += list(zip(*parts, strict=True))
    assert torch.allclose(torch.cat(shaped), released_vppo(rows, kept, method.lowest), rtol=1e-4, atol=1e-6)


def test_vppo_weighs_trajectories_by_one_on_average():
    groups = [group(n) for n in range(3)]
    ones = [torch.ones_like(own) for _, own in groups]
    shaped = VPPO(kept=1.0).advantages(ones, [scores for scores, _ in groups], OneProcess())
    factors = [completion_mean(values, scores.completion_index) for values, (scores, _) in zip(shaped, groups, strict=True)]
    assert torch.cat(factors).mean().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.cat(factors).min().item() == pytest.approx(0.9, abs=1e-5)


class Together(OneProcess):
    """Two processes: this one's values, and those that another gave."""

    def __init__(self, others):
        self.others = others

    def gather(self, parts):
        return torch.cat([*parts, self.others])


def test_vppo_in_two_processes_is_vppo_in_one():
    groups = [group(n) for n in range(4)]
    method = VPPO()
    whole = method.advantages([own for _, own in groups], [scores for scores, _ in groups], OneProcess())
    means = [completion_mean(k3(s.logprobs, masked_of(s)), s.completion_index) for s, _ in groups]
    for mine, others in (([0, 1], [2, 3]), ([2, 3], [0, 1])):
        across = Together(torch.cat([means[n] for n in others]))
        part = method.advantages([groups[n][1] for n in mine], [groups[n][0] for n in mine], across)
        for n, values in zip(mine, part, strict=True):
            assert torch.allclose(values, whole[n], atol=1e-6)


def test_rows_without_image_keep_their_advantages():
    (scores, own), (other, its) = group(5), group(6)
    bare = replace(scores, views={})
    shaped = VPPO().advantages([own, its], [bare, other], OneProcess())
    assert torch.equal(shaped[0], own)
    assert not torch.equal(shaped[1], its)


# ------------------------------------------------------------------------------------------ all of them


PENALTIES = [name for name, method in METHODS.items() if overrides(method, "penalty")]


def penalised(method):
    """A method's penalty on some tokens, summed, and its gradient."""
    scores, _ = group(7)
    logprobs = scores.logprobs.clone().requires_grad_()
    tokens = replace(
        tokens_of(scores, logprobs, dict.fromkeys(method.views(), masked_of(scores))),
        entropy=-logprobs * logprobs.exp(),
        measured={measure.name: logprobs.exp() for measure in method.live_measures()},
        rewards=torch.ones(len(scores.lengths)),
        ref_logprobs=masked_of(scores),
    )
    penalty = replace(method, progress=0.5).penalty(tokens).sum()
    penalty.backward()
    return penalty.item(), logprobs.grad


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_moves_the_policy(name):
    """A term whose gradient is zero would be a constant in the report: what changes the value changes the gradient."""
    method = METHODS[name]()
    value, gradient = penalised(method)
    assert gradient.abs().sum() > 0
    weights = 0
    for each in fields(method):
        changed, moved = penalised(replace(method, **{each.name: getattr(method, each.name) + 0.1}))
        if changed != value:
            assert not torch.equal(moved, gradient), (name, each.name)
            weights += 1
    assert weights


# ------------------------------------------------------------------------------------------ views


def test_patches_are_black_or_as_they_were():
    image = Image.fromarray(np.random.default_rng(0).integers(1, 255, (50, 61, 3), dtype=np.uint8))
    pixels = np.asarray(blacken(image, 0.6, np.random.default_rng(1)))
    black = 0
    for top in range(0, 50, PATCH):
        for left in range(0, 61, PATCH):
            here = (slice(top, top + PATCH), slice(left, left + PATCH))
            is_black = not pixels[here].any()
            black += is_black
            assert is_black or np.array_equal(pixels[here], np.asarray(image)[here])
    assert 8 < black < 19  # of twenty
    assert np.array_equal(pixels, np.asarray(blacken(image, 0.6, np.random.default_rng(1))))


@pytest.mark.parametrize(("share", "black"), [(0.0, False), (1.0, True)])
def test_shares_at_the_ends(share, black):
    image = Image.new("RGB", (30, 30), "white")
    assert (not np.asarray(blacken(image, share, np.random.default_rng(0))).any()) is black


def test_a_row_without_image_has_no_such_view():
    from train.data import to_row

    assert random_patches(0.5)(to_row({"question": "?", "answer": "4"}, "boxed"), np.random.default_rng(0)) is None
