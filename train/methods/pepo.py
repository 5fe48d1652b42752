"""PEPO: tokens near the image in all layers count more, the more so where the policy is in doubt
(arXiv 2603.22847; xzxxntxdy/PEPO).

    VS = mean over layers of the mean cosine between a token's hidden state and the image tokens'
    gate = 1 + 0.05 * tanh(m - mean(m)),    m = minmax(VS) + minmax(entropy)
    w = length * softmax(VS * gate / 1.8)
    advantage *= (1 - p) + p * w,           p = the share of the run that is done

All over the completion's own tokens. Departures: weights are of the policy that sampled and carry
no gradient; a completion of a row without image keeps its advantages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from train.flat import completion_mean, completion_minmax, completion_softmax
from train.limits import NOT_NEGATIVE, POSITIVE, Limit
from train.measures import Inputs, Measure, Reading
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSimilarity:
    """Mean cosine (N,) of tokens' hidden states to the image tokens', over the embeddings and all
    layers; NaN without an image.

    Of the last layer it is the state behind the final norm, as transformers has it in
    ``output_hidden_states``.
    """

    name: ClassVar[str] = "image_similarity"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        prompt, tokens = inputs.prompt, inputs.packed.tokens
        similarities: list[Tensor] = []

        def take(hidden: Tensor) -> None:
            """Remember the similarities in one layer."""
            unit = hidden.detach().float()
            unit = unit / unit.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            image = unit[: len(prompt.image)][prompt.image].mean(dim=0)
            # No matrix product, which would be made in half precision on a GPU.
            similarities.append((unit[tokens] * image).sum(dim=-1))

        def before_layer(module: Any, arguments: tuple[Any, ...]) -> None:
            take(arguments[0][0])

        def after_layer(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
            take((output[0] if isinstance(output, tuple) else output)[0])

        def read(hidden: Tensor) -> Tensor:
            take(hidden)
            return sum(similarities[1:], similarities[0]) / len(similarities)

        with ExitStack() as hooks:
            layers = inputs.policy.model.get_decoder().layers
            hooks.callback(layers[0].register_forward_pre_hook(before_layer).remove)
            for layer in layers[:-1]:
                hooks.callback(layer.register_forward_hook(after_layer).remove)
            yield read


@dataclass(frozen=True)
class PEPO(Method):
    """Weighs tokens by how near they are to the image."""

    gate: float = 0.05
    """how much similarity counts more where the policy is in doubt"""
    temperature: float = 1.8
    """of the softmax over a completion's tokens; lower ones set tokens further apart"""

    name: ClassVar[str] = "pepo"
    about: ClassVar[str] = (
        "accuracy and format, with tokens weighed by how near they are to the image"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    changes_on_the_way: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"gate": NOT_NEGATIVE, "temperature": POSITIVE}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0, format=1.0),
        methods=("pepo",),
        loss="grpo",
        kl=0.001,
        max_tokens=1024,
        freeze_vision=True,
        schedule="cosine",
    )

    def measures(self) -> Sequence[Measure]:
        return (ImageSimilarity(),)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        shaped = []
        for own, score in zip(advantages, scores, strict=True):
            similarity = score.measured["image_similarity"]
            weight = self.weights(similarity, score.entropy, score.completion_index)
            mixed = 1 - self.progress + self.progress * weight
            shaped.append(own * mixed.where(~similarity.isnan(), 1.0))
        return shaped

    def weights(self, similarity: Tensor, entropy: Tensor, completion_index: Tensor) -> Tensor:
        """The weight (N,) of every token, 1 on average over each completion."""
        mixed = completion_minmax(similarity, completion_index, 1e-6) + completion_minmax(
            entropy, completion_index, 1e-6
        )
        gate = (
            1
            + self.gate
            * (mixed - completion_mean(mixed, completion_index)[completion_index]).tanh()
        )
        share = completion_softmax(similarity * gate / self.temperature, completion_index)
        return share * completion_index.bincount()[completion_index]
