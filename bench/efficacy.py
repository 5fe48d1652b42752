"""Does a reward for looking pay? Every paper's headline, on a task where its mechanism can show (``demo.tasks``).

    python -m bench.efficacy                                   # an hour on two cores; goes on where it was stopped
    python -m bench.efficacy --steps 20 --seeds 2 --out runs/quick

Every run starts from the careless policy of ``demo.teach_policy``, trains on rows that the pipeline labelled, and is compared on rows
that no run has seen. Settings on one task are paired: the same seeds, the same questions in the same order, the same number of
completions. Each has its own learning rate, chosen of the same two on other seeds and other rows. On the tasks of credit and perception a
third of the answers that runs are trained on are wrong, as on the web; all are measured by right ones. The controls reward attention on a
region that is not the evidence: of another row, of the same size elsewhere, and on all that traces mention.

Writes bench/results/efficacy.json, the tables in docs/efficacy.md and docs/efficacy.svg, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import polars
import torch
from scipy import stats

from bench.answers import Answers, spoil
from bench.completions import (
    MAX_TOKENS,
    Figures,
    accuracy_without,
    answered,
    completions_of,
    figures_of,
    labelled,
    rightness,
    rows_of,
    sampled,
)
from bench.efficacy_page import PAGE, PLOT, page, plot
from bench.policy import POLICY
from bench.policy import RESULTS as POLICY_RESULTS
from bench.regions import Regions, relabel
from demo.judge import serving
from demo.tasks import Task
from rewardlib.console import quiet_libraries, say
from rewardlib.sample import Sample
from train.anchor import AnchorSettings
from train.anchoring import anchor
from train.loading import load_model
from train.loop import train
from train.methods import RECIPES
from train.methods.vgpo import VGPO
from train.recipe import Recipe
from train.rewards import weights
from train.settings import MethodSettings, Settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "efficacy.json"
ROWS = {"train": (200, 11), "held-out": (100, 12), "choosing": (50, 13)}  # how many are drawn of each, and their seed
LEARNING_RATES = (1e-4, 2e-4)
CHOOSING_SEEDS = (100,)
# What differs from the papers' settings, for all alike: the policy is a thousandth of theirs in size, its responses a tenth. The learning
# rate rises and falls, because at 48 completions a step Adam's noise undoes what a constant one of this height has learnt.
BUDGET: dict[str, Any] = {"prompts": 6, "num_generations": 8, "max_tokens": MAX_TOKENS, "window": None, "template": "think-answer"}
FIRST_STAGE: dict[str, Any] = {"steps": 150, "learning_rate": 3e-4}  # until the new token opens every response
BUDGET |= {"schedule": "linear", "warmup": 5, "top_p": 1.0, "filter_groups": False, "kl": 0.0}

LOOK = RECIPES["look"]
ATTENTION = replace(LOOK, **weights(format=0.1, attention_contrast=1.0))


@dataclass(frozen=True)
class Setting:
    """What is compared with others on the same task.

    regions, answers: what the rows to train on have of them. first_stage: the anchor's weight beside the language model's in
    ``train.anchor``; without it there is no first stage. vgpo: its flags, where the recipe has it.
    """

    task: Task
    recipe: Recipe
    regions: Regions = "evidence"
    answers: Answers = "right"
    first_stage: float | None = None
    vgpo: VGPO = field(default_factory=VGPO)


SETTINGS: dict[str, Setting] = {
    "credit: accuracy": Setting("credit", RECIPES["grpo"], answers="unreliable"),
    "credit: accuracy, right answers": Setting("credit", RECIPES["grpo"]),
    "credit: attention": Setting("credit", ATTENTION, answers="unreliable"),
    "credit: look": Setting("credit", LOOK, answers="unreliable"),
    "credit: look, right answers": Setting("credit", LOOK),
    "credit: attention, 30 % of tokens": Setting("credit", replace(ATTENTION, share=0.3)),
    "credit: attention, last layer": Setting("credit", replace(ATTENTION, layers=(-1,))),
    "credit: sayo": Setting("credit", RECIPES["sayo"], answers="unreliable"),
    "credit: accuracy + sayo": Setting("credit", replace(RECIPES["grpo"], attention_contrast=0.5), answers="unreliable"),
    "credit: attention, another row's region": Setting("credit", ATTENTION, "shuffled"),
    "credit: attention, elsewhere": Setting("credit", ATTENTION, "elsewhere"),
    "credit: attention, all mentions": Setting("credit", ATTENTION, "mentions"),
    "perception: accuracy": Setting("perception", RECIPES["grpo"], answers="unreliable"),
    "perception: accuracy, right answers": Setting("perception", RECIPES["grpo"]),
    "perception: perception-r1": Setting("perception", RECIPES["perception-r1"], answers="unreliable"),
    "perception: perception-r1, right answers": Setting("perception", RECIPES["perception-r1"]),
    "perception: look": Setting("perception", LOOK),
    "faithful: accuracy": Setting("faithful", RECIPES["grpo"]),
    "faithful: faithful-mr1": Setting("faithful", RECIPES["faithful-mr1"]),
    "faithful: anchored faithful-mr1": Setting("faithful", RECIPES["faithful-mr1"], first_stage=1.0),
    "faithful: first stage without anchor": Setting("faithful", RECIPES["faithful-mr1"], first_stage=0.0),
    "long: accuracy": Setting("long", RECIPES["grpo"]),
    "long: vgpo": Setting("long", RECIPES["vgpo"]),
    "long: vgpo, by attention on the image": Setting("long", RECIPES["vgpo"], vgpo=VGPO(focus="image")),
    "long: vgpo, by attention on the evidence": Setting("long", RECIPES["vgpo"], vgpo=VGPO(focus="evidence")),
    "long: papo": Setting("long", RECIPES["papo"]),
    "long: vppo": Setting("long", RECIPES["vppo"]),
}
# What each paper claims: that of two settings the first has more of something.
HEADLINES = {
    "sayo": ("credit: attention", "credit: accuracy", "accuracy"),
    "look": ("credit: look", "credit: accuracy", "accuracy"),
    "perception-r1": ("perception: perception-r1", "perception: accuracy", "accuracy"),
    "faithful-mr1": ("faithful: anchored faithful-mr1", "faithful: faithful-mr1", "evidence_minus_control"),
    "vgpo": ("long: vgpo", "long: accuracy", "accuracy"),
}
# The same of settings that should not have it, and other questions that the runs answer.
CONTROLS = {
    "sayo, where answers are right": ("credit: attention", "credit: accuracy, right answers", "accuracy"),
    "look, where answers are right": ("credit: look, right answers", "credit: accuracy, right answers", "accuracy"),
    "another row's region": ("credit: attention, another row's region", "credit: accuracy", "accuracy"),
    "elsewhere": ("credit: attention, elsewhere", "credit: accuracy", "accuracy"),
    "all mentions": ("credit: attention, all mentions", "credit: attention", "accuracy"),
    "30 % of tokens": ("credit: attention, 30 % of tokens", "credit: attention", "accuracy"),
    "last layer": ("credit: attention, last layer", "credit: attention", "accuracy"),
    "released layer and tokens": ("credit: sayo", "credit: attention", "accuracy"),
    "released layer and tokens, with accuracy": ("credit: accuracy + sayo", "credit: look", "accuracy"),
    "perception-r1, where answers are right": (
        "perception: perception-r1, right answers",
        "perception: accuracy, right answers",
        "accuracy",
    ),
    "look on perception, where answers are right": ("perception: look", "perception: accuracy, right answers", "accuracy"),
    "anchor against its first stage": (
        "faithful: anchored faithful-mr1",
        "faithful: first stage without anchor",
        "evidence_minus_control",
    ),
    "vgpo's late looking": ("long: vgpo", "long: accuracy", "late_looking"),
    "vgpo by attention on the image": ("long: vgpo, by attention on the image", "long: accuracy", "accuracy"),
    "vgpo by attention on the evidence": ("long: vgpo, by attention on the evidence", "long: accuracy", "accuracy"),
    "papo": ("long: papo", "long: accuracy", "accuracy"),
    "vppo": ("long: vppo", "long: accuracy", "accuracy"),
}
# Does a recipe raise what it rewards? By its own training rewards, or on rows that no run has seen, against the policy at the start.
# A reward for attention moves in two ways: the policy says other things, which the gradient is for, and attention itself shifts, which no
# gradient sees. ``_by_start`` is the first alone: what is said, by where the policy at the start would have looked while saying it.
OWN = {
    "grpo": ("credit: accuracy, right answers", "gain"),
    "look": ("credit: look, right answers", "gain"),
    "attention": ("credit: attention", "gain"),
    "attention, unseen rows": ("credit: attention", "contrast"),
    "attention, unseen rows, as the start looks": ("credit: attention", "contrast_by_start"),
    "sayo": ("credit: sayo", "gain"),
    "sayo, unseen rows": ("credit: sayo", "released_contrast"),
    "sayo, unseen rows, as the start looks": ("credit: sayo", "released_contrast_by_start"),
    "perception-r1": ("perception: perception-r1", "gain"),
    "faithful-mr1": ("faithful: faithful-mr1", "gain"),
    "vgpo": ("long: vgpo", "gain"),
    "papo": ("long: papo", "gain"),
    "vppo": ("long: vppo", "gain"),
}
ROLES: tuple[Literal["evidence"], Literal["control"]] = ("evidence", "control")
CONTRASTS = ("contrast", "released_contrast")  # the latter as SAYO takes it
SAMPLED = {"accuracy": "right", "naming": "named", "contrast": "all layers", "released_contrast": "last layer, 30 %"}
SAMPLED |= {"pointing": "pointing", "late_looking": "late_looking"}
MEASURES = (*SAMPLED, *(f"{name}_by_start" for name in CONTRASTS), "greedy_accuracy", "evidence_minus_control", "gain")
SHOW_EVERY = 2  # steps between those whose completions make the learning curves
SAMPLES = 4  # completions of every row that is measured
ENOUGH = 0.8  # accuracy of sampled completions, which sample efficiency asks for


@dataclass(frozen=True)
class Job:
    """One run of a setting."""

    name: str
    seed: int
    learning_rate: float
    steps: int
    out: Path
    judge_url: str
    rows: Literal["held-out", "choosing"] = "held-out"

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.name]

    @property
    def folder(self) -> Path:
        return self.out / _slug(self.name) / f"{self.learning_rate:g}-{self.seed}"


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name).strip("-")


def data(out: Path, task: Task, rows: str, regions: Regions = "evidence", answers: Answers = "right") -> Path:
    """Labelled rows of a task, with regions and answers as they are labelled, or others instead."""
    made = labelled(out / f"{task}-{rows}", task, *ROWS[rows])
    if regions != "evidence":
        made = relabel(made, made.with_name(f"{made.name}-{regions}"), regions)
    return made if answers == "right" else spoil(made, made.with_name(f"{made.name}-{answers}"))


def run(job: Job) -> dict[str, Any]:
    """Train a setting with a seed and measure it; what has been done before is read."""
    torch.set_num_threads(1)
    quiet_libraries()
    known = job.folder / "figures.json"
    if not known.exists():
        setting, folder = job.setting, job.folder
        shutil.rmtree(folder / "run", ignore_errors=True)
        model = _first_stage(job)
        rows = data(job.out, setting.task, "train", setting.regions, setting.answers)
        where = {"data": str(rows), "model": model, "out": folder / "run"}
        where |= {
            "steps": job.steps,
            "seed": job.seed,
            "learning_rate": job.learning_rate,
            "save_every": job.steps,
            "show_every": SHOW_EVERY,
        }
        tools = {"judge": "rules", "judge_url": job.judge_url, "device": "cpu", "trackers": ()}
        method = MethodSettings(vgpo=setting.vgpo)
        train(Settings(**asdict(setting.recipe) | BUDGET | where | tools, method=method))
        found: dict[str, Any] = measure(str(folder / "run" / f"checkpoint-{job.steps}"), data(job.out, setting.task, job.rows))
        golds = polars.read_parquet(data(job.out, setting.task, "train") / "data" / "*.parquet", columns=["id", "answer"])
        found |= {"curve": _curve(folder / "run", dict(golds.iter_rows())), "gain": _gain(folder / "run")}
        known.write_text(json.dumps(found) + "\n")
        shutil.rmtree(folder / "run" / f"checkpoint-{job.steps}")  # its figures are known
    return json.loads(known.read_text())


def _first_stage(job: Job) -> str:
    """The model that a run starts from; all learning rates start from the same."""
    setting = job.setting
    if setting.first_stage is None:
        return str(POLICY)
    out = job.out / f"{setting.task}-stage1" / f"{setting.first_stage:g}-{job.seed}"
    if not out.exists():
        aside = out.with_name(f"{out.name}.{os.getpid()}")  # the other worker may want it as well
        start = AnchorSettings(data=str(data(job.out, setting.task, "train")), model=str(POLICY), out=aside, device="cpu")
        anchor(replace(start, weight=setting.first_stage, seed=job.seed, **FIRST_STAGE))
        if not out.exists():
            aside.rename(out)
    return str(out / "model")


def _curve(folder: Path, golds: Mapping[str, str]) -> list[float]:
    """The accuracy of the completions of every ``SHOW_EVERY``th step, rewarded or not, by the right answers of rows' ids."""
    parts = sorted((folder / "completions").glob("*.parquet"))
    steps = [polars.read_parquet(part, columns=["completion", "id"]).to_dicts() for part in parts]
    return [fmean(rightness([Sample(row["completion"], answer=golds[row["id"]]) for row in step])) for step in steps]


def _gain(folder: Path) -> float:
    """By how much a run has raised its own reward, from its first quarter to its last."""
    own = [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    quarter = max(1, len(own) // 4)
    return fmean(own[-quarter:]) - fmean(own[:quarter])


def measure(model: str, dataset: Path) -> dict[str, Any]:
    """What models are compared by, on rows of a task that no run has seen; all but the greedy answers' figures are of sampled ones."""
    policy, start, rows = load_model(model, "cpu"), load_model(str(POLICY), "cpu"), rows_of(dataset)
    completions = sampled(policy, rows, SAMPLES)
    groups, by_start = figures_of(policy, rows, completions), figures_of(start, rows, completions)
    found = {name: _mean(groups, of) for name, of in SAMPLED.items()}
    found |= {f"{name}_by_start": _mean(by_start, SAMPLED[name]) for name in CONTRASTS}
    likeliest = completions_of(policy, rows, [row.images[0] for row in rows], 1, temperature=0.0)
    greedy = [rightness(answered(policy, row, group))[0] for row, group in zip(rows, likeliest, strict=True)]
    erasable = [row for row in rows if row.sample.evidence_image is not None and row.sample.control_image is not None]
    without = {role: accuracy_without(policy, erasable, role, SAMPLES) for role in ROLES}
    return found | {
        "greedy_accuracy": fmean(greedy),
        "evidence_minus_control": without["control"] - without["evidence"],
    }


def _mean(groups: Sequence[Figures], name: str) -> float:
    return float(np.concatenate([group[name] for group in groups]).mean())


# ------------------------------------------------------------------------------------------------------------------ figures


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean with Student's 95 % interval over seeds."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": fmean(values), "low": fmean(values) - half, "high": fmean(values) + half}


def difference(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """The mean difference of paired runs, with its 95 % interval."""
    found = interval([a - b for a, b in zip(one, other, strict=True)])
    return {"difference": found["mean"], "low": found["low"], "high": found["high"]}


def completions_until(curves: Sequence[Sequence[float]], enough: float) -> int | None:
    """Completions until the accuracy of three points of the curve together, meaned over seeds, first is enough; None if it never is."""
    per_point = BUDGET["prompts"] * BUDGET["num_generations"] * SHOW_EVERY
    means = np.array(curves).mean(axis=0)
    for point in range(2, len(means)):
        if means[point - 2 : point + 1].mean() >= enough:
            return point * per_point
    return None


def summarise(found: dict[str, list[dict[str, Any]]], rates: dict[str, float], start: dict[str, Any]) -> dict[str, Any]:
    """All figures, by setting, and the differences that headlines and controls are about."""

    def about(pairs: dict[str, tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
        known = {name: pair for name, pair in pairs.items() if pair[0] in found and pair[1] in found}
        return {
            name: difference([run[measure] for run in found[one]], [run[measure] for run in found[other]])
            | {"of": one, "against": other, "measure": measure}
            for name, (one, other, measure) in known.items()
        }

    own = {}
    for name, (setting, measure) in OWN.items():
        if setting in found:
            before = 0.0 if measure == "gain" else start[SETTINGS[setting].task][measure]
            own[name] = difference([run[measure] for run in found[setting]], [before] * len(found[setting]))
            own[name] |= {"of": setting, "against": "the start", "measure": measure}
    settings = {}
    for name, runs in found.items():
        curves = [run["curve"] for run in runs]
        settings[name] = {m: interval([run[m] for run in runs]) for m in MEASURES} | {
            "learning_rate": rates[name],
            "completions": completions_until(curves, ENOUGH),
            "curve": np.array(curves).mean(axis=0).round(4).tolist(),
            "seeds": {m: [round(run[m], 4) for run in runs] for m in MEASURES},
        }
    return {"headlines": about(HEADLINES), "controls": about(CONTROLS), "own_rewards": own, "settings": settings, "start": start}


# --------------------------------------------------------------------------------------------------------------------- runs


def chosen_rates(pool: Any, names: Sequence[str], a: argparse.Namespace, url: str) -> dict[str, float]:
    """The learning rate of every setting: of ``LEARNING_RATES`` the one whose runs, on seeds and rows of their own, end most accurate.

    A setting with a comma in its name has that of the one before the comma, which it differs from in other things.
    """
    base = {name: name.partition(",")[0] for name in names}
    asked = dict.fromkeys(base.values())
    jobs = [Job(name, seed, rate, a.steps, a.out, url, "choosing") for name in asked for rate in LEARNING_RATES for seed in CHOOSING_SEEDS]
    figures = pool.map(run, jobs, chunksize=1)
    tried: dict[tuple[str, float], list[float]] = {}
    for job, found in zip(jobs, figures, strict=True):
        tried.setdefault((job.name, job.learning_rate), []).append(found["accuracy"])
    return {name: max(LEARNING_RATES, key=lambda rate, name=name: fmean(tried[base[name], rate])) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/efficacy"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, a core each")
    parser.add_argument("--only", default="", help="settings whose names begin so, for a look at one task; writes no results")
    parser.add_argument("--rate", type=float, help="one learning rate for all, instead of choosing")
    a = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in SETTINGS if name.startswith(a.only)]
    tasks = list(dict.fromkeys(SETTINGS[name].task for name in names))
    for name in names:
        for rows in ROWS:
            data(a.out, SETTINGS[name].task, rows)
        data(a.out, SETTINGS[name].task, "train", SETTINGS[name].regions, SETTINGS[name].answers)
    start = {task: _start(a.out, task) for task in tasks}
    with serving() as url, multiprocessing.get_context("spawn").Pool(a.workers) as pool:
        rates = dict.fromkeys(names, a.rate) if a.rate else chosen_rates(pool, names, a, url)
        jobs = [Job(name, seed, rates[name], a.steps, a.out, url) for seed in range(a.seeds) for name in names]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for job, figures in zip(jobs, pool.imap(run, jobs), strict=True):
            found[job.name].append(figures)
            say(f"{job.name}, seed {job.seed}: accuracy {figures['accuracy']:.3f}, naming {figures['naming']:.3f}")
    result = {"steps": a.steps, "seeds": a.seeds, "budget": BUDGET} | summarise(found, rates, start)
    if not a.only:
        result["policy"] = _policy()
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        PLOT.write_text(plot(result))
        PAGE.write_text(page(result))
    print(json.dumps({name: value for name, value in result.items() if name in ("headlines", "controls", "policy")}))


def _start(out: Path, task: Task) -> dict[str, Any]:
    """The policy before training, on the rows that all runs of a task are measured on."""
    known = out / f"{task}-start.json"
    if not known.exists():
        known.write_text(json.dumps(measure(str(POLICY), data(out, task, "held-out"))) + "\n")
    return json.loads(known.read_text())


def _policy() -> dict[str, float]:
    """What ``bench.policy`` has found of the policy that all runs start from, and of the one that it was made of."""
    found = json.loads(POLICY_RESULTS.read_text())
    seeing, careless = found["seeing"]["all"], found["careless"]["all"]
    return {
        "accuracy": seeing["accuracy"],
        "drop_evidence": seeing["drop_evidence"],
        "drop_control": seeing["drop_control"],
        "attention_reward_correlation": careless["all layers with right"],
        "naming_correlation": careless["naming_with_right"],
    }


if __name__ == "__main__":
    main()
