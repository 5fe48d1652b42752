"""Measure a policy's responses for the rewards that need it: entropy, log-probabilities, attention, counterfactuals.

One teacher-forced forward per sample (two more with counterfactual images), with the probe inside. For trainers that give rewards no access
to the model; a trainer that makes such a pass anyway uses the probe itself.

    measurer = Measurer(model, processor, layers=[-1])
    samples = measurer(samples, needs={"attention", "entropy"})      # the same samples, with Sample.attention and .entropy filled in
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rewardlib.probe import AttentionProbe
from rewardlib.sample import Counterfactual, Sample, VisualAttention, supplied
from rewardlib.sinks import without_sinks
from rewardlib.tokens import Tile, Weights, draw_regions, image_mask, image_tiles, token_weights


@dataclass
class Measurer:
    """Runs ``model`` on what ``processor`` makes of the samples.

    layers, heads: whose attention counts; SAYO's default is all heads of the last layer.
    drop_sinks: leave visual sinks out of the attention (``rewardlib.sinks.without_sinks``).
    temperature: the one that the responses were sampled at.
    batch_size: samples per forward. No measurement depends on it.
    """

    model: Any
    processor: Any
    layers: Sequence[int] | None = (-1,)
    heads: Sequence[int] | None = None
    drop_sinks: bool = False
    temperature: float = 1.0
    batch_size: int = 4

    def __call__(self, samples: Sequence[Sample], needs: frozenset[str] | set[str]) -> list[Sample]:
        """The samples with what is needed filled in."""
        found: list[Sample] = []
        samples = [_with_opened_images(sample) for sample in samples]
        with evaluating(self.model), torch.no_grad():
            # Processors take a batch whose rows all have images, or none.
            for _, alike in groupby(samples, key=lambda sample: bool(sample.images)):
                for batch in _batches(list(alike), self.batch_size):
                    found += self._measure(batch, needs)
        return found

    def _measure(self, samples: list[Sample], needs: frozenset[str] | set[str]) -> list[Sample]:
        if missing := [s for s in samples if not s.response_ids and s.response]:
            raise ValueError(f"{len(missing)} samples have no response_ids: the attention is that of the response's tokens")
        found = self._forward(samples, attention="attention" in needs)
        if "counterfactual" in needs:
            found = self._with_counterfactuals(found)
        kept = {"entropy", "attention", "counterfactual"} & set(needs)
        return [replace(s, **{name: getattr(f, name) for name in kept}) for s, f in zip(samples, found, strict=True)]

    def _with_counterfactuals(self, samples: list[Sample]) -> list[Sample]:
        """Log-probabilities given the image without its evidence, and without something else."""
        for role in ("evidence", "control"):
            rows = [i for i, s in enumerate(samples) if getattr(s, f"{role}_image") is not None]
            if rows:
                changed = [replace(samples[i], images=(getattr(samples[i], f"{role}_image"), *samples[i].images[1:])) for i in rows]
                for i, seen in zip(rows, self._forward(changed, attention=False), strict=True):
                    known, changed_image = supplied(samples[i], "counterfactual", role), supplied(seen, "counterfactual", role)
                    samples[i] = replace(samples[i], counterfactual=replace(known, **{role: changed_image.original}))
        return samples

    def _forward(self, samples: list[Sample], attention: bool) -> list[Sample]:
        inputs, prompt_inputs = self._inputs(samples)
        length, width = inputs["input_ids"].shape[1], max(len(s.response_ids) for s in samples)
        if not attention:
            return self._with_logits(samples, self.model(**inputs, use_cache=False, logits_to_keep=width + 1).logits)
        tiles = self._tiles(samples, prompt_inputs)
        image = torch.stack([torch.from_numpy(image_mask(row, length)) for row in tiles])
        region = torch.stack([torch.from_numpy(_region(s, row, length)) for s, row in zip(samples, tiles, strict=True)])
        rows = torch.zeros(len(samples), length, dtype=torch.bool)
        for b, sample in enumerate(samples):
            rows[b, length - width : length - width + len(sample.response_ids)] = True
        probe = AttentionProbe(self.model, self.layers, self.heads)
        keys = {"region": region, "image": image}
        with probe.watch(rows, keys, maps="image" if self.drop_sinks else None) as mass:
            logits = self.model(**inputs, use_cache=False, logits_to_keep=width + 1).logits
        measured = self._with_logits(samples, logits)
        return [replace(s, attention=a) for s, a in zip(measured, _attention(mass, rows, region, image, self.drop_sinks), strict=True)]

    def _inputs(self, samples: list[Sample]) -> tuple[dict[str, Tensor], Any]:
        """Model inputs (left-padded prompts, right-padded responses), and the processor's output for the prompts alone."""
        images = [list(s.images) for s in samples]
        prompts = self.processor(
            text=[self._prompt(s) for s in samples], padding=True, padding_side="left", return_tensors="pt",
            **({"images": images} if samples[0].images else {}),
        )  # fmt: skip
        width = max(len(s.response_ids) for s in samples)
        device = next(self.model.parameters()).device
        ids = torch.zeros(len(samples), width, dtype=torch.long)
        for b, sample in enumerate(samples):
            ids[b, : len(sample.response_ids)] = torch.tensor(sample.response_ids)
        real = torch.arange(width) < torch.tensor([[len(s.response_ids)] for s in samples])
        inputs = dict(prompts)
        inputs["input_ids"] = torch.cat([prompts["input_ids"], ids], dim=1)
        inputs["attention_mask"] = torch.cat([prompts["attention_mask"], real.long()], dim=1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in prompts:
                inputs[name] = torch.cat([prompts[name], torch.zeros_like(ids)], dim=1)
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}, prompts

    def _prompt(self, sample: Sample) -> str:
        if isinstance(sample.prompt, str):
            return sample.prompt
        return str(self.processor.apply_chat_template(sample.prompt, add_generation_prompt=True, tokenize=False))

    def _tiles(self, samples: list[Sample], prompts: Any) -> list[list[list[Tile]]]:
        if not samples[0].images:
            return [[] for _ in samples]
        return image_tiles(self.processor, prompts, [[image.size for image in s.images] for s in samples])

    def _with_logits(self, samples: list[Sample], logits: Tensor) -> list[Sample]:
        """Entropy and log-probability of every response token, from logits (B, C + 1, vocabulary) that begin at the prompt's last token."""
        found = []
        for b, sample in enumerate(samples):
            count = len(sample.response_ids)
            scores = torch.log_softmax(logits[b, :count].float() / self.temperature, dim=-1)
            entropy = -(scores.exp() * scores).sum(dim=-1)
            logprobs = scores.gather(1, torch.tensor(sample.response_ids, device=scores.device)[:, None])[:, 0] if count else scores[:, 0]
            found.append(replace(sample, entropy=entropy.cpu().numpy(), counterfactual=Counterfactual(logprobs.cpu().numpy())))
        return found


def _attention(mass: Any, rows: Tensor, region: Tensor, image: Tensor, drop_sinks: bool) -> Iterator[VisualAttention]:
    means = mass.mean()
    for b, count in enumerate(rows.sum(dim=1).tolist()):
        if drop_sinks:
            yield without_sinks(mass.maps[b].cpu().numpy(), region[b][image[b]].numpy())
        else:
            on_region, on_image = (means[name][b, :count].cpu().numpy() for name in ("region", "image"))
            yield VisualAttention(on_region, on_image, float(region[b].sum()), float(image[b].sum()))


def _region(sample: Sample, tiles: Sequence[Sequence[Tile]], length: int) -> Weights:
    """The sample's regions on its first image, as token weights (length,)."""
    if not tiles or not sample.regions:
        return np.zeros(length, np.float32)
    return token_weights(tiles[0], draw_regions(sample.images[0].size, sample.regions), length)


def _with_opened_images(sample: Sample) -> Sample:
    return replace(
        sample,
        images=tuple(map(_opened, sample.images)),
        evidence_image=_opened(sample.evidence_image),
        control_image=_opened(sample.control_image),
    )


def _opened(image: Any) -> Any:
    """An upright RGB image, also where a dataset hands over a path, bytes, base64 or {"bytes": ..., "path": ...}."""
    if image is None:
        return None
    from rewardlib.rows.images import Folders, load_image

    return load_image(image, Folders((Path(),)))


def _batches(samples: list[Sample], size: int) -> Iterator[list[Sample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and back: without dropout, and with a cache where checkpointing forbids one."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
