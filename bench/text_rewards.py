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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.console import console, table
from rewardlib.answers import check_answer

RESULTS = Path(__file__).parent / "results" / "text_rewards.json"
LETTERS = ["A", "B", "C", "D", "E"]
VOCABULARY = "the red cube is left of a small tile so we count each row and then compare both shapes with what the figure shows"
REASONING_WORDS = 120

# --- rewards, by the name of their figure ---


def choice_answers(responses: list[str]) -> list[float]:
    """Accuracy of answers to a multiple-choice question, read strictly."""
    return [float(check_answer(response, "B", LETTERS, strict=True)) for response in responses]


REWARDS: dict[str, Callable[[list[str]], list[float]]] = {
    "choice_answers": choice_answers,
}

# --- measuring ---


def make_responses(count: int, seed: int) -> list[str]:
    """Distinct responses, none shared with another seed: some reasoning, then a choice with a text of its own."""
    draw, words = random.Random(seed), VOCABULARY.split()
    return [
        f"<think>{' '.join(draw.choices(words, k=REASONING_WORDS))}</think><answer>({draw.choice('abcd')}) tile {seed}.{n}</answer>"
        for n in range(count)
    ]


def responses_per_second(reward: Callable[[list[str]], list[float]], count: int, repetitions: int) -> float:
    reward(make_responses(count, seed=0))  # warm
    rates = []
    for seed in range(1, repetitions + 1):
        responses = make_responses(count, seed)
        started = time.process_time()
        reward(responses)
        rates.append(count / (time.process_time() - started))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--responses", type=int, default=5000, help="responses in each repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    a = parser.parse_args()
    rates = {f"{name}_per_second": responses_per_second(reward, a.responses, a.repetitions) for name, reward in REWARDS.items()}
    console.print(table("Text rewards, one core", ["", ""], [[k.replace("_", " "), f"{v:,.0f}"] for k, v in rates.items()]))
    result: dict[str, Any] = {
        **rates,
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
