"""The whole of Sightline on a laptop: draw scenes, build a labelled dataset from their traces, check it, score it, train on it.

make demo                                  # or: python -m demo.run --out demo_out --rows 200
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

POLICY = Path(__file__).parent / "checkpoints" / "policy"
SCORES = ("evidence_precision", "evidence_recall", "recall", "precision", "box_iou", "mask_iou", "answer_agreement")


def run(out: Path, rows: int, seed: int, steps: int) -> None:
    """Draw ``rows`` questions, build ``out``/dataset from them, and train the embedded policy on it for ``steps`` steps."""
    dataset = label(out, rows, seed)
    if steps:
        learn(out, dataset, steps)


def label(out: Path, rows: int, seed: int) -> Path:
    """Build a dataset as a Prefect flow on this machine, check it, and score it against the scenes' ground truth."""
    started = time.monotonic()
    # The flow talks to a server of its own, started for the occasion; only its warnings are worth reading here.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    home = (out / ".prefect").resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))

    from demo.questions import write_rows
    from flows.build_dataset import build_dataset
    from flows.summary import print_summary
    from pipelines.config import BuildOptions
    from pipelines.dataset import store
    from pipelines.score import score
    from pipelines.validate import validate
    from rewardlib.console import console, quiet_libraries, say, table

    source = write_rows(out / "scenes", rows, seed)
    quiet_libraries()
    say(f"{rows} questions about procedural scenes in {source}")
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


def learn(out: Path, dataset: Path, steps: int) -> None:
    """A short GRPO run: accuracy, and attention on the regions that have just been labelled."""
    import torch

    from rewardlib.console import say
    from train.loop import train
    from train.settings import Settings

    torch.set_num_threads(1)  # the model is so small that a second thread costs more than it does
    settings = Settings(
        data=str(dataset), model=str(POLICY), out=out / "grpo", steps=steps, attention_contrast=0.5, max_tokens=96, learning_rate=1e-4,
        warmup=10, schedule="linear", device="cpu", trackers=(),
    )  # fmt: skip
    say(f"\ntraining a tiny Qwen2.5-VL with GRPO, {steps} steps of {settings.prompts} prompts, to answer and to look ...")
    shutil.rmtree(settings.out, ignore_errors=True)
    train(settings)
    say(f"\nmetrics  {settings.out / 'metrics.jsonl'}\nreport   {settings.out / 'report.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build, check and score a labelled dataset of procedural scenes, and train on it.")
    parser.add_argument("--out", type=Path, default=Path("demo_out"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40, help="of GRPO; 0: none")
    a = parser.parse_args()
    run(a.out, a.rows, a.seed, a.steps)
