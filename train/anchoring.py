"""What ``train.anchor`` runs: teach the <Focus> token where to attend."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardlib.anchor import anchor_loss, anchor_target
from rewardlib.console import failing_clearly, quiet_libraries, say
from rewardlib.probe import AttentionProbe
from train.anchor import FOCUS, AnchorSettings
from train.data import Row, Rows, by_reason, load_rows, require
from train.forward import last_hidden, token_logprobs
from train.labels import Need
from train.limits import COUNT, NOT_NEGATIVE, POSITIVE, within
from train.loading import load_model
from train.order import row_index
from train.packing import pack
from train.policy import Policy

NEEDS = (Need("regions", "anchoring"), Need("traces", "anchoring"))


def command(settings: AnchorSettings) -> None:
    """``anchor``, as a command."""
    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        out = anchor(settings)
    say(f"model    {out}   (train on from it: python -m train.grpo --model {out})")


def anchor(settings: AnchorSettings) -> Path:
    """Run the settings to their end and return the folder of the anchored model."""
    within(
        settings,
        steps=COUNT,
        rows=COUNT,
        max_prompt=COUNT,
        weight=NOT_NEGATIVE,
        learning_rate=POSITIVE,
    )
    rows = load_rows(settings.data, settings.template)
    for label, count in require(rows, NEEDS).items():
        say(f"{count} of {len(rows)} rows have no {label} and are left out")
    policy = load_with_focus(settings)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=settings.learning_rate)
    settings.out.mkdir(parents=True, exist_ok=True)
    with (settings.out / "metrics.jsonl").open("w") as file:
        for step in range(settings.steps):
            numbers = range(step * settings.rows, (step + 1) * settings.rows)
            indices = [row_index(len(rows), number, settings.seed) for number in numbers]
            learnt = [
                figures
                for index in indices
                if (figures := learn_from(policy, rows, index, settings))
            ]
            if not learnt:
                say(f"step {step + 1}  no row with both a correct trace and a region")
                continue
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            metrics = {name: sum(s[name] for s in learnt) / len(learnt) for name in learnt[0]} | {
                "rows_used": len(learnt) / len(indices)
            }
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            say(
                f"step {step + 1}/{settings.steps}"
                f"  language {metrics['language_loss']:.3f}"
                f"  anchor {metrics['anchor_loss']:.3f}"
                f"  on the region {metrics['attention_on_region']:.2f}"
            )
    if rows.left_out:
        say(f"{len(rows.left_out)} of {len(rows)} rows could not be used: {by_reason(rows)}")
    policy.model.save_pretrained(settings.out / "model")
    policy.processor.save_pretrained(settings.out / "model")
    return settings.out / "model"


def load_with_focus(settings: AnchorSettings) -> Policy:
    """The model with the new token in its vocabulary, which starts as the mean of all others."""
    policy = load_model(settings.model, settings.device, trained=True)
    tokenizer, model = policy.processor.tokenizer, policy.model
    if FOCUS not in tokenizer.get_vocab():
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [FOCUS]}, replace_extra_special_tokens=False
        )
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
        with torch.no_grad():
            for table in (
                model.get_input_embeddings().weight,
                model.get_output_embeddings().weight,
            ):
                table[tokenizer.convert_tokens_to_ids(FOCUS)] = table.mean(dim=0)
    return policy


def learn_from(
    policy: Policy, rows: Rows, index: int, settings: AnchorSettings
) -> dict[str, float] | None:
    """``learn`` from one of the rows; None also for a row that cannot be used, which is left out
    with a word.
    """
    return rows.use(index, lambda row: learn(policy, row, settings))


def learn(policy: Policy, row: Row, settings: AnchorSettings) -> dict[str, float] | None:
    """Add a row's gradient; None where it has no correct trace or no region that reaches an image
    token.
    """
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
        logprobs, _ = token_logprobs(
            policy, hidden[packed.predictors], packed.ids[0, packed.tokens]
        )
        language, anchored = (
            -logprobs.mean(),
            anchor_loss(mass.maps[0], anchor_target(prompt.region[prompt.image])),
        )
        torch.autograd.backward((language + settings.weight * anchored) / settings.rows)
    on_region = (mass.maps[0] @ prompt.region[prompt.image] / mass.maps[0].sum(dim=-1)).mean()
    return {
        "language_loss": language.item(),
        "anchor_loss": anchored.item(),
        "attention_on_region": on_region.item(),
    }


def _responses(policy: Policy, row: Row) -> list[Tensor]:
    """The row's correct traces as token ids, each behind the focus token and closed by the end
    token.
    """
    texts = [
        policy.processor.tokenizer(FOCUS + trace, add_special_tokens=False)["input_ids"]
        for trace in row.traces
    ]
    return [torch.tensor([*ids, int(policy.ends[-1])], device=policy.device) for ids in texts]
