"""What a reward sees, what a reward is, and how several become one number. Needs neither torch nor a trainer.

A reward is a callable with a name: ``reward(samples) -> list[float | None]``. None means *could not be scored* (the judge is down, the
row has no gold answer, no region): it is counted and left out, never turned into a zero that a policy would be punished for. ``needs``
names the measurements that the trainer must supply in ``Sample``, so that nothing unneeded is computed. A minimal reward:

    class Concise:
        name = "concise"
        needs: frozenset[str] = frozenset()

        def __call__(self, samples):
            return [1.0 if len(s.response) < 400 else 0.0 for s in samples]
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rewardlib.templates import Template

    Values = NDArray[np.floating[Any]]

Score = float | None


@dataclass(frozen=True, eq=False)
class VisualAttention:
    """Attention of every response token (T,), averaged over the measured layers and heads.

    region, image: mass on the labelled region (each key by the share of its patch that is inside) and on all image tokens.
    region_tokens, image_tokens: the key sets' sizes, as sums of weights.
    """

    region: Values
    image: Values
    region_tokens: float
    image_tokens: float


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Log-probability of every response token (T,) given the image, the image without its evidence, and a control of the same shape.

    A row without such images has None there.
    """

    original: Values
    evidence: Values | None = None
    control: Values | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One response of a policy, the row that it answers, and what the trainer has measured about it."""

    response: str
    prompt: Any = ""  # text, or chat messages
    answer: str | None = None  # the gold answer
    alternatives: tuple[str, ...] = ()  # further golds of equal standing: any of them is right
    choices: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()  # visual facts that a good response states
    images: tuple[Any, ...] = ()  # PIL images
    regions: tuple[Mapping[str, Any], ...] = ()  # {"bbox": xyxy in pixels, "mask": COCO RLE or None}, of the first image
    evidence_image: Any = None  # the first image without its evidence
    control_image: Any = None  # the first image without something else of the same shape
    group: Hashable = None  # samples of one prompt share it
    response_ids: tuple[int, ...] = ()  # the response's tokens
    length: int | None = None  # T, their number, for hosts that give no tokens
    opening: str = ""  # what the chat template has begun of the response, such as "<think>\n" of thinking models
    box_space: tuple[float, float] | None = None  # width and height of the first image in the coordinates that the model writes
    foreign: tuple[str, ...] = ()  # visual facts of another image, which are no facts of this one
    replies: Mapping[str, Sequence[str | None]] = field(default_factory=dict)  # to the questions of a reward, by its name
    token_ends: tuple[int, ...] | None = None  # (T,) where in ``response`` each token ends
    entropy: Values | None = None  # (T,) nats, of the distribution that each token was drawn from
    attention: VisualAttention | None = None
    counterfactual: Counterfactual | None = None


class Run(Protocol):
    """What a training run tells the rewards that are made for it."""

    @property
    def template(self) -> Template: ...

    @property
    def window(self) -> tuple[int, int] | None: ...

    @property
    def share(self) -> float: ...

    @property
    def judge(self) -> str: ...

    @property
    def judge_url(self) -> str | None: ...

    @property
    def out(self) -> Path: ...


@runtime_checkable
class Reward(Protocol):
    """A named, picklable function of samples. ``needs`` names fields of ``Sample``: entropy, attention, counterfactual,
    token_ends, foreign, replies."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, samples: Sequence[Sample]) -> list[Score]: ...


def supplied(sample: Sample, need: str, reward: str) -> Any:
    """The measurement that a reward needs, or ``ValueError`` naming who has to supply it."""
    value = getattr(sample, need)
    if value is None:
        raise ValueError(
            f"reward {reward!r} needs Sample.{need}, which this sample lacks: measure it first with rewardlib.measure, "
            "or use an adapter of rewardlib.adapters, which does"
        )
    return value


def as_floats(scores: Sequence[Any]) -> list[Score]:
    """Scores as hosts want them: plain floats, None where there is none (NaN included); rewards may give ints, bools or numpy's."""
    values = [None if score is None else float(score) for score in scores]
    return [None if value is None or value != value else value for value in values]


def combine(scores: Mapping[str, Sequence[Score]], weights: Mapping[str, float], groups: Sequence[Hashable]) -> list[Score]:
    """Weighted sum of several rewards' scores for each sample; None where no reward could score it.

    A missing score counts as the mean of that reward within its group, which neither rewards nor punishes it against its siblings (a zero
    would). A reward that no sample of a group has says nothing about the group.
    """
    if unknown := set(scores) ^ set(weights):
        raise ValueError(f"scores and weights must name the same rewards; only one has {', '.join(sorted(unknown))}")
    for name, column in scores.items():
        if len(column) != len(groups):
            raise ValueError(f"reward {name!r} returned {len(column)} scores for {len(groups)} samples")
    filled = {name: _filled(column, groups) for name, column in scores.items()}
    totals: list[Score] = []
    for i in range(len(groups)):
        known = any(_known(column[i]) for column in scores.values())
        totals.append(sum(weights[name] * filled[name][i] for name in scores) if known else None)
    return totals


def _filled(column: Sequence[Score], groups: Sequence[Hashable]) -> list[float]:
    members: dict[Hashable, list[float]] = {}
    for score, group in zip(column, groups, strict=True):
        if _known(score):
            members.setdefault(group, []).append(score)
    # Sorted, so that the mean does not depend on the samples' order.
    means = {group: fmean(sorted(known)) for group, known in members.items()}
    return [score if _known(score) else means.get(group, 0.0) for score, group in zip(column, groups, strict=True)]


def _known(score: Score) -> TypeGuard[float]:
    return score is not None and score == score  # trainers write None as NaN
