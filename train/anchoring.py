"""What ``train.anchor`` runs: teach the <Focus> token where to attend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardlib.anchor import anchor_loss, anchor_target
from rewardlib.console import failing_clearly, quiet_libraries, say, tell
from rewardlib.probe import AttentionProbe
from train.anchor import FOCUS, AnchorSettings
from train.checkpoint import Progress, restore, save
from train.data import Row, Rows, by_reason, load_rows, require
from train.distributed import World
from train.folders import latest
from train.forward import last_hidden, token_logprobs
from train.labels import Need
from train.limits import COUNT, NOT_NEGATIVE, POSITIVE, within
from train.loading import load_model
from train.order import row_index
from train.packing import pack
from train.policy import Policy
from train.record import forget

# What a run may change when it goes on.
FREE = {"out", "steps", "device", "save_every"}
NEEDS = (Need("regions", "anchoring"), Need("traces", "anchoring"))


def command(settings: AnchorSettings) -> None:
    """``anchor``, as a command."""
    quiet_libraries()
    with failing_clearly(ValueError, OSError):
        out = anchor(settings)
    run = settings.out
    say(f"model    {out}   (train on from it: python -m train.grpo --model {run})")
    tell({"model": out})


def anchor(settings: AnchorSettings) -> Path:
    """Run the settings to their end and return the folder of the anchored model."""
    within(
        settings,
        steps=COUNT,
        save_every=COUNT,
        rows=COUNT,
        max_prompt=COUNT,
        weight=NOT_NEGATIVE,
        learning_rate=POSITIVE,
    )
    world = World(settings.device, settings.out)
    rows = load_rows(settings.data, settings.template)
    for label, count in require(rows, NEEDS).items() if world.main else ():
        say(f"{count} of {len(rows)} rows have no {label} and are left out")
    policy = load_with_focus(settings, world.device)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=settings.learning_rate)
    progress = restore(policy, optimizer, settings.out, computed(settings))
    if world.main:
        settings.out.mkdir(parents=True, exist_ok=True)
        forget(settings.out / "metrics.jsonl", progress.step)
    for step in range(progress.step, settings.steps):
        numbers = range(step * settings.rows, (step + 1) * settings.rows)
        indices = [row_index(len(rows), number, settings.seed) for number in numbers]
        own = [learn_from(policy, rows, index, settings) for index in world.share(indices)]
        learnt = world.gather_objects([figures for figures in own if figures])
        if learnt:
            world.add_gradients(policy.model.parameters())
            world.clip_gradients(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if world.main:
            _tell(step, learnt, len(indices), settings)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            drawn = (step + 1) * settings.rows
            save(
                policy,
                optimizer,
                Progress(step + 1, drawn),
                settings.out,
                computed(settings),
                world,
            )
    if rows.left_out:
        say(f"{len(rows.left_out)} of {len(rows)} rows could not be used: {by_reason(rows)}")
    if world.main:
        policy.model.save_pretrained(settings.out / "model")
        policy.processor.save_pretrained(settings.out / "model")
    world.close()
    return settings.out / "model"


def computed(settings: AnchorSettings) -> dict[str, str]:
    """The settings that decide what a run computes."""
    return {name: str(value) for name, value in asdict(settings).items() if name not in FREE}


def _tell(
    step: int, learnt: Sequence[dict[str, float]], asked: int, settings: AnchorSettings
) -> None:
    """A step's figures, to metrics.jsonl and the screen."""
    if not learnt:
        say(f"step {step + 1}  no row with both a correct trace and a region")
        return
    metrics = {name: sum(s[name] for s in learnt) / len(learnt) for name in learnt[0]}
    metrics["rows_used"] = len(learnt) / asked
    with (settings.out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")
    say(
        f"step {step + 1}/{settings.steps}"
        f"  language {metrics['language_loss']:.3f}"
        f"  anchor {metrics['anchor_loss']:.3f}"
        f"  on the region {metrics['attention_on_region']:.2f}"
    )


def load_with_focus(settings: AnchorSettings, device: torch.device | None = None) -> Policy:
    """The model with the new token in its vocabulary, which starts as the mean of all others; of a
    run that goes on, that of its newest checkpoint.
    """
    name = str(latest(settings.out) or settings.model)
    policy = load_model(name, device or settings.device, trained=True)
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
        hidden = last_hidden(policy, [prompt], packed)
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
