"""Does each reward do what its paper says? Recipes on the shapes world, several seeds each, the same budget for all.

    python -m bench.efficacy               # 8 recipes x 5 seeds x 100 steps: an hour on two cores; goes on where it was stopped
    python -m bench.efficacy --steps 20 --seeds 2 --out runs/quick

Every run starts from demo/checkpoints/policy and trains on a dataset that ``flows.build_dataset`` labelled. What is compared is measured by
``train.evaluate`` on rows that no run has seen: accuracy, attention contrast, pointing game, and how much more accuracy the erased evidence
costs than the erased control. ``gain`` is what a run has added to its own reward on such rows. Intervals are 95 %, Student's, over seeds.
Writes bench/results/efficacy.json, docs/efficacy.svg and the table in docs/efficacy.md, and ends with the table as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats

from demo.judge import serving
from demo.questions import write_rows
from pipelines.build import build
from pipelines.config import BuildConfig
from train.anchor import AnchorSettings
from train.anchoring import anchor
from train.data import load_rows
from train.engines.local import LocalEngine
from train.evaluate import EvaluateSettings
from train.evaluation import evaluate
from train.loading import load_model
from train.loop import make_methods, train
from train.methods import RECIPES
from train.plan import Plan
from train.recipe import Recipe
from train.rewards import make_rewards
from train.sampling import Sampler
from train.settings import Settings
from train.step import assess

ROOT = Path(__file__).parents[1]
POLICY = str(ROOT / "demo" / "checkpoints" / "policy")
RESULTS, PAGE, PLOT = ROOT / "bench" / "results" / "efficacy.json", ROOT / "docs" / "efficacy.md", ROOT / "docs" / "efficacy.svg"

# What differs from the papers' settings, for all recipes alike: the policy is a thousandth of theirs in size, its responses a tenth. The
# learning rate rises and falls, because at 32 completions a step Adam's noise undoes what a constant one of this height has learnt.
BUDGET: dict[str, Any] = {"prompts": 4, "num_generations": 8, "max_tokens": 96, "window": None}
BUDGET |= {"learning_rate": 1e-4, "schedule": "linear", "warmup": 15}
RUNS: dict[str, Recipe] = {
    "accuracy": RECIPES["grpo"],
    "attention (sayo)": RECIPES["sayo"],
    "accuracy + attention": replace(RECIPES["grpo"], attention_contrast=0.5),
    "perception-r1": RECIPES["perception-r1"],
    "faithful-mr1": RECIPES["faithful-mr1"],
    "faithful-mr1, anchored": RECIPES["faithful-mr1"],
    "faithful-mr1, stage 1 without anchor": RECIPES["faithful-mr1"],
    "vgpo": RECIPES["vgpo"],
}
FIRST_STAGE = {
    "faithful-mr1, anchored": 1.0,
    "faithful-mr1, stage 1 without anchor": 0.0,
}  # the anchor's weight beside the language model's
PROBED = 40  # rows on which a run's own reward is measured, a group of completions each
MEASURES = ("accuracy", "attention_contrast", "pointing_game", "evidence_minus_control", "gain")


NEW_PAGE = """# What the rewards do on the shapes world

```bash
python -m bench.efficacy
```

Every recipe trains the demo's tiny Qwen2.5-VL (2.6 million parameters, taught with careless traces among the right ones) on the rows
that the pipeline kept of 400 questions, with the same budget of steps of 4 prompts x 8 completions. It is evaluated on the rows kept of
200 questions that it has not seen. Means and 95 % intervals over seeds; the columns are explained in [training.md](training.md). *Gain*
is what a run has added to its own reward, on completions sampled for unseen questions.

<!-- table -->
<!-- end -->

![Every measure with its interval; the dashed line is the policy before training](efficacy.svg)
"""


def datasets(out: Path) -> tuple[Path, Path]:
    """Labelled rows to train on and others to evaluate on."""
    made = []
    for name, rows, seed in (("train", 400, 11), ("held-out", 200, 12)):
        if not (out / name / "manifest.json").exists():
            source = write_rows(out / f"scenes-{name}", rows, seed)
            build(BuildConfig(source=str(source), out=out / name, shard_size=25))
        made.append(out / name)
    return made[0], made[1]


def run(name: str, seed: int, steps: int, out: Path, judge_url: str) -> dict[str, float]:
    """Train one recipe with one seed and evaluate it; what has been done before is read."""
    torch.set_num_threads(1)
    recipe, folder = RUNS[name], out / f"{re.sub('[^a-z0-9]+', '-', name)}-{seed}"
    if not (folder / "figures.json").exists():
        model = _first_stage(name, seed, out, folder, recipe)
        where = {"data": str(out / "train"), "model": model, "out": folder, "steps": steps, "seed": seed, "save_every": 25}
        tools = {"judge": "rules", "judge_url": judge_url, "device": "cpu", "trackers": (), "show_every": 50}
        settings = Settings(**asdict(recipe) | BUDGET | where | tools)
        train(settings)
        trained = str(folder / f"checkpoint-{steps}")
        found = {"gain": own_reward(settings, trained, out) - _before(name, settings, out)}
        found |= _evaluate(trained, out, folder / "evaluation", recipe)
        (folder / "figures.json").write_text(json.dumps(found) + "\n")
    return json.loads((folder / "figures.json").read_text())


def _before(name: str, settings: Settings, out: Path) -> float:
    """A run's own reward before it, the same for all seeds that start from the same model."""
    if settings.model != POLICY:
        return own_reward(settings, settings.model, out)
    known = out / f"{re.sub('[^a-z0-9]+', '-', name)}-before.json"
    if not known.exists():
        aside = known.with_suffix(f".{settings.seed}.tmp")  # other workers may be reading
        aside.write_text(json.dumps(own_reward(settings, POLICY, out)))
        aside.replace(known)
    return json.loads(known.read_text())


def own_reward(settings: Settings, model: str, out: Path) -> float:
    """The mean reward, by a run's own rewards and weights, of completions that a model samples for rows that no run has seen."""
    policy, rewards = load_model(model, "cpu"), make_rewards(settings)
    rows = load_rows(str(out / "held-out"), settings.template)
    numbers = range(PROBED)
    plan = Plan(replace(settings, kl=0.0), rewards, make_methods(settings))
    sampler = Sampler(policy, LocalEngine(policy), plan)
    groups = sampler.sample([rows[n] for n in numbers], numbers, numbers)
    sampler.score_texts(groups)
    totals = [assess(policy, group, plan).rewards for group in groups]
    return torch.cat(totals).nanmean().item()


def _first_stage(name: str, seed: int, out: Path, folder: Path, recipe: Recipe) -> str:
    """The model that a run starts from."""
    if name not in FIRST_STAGE:
        return POLICY
    if not (model := folder / "stage1" / "model").exists():
        settings = AnchorSettings(data=str(out / "train"), model=POLICY, out=folder / "stage1", weight=FIRST_STAGE[name])
        anchor(replace(settings, steps=60, learning_rate=5e-4, template=recipe.template, seed=seed, device="cpu"))
    return str(model)


def _evaluate(model: str, out: Path, folder: Path, recipe: Recipe) -> dict[str, float]:
    """What a model is compared by."""
    held_out = EvaluateSettings(data=str(out / "held-out"), model=model, out=folder, template=recipe.template, max_tokens=96, device="cpu")
    found = evaluate(held_out)
    shown = {name: found[name]["value"] for name in ("accuracy", "attention_contrast", "pointing_game", "format", "length")}
    return shown | {"evidence_minus_control": found["drop_without_evidence"]["value"] - found["drop_without_control"]["value"]}


def interval(values: list[float]) -> dict[str, float]:
    """Mean with Student's 95 % interval over seeds."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": fmean(values), "low": fmean(values) - half, "high": fmean(values) + half}


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = ["| recipe | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " |", "|---|" + "---|" * len(MEASURES)]
    for name, row in result["recipes"].items():
        cells = [f"{row[m]['mean']:.3f} ({row[m]['low']:.3f} to {row[m]['high']:.3f})" if m in row else "" for m in MEASURES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    start = " | ".join(f"{result['start'][m]:.3f}" if m in result["start"] else "" for m in MEASURES)
    return "\n".join([*lines, f"| *the policy before training* | {start} |"])


def plot(result: dict[str, Any]) -> str:
    """Every measure of every recipe with its interval, and a line where the policy started, as SVG."""
    names, measures = list(result["recipes"]), MEASURES[:4]
    width, left, panel, row = 1120, 240, 215, 26
    height = 60 + row * len(names)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    parts += [f'<text x="8" y="{64 + row * i}">{name}</text>' for i, name in enumerate(names)]
    for k, measure in enumerate(measures):
        rows = [result["recipes"][name][measure] for name in names]
        start = result["start"][measure]
        low, high = min([r["low"] for r in rows] + [start]), max([r["high"] for r in rows] + [start])
        x0 = left + panel * k

        def at(value: float, x0: int = x0, low: float = low, high: float = high) -> float:
            return x0 + 12 + (panel - 40) * (value - low) / (high - low or 1)

        parts.append(f'<text x="{x0 + 12}" y="22" font-weight="bold">{measure.replace("_", " ")}</text>')
        parts.append(f'<path d="M{at(start):.1f} 34V{height - 14}" stroke="#999" stroke-dasharray="3 3"/>')
        parts += [f'<text x="{at(v):.1f}" y="{height - 2}" font-size="10" text-anchor="middle">{v:.2f}</text>' for v in (low, high)]
        for i, r in enumerate(rows):
            y = 60 + row * i
            parts.append(f'<path d="M{at(r["low"]):.1f} {y}H{at(r["high"]):.1f}" stroke="#1f6fb2" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(r["mean"]):.1f}" cy="{y}" r="4" fill="#1f6fb2"/>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/efficacy"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, a core each")
    a = parser.parse_args()
    torch.set_num_threads(1)
    datasets(a.out)
    start = _evaluate(POLICY, a.out, a.out / "start", RECIPES["grpo"])
    with serving() as url, multiprocessing.get_context("spawn").Pool(a.workers) as pool:
        jobs = [(name, seed, a.steps, a.out, url) for seed in range(a.seeds) for name in RUNS]
        jobs.sort(key=lambda job: FIRST_STAGE.get(job[0]) == 0)  # the control last
        found = dict(zip(((name, seed) for name, seed, *_ in jobs), pool.starmap(run, jobs, chunksize=1), strict=True))
    recipes = {name: {m: interval([found[name, seed][m] for seed in range(a.seeds)]) for m in found[name, 0]} for name in RUNS}
    result = {"steps": a.steps, "seeds": a.seeds, "budget": BUDGET, "start": start, "recipes": recipes}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    PLOT.write_text(plot(result))
    page = PAGE.read_text() if PAGE.exists() else NEW_PAGE  # what people have written about the table stays
    PAGE.write_text(re.sub(r"(?s)(<!-- table -->\n).*(?=<!-- end -->)", lambda found: found[1] + table(result) + "\n", page))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
