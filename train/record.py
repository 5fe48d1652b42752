"""What a run leaves to look at: metrics.jsonl, the trackers, completions/step-*.parquet and
portrait/*.parquet with attention maps, a line or a bar on the screen.

Metrics have the field's names (those of TRL). A metric that could not be measured is null, never
zero.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rewardlib.console import console, say
from rewardlib.sample import Score
from rewardlib.tokens import painted
from train.batch import Group, Signal
from train.data import Rows
from train.distributed import World
from train.forward import forward
from train.measures import ImageAttention
from train.policy import Policy, Prompt
from train.settings import Settings, flags_of

MAX_SIDE = 448  # pixels of an image kept with the completions
MAX_GROUPS = 4  # groups of a step whose images and attention are kept


class Record:
    """Writes a run's figures as they come. Lines of steps that are going to be made again are
    removed at the start.
    """

    def __init__(self, settings: Settings, world: World, start: int) -> None:
        self.settings, self.world = settings, world
        self.path = settings.out / "metrics.jsonl"
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        if world.main:
            settings.out.mkdir(parents=True, exist_ok=True)
            (settings.out / "settings.json").write_text(
                json.dumps(flags_of(settings), indent=1, default=str) + "\n"
            )
            forget(self.path, start)
            if not start:
                (settings.out / "left_out.jsonl").unlink(missing_ok=True)
                shutil.rmtree(settings.out / "portrait", ignore_errors=True)
            if console.is_terminal:
                self.progress.start()
        self.task = self.progress.add_task("", total=settings.steps, completed=start)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step's figures, to everywhere."""
        finite = {name: value for name, value in metrics.items() if not math.isnan(value)}
        self.world.log(finite, step)
        if not self.world.main:
            return
        with self.path.open("a") as file:
            file.write(
                json.dumps({"step": step, **{name: finite.get(name) for name in metrics}}) + "\n"
            )
        text = _line(metrics)
        if console.is_terminal:
            self.progress.update(self.task, completed=step + 1, description=text)
        else:
            say(f"step {step + 1}/{self.settings.steps}  {text}")

    def completions(
        self, step: int, groups: Sequence[Group], signals: Sequence[Signal], policy: Policy
    ) -> None:
        """One step's completions, and where the best and the worst of some groups looked."""
        pairs = zip(groups, signals, strict=True)
        tables = [
            self._rows(step, group, signal, policy if n < MAX_GROUPS else None)
            for n, (group, signal) in enumerate(pairs)
        ]
        rows = [
            row
            for group in sorted(
                self.world.gather_objects(tables), key=lambda rows: rows[0]["number"]
            )
            for row in group
        ]
        if not self.world.main or not rows:
            return
        table = polars.DataFrame(rows, infer_schema_length=None).drop("number")
        _write(table, self.settings.out / "completions" / f"step-{step:06d}.parquet")

    def portrait(self, moment: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of ``train.portrait`` as they are ``before`` the first step or ``after`` the
        last one.

        step: how many steps the policy has learnt from.
        """
        if rows:
            table = polars.DataFrame(
                [{"step": step, **row} for row in rows], infer_schema_length=None
            )
            _write(table, self.settings.out / "portrait" / f"{moment}.parquet")

    def left_out(self, rows: Rows, together: bool = True) -> None:
        """The rows that the run goes on without, in left_out.jsonl: id, reason and remedy. Those of
        before a restart stay.

        together: whether all processes are here; else only this one's are added.
        """
        own = [*rows.left_out.items()]
        pairs = self.world.gather_objects(own) if together else own
        if not self.world.main or not pairs:
            return
        path = self.settings.out / "left_out.jsonl"
        before = path.read_text().splitlines() if path.exists() else []
        lines = dict.fromkeys(
            [*before, *(json.dumps(asdict(left)) for _, left in sorted(dict(pairs).items()))]
        )
        aside = path.with_name(path.name + ".tmp")
        aside.write_text("".join(line + "\n" for line in lines))
        os.replace(aside, path)

    def _rows(
        self, step: int, group: Group, signal: Signal, policy: Policy | None
    ) -> list[dict[str, Any]]:
        totals = [None if math.isnan(total) else total for total in signal.rewards.tolist()]
        maps = attention_maps(policy, group, signal.rewards, self.settings) if policy else {}
        image = group.row.images[0] if policy and group.row.images else None
        rows = []
        for i, sample in enumerate(group.samples):
            advantage = signal.advantages[group.completion_index == i].mean().item()
            row = {
                "number": group.number,
                "step": step,
                "id": group.row.id,
                "question": group.row.question,
                "answer": sample.answer,
            }
            row |= {
                "completion": sample.response,
                "tokens": len(sample.response_ids),
                "reward": totals[i],
                "advantage": advantage,
            }
            row |= {f"rewards/{name}": column[i] for name, column in group.scores.items()}
            row |= {
                "image": png(image) if image and i == 0 else None,
                "boxes": [list(box) for box in group.row.boxes] if image and i == 0 else None,
            }
            rows.append(row | {"attention": maps.get(i)})
        return rows

    def close(self) -> None:
        self.progress.stop()
        self.world.close()


@dataclass(frozen=True)
class Tally:
    """What a group counts for in a step's figures; small, since it travels between processes."""

    scores: dict[str, list[Score]]
    lengths: list[int]
    cut: list[bool]  # whether each completion ran into the limit


def tally(group: Group, policy: Policy) -> Tally:
    cut = [not bool(torch.isin(c[-1], policy.ends)) for c in group.completions]
    return Tally(group.scores, [len(c) for c in group.completions], cut)


def summarise(
    figures: Sequence[Mapping[str, float]],
    tallies: Sequence[Tally],
    seconds: float,
    updates: int = 1,
) -> dict[str, float]:
    """A step's figures, from those of its groups in each of its updates and from their tallies. The
    loss is the mean update's.
    """
    lengths = [length for t in tallies for length in t.lengths]
    summary = {
        name: _mean([s[name] for s in figures])
        for name in dict.fromkeys(name for s in figures for name in s)
        if name != "loss"
    }
    summary["loss"] = sum(s["loss"] for s in figures) / updates
    for name in dict.fromkeys(name for t in tallies for name in t.scores):
        scores = [score for t in tallies for score in t.scores[name]]
        scored = [score for score in scores if score is not None]
        summary[f"rewards/{name}/mean"] = _mean(scored)
        summary[f"rewards/{name}/missing"] = 1 - len(scored) / len(scores)
    summary["completions/mean_length"] = _mean(lengths)
    summary |= {
        "completions/min_length": min(lengths, default=0),
        "completions/max_length": max(lengths, default=0),
    }
    summary["completions/clipped_ratio"] = _mean([float(cut) for t in tallies for cut in t.cut])
    return summary | {
        "prompts": len(tallies),
        "time/step_s": seconds,
        "perf/tokens_per_s": sum(lengths) / seconds,
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan


@torch.no_grad()
def attention_maps(
    policy: Policy, group: Group, totals: torch.Tensor, settings: Settings
) -> dict[int, list[list[float]]]:
    """Mean attention of the best and the worst completion on the first image's tokens, as a grid of
    its rows.
    """
    if not group.row.images or bool(totals.isnan().all()):
        return {}
    chosen = sorted(
        {int(totals.nan_to_num(-math.inf).argmax()), int(totals.nan_to_num(math.inf).argmin())}
    )
    prompt = group.prompt.without_features()  # the weights have changed since
    maps = image_maps(policy, prompt, [group.completions[i] for i in chosen], settings.layers)
    return {i: grid.tolist() for i, grid in zip(chosen, maps, strict=True)}


def image_maps(
    policy: Policy,
    prompt: Prompt,
    completions: Sequence[torch.Tensor],
    layers: Sequence[int] | None,
) -> list[torch.Tensor]:
    """Attention of each completion, (n,) token ids, on the first image's tokens: shares of all its
    attention, averaged over its tokens and the layers, as a grid (rows, columns).
    """
    output = forward(policy, prompt, completions, measures=[ImageAttention(layers)])
    grids = []
    for n in range(len(completions)):
        own = output.measured["image_attention"][output.completion_index == n]
        grids.append(paint(prompt, own.mean(dim=0)))
    return grids


def paint(prompt: Prompt, on_image: torch.Tensor) -> torch.Tensor:
    """Attention on each image token (V,) as a grid (rows, columns) of the first image."""
    on_tokens = np.zeros(len(prompt.ids), np.float32)
    on_tokens[prompt.image.cpu().numpy()] = on_image.float().cpu().numpy()
    grid = painted(prompt.tiles, on_tokens, prompt.pictures[0].size, amounts=True)
    return torch.from_numpy(grid).float()


def png(image: Any) -> bytes:
    """An image as it is kept with completions: no larger than a page needs."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _write(table: polars.DataFrame, path: Path) -> None:
    """A file that is whole or is not there."""
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    table.write_parquet(aside)
    os.replace(aside, path)


def _line(metrics: Mapping[str, float]) -> str:
    return (
        f"reward {metrics.get('reward', math.nan):.3f}  length "
        f"{metrics['completions/mean_length']:.0f}  "
        f"{metrics['perf/tokens_per_s']:.0f} tokens/s  {metrics['time/step_s']:.1f} s"
    )


def forget(path: Path, start: int) -> None:
    """Keep a metrics file's whole lines of steps before ``start``."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] < start:
                kept.append(line + "\n")
        except ValueError:
            continue  # cut off by a kill
    aside = path.with_name(path.name + ".tmp")
    aside.write_text("".join(kept))
    os.replace(aside, path)
