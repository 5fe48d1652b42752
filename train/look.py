"""What a policy answers to one row, and where it looks meanwhile.

from train.loading import load_model
from train.look import look

found = look(load_model("demo/checkpoints/policy", "cpu"), dataset[0])
found.response, found.share        # what it says; how much of its looking falls on the evidence
found.picture()                    # the image with its attention and the labelled boxes
found.scores(Accuracy(), AttentionContrast(share=1.0))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rewardlib.measure import Measurer, evaluating
from rewardlib.rows import RowError
from rewardlib.sample import Reward, Sample, Score
from rewardlib.templates import Template
from rewardlib.tokens import painted
from train.data import Row, to_row
from train.engines.local import greedy
from train.heat import overlaid
from train.policy import Policy, Prompt
from train.record import image_maps
from train.sampling import texts

MAX_TOKENS = 512


@dataclass(frozen=True)
class Look:
    """One response to one row.

    sample: the row with the response, for rewards.
    attention: of the response on the first image, as a grid (rows, columns) of shares of all its
        attention; a mean over its tokens and the layers.
    boxes: x0, y0, x1, y1 of the labelled regions in shares of the image's sides.
    share: the part of the attention on the image that falls on the labelled region, in [0, 1]; None
        where nothing falls on the image, or no region is labelled.
    area: the region's part of the image; what ``share`` is where the response looks anywhere.
    """

    sample: Sample
    attention: NDArray[Any]
    boxes: Sequence[Sequence[float]]
    share: float | None
    area: float

    @property
    def response(self) -> str:
        return self.sample.response

    def picture(self) -> Image.Image:
        """The image, its attention and the labelled boxes."""
        return overlaid(self.sample.images[0], self.attention, self.boxes)

    def scores(self, *rewards: Reward) -> dict[str, Score]:
        """What rewards say of the response, by their names; None where one cannot say."""
        return {reward.name: reward([self.sample])[0] for reward in rewards}

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.picture()._repr_png_() or b""


def look(
    policy: Policy,
    columns: Mapping[str, Any],
    *,
    template: Template = "think-answer",
    layers: Sequence[int] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Look:
    """Ask a policy one row, greedily.

    columns: of a dataset's row, or of any that a build reads; it has to have an image.
    template: the form of response that is asked for.
    layers: whose attention counts; None for all.

    ``RowError`` for a row that cannot be asked.
    """
    row = to_row(columns, template)
    if not row.images:
        raise RowError("no image", "the row has no image to look at; give it one")
    prompt = policy.encode(row.messages, row.images, row.region)
    (tokens,) = greedy(policy, [prompt], max_tokens)
    found = seen(policy, row, prompt, tokens, layers)
    measurer = Measurer(policy.model, policy.processor, layers)
    (sample,) = measurer([found.sample], {"attention", "entropy"})
    return replace(found, sample=sample)


@torch.no_grad()
def seen(
    policy: Policy, row: Row, prompt: Prompt, tokens: Tensor, layers: Sequence[int] | None
) -> Look:
    """Where the policy looks while it gives a response, (n,) token ids, to a row with an image."""
    (text,) = texts(policy, [tokens])
    with evaluating(policy.model):
        (grid,) = image_maps(policy, prompt, [tokens], layers)
    weights = prompt.region.cpu().numpy()
    region = torch.from_numpy(painted(prompt.tiles, weights, prompt.pictures[0].size)).float()
    whole, area = float(grid.sum()), float(region.mean())
    return Look(
        sample=replace(row.sample, response=text, response_ids=tuple(tokens.tolist())),
        attention=grid.numpy(),
        boxes=row.boxes,
        share=float((grid * region).sum()) / whole if whole > 0 and area > 0 else None,
        area=area,
    )
