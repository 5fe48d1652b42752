"""How many responses a second do the text rewards judge on one core?

GRPO scores every response of every group, so a reward that reads only text must cost next to nothing beside the generation. Each figure is
responses per second of this process's CPU time, the median of the repetitions. Every repetition reads responses of its own: the comparison
of answers keeps recent ones in a cache, and a second pass over the same texts would measure that cache.

    python -m bench.text_rewards [--responses 5000] [--repetitions 5]

Prints a table, writes bench/results/text_rewards.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rewardlib.console import console, table
from rewardlib.sample import Reward, Sample, Score
from rewardlib.text import Accuracy, Format, Repetition

RESULTS = Path(__file__).parent / "results" / "text_rewards.json"
TARGET = 10_000  # responses a second
CHOICES = tuple("ABCDE")
WORDS = (80, 150)  # of reasoning in a response

# What the reasoning is made of: sentences as a policy writes them about a figure, so that words recur as they do in real text.
SUBJECTS = ["The red cube", "A small blue tile", "The left tower", "Triangle PQR", "The shaded region", "One row of the grid", "The scale"]
VERBS = ["is next to", "covers", "lies below", "has the same width as", "does not touch", "shares an edge with", "is twice as wide as"]
OBJECTS = ["the yellow square", "both circles", "the base of the figure", "segment ST", "the second column", "the grey background"]
TAILS = ["so we count it once.", "which leaves {} units.", "and that gives {}.", "as the picture shows.", "so the sum grows to {}."]

# --- what is measured ---

# By the figure's name: the reward, the template of its responses, and their score where all have the same.
MEASURED: dict[str, tuple[Reward, str, Score]] = {
    "choice_answers": (Accuracy(), "<think>{reasoning}</think><answer>{answer}</answer>", None),
    "format_think_answer": (Format("think-answer"), "<think>{reasoning}</think>\n<answer>{answer}</answer>", 1.0),
    "format_think_answer_broken": (Format("think-answer"), "<think>{reasoning}</think>\n<answer>{answer}</answer> I hope this helps.", 0.0),
    "format_perception_r1": (Format("perception-r1"), "<think>\n{reasoning}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>", 1.0),
    "format_answer_window": (Format("answer", window=(60, 100)), "{reasoning} <answer>{answer}</answer>", None),
    "repetition": (Repetition(), "<think>{reasoning}</think><answer>{answer}</answer>", None),
}


def make_reasoning(draw: random.Random) -> str:
    """Sentences of 80 to 150 words in all."""
    length = draw.randint(*WORDS)
    words: list[str] = []
    while len(words) < length:
        sentence = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)}, {draw.choice(TAILS)}"
        words += sentence.format(draw.randint(2, 400)).split(" ")
    return " ".join(words[:length])


def make_samples(template: str, count: int, seed: int) -> list[Sample]:
    """Distinct responses, none shared with another seed: some reasoning, then a choice with a text of its own."""
    draw, samples = random.Random(seed), []
    for n in range(count):
        answer = f"({draw.choice('abcde')}) tile {seed}.{n}"
        response = template.format(reasoning=make_reasoning(draw), answer=answer)
        samples.append(Sample(response, answer="B", choices=CHOICES, length=len(response.split())))
    return samples


def responses_per_second(reward: Reward, template: str, expected: Score, count: int, repetitions: int) -> float:
    reward(make_samples(template, count, seed=0))  # warm
    rates = []
    for seed in range(1, repetitions + 1):
        samples = make_samples(template, count, seed)
        started = time.process_time()
        scores = reward(samples)
        rates.append(count / (time.process_time() - started))
        if expected is not None and set(scores) != {expected}:
            raise AssertionError(f"{reward} takes another way through these responses than the one to be measured")
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--responses", type=int, default=5000, help="responses in each repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    a = parser.parse_args()
    rates = {
        f"{name}_per_second": responses_per_second(reward, template, expected, a.responses, a.repetitions)
        for name, (reward, template, expected) in MEASURED.items()
    }
    rows = [[name.replace("_", " "), f"{rate:,.0f}"] for name, rate in rates.items()]
    console.print(table(f"Text rewards, one core, target {TARGET:,} a second", ["", ""], rows))
    result: dict[str, Any] = {
        **{name: round(rate) for name, rate in rates.items()},
        "target_per_second": TARGET,
        "responses": a.responses,
        "repetitions": a.repetitions,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
