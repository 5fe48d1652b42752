"""Anchoring, the first stage of Faithful-MR1: a ``<Focus>`` token whose attention is taught to lie on the evidence.

    python -m train.anchor --data dataset --model Qwen/Qwen2.5-VL-3B-Instruct --out runs/anchor
    python -m train.grpo --data dataset --model runs/anchor/model --recipe faithful-mr1

Every correct trace of a row becomes a response that begins with the new token. The loss is that of the language model on the response, plus
``weight`` times the KL divergence from the region's share of each image token to the token's attention (``rewardlib.anchor``). The paper's
own loss is not public; see ``docs/rewards.md``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rewardlib.text import Template

if TYPE_CHECKING:
    from torch import Tensor

    from train.data import Row, Rows
    from train.policy import Policy

FOCUS = "<Focus>"


@dataclass(frozen=True, kw_only=True)
class AnchorSettings:
    """An anchoring run."""

    data: str
    """a folder made by flows.build_dataset, Parquet or JSON files, or a Hub id"""
    model: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """a Hub id or a folder, Qwen2.5-VL or Qwen3-VL"""
    out: Path = Path("runs/anchor")
    steps: int = 200
    rows: int = 8
    """rows per step"""
    weight: float = 1.0
    """weight of the anchor beside the language-model loss"""
    layers: tuple[int, ...] | None = None
    """whose attention is anchored; all of them by default"""
    learning_rate: float = 5e-6
    template: Template = "think-answer"
    """what the prompt asks for"""
    max_prompt: int = 4096
    seed: int = 0
    device: str = "auto"


def anchor(settings: AnchorSettings) -> Path:
    """Run the settings to their end and return the folder of the anchored model."""
    import torch

    from pipelines.console import say
    from train.data import by_reason, load_rows, require
    from train.limits import COUNT, NOT_NEGATIVE, POSITIVE, within
    from train.order import row_index

    within(settings, steps=COUNT, rows=COUNT, max_prompt=COUNT, weight=NOT_NEGATIVE, learning_rate=POSITIVE)
    rows = load_rows(settings.data, settings.template)
    for label, count in require(rows, regions=True, traces=True).items():
        say(f"{count} of {len(rows)} rows have no {label} and are left out")
    policy = load_with_focus(settings)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=settings.learning_rate)
    settings.out.mkdir(parents=True, exist_ok=True)
    with (settings.out / "metrics.jsonl").open("w") as file:
        for step in range(settings.steps):
            numbers = range(step * settings.rows, (step + 1) * settings.rows)
            indices = [row_index(len(rows), number, settings.seed) for number in numbers]
            shown = [figures for index in indices if (figures := learn_from(policy, rows, index, settings))]
            if not shown:
                say(f"step {step + 1}  no row with both a correct trace and a region")
                continue
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            metrics = {name: sum(s[name] for s in shown) / len(shown) for name in shown[0]} | {"rows_used": len(shown) / len(indices)}
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            looks = f"anchor {metrics['anchor_loss']:.3f}  on the region {metrics['attention_on_region']:.2f}"
            say(f"step {step + 1}/{settings.steps}  language {metrics['language_loss']:.3f}  {looks}")
    if rows.left_out:
        say(f"{len(rows.left_out)} of {len(rows)} rows could not be used: {by_reason(rows)}")
    policy.model.save_pretrained(settings.out / "model")
    policy.processor.save_pretrained(settings.out / "model")
    return settings.out / "model"


def load_with_focus(settings: AnchorSettings) -> Policy:
    """The model with the new token in its vocabulary, which starts as the mean of all others."""
    import torch

    from train.policy import load_model

    policy = load_model(settings.model, settings.device, trained=True)
    tokenizer, model = policy.processor.tokenizer, policy.model
    if FOCUS not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [FOCUS]}, replace_extra_special_tokens=False)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
        with torch.no_grad():
            for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
                table[tokenizer.convert_tokens_to_ids(FOCUS)] = table.mean(dim=0)
    return policy


def learn_from(policy: Policy, rows: Rows, index: int, settings: AnchorSettings) -> dict[str, float] | None:
    """``learn`` from one of the rows; None also for a row that cannot be used, which is left out with a word."""
    return rows.use(index, lambda row: learn(policy, row, settings))


def learn(policy: Policy, row: Row, settings: AnchorSettings) -> dict[str, float] | None:
    """Add a row's gradient; None where it has no correct trace or no region that reaches an image token."""
    import torch
    from torch.nn.functional import pad

    from rewardlib.anchor import anchor_loss, anchor_target
    from rewardlib.probe import AttentionProbe
    from train.packing import pack
    from train.score import last_hidden, token_logprobs

    prompt = policy.encode(row.messages, row.images, row.region, settings.max_prompt)
    responses = _responses(policy, row)
    if not responses or not prompt.region.any():
        return None
    packed = pack(prompt.ids, prompt.positions, responses)
    focus = packed.ids == policy.processor.tokenizer.convert_tokens_to_ids(FOCUS)
    image = pad(prompt.image, (0, packed.ids.shape[1] - len(prompt.image)))[None]
    probe = AttentionProbe(policy.model, settings.layers, differentiable=True)
    with policy.precision(), probe.watch(focus, {"image": image}, maps="image") as mass:
        hidden = last_hidden(policy, prompt, packed)
        logprobs, _ = token_logprobs(policy, hidden[packed.predictors], packed.ids[0, packed.tokens])
        language, anchored = -logprobs.mean(), anchor_loss(mass.maps[0], anchor_target(prompt.region[prompt.image]))
        torch.autograd.backward((language + settings.weight * anchored) / settings.rows)
    on_region = (mass.maps[0] @ prompt.region[prompt.image] / mass.maps[0].sum(dim=-1)).mean()
    return {"language_loss": language.item(), "anchor_loss": anchored.item(), "attention_on_region": on_region.item()}


def _responses(policy: Policy, row: Row) -> list[Tensor]:
    """The row's correct traces as token ids, each behind the focus token and closed by the end token."""
    import torch

    texts = [policy.processor.tokenizer(FOCUS + trace, add_special_tokens=False)["input_ids"] for trace in row.traces]
    return [torch.tensor([*ids, int(policy.ends[-1])], device=policy.device) for ids in texts]


def main() -> None:
    import tyro

    settings = tyro.cli(AnchorSettings, description="Teach a <Focus> token to attend to the evidence (Faithful-MR1, stage 1).")
    from pipelines.console import failing_clearly, quiet_libraries

    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        anchor(settings)


if __name__ == "__main__":
    main()
