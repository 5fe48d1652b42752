"""A training run by a reward from which three groups of four learn nothing; for torchrun.

torchrun --nproc-per-node 2 -m tests.picky_run --data dataset --model model --filter-groups --shard ...
"""

from unittest.mock import patch

from train.loop import train
from train.settings import from_command_line


class Picky:
    """The share of the first tokens of the vocabulary, for every fourth prompt of the run."""

    name, needs = "picky", frozenset()

    def __call__(self, samples):
        return [sum(token < 60 for token in s.response_ids) / len(s.response_ids) if s.group % 4 == 0 else 1.0 for s in samples]


if __name__ == "__main__":
    with patch("train.loop.make_rewards", lambda settings: [Picky()]):
        train(from_command_line())
