"""The demo's detector is taught with a loss of its own."""

from __future__ import annotations

import random

import pytest
import torch

from demo.teach_detector import build_model as build_detector
from demo.teach_detector import build_processor, detection_loss, forward, make_batch


def test_the_teaching_loss_of_a_batch_is_that_of_its_rows() -> None:
    """transformers' own loss shifts the label maps of every row after the first; ours may not mix
    rows at all."""
    torch.manual_seed(0)
    rng, processor, model = random.Random(3), build_processor(), build_detector().eval()
    batch = make_batch(rng, processor, "strip", 3)
    with torch.no_grad():
        whole, _ = detection_loss(forward(model, batch), batch)
        rows = []
        for i in range(3):
            row = type(batch)(
                {k: v[i : i + 1] for k, v in batch.inputs.items()},
                batch.boxes[i : i + 1],
                batch.targets[i : i + 1],
                batch.text_mask[i : i + 1],
            )
            rows.append(detection_loss(forward(model, row), row)[0] * max(1, len(row.boxes[0])))
    expected = sum(r.item() for r in rows) / sum(len(b) for b in batch.boxes)
    assert whole.item() == pytest.approx(expected, rel=1e-3)
