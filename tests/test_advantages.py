"""Group advantages against loops over prompts."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rewardlib.advantages import group_advantages, group_index, to_tensor, zero_variance  # noqa: E402

NAN = float("nan")
SCALES = ("group", "batch", "none")
rewards_and_groups = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(-3, 3)), st.integers(0, 4)), min_size=1, max_size=24
)


def deviation(values):
    """Of a sample: n - 1."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def oracle(scores, groups, scale="group", eps=1e-4):
    """(r - mean) / (std + eps) for one sample after the other, looking up its siblings by name."""
    found = []
    for score, group in zip(scores, groups, strict=True):
        siblings = [s for s, g in zip(scores, groups, strict=True) if g == group and s is not None]
        if score is None or len(set(siblings)) == 1:
            found.append(0.0)
            continue
        spread = {"group": deviation(siblings), "batch": deviation([s for s in scores if s is not None])}
        found.append((score - math.fsum(siblings) / len(siblings)) / (spread[scale] + eps if scale in spread else 1.0))
    return found


def random_batch(seed, sizes=(4, 1, 7, 2, 3), missing=0.2):
    """Interleaved groups of different size, some of their rewards unknown."""
    maker = torch.Generator().manual_seed(seed)
    groups = torch.cat([torch.full((size,), 10 * name) for name, size in enumerate(sizes)])
    groups = groups[torch.randperm(len(groups), generator=maker)]
    rewards = torch.rand(len(groups), generator=maker, dtype=torch.float64)
    rewards[torch.rand(len(groups), generator=maker) < missing] = NAN
    return rewards, groups


@pytest.mark.parametrize("scale", SCALES)
@settings(deadline=None)
@given(batch=rewards_and_groups)
def test_advantages_are_the_formulas(scale, batch):
    scores, groups = zip(*batch, strict=True)
    found = group_advantages(to_tensor(scores), torch.tensor(groups), scale)
    assert found.tolist() == pytest.approx(oracle(scores, groups, scale), abs=1e-9)


def test_grpo_by_hand():
    found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4), eps=0.0)
    assert found.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])  # std with n - 1 is exactly 0.5, with n it is 0.433


def test_dr_grpo_divides_by_nothing():
    found = group_advantages(torch.tensor([3.0, 1.0, 10.0, 30.0]), torch.tensor([0, 0, 1, 1]), "none")
    assert found.tolist() == [1.0, -1.0, -10.0, 10.0]


def test_batch_scale_keeps_the_groups_relative_sizes():
    rewards, groups = torch.tensor([3.0, 1.0, 10.0, 30.0]), torch.tensor([0, 0, 1, 1])
    found = group_advantages(rewards, groups, "batch")
    assert (found[3] / found[0]).item() == pytest.approx(10)
    assert found[0].item() == pytest.approx(1 / (deviation([3, 1, 10, 30]) + 1e-4))


@pytest.mark.parametrize("scale", SCALES)
def test_unknown_rewards_get_zero_and_leave_their_siblings_alone(scale):
    rewards, groups = random_batch(1, missing=0.0)
    apart = torch.tensor([True, False, True] * 6)[: len(rewards)]
    holed = torch.where(apart, rewards, NAN)
    found = group_advantages(holed, groups, scale)
    assert found[~apart].eq(0).all()
    assert found[apart].tolist() == pytest.approx(group_advantages(rewards[apart], groups[apart], scale).tolist(), abs=1e-12)
    as_zero = group_advantages(torch.where(apart, rewards, 0.0), groups, scale)  # a failed judge as a wrong answer
    assert (as_zero - found)[apart].abs().max() > 0.01


@pytest.mark.parametrize("scale", SCALES)
def test_groups_without_any_reward_and_groups_of_one_get_zero(scale):
    found = group_advantages(torch.tensor([NAN, NAN, 0.7, NAN, 0.2, 0.9]), torch.tensor([5, 5, 8, 3, 3, 1]), scale)
    assert found.tolist() == [0.0] * 6


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1e10 / 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_rewards_give_exactly_zero(scale, value, dtype):
    rewards = torch.tensor([value] * 7 + [0.0, 1.0], dtype=dtype)
    found = group_advantages(rewards, torch.tensor([2] * 7 + [0, 0]), scale)
    assert found[:7].eq(0).all()
    assert found[7:].ne(0).all()


def test_equal_rewards_are_found_by_equality_not_by_deviation():
    """Rounding gives equal rewards a deviation above 0, and small differences one that passes for 0."""
    equal, close = torch.full((3,), 0.1, dtype=torch.float64), torch.tensor([0.5, 0.5 + 1e-9, 0.5], dtype=torch.float64)
    assert equal.sum() / 3 != 0.1
    assert math.isclose(close.std(), 0.0, abs_tol=1e-8)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    rewards = torch.cat([equal, close])
    assert zero_variance(rewards, groups).tolist() == [True] * 3 + [False] * 3
    found = group_advantages(rewards, groups)
    assert found[:3].eq(0).all()
    assert found[3:].ne(0).all()


def test_zero_variance_looks_at_known_rewards_of_the_own_group():
    rewards = torch.tensor([1.0, 0.0, 1.0, NAN, 1.0, NAN, 0.0, 3.0])
    groups = torch.tensor([0, 1, 0, 0, 1, 4, 6, 6])
    assert zero_variance(rewards, groups).tolist() == [True, False, True, True, False, True, False, False]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(5))
def test_order_of_samples_changes_nothing(scale, seed):
    rewards, groups = random_batch(seed)
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    moved = group_advantages(rewards[order], groups[order], scale)
    assert (moved - group_advantages(rewards, groups, scale)[order]).abs().max() < 1e-9


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_splitting_by_groups_changes_nothing(scale, seed):
    rewards, groups = random_batch(seed)
    whole, parts = group_advantages(rewards, groups, scale), torch.full_like(rewards, NAN)
    for some in (groups < 15, groups >= 15):
        parts[some] = group_advantages(rewards[some], groups[some], scale)
    assert (whole - parts).abs().max() < 1e-9


def test_neighbours_are_not_taken_for_siblings():
    """Advantages by position, n at a time, go wrong once a batch is reordered or a group has another size."""
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0])
    groups = torch.tensor([0, 1, 0, 1])
    by_position = (rewards.view(2, 2) - rewards.view(2, 2).mean(dim=1, keepdim=True)).flatten()
    assert by_position.abs().max() == 0.5
    assert group_advantages(rewards, groups, "none").eq(0).all()


def test_names_of_groups_do_not_matter():
    rewards, groups = random_batch(2)
    assert group_advantages(rewards, groups).equal(group_advantages(rewards, -3 * groups + 7))
    assert group_index(torch.tensor([70, -5, 70, 8])).tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_rewards_are_computed_in_double(dtype):
    rewards, groups = random_batch(4)
    low = rewards.to(dtype)
    found = group_advantages(low, groups)
    assert found.dtype == dtype
    assert found.equal(group_advantages(low.double(), groups).to(dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_rewards_of_zeros_and_ones_may_be_integers(dtype):
    rewards = torch.tensor([1, 0, 0, 0], dtype=dtype)
    assert group_advantages(rewards, torch.zeros(4), eps=0.0).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])


@pytest.mark.parametrize("scale", SCALES)
def test_empty_batch(scale):
    assert group_advantages(torch.zeros(0), torch.zeros(0, dtype=torch.long), scale).shape == (0,)


def test_unknown_scale_is_an_error():
    with pytest.raises(ValueError, match="scale is 'std', expected group, batch or none"):
        group_advantages(torch.ones(2), torch.zeros(2), "std")


def test_scores_become_a_tensor_with_nan_for_none():
    found = to_tensor([0.25, None, 1])
    assert found.dtype == torch.float64
    assert found.isnan().tolist() == [False, True, False]
    assert found[[0, 2]].tolist() == [0.25, 1.0]
