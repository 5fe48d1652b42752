"""SAYO's attention contrast and the causal-attention reward, against loops over single (token, head, key) weights."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlib.attention import (
    AttentionContrast,
    CausalAttention,
    attention_contrast,
    causal_attention,
    causal_weights,
    top_entropy,
)
from rewardlib.sample import Counterfactual, Sample, VisualAttention
from rewardlib.sinks import without_sinks
from rewardlib.tokens import Tile, draw, token_weights

SEEDS = range(5)
RIGHT, WRONG = "<answer>4</answer>", "<answer>5</answer>"
positive = st.floats(1e-3, 1)


def softmax_maps(rng, tokens, heads, keys):
    """Attention (tokens, heads, keys) of which a random part goes to keys outside the image."""
    raw = np.exp(rng.normal(size=(tokens, heads, keys + 3)))
    return (raw / raw.sum(axis=-1, keepdims=True))[..., :keys]


def masses(maps, region):
    """What a probe measures: head-averaged mass on the weighted region and on the image (here: all keys)."""
    return VisualAttention((maps * region).sum(-1).mean(1), maps.sum(-1).mean(1), float(region.sum()), float(maps.shape[-1]))


def attention(region, image=None, region_tokens=1.0, image_tokens=4.0):
    region = np.asarray(region, float)
    return VisualAttention(region, np.ones(len(region)) if image is None else np.asarray(image, float), region_tokens, image_tokens)


def sayo_oracle(maps, region, entropy, share=Fraction(3, 10)):
    """The paper's reward: pool the weights of the most uncertain tokens, all heads and keys, and compare two means."""
    order = sorted(range(len(entropy)), key=lambda t: (-entropy[t], t))
    chosen = order[: max(1, math.floor(share * len(entropy)))]
    total = {"aim": 0.0, "img": 0.0}
    count = {"aim": 0.0, "img": 0.0}
    for t in chosen:
        for head in range(maps.shape[1]):
            for key in range(maps.shape[2]):
                for name, weight in (("aim", float(region[key])), ("img", 1.0)):
                    total[name] += weight * float(maps[t, head, key])
                    count[name] += weight
    aim, img = (total[name] / count[name] for name in ("aim", "img"))
    return math.tanh(math.log((aim + 1e-8) / (img + 1e-8)))


# ---------------------------------------------------------------------------------------------------------------------------------------
# Which tokens


@given(st.lists(st.integers(0, 5).map(float), max_size=40), st.sampled_from(["0.1", "0.3", "0.5", "1"]))
def test_top_entropy_is_a_sort_and_a_cut(entropy, share):
    order = sorted(range(len(entropy)), key=lambda t: (-entropy[t], t))
    count = max(1, math.floor(Fraction(share) * len(entropy)))
    assert top_entropy(np.array(entropy), float(share)).tolist() == sorted(order[:count])


@pytest.mark.parametrize(("length", "count"), [(0, 0), (1, 1), (3, 1), (6, 1), (7, 2), (10, 3), (100, 30)])
def test_share_of_the_tokens_is_rounded_down_to_at_least_one(length, count):
    assert len(top_entropy(np.arange(length, dtype=float))) == count


def test_of_equal_entropies_the_earlier_tokens_are_taken():
    assert top_entropy(np.ones(10, np.float32)).tolist() == [0, 1, 2]


def test_padding_would_push_tokens_out_of_the_share():
    """The released code cuts the share from the batch's padded entropies: both its size and its members change with the neighbours."""
    entropy = np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5, 0.0])
    padded = np.concatenate([entropy, np.full(20, 2.0)])
    defective = np.argsort(-padded)[: int(0.3 * len(padded))]
    assert not set(defective.tolist()) & set(range(10))
    assert top_entropy(entropy).tolist() == [1, 3, 5]


def test_padded_entropy_is_refused():
    sample = Sample(RIGHT, entropy=np.ones(5), attention=attention([0.5] * 3))
    with pytest.raises(ValueError, match="'attention_contrast' got 5 entropies for 3 tokens' attention"):
        AttentionContrast()([sample])


def test_neighbours_in_the_batch_change_no_contrast():
    rng = np.random.default_rng(0)
    samples = []
    for length in (1, 4, 30, 11):
        maps, region = softmax_maps(rng, length, 2, 6), np.array([1, 0.5, 0, 0, 0, 0])
        samples.append(Sample("", entropy=rng.random(length), attention=masses(maps, region)))
    together = AttentionContrast()(samples)
    assert together == [AttentionContrast()([sample])[0] for sample in samples]
    assert AttentionContrast()(samples[::-1]) == together[::-1]


# ---------------------------------------------------------------------------------------------------------------------------------------
# The contrast


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("share", "exact"), [(0.3, Fraction(3, 10)), (1.0, Fraction(1))])
def test_reward_is_sayos(seed, share, exact):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 25))
    maps, entropy = softmax_maps(rng, length, 3, 12), rng.random(length)
    region = rng.choice([0.0, 0.25, 1.0], 12)
    region[seed] = 1.0
    sample = Sample("", entropy=entropy, attention=masses(maps, region))
    assert AttentionContrast(share)([sample])[0] == pytest.approx(sayo_oracle(maps, region, entropy, exact), abs=1e-12)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=8), st.floats(0.5, 20), st.floats(20, 900))
def test_contrast_is_tanh_of_the_log_ratio_and_its_closed_form(pairs, region_tokens, image_tokens):
    region, image = zip(*pairs, strict=True)
    aim = sum(region) / len(region) / region_tokens
    img = sum(image) / len(image) / image_tokens
    ratio = aim / img
    found = attention_contrast(attention(region, image, region_tokens, image_tokens), np.arange(len(pairs)))
    assert found == pytest.approx(math.tanh(math.log((aim + 1e-8) / (img + 1e-8))), abs=1e-12)
    assert found == pytest.approx((ratio**2 - 1) / (ratio**2 + 1), abs=1e-3)  # but for the guard of the logarithm


def test_every_token_and_key_weighs_equally():
    """A mean over pooled weights: tokens that attend more to the image count more than in a mean of the tokens' own ratios."""
    maps = np.array([[[0.1, 0.1, 0.1, 0.1]], [[0.05, 0.0, 0.0, 0.0]]])
    region = np.array([1.0, 0.0, 0.0, 0.0])
    ratio = (0.1 + 0.05) / 2 / ((0.4 + 0.05) / 8)
    per_token = (1 + 4) / 2
    found = attention_contrast(masses(maps, region), np.arange(2))
    assert found == pytest.approx((ratio**2 - 1) / (ratio**2 + 1), abs=1e-6)
    assert abs(found - (per_token**2 - 1) / (per_token**2 + 1)) > 0.1


def test_zero_where_the_region_gets_its_share():
    maps = np.full((6, 2, 8), 0.1)
    assert attention_contrast(masses(maps, np.array([1, 0.5, 0, 0, 1, 0, 0, 0])), np.arange(6)) == pytest.approx(0, abs=1e-12)


def test_more_attention_on_the_region_raises_it():
    values = [attention_contrast(attention([mass]), np.array([0])) for mass in (0.0, 0.1, 0.25, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[2] == pytest.approx(0)
    assert -1 < values[0] < -0.99 < 0 < values[-1] < 1


def test_attention_to_the_image_as_a_whole_cancels():
    rng = np.random.default_rng(3)
    maps, region = softmax_maps(rng, 5, 2, 8), np.array([1.0, 1, 0, 0, 0, 0, 0, 0])
    assert attention_contrast(masses(maps * 0.01, region), np.arange(5)) == pytest.approx(
        attention_contrast(masses(maps, region), np.arange(5)), abs=1e-4
    )


def test_overlapping_boxes_are_not_counted_twice():
    """The released code concatenates every box's key ranges, so a key in two boxes enters the mean twice."""
    tile = Tile((0.0, 0.0, 40.0, 10.0), np.arange(4).reshape(1, 4))
    boxes = [(0, 0, 20, 10), (10, 0, 30, 10)]
    region = token_weights([tile], draw((40, 10), boxes), 4)
    assert region.tolist() == [1, 1, 1, 0]
    maps = np.array([[[0.1, 0.5, 0.1, 0.1]]])
    once, twice = (0.1 + 0.5 + 0.1) / 3, (0.1 + 0.5 + 0.5 + 0.1) / 4
    found = attention_contrast(masses(maps, region), np.array([0]))
    assert found == pytest.approx(math.tanh(math.log(once / 0.2)), abs=1e-6)
    assert abs(found - math.tanh(math.log(twice / 0.2))) > 0.05


def test_empty_response_gets_the_least():
    assert AttentionContrast()([Sample("", entropy=np.zeros(0), attention=attention([]))]) == [-1.0]


@pytest.mark.parametrize(("region_tokens", "image_tokens"), [(0.0, 9.0), (0.0, 0.0)])
@pytest.mark.parametrize("length", [0, 3])
def test_none_without_region_or_image(region_tokens, image_tokens, length):
    blind = VisualAttention(np.zeros(length), np.zeros(length), region_tokens, image_tokens)
    assert AttentionContrast()([Sample("", entropy=np.ones(length), attention=blind)]) == [None]


def test_missing_measurements_are_named():
    with pytest.raises(ValueError, match=r"'attention_contrast' needs Sample\.entropy"):
        AttentionContrast()([Sample("", attention=attention([1]))])
    with pytest.raises(ValueError, match=r"'causal_attention' needs Sample\.counterfactual"):
        CausalAttention()([Sample("", answer="4", attention=attention([1]))])


# ---------------------------------------------------------------------------------------------------------------------------------------
# Sinks


def sinks_oracle(maps, ratio, persistence):
    """Keys that get more than ``ratio`` times a token's mean attention from at least ``persistence`` of the tokens."""
    found = []
    for key in range(maps.shape[1]):
        times = sum(maps[t, key] > ratio * sum(maps[t]) / maps.shape[1] for t in range(maps.shape[0]))
        if Fraction(int(times), maps.shape[0]) >= Fraction(persistence):
            found.append(key)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_sinks_are_left_out_of_image_and_region(seed):
    rng = np.random.default_rng(seed)
    maps = rng.random((10, 30)) ** 6
    maps[:, 3] += 5.0
    maps[:9, 7] += 5.0  # exactly 0.9 of the tokens
    maps[:8, 11] += 5.0  # less
    maps *= rng.uniform(0.01, 1, (10, 1))  # tokens look at the image more or less
    weights = rng.choice([0.0, 0.5, 1.0], 30)
    weights[3] = 1.0
    sinks = sinks_oracle(maps, 4.0, "0.9")
    kept = [key for key in range(30) if key not in sinks]
    found = without_sinks(maps, weights, ratio=4.0)
    assert sinks == [3, 7]
    assert found.image == pytest.approx([sum(maps[t, k] for k in kept) for t in range(10)])
    assert found.region == pytest.approx([sum(weights[k] * maps[t, k] for k in kept) for t in range(10)])
    assert (found.region_tokens, found.image_tokens) == (sum(weights[k] for k in kept), 28)


def test_without_sinks_nothing_is_left_out():
    rng = np.random.default_rng(0)
    maps, weights = rng.random((6, 8)), np.array([1, 0.5, 0, 0, 0, 0, 0, 0])
    found = without_sinks(maps, weights)
    assert found.image == pytest.approx(maps.sum(axis=1))
    assert found.region == pytest.approx(maps @ weights)
    assert (found.region_tokens, found.image_tokens) == (1.5, 8)


def test_sinks_of_an_empty_response():
    found = without_sinks(np.zeros((0, 8)), np.ones(8))
    assert (found.region.shape, found.image.shape, found.region_tokens, found.image_tokens) == ((0,), (0,), 8, 8)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Causal attention


def causal_oracle(region, image, original, evidence, control, cap=5.0, floor=0.1):
    above = below = 0.0
    for t in range(len(region)):
        weight = max(original[t] - evidence[t], 0.0)
        if control is not None:
            weight -= max(original[t] - control[t], 0.0)
        weight = min(max(weight, 0.0), cap)
        above += weight * region[t] / image[t]
        below += weight
    return above / (below + floor)


def looked(response=RIGHT, region=(0.5, 0.5), original=(0.0, 0.0), evidence=(-1.0, -1.0), control=None, answer="4", **sizes):
    rows = [None if row is None else np.asarray(row, float) for row in (original, evidence, control)]
    return Sample(response, answer=answer, attention=attention(region, **sizes), counterfactual=Counterfactual(*rows))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("controlled", [True, False])
def test_causal_reward_is_the_weighted_share(seed, controlled):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 12))
    original, evidence, control = -6 * rng.random((3, length)) * [[0.3], [2.0], [0.6]]
    image = rng.uniform(0.1, 1, length)
    region = image * rng.random(length)
    found = CausalAttention()(
        [looked(region=region, image=image, original=original, evidence=evidence, control=control if controlled else None)]
    )
    assert found[0] == pytest.approx(causal_oracle(region, image, original, evidence, control if controlled else None), abs=1e-12)
    assert 0 <= found[0] < 1


def test_wrong_answers_earn_nothing():
    assert CausalAttention()([looked(WRONG), looked("4, surely"), looked("")]) == [0.0, 0.0, 0.0]
    assert CausalAttention()([looked()])[0] > 0.4


def test_looking_at_the_evidence_where_it_matters_raises_it():
    dim, bright = (CausalAttention()([looked(region=(mass, 0.1), evidence=(-2.0, 0.0))])[0] for mass in (0.2, 0.8))
    assert bright > dim + 0.5


@given(st.floats(0, 1), st.floats(0, 1))
def test_attention_at_tokens_without_causal_weight_changes_nothing(one, other):
    assert CausalAttention()([looked(region=(0.6, one), evidence=(-2.0, 0.5))]) == CausalAttention()(
        [looked(region=(0.6, other), evidence=(-2.0, 0.0))]
    )


def test_a_fall_that_any_mask_causes_is_subtracted():
    original, fallen = np.zeros(3), np.array([-2.0, -2.0, -0.5])
    assert causal_weights(original, fallen).tolist() == [2, 2, 0.5]
    assert causal_weights(original, fallen, np.array([-0.5, -2.0, -1.0])).tolist() == [1.5, 0, 0]
    assert CausalAttention()([looked(control=(-1.0, -1.0))]) == [0.0]


def test_a_control_that_helps_adds_no_weight():
    assert causal_weights(np.array([-3.0]), np.array([-4.0]), np.array([0.0])).tolist() == [1]


def test_causal_weights_end_at_the_cap():
    assert causal_weights(np.zeros(2), np.array([-100.0, -np.inf])).tolist() == [5, 5]
    assert causal_weights(np.zeros(2), np.array([-100.0, -1.0]), cap=2.0).tolist() == [2, 1]


def test_floor_keeps_responses_that_do_not_rest_on_the_evidence_near_zero():
    """A plain weighted mean would pay the full share for a hundredth of a nat."""
    whisper, loud = (CausalAttention()([looked(region=(1, 1), evidence=(-w, -w))])[0] for w in (0.005, 5.0))
    assert whisper == pytest.approx(0.01 / 0.11)
    assert loud == pytest.approx(10 / 10.1)
    assert CausalAttention()([looked(region=(1, 1), evidence=(0, 0))]) == [0.0]


def test_cap_and_floor_are_options():
    assert CausalAttention(cap=2.0, floor=1.0)([looked(region=(1, 1), evidence=(-9, -1))]) == pytest.approx([3 / 4])


def test_no_tokens_no_causal_reward():
    assert causal_attention(attention([]), np.zeros(0)) == 0.0


def test_none_without_answer_region_or_counterfactual_image():
    samples = [
        looked(answer=None),
        looked(region_tokens=0.0),
        looked(image_tokens=0.0),
        looked(evidence=None),
        looked(WRONG, evidence=None),
    ]
    assert CausalAttention()(samples) == [None] * 5


@pytest.mark.parametrize(("measured", "scored"), [(1, 3), (3, 1), (2, 3)])
def test_attention_and_log_probabilities_of_different_lengths_are_an_error(measured, scored):
    with pytest.raises(ValueError, match=r"."):
        CausalAttention()([looked(region=[0.5] * measured, original=[0.0] * scored, evidence=[-1.0] * scored)])
