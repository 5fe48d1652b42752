"""Rows of a Sightline dataset as the trainer wants them: a chat prompt, images, the labelled region, and what rewards read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardlib.adapters.rows import to_sample
from rewardlib.sample import Sample
from rewardlib.text import Template
from rewardlib.tokens import Weights, draw_regions

# What each template asks of the model, after the question.
INSTRUCTIONS: dict[Template, str] = {
    "think-answer": "First think inside <think> </think>, then give the final answer inside <answer> </answer>.",
    "perception-r1": (
        "First describe what you see and think inside <think> </think>, then give the final answer inside <answer> </answer> as "
        "\\boxed{...}, each tag on a line of its own."
    ),
    "boxed": "First think inside <think> </think>, then give the final answer inside \\boxed{}.",
    "answer": "Look at the part of the image that matters, reason briefly, then give the final answer inside <answer> </answer>.",
}


class DataError(ValueError):
    """The dataset cannot be trained on; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One question: what the policy sees, and a sample without a response for the rewards."""

    id: str
    messages: list[dict[str, Any]]
    sample: Sample
    region: Weights | None  # drawn on the image; None without regions
    traces: tuple[str, ...] = ()  # correct chain-of-thought responses

    @property
    def images(self) -> tuple[Any, ...]:
        return self.sample.images


def load_rows(data: str, template: Template) -> Sequence[Row]:
    """The training rows of a dataset folder or Hub id, read as they are needed."""
    import datasets

    path = Path(data)
    source = str(path / "data") if (path / "data").is_dir() else data
    try:
        table = (
            datasets.load_dataset("parquet", data_files=f"{source}/*.parquet", split="train")
            if path.exists()
            else datasets.load_dataset(data, split="train")
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {data}: {error}; give a folder made by `python -m flows.build_dataset`, or a Hub id") from error
    missing = {"image", "question", "answer"} - set(table.column_names)
    if missing:
        raise DataError(f"{data} has no column {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}")
    return _Rows(table, template)


class _Rows(Sequence[Row]):
    def __init__(self, table: Any, template: Template) -> None:
        self.table, self.template = table, template

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        return to_row(self.table[int(index)], self.template)


def to_row(columns: Mapping[str, Any], template: Template) -> Row:
    """A row from a dataset's columns."""
    choices = "".join(f"\n({chr(65 + i)}) {choice}" for i, choice in enumerate(columns.get("choices") or ()))
    text = f"{columns['question']}{choices}\n{INSTRUCTIONS[template]}"
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    sample = to_sample("", columns, prompt=messages, group=columns.get("id"))
    region = draw_regions(sample.images[0].size, sample.regions) if sample.regions else None
    traces = tuple(trace["text"] for trace in columns.get("traces") or () if trace["correct"])
    return Row(str(columns.get("id", "")), messages, sample, region, traces)
