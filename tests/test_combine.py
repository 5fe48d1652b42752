"""Several rewards in one number: what a missing score may and may not change."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlib.sample import combine

scores = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(-2, 2))
batches = st.lists(st.tuples(scores, scores, st.sampled_from(["a", "b", "c"])), max_size=16)
WEIGHTS = {"right": 0.9, "seen": 0.7}


def mean(values):
    return float(sum(map(Fraction, values)) / len(values))


def oracle(columns, weights, groups):
    """Every sample looks up what it lacks among its siblings."""
    found = []
    for i, group in enumerate(groups):
        if all(column[i] is None for column in columns.values()):
            found.append(None)
            continue
        total = 0.0
        for name, column in columns.items():
            known = [s for s, g in zip(column, groups, strict=True) if g == group and s is not None]
            score = column[i] if column[i] is not None else mean(known) if known else 0.0
            total += weights[name] * score
        found.append(total)
    return found


def columns_of(batch):
    right, seen, groups = zip(*batch, strict=True) if batch else ((), (), ())
    return {"right": right, "seen": seen}, groups


def centred(values, groups):
    """r - the group's mean; unknown rewards are left out."""
    known = {g: [v for v, h in zip(values, groups, strict=True) if h == g and v is not None] for g in groups}
    return [None if v is None else v - mean(known[g]) for v, g in zip(values, groups, strict=True)]


@given(batches)
def test_total_is_the_weighted_sum_with_group_means_for_what_is_missing(batch):
    columns, groups = columns_of(batch)
    assert combine(columns, WEIGHTS, groups) == pytest.approx(oracle(columns, WEIGHTS, groups), abs=1e-12)


def test_weighted_sum_by_hand():
    assert combine({"right": [1.0, 0.0], "seen": [0.5, 1.0]}, {"right": 2.0, "seen": -1.0}, [0, 0]) == [1.5, -1.0]


def test_missing_score_counts_as_the_mean_of_its_own_group():
    found = combine({"right": [0.0] * 6, "seen": [1.0, None, 0.0, 0.25, None, 0.25]}, {"right": 1.0, "seen": 1.0}, [0, 0, 0, 1, 1, 1])
    assert found == [1.0, 0.5, 0.0, 0.25, 0.25, 0.25]


def test_missing_score_moves_no_sibling():
    """Advantages of the others are those without the sample, and its own is zero; a zero in its place would move them all."""
    seen, groups = [1.0, None, 0.5, 0.75], ["a"] * 4
    found = centred(combine({"right": [0.0] * 4, "seen": seen}, {"right": 1.0, "seen": 1.0}, groups), groups)
    without = centred(seen, groups)
    assert found[1] == 0
    assert [found[i] for i in (0, 2, 3)] == pytest.approx([without[i] for i in (0, 2, 3)])
    zeroed = centred([0.0 if s is None else s for s in seen], groups)
    assert all(abs(zeroed[i] - without[i]) > 0.1 for i in (0, 2, 3))
    assert zeroed[1] < -0.5


@given(batches)
def test_every_reward_adds_its_own_centred_scores(batch):
    """The mean that stands in shifts no mean: a total's advantage is the sum of what each reward says where it says something."""
    columns, groups = columns_of(batch)
    parts = {name: centred(column, groups) for name, column in columns.items()}
    totals = combine(columns, WEIGHTS, groups)
    if None in totals:  # left out of the means altogether
        return
    expected = [sum(WEIGHTS[name] * (part[i] or 0.0) for name, part in parts.items()) for i in range(len(groups))]
    assert centred(totals, groups) == pytest.approx(expected, abs=1e-9)


def test_none_where_no_reward_knows_anything():
    assert combine({"right": [None, 1.0], "seen": [None, None]}, {"right": 1.0, "seen": 1.0}, [0, 0]) == [None, 1.0]
    assert combine({"right": [None, None]}, {"right": 1.0}, [0, 0]) == [None, None]


def test_reward_that_a_group_lacks_says_nothing_about_it():
    found = combine({"right": [1.0, 0.0, 1.0], "seen": [None, None, 0.5]}, {"right": 1.0, "seen": 1.0}, ["a", "a", "b"])
    assert found == [1.0, 0.0, 1.5]


def test_known_zeros_stay_zeros():
    assert combine({"right": [0.0, 1.0]}, {"right": 1.0}, [0, 0]) == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_order_of_samples_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    columns = {name: [None if rng.random() < 0.3 else float(rng.normal()) for _ in range(20)] for name in WEIGHTS}
    groups = rng.integers(0, 4, 20).tolist()
    order = rng.permutation(20)
    moved = combine({name: [column[i] for i in order] for name, column in columns.items()}, WEIGHTS, [groups[i] for i in order])
    found = combine(columns, WEIGHTS, groups)
    assert moved == [found[i] for i in order]  # to the last bit


def test_other_groups_change_nothing():
    columns = {"right": [1.0, None, 0.0], "seen": [0.5, 0.25, None]}
    alone = combine(columns, WEIGHTS, ["a"] * 3)
    wider = combine({name: [7.0, *column] for name, column in columns.items()}, WEIGHTS, ["b", "a", "a", "a"])
    assert wider[1:] == alone


def test_rewards_and_weights_must_have_the_same_names():
    with pytest.raises(ValueError, match="only one has format, right"):
        combine({"right": [1.0], "seen": [1.0]}, {"seen": 1.0, "format": 1.0}, [0])


@pytest.mark.parametrize("length", [1, 3])
def test_columns_must_be_as_long_as_the_batch(length):
    with pytest.raises(ValueError, match=f"reward 'right' returned {length} scores for 2 samples"):
        combine({"seen": [1.0, 1.0], "right": [1.0] * length}, {"right": 1.0, "seen": 1.0}, [0, 0])


def test_empty_batch():
    assert combine({"right": []}, {"right": 1.0}, []) == []


def test_nan_is_a_missing_score():
    """Trainers turn None into NaN."""
    scores = {"a": [1.0, None, math.nan, 0.0], "b": [1.0] * 4}
    assert combine(scores, {"a": 1, "b": 1}, [0] * 4) == [2.0, 1.5, 1.5, 1.0]
    assert combine({"a": [math.nan]}, {"a": 1}, [0]) == [None]
