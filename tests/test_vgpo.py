"""VGPO's factors against loops over tokens and trajectories (Eqs. 4 to 11), wherever a sample lies in a batch."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rewardlib.vgpo import compensate, focus_score, inter_factors, intra_factors, visual_advantages  # noqa: E402

SEEDS = range(5)
LENGTHS = [9, 4, 1, 24, 7, 10, 3]
GROUPS = [3, 8, 3, 3, 8, 5, 8]  # interleaved, of three, three and one
NAN = float("nan")

# ---------------------------------------------------------------------------------------------------------------------------------------
# The paper's formulas. A response is a list of numbers, one per token


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def gated(scores, gamma="0.5", kappa="0.2"):
    """Positions, from 0, of the top ``kappa`` of the last ``gamma`` (Eq. 6)."""
    tail = range(len(scores) - math.ceil(Fraction(gamma) * len(scores)), len(scores))
    if not tail:
        return []
    kth = sorted((scores[t] for t in tail), reverse=True)[max(1, math.floor(Fraction(kappa) * len(tail))) - 1]
    return [t for t in tail if scores[t] >= kth]


def compensated(scores, beta=0.3, gamma="0.5", kappa="0.2"):
    """Eq. 5, counting tokens from 1 to T."""
    gate = gated(scores, gamma, kappa)
    return [s * (1 + (t in gate) * beta * (t + 1) / len(scores)) for t, s in enumerate(scores)]


def less_mean(values):
    """Min-max, then the distance from the mean (Eqs. 7 and 8, 10 and 11)."""
    low, high = min(values), max(values)
    normal = [(v - low) / (high - low) if high > low else 0.0 for v in values]
    return [n - math.fsum(normal) / len(normal) for n in normal]


def clamped(value, limits):
    return value if limits is None else min(max(value, limits[0]), limits[1])


def inter_oracle(weights, groups, limits=None, per_token=False):
    """1 + phi of every trajectory (Eqs. 9 to 11)."""
    totals = [math.fsum(w) / (max(len(w), 1) if per_token else 1) for w in weights]
    found = []
    for i, group in enumerate(groups):
        siblings = [j for j, other in enumerate(groups) if other == group]
        found.append(clamped(1 + less_mean([totals[j] for j in siblings])[siblings.index(i)], limits))
    return found


def oracle(advantages, scores, groups, intra_clamp=None, inter_clamp=None, per_token=False, **settings):
    weights = [compensated(row, **settings) for row in scores]
    inter = inter_oracle(weights, groups, inter_clamp, per_token)
    return [
        [advantage * clamped(1 + psi, intra_clamp) * factor for psi in less_mean(row)] if row else []
        for advantage, row, factor in zip(advantages, weights, inter, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------------------------
# Responses in tensors


def responses(seed, lengths=LENGTHS):
    maker = torch.Generator().manual_seed(seed)
    return [torch.rand(length, generator=maker).tolist() for length in lengths]


def batch(rows, side="right", extra=0, fill=0.0):
    """Rows in one tensor, and its mask; ``fill`` is what stands on the padding."""
    width = max(map(len, rows)) + extra
    values, mask = torch.full((len(rows), width), fill), torch.zeros(len(rows), width, dtype=torch.bool)
    for b, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        values[b, span], mask[b, span] = torch.tensor(row), True
    return values, mask


def rows_of(values, mask):
    return [row[real].tolist() for row, real in zip(values, mask, strict=True)]


def flat(rows):
    return [value for row in rows for value in row]


LAYOUTS = {
    "right": {"side": "right"},
    "left": {"side": "left"},
    "more on the right": {"side": "right", "extra": 13},
    "more on the left": {"side": "left", "extra": 13},
    "large on padding": {"side": "right", "extra": 3, "fill": 7.0},
    "negative on padding": {"side": "left", "extra": 3, "fill": -7.0},
    "NaN on padding": {"side": "left", "extra": 3, "fill": NAN},
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Eq. 4


@pytest.mark.parametrize("seed", SEEDS)
def test_focus_score_is_the_cosine_moved_to_zero_and_one(seed):
    maker = torch.Generator().manual_seed(seed)
    hidden, image = torch.randn(3, 5, 8, generator=maker), torch.randn(3, 8, generator=maker)
    expected = [[0.5 * (cosine(hidden[b, t].tolist(), image[b].tolist()) + 1) for t in range(5)] for b in range(3)]
    assert flat(focus_score(hidden, image).tolist()) == pytest.approx(flat(expected), abs=1e-6)


def test_focus_score_of_equal_opposite_and_perpendicular_states():
    image = torch.tensor([[3.0, 4.0]])
    hidden = torch.stack([image[0], -2 * image[0], torch.tensor([-4.0, 3.0]), torch.zeros(2)])[None]
    assert focus_score(hidden, image)[0].tolist() == pytest.approx([1.0, 0.0, 0.5, 0.5])


def test_focus_score_of_bfloat16_states_is_computed_in_full_precision():
    hidden, image = torch.randn(2, 4, 64).bfloat16(), torch.randn(2, 64).bfloat16()
    found = focus_score(hidden, image)
    assert found.dtype == torch.float32
    assert found.equal(focus_score(hidden.float(), image.float()))


def test_focus_score_sees_one_sample_at_a_time():
    hidden, image = torch.randn(6, 7, 16), torch.randn(6, 16)
    whole = focus_score(hidden, image)
    alone = torch.cat([focus_score(hidden[b : b + 1], image[b : b + 1]) for b in range(6)])
    assert (whole - alone).abs().max() < 1e-6


# ---------------------------------------------------------------------------------------------------------------------------------------
# Eqs. 5 and 6


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 8).map(lambda n: n / 8), max_size=24), min_size=1, max_size=4).filter(any),
    st.sampled_from([("0.3", "0.5", "0.2"), ("0.5", "1", "0.1"), ("1", "0.25", "0.5"), ("0.3", "0.5", "1"), ("0.3", "0", "0.2")]),
)
def test_compensation_is_the_formula(rows, constants):
    beta, gamma, kappa = constants
    scores, mask = batch(rows)
    found = compensate(scores, mask, float(beta), float(gamma), float(kappa))
    expected = [compensated(row, float(beta), gamma, kappa) for row in rows]
    assert flat(rows_of(found, mask)) == pytest.approx(flat(expected), abs=1e-6)
    assert found[~mask].eq(0).all()


def test_gate_opens_for_a_tenth_of_the_tokens_and_late_ones_only():
    scores, mask = batch([[1.0 - t / 100 for t in range(40)]])
    raised = (compensate(scores, mask) != scores)[0]
    assert raised.nonzero().flatten().tolist() == [20, 21, 22, 23]
    assert (compensate(scores, mask) / scores)[0, 23].item() == pytest.approx(1 + 0.3 * 24 / 40)


def test_last_token_of_a_response_gets_all_of_beta():
    for length in (1, 2, 3, 8):
        scores, mask = batch([[t + 1.0 for t in range(length)]])
        assert (compensate(scores, mask) / scores)[0, -1].item() == pytest.approx(1.3)


def test_tied_scores_pass_the_gate_together():
    scores, mask = batch([[0.9, 0.5, 0.5, 0.2, 0.5, 0.1, 0.5, 0.5]])
    assert (compensate(scores, mask) != scores)[0].tolist() == [False] * 4 + [True, False, True, True]


@pytest.mark.parametrize("gamma", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"])
def test_tail_is_the_last_gamma_of_the_tokens(gamma):
    """Rounded up, but never by the rounding error of gamma times T."""
    lengths = list(range(1, 101))
    scores, mask = batch([[1.0] * length for length in lengths])  # all tied, so the gate opens for the whole tail
    found = (compensate(scores, mask, gamma=float(gamma)) > 1).sum(dim=1).tolist()
    assert found == [math.ceil(Fraction(gamma) * length) for length in lengths]


@pytest.mark.parametrize("kappa", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"])
def test_gate_opens_for_kappa_of_the_tail(kappa):
    lengths = list(range(1, 101))
    scores, mask = batch([[t / 128 + 0.01 for t in range(length)] for length in lengths])
    found = (compensate(scores, mask, gamma=1.0, kappa=float(kappa)) > scores).sum(dim=1).tolist()
    assert found == [max(1, math.floor(Fraction(kappa) * length)) for length in lengths]


@layouts
def test_compensation_does_not_see_padding(layout):
    rows = responses(1)
    scores, mask = batch(rows, **layout)
    found = compensate(scores, mask)
    assert flat(rows_of(found, mask)) == pytest.approx(flat(map(compensated, rows)), abs=1e-6)
    assert found[~mask].eq(0).all()


# ---------------------------------------------------------------------------------------------------------------------------------------
# Eqs. 7 and 8


@pytest.mark.parametrize("limits", [None, (0.1, 2.0), (0.8, 1.1)])
@layouts
def test_intra_factors_are_the_formula_without_padding(layout, limits):
    rows = responses(2)
    weights, mask = batch(rows, **layout)
    found = intra_factors(weights, mask, limits)
    expected = [[clamped(1 + psi, limits) for psi in less_mean(row)] for row in rows]
    assert flat(rows_of(found, mask)) == pytest.approx(flat(expected), abs=1e-6)
    assert found[~mask].eq(1).all()


def test_intra_factors_average_to_one():
    weights, mask = batch(responses(3))
    for row in rows_of(intra_factors(weights, mask), mask):
        assert math.fsum(row) / len(row) == pytest.approx(1, abs=1e-6)
        assert max(row) - min(row) == pytest.approx(1 if len(row) > 1 else 0, abs=1e-6)


def test_constant_weights_one_token_and_no_token_give_one():
    weights, mask = batch([[0.1] * 7, [0.4], [], [0.0] * 3])
    assert intra_factors(weights, mask).eq(1).all()


def test_released_clamp_is_an_option():
    """One visual token among many: the paper's factor nears 2 there, and nears 0 for one dull token among visual ones."""
    weights, mask = batch([[1.0] + [0.0] * 9, [0.0] + [1.0] * 19])
    free, held = intra_factors(weights, mask), intra_factors(weights, mask, (0.1, 2.0))
    assert free[:, 0].tolist() == pytest.approx([1.9, 0.05])
    assert held[:, 0].tolist() == pytest.approx([1.9, 0.1])


# ---------------------------------------------------------------------------------------------------------------------------------------
# Eqs. 9 to 11


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("limits", [None, (0.9, 2.0)])
@layouts
def test_inter_factors_are_the_formula_without_padding(layout, limits, per_token):
    rows = responses(4)
    weights, mask = batch(rows, **layout)
    found = inter_factors(weights, mask, torch.tensor(GROUPS), limits, per_token=per_token)
    assert found.tolist() == pytest.approx(inter_oracle(rows, GROUPS, limits, per_token), abs=1e-6)


def test_trajectories_alone_or_alike_get_one():
    weights, mask = batch([[0.3, 0.1], [0.1, 0.3], [0.9, 0.8], [0.7, 0.1]])
    assert inter_factors(weights, mask, torch.tensor([4, 4, 2, 9])).tolist() == [1.0] * 4


def test_longer_responses_are_more_visual_only_by_the_sum():
    weights, mask = batch([[0.5] * 2, [0.5] * 8, [0.5] * 5])
    groups = torch.zeros(3, dtype=torch.long)
    assert inter_factors(weights, mask, groups).tolist() == pytest.approx([0.5, 1.5, 1.0])
    assert inter_factors(weights, mask, groups, per_token=True).tolist() == [1.0, 1.0, 1.0]


def test_released_clamp_of_trajectories_is_an_option():
    weights, mask = batch([[0.0], [1.0], [1.0], [1.0]])
    groups = torch.zeros(4, dtype=torch.long)
    assert inter_factors(weights, mask, groups).tolist() == pytest.approx([0.25, 1.25, 1.25, 1.25])
    assert inter_factors(weights, mask, groups, (0.9, 2.0)).tolist() == pytest.approx([0.9, 1.25, 1.25, 1.25])


def by_neighbours(weights, size):
    """The released grouping: every ``size`` consecutive trajectories."""
    return inter_oracle(weights, [i // size for i in range(len(weights))])


def test_neighbours_are_not_taken_for_a_group():
    rows = responses(5, [6, 8, 5, 9, 7, 4, 6, 8])
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    shuffled = [rows[i] for i in order]
    weights, mask = batch(rows)
    ours = inter_factors(weights, mask, torch.tensor(groups)).tolist()
    assert by_neighbours(rows, 4) == pytest.approx(ours, abs=1e-6)  # while the batch is in order

    moved_weights, moved_mask = batch(shuffled)
    moved = inter_factors(moved_weights, moved_mask, torch.tensor([groups[i] for i in order])).tolist()
    assert moved == pytest.approx([ours[i] for i in order], abs=1e-6)
    defective = by_neighbours(shuffled, 4)
    assert max(abs(d - ours[i]) for d, i in zip(defective, order, strict=True)) > 0.1


# ---------------------------------------------------------------------------------------------------------------------------------------
# All of it

SETTINGS = {
    "paper": {},
    "released clamps": {"intra_clamp": (0.1, 2.0), "inter_clamp": (0.9, 2.0)},
    "per token": {"per_token": True},
    "stronger": {"beta": 0.8, "gamma": "0.75", "kappa": "0.5"},
}


def numbers(settings):
    return {name: float(value) if isinstance(value, str) else value for name, value in settings.items()}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_advantages_are_the_papers(seed, settings):
    rows = responses(seed)
    advantages = torch.randn(len(rows), generator=torch.Generator().manual_seed(seed))
    scores, mask = batch(rows)
    found = visual_advantages(advantages, scores, mask, torch.tensor(GROUPS), **numbers(settings))
    expected = oracle(advantages.tolist(), rows, GROUPS, **settings)
    assert flat(rows_of(found, mask)) == pytest.approx(flat(expected), abs=1e-6)
    assert found[~mask].eq(0).all()


@layouts
def test_padding_changes_no_advantage(layout):
    rows = responses(6)
    scores, mask = batch(rows, **layout)
    found = visual_advantages(torch.ones(len(rows)), scores, mask, torch.tensor(GROUPS))
    assert flat(rows_of(found, mask)) == pytest.approx(flat(oracle([1.0] * len(rows), rows, GROUPS)), abs=1e-6)
    assert found[~mask].eq(0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_order_of_samples_changes_no_advantage(seed):
    scores, mask = batch(responses(seed))
    advantages, groups = torch.randn(len(GROUPS)), torch.tensor(GROUPS)
    order = torch.randperm(len(GROUPS))
    whole = visual_advantages(advantages, scores, mask, groups)
    moved = visual_advantages(advantages[order], scores[order], mask[order], groups[order])
    assert (whole[order] - moved).abs().max() < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_micro_batches_change_no_factor_of_a_response(seed):
    rows = responses(seed)
    scores, mask = batch(rows)
    weights = compensate(scores, mask)
    for b, row in enumerate(rows):  # alone, and so without padding
        own, real = batch([row])
        assert (compensate(own, real)[0] - weights[b][mask[b]]).abs().max() < 1e-6
        assert (intra_factors(own, real)[0] - intra_factors(scores, mask)[b][mask[b]]).abs().max() < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_splitting_by_groups_changes_no_advantage(seed):
    rows = responses(seed)
    whole = rows_of(visual_advantages(torch.ones(len(rows)), *batch(rows), torch.tensor(GROUPS)), batch(rows)[1])
    for some in ({3}, {8, 5}):
        chosen = [i for i, group in enumerate(GROUPS) if group in some]
        scores, mask = batch([rows[i] for i in chosen])
        part = visual_advantages(torch.ones(len(chosen)), scores, mask, torch.tensor([GROUPS[i] for i in chosen]))
        assert flat(rows_of(part, mask)) == pytest.approx(flat(whole[i] for i in chosen), abs=1e-6)


def released_psi(rows, padding=0):
    """Scores min-maxed over the micro-batch and its padding (of score 0), as in the released code, then Eqs. 5 to 8."""
    pool = flat(rows) + [0.0] * padding
    low, high = min(pool), max(pool)
    return [less_mean(compensated([(s - low) / (high - low) for s in row])) for row in rows]


def test_min_max_over_a_micro_batch_would_change_psi():
    first, second = [0.4, 0.8, 0.5, 0.6, 0.7, 0.45], [0.1, 0.95]
    alone, joined, padded = (released_psi(*case)[0] for case in (([first],), ([first, second],), ([first], 4)))
    for other in (joined, padded):
        assert max(abs(a - b) for a, b in zip(alone, other, strict=True)) > 0.01
    ours = [
        rows_of(intra_factors(compensate(scores, mask), mask), mask)[0]
        for scores, mask in (batch([first]), batch([first, second]), batch([first], extra=4))
    ]
    assert ours[1] == pytest.approx(ours[0], abs=1e-6)
    assert ours[2] == pytest.approx(ours[0], abs=1e-6)
    assert [factor - 1 for factor in ours[0]] == pytest.approx(less_mean(compensated(first)), abs=1e-6)


def test_advantages_per_token_are_taken_too():
    scores, mask = batch(responses(7), fill=NAN)
    advantages = torch.arange(1.0, 8)
    per_token = torch.where(mask, advantages[:, None], NAN)
    one, other = (visual_advantages(a, scores, mask, torch.tensor(GROUPS)) for a in (advantages, per_token))
    assert one.equal(other)


def test_zero_advantages_stay_zero():
    scores, mask = batch(responses(8))
    assert visual_advantages(torch.zeros(7), scores, mask, torch.tensor(GROUPS)).eq(0).all()


def test_responses_without_tokens_are_left_at_zero():
    scores, mask = batch([[0.2, 0.9, 0.4], [], [0.5, 0.6]], extra=2)
    found = visual_advantages(torch.ones(3), scores, mask, torch.tensor([0, 0, 1]))
    assert found[1].eq(0).all()
    assert found.isfinite().all()
    expected = oracle([1.0] * 3, [[0.2, 0.9, 0.4], [], [0.5, 0.6]], [0, 0, 1])
    assert flat(rows_of(found, mask)) == pytest.approx(flat(expected), abs=1e-6)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_masks_of_any_type(kind):
    scores, mask = batch(responses(9))
    groups = torch.tensor(GROUPS)
    assert visual_advantages(torch.ones(7), scores, mask.to(kind), groups).equal(visual_advantages(torch.ones(7), scores, mask, groups))


def test_bfloat16_scores_are_weighed_in_full_precision():
    scores, mask = batch(responses(10))
    low, groups = scores.bfloat16(), torch.tensor(GROUPS)
    found = visual_advantages(torch.ones(7), low, mask, groups)
    assert found.dtype == torch.float32
    assert flat(rows_of(found, mask)) == pytest.approx(flat(oracle([1.0] * 7, rows_of(low.float(), mask), GROUPS)), abs=1e-6)
