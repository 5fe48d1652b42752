"""Sampling a step ahead: while the trainer learns from one step's completions, the servers sample
the next one's, by weights that are one update old. The loss corrects for that as it corrects for
the engine (``train.correction``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from train.engines.base import Completion, Engine, Sampling
from train.policy import Prompt

Asked = tuple[tuple[int, ...], int]  # the prompts' seeds, and how many completions of each


class Ahead:
    """An engine of another process, asked before its answer is needed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.pool = ThreadPoolExecutor(1)
        self.pending: dict[Asked, Future[list[list[Completion]]]] = {}

    def begin(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> None:
        """Begin to sample what ``generate`` is going to be asked for."""
        work = self.pool.submit(self.engine.generate, prompts, count, sampling, seeds)
        self.pending[tuple(seeds), count] = work

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """As ``Engine`` says: what has been begun, or what has not."""
        begun = self.pending.pop((tuple(seeds), count), None)
        if begun is not None:
            return begun.result()
        return self.engine.generate(prompts, count, sampling, seeds)

    def sync(self) -> None:
        """As ``Engine`` says, once all that has been begun is there: no completion is by two
        weights.
        """
        for work in self.pending.values():
            work.exception()  # wait; whoever asks for it is told what went wrong
        self.engine.sync()
