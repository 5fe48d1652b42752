"""The whole of Sightline on a laptop: draw scenes, build a labelled dataset from their traces, check it, score it, train on it.

make demo                                  # or: python -m demo.run --out demo_out --rows 200
make demo-vllm                             # the same, with completions sampled by a vLLM server
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

POLICY = Path(__file__).parent / "checkpoints" / "policy"
SCORES = ("evidence_precision", "evidence_recall", "recall", "precision", "box_iou", "mask_iou", "answer_agreement")


def run(out: Path, rows: int, seed: int, steps: int, vllm: str | None = None) -> None:
    """Draw ``rows`` questions, build ``out``/dataset from them, and train the embedded policy on it for ``steps`` steps.

    vllm: the command of an environment that has vLLM, to sample with.
    """
    dataset = label(out, rows, seed)
    if steps:
        learn(out, dataset, others(out, rows // 3, seed + 1), steps, vllm)


def others(out: Path, rows: int, seed: int) -> Path:
    """Labelled rows to measure on, in ``out``/held-out."""
    from demo.tasks import write_rows
    from pipelines.build import build
    from pipelines.config import BuildConfig

    source = write_rows(out / "held-out-scenes", rows, seed)
    build(BuildConfig(source=str(source), out=out / "held-out", shard_size=25))
    return out / "held-out"


def label(out: Path, rows: int, seed: int) -> Path:
    """Build a dataset as a Prefect flow on this machine, check it, and score it against the scenes' ground truth."""
    started = time.monotonic()
    # The flow talks to a server of its own, started for the occasion; only its warnings are worth reading here.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    home = (out / ".prefect").resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))

    from demo.tasks import write_rows
    from flows.build_dataset import build_dataset
    from flows.summary import print_summary
    from pipelines.config import BuildOptions
    from pipelines.dataset import store
    from pipelines.score import score
    from pipelines.validate import validate
    from rewardlib.console import console, quiet_libraries, say, table

    source = write_rows(out / "scenes", rows, seed)
    quiet_libraries()
    say(f"{rows} questions about drawn boards in {source}")
    say("building the dataset with the embedded detector, segmenter and rule-based judge ...")
    dataset = Path(build_dataset(source=str(source), out=str(out / "dataset"), options=BuildOptions(shard_size=25)))
    manifest = store.read_manifest(dataset)
    print_summary(manifest, dataset, time.monotonic() - started)

    report = validate(dataset)
    verdict = "every promise kept" if report["valid"] else f"broken promises: {report['findings']}"
    say(f"\nvalidated {report['rows']} rows: {verdict}")
    figures = score(dataset, source).figures()
    shown = [[name.replace("_", " "), "-" if (v := figures[name]) is None else f"{v:.3f}"] for name in SCORES]
    console.print(table("\nAgainst the scenes' ground truth", ["", ""], shown))
    say(f"\ndataset  {dataset}\ngallery  {dataset / 'gallery.html'}\ncard     {dataset / 'README.md'}")
    if not report["valid"]:
        raise SystemExit(1)
    return dataset


def learn(out: Path, dataset: Path, held_out: Path, steps: int, vllm: str | None = None) -> None:
    """A short GRPO run that rewards right answers and looking at what has just been labelled; measured before and after on other rows."""
    import torch

    from demo.serving import serving
    from rewardlib.console import say
    from train.loop import train
    from train.settings import from_command_line

    torch.set_num_threads(1)  # the model is so small that a second thread costs more than it does
    run = out / "grpo"
    shutil.rmtree(run, ignore_errors=True)
    flags = f"--recipe look --data {dataset} --model {POLICY} --out {run} --steps {steps} --save-every {steps} --prompts 6 --max-tokens 96"
    settings = from_command_line([*flags.split(), "--learning-rate", "2e-4", "--warmup", "5", "--schedule", "linear", "--trackers"])
    say(f"\ntraining a tiny Qwen2.5-VL that has learnt not to look, {steps} steps of {settings.prompts} prompts, to look and to answer ...")
    before = examined(str(POLICY), held_out, out / "before")
    if vllm is None:
        train(settings)
    else:
        say(f"starting {vllm} ...")
        with serving(vllm, POLICY) as url:
            train(replace(settings, engine="vllm", engine_url=(url,)))
        told = [json.loads(line)["sampling/logp_difference"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        say(f"vLLM's log-probabilities of its tokens are the trainer's to {max(told):.0e} (mean of a step, the worst one)")
    after = examined(str(run / f"checkpoint-{steps}"), held_out, out / "after")
    say(f"\nmetrics  {run / 'metrics.jsonl'}\nreport   {run / 'report.html'}")
    say("\n" + compared(before, after))


def examined(model: str, data: Path, out: Path) -> list[dict[str, Any]]:
    """A model's likeliest responses to rows, and what they say of it."""
    import polars

    from train.evaluate import EvaluateSettings
    from train.evaluation import evaluate

    evaluate(EvaluateSettings(data=str(data), model=model, out=out, max_tokens=96, share=1.0, layers=None, device="cpu"))
    return polars.read_parquet(out / "responses.parquet").to_dicts()


def compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """What has changed, in a line."""
    from train.intervals import mean

    def figures(name: str) -> str:
        pairs = [(b[name], a[name]) for b, a in zip(before, after, strict=True) if b[name] is not None and a[name] is not None]
        old, new = (sum(values) / len(values) for values in zip(*pairs, strict=True))
        gain = mean([a - b for b, a in pairs])
        return f"{old:.2f} -> {new:.2f} ({gain['value']:+.2f}, 95 % interval {gain['low']:+.2f} to {gain['high']:+.2f})"

    rows = f"on {len(before)} questions that it was not trained on"
    return f"{rows}: accuracy {figures('correct')}; attention on the evidence {figures('attention_contrast')}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build, check and score a labelled dataset of procedural scenes, and train on it.")
    parser.add_argument("--out", type=Path, default=Path("demo_out"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40, help="of GRPO; 0: none")
    parser.add_argument("--vllm", metavar="COMMAND", help="of an environment that has vLLM: it serves the policy, and samples")
    a = parser.parse_args()
    run(a.out, a.rows, a.seed, a.steps, a.vllm)
