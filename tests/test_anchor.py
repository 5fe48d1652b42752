"""The anchoring loss and its targets, against torch's own divergence and loops over patches."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn.functional import kl_div  # noqa: E402

from rewardlib.anchor import anchor_loss, anchor_target, gaussian_weights  # noqa: E402
from rewardlib.tokens import Tile, draw, token_weights  # noqa: E402

SEEDS = range(5)
SIZE = (120, 80)
WHOLE = Tile((0.0, 0.0, 120.0, 80.0), np.arange(24).reshape(4, 6) + 2)
LEFT = Tile((0.0, 0.0, 60.0, 80.0), np.arange(12).reshape(4, 3) + 26)
RIGHT = Tile((60.0, 0.0, 120.0, 80.0), np.arange(12).reshape(4, 3) + 38)
LENGTH = 52


def distributions(seed, rows=3, keys=10):
    """Attention that leaves some of its mass outside the image, and targets with zeros."""
    maker = torch.Generator().manual_seed(seed)
    attention = torch.rand(rows, keys, generator=maker, dtype=torch.float64)
    target = torch.rand(rows, keys, generator=maker, dtype=torch.float64) * (torch.rand(rows, keys, generator=maker) < 0.6)
    target[:, 0] += 0.1
    return 0.3 * attention / attention.sum(dim=1, keepdim=True), target / target.sum(dim=1, keepdim=True)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Targets


def test_target_is_a_distribution_in_proportion_to_coverage():
    coverage = torch.tensor([0.0, 1.0, 0.25, 0.0, 0.75])
    target = anchor_target(coverage)
    assert target.sum().item() == pytest.approx(1)
    assert target.tolist() == pytest.approx([0, 0.5, 0.125, 0, 0.375])


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_target_of_any_type_sums_to_one(kind):
    target = anchor_target(torch.tensor([0, 1, 1, 0, 1, 1], dtype=kind))
    assert target.is_floating_point()
    assert target.tolist() == [0, 0.25, 0.25, 0, 0.25, 0.25]


@pytest.mark.parametrize("coverage", [[0.0, 0.0], [float("nan"), 1.0], []])
def test_region_without_tokens_is_an_error(coverage):
    with pytest.raises(ValueError, match="no image token is covered by the region"):
        anchor_target(torch.tensor(coverage))


# ---------------------------------------------------------------------------------------------------------------------------------------
# The loss


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_is_the_divergence_of_the_renormalised_attention(seed):
    attention, target = distributions(seed)
    predicted = attention / attention.sum(dim=1, keepdim=True)
    assert anchor_loss(attention, target).item() == pytest.approx(kl_div(predicted.log(), target, reduction="batchmean").item(), abs=1e-6)
    rows = []
    for a, q in zip(attention.tolist(), target.tolist(), strict=True):
        rows.append(sum(qi * math.log(qi / (ai / sum(a))) for ai, qi in zip(a, q, strict=True) if qi > 0))
    assert anchor_loss(attention, target).item() == pytest.approx(sum(rows) / len(rows), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mass", [1.0, 0.3, 0.01])
def test_loss_is_zero_for_attention_in_proportion_to_the_target(seed, mass):
    _, target = distributions(seed)
    assert anchor_loss(mass * target, target).item() == pytest.approx(0, abs=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_is_positive_for_any_other_attention(seed):
    """At least half the squared distance (Pinsker)."""
    attention, target = distributions(seed, rows=1)
    for step in (0.01, 0.1, 1.0):
        mixed = (1 - step) * target + step * attention / attention.sum()
        distance = (mixed - target).abs().sum().item()
        assert anchor_loss(mixed, target).item() > distance**2 / 2 - 1e-6
        assert anchor_loss(mixed, target).item() > 0


def test_attention_beside_the_region_costs_more_the_less_falls_on_it():
    target = torch.tensor([0.5, 0.5, 0.0])
    losses = [anchor_loss(torch.tensor([[on / 2, on / 2, 1 - on]]), target).item() for on in (1.0, 0.5, 0.1, 0.0)]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[2] == pytest.approx(math.log(10), abs=1e-6)
    assert losses[3] > losses[2]


def test_one_target_serves_all_rows_and_the_rows_are_averaged():
    attention, target = distributions(0)
    same = target[:1].expand(3, -1)
    assert anchor_loss(attention, target[0]).item() == pytest.approx(anchor_loss(attention, same).item())
    single = [anchor_loss(attention[r : r + 1], target[r]).item() for r in range(3)]
    assert anchor_loss(attention, target).item() == pytest.approx(sum(single) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("row", [[0.0] * 4, [0.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.0, 0.0]])
def test_loss_and_gradient_are_finite_without_attention_on_the_region(row, dtype):
    attention = torch.tensor([row], dtype=dtype, requires_grad=True)
    loss = anchor_loss(attention, torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=dtype))
    loss.backward()
    assert loss.isfinite()
    assert attention.grad.isfinite().all()
    assert attention.grad[0, 0] < 0  # more attention there is better


def test_gradient_step_moves_attention_onto_the_region():
    scores = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    target = anchor_target(torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    before = anchor_loss(scores.softmax(dim=1)[:, :5], target)
    before.backward()
    after = (scores - scores.grad).detach().softmax(dim=1)
    assert anchor_loss(after[:, :5], target) < before
    assert (after[0, 1:3] > 1 / 6).all()
    assert after[0, 5].item() == pytest.approx(1 / 6, abs=0.05)  # what leaves the image is renormalised away


# ---------------------------------------------------------------------------------------------------------------------------------------
# Gaussian targets


def bell(tile, row, column, boxes, width):
    """The largest bell at a patch's centre, by the published formula."""
    rows, columns = tile.positions.shape
    x = tile.box[0] + (column + 0.5) * (tile.box[2] - tile.box[0]) / columns
    y = tile.box[1] + (row + 0.5) * (tile.box[3] - tile.box[1]) / rows
    found = 0.0
    for x0, y0, x1, y1 in boxes:
        dx, dy = (x - (x0 + x1) / 2) / (width * (x1 - x0)), (y - (y0 + y1) / 2) / (width * (y1 - y0))
        found = max(found, math.exp(-(dx**2 + dy**2) / 2))
    return found


@pytest.mark.parametrize("tiles", [[WHOLE], [LEFT, RIGHT], [LEFT, RIGHT, WHOLE]], ids=["one grid", "tiles", "tiles and thumbnail"])
@pytest.mark.parametrize("boxes", [[(20, 10, 70, 65)], [(0, 0, 50, 30), (30, 20, 120, 80)]], ids=["one box", "two boxes"])
@pytest.mark.parametrize(("settings", "width"), [({}, 0.8), ({"width": 0.25}, 0.25)])
def test_weights_are_coverage_times_the_bell(tiles, boxes, settings, width):
    coverage = token_weights(tiles, draw(SIZE, boxes), LENGTH)
    found = gaussian_weights(tiles, boxes, coverage, **settings)
    expected = np.zeros(LENGTH)
    for tile in tiles:
        for row, column in np.ndindex(tile.positions.shape):
            position = tile.positions[row, column]
            expected[position] = coverage[position] * bell(tile, row, column, boxes, width)
    assert found == pytest.approx(expected, abs=1e-6)


def test_weights_peak_at_the_boxes_centre_and_end_with_its_coverage():
    boxes = [(0, 20, 60, 80)]  # its centre is that of the patch in row 2, column 1
    coverage = token_weights([WHOLE], draw(SIZE, boxes), LENGTH)
    found = gaussian_weights([WHOLE], boxes, coverage)
    assert found.argmax() == WHOLE.positions[2, 1]
    assert found.max() == pytest.approx(1)
    assert (found[coverage == 0] == 0).all()
    assert (found[coverage > 0] > 0).all()
    grid = found[WHOLE.positions]
    assert grid[1:, 0] == pytest.approx(grid[1:, 2])  # symmetrical about the centre
    assert grid[1, :3] == pytest.approx(grid[3, :3])
    assert anchor_target(torch.from_numpy(found)).sum().item() == pytest.approx(1)


def test_weights_of_two_boxes_peak_in_both():
    boxes = [(0, 0, 20, 20), (80, 40, 100, 60)]
    found = gaussian_weights([WHOLE], boxes, token_weights([WHOLE], draw(SIZE, boxes), LENGTH))
    assert [found[WHOLE.positions[0, 0]], found[WHOLE.positions[2, 4]]] == pytest.approx([1, 1])
    assert np.count_nonzero(found) == 2


def test_boxes_may_be_an_iterator():
    boxes = [(20, 10, 110, 70)]
    tiles = [LEFT, RIGHT]
    coverage = token_weights(tiles, draw(SIZE, boxes), LENGTH)
    assert (gaussian_weights(tiles, iter(boxes), coverage) == gaussian_weights(tiles, boxes, coverage)).all()
