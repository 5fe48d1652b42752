"""A page about a GRPO run: the same rows before and after it, its curves, and its completions.

python -m train.report runs/grpo [--limit 24]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rewardlib.console import failing_clearly, say, tell
from rewardlib.program import program


def main(run: Annotated[Path, tyro.conf.Positional], limit: int = 24) -> None:
    """Write the report of a GRPO run.

    Args:
        run: A folder written by train.grpo.
        limit: Groups of completions to show.
    """
    from train.reporting import write_report  # loads tables and pictures, which --help does without

    with failing_clearly(ValueError, OSError):
        page = write_report(run, limit)
    say(f"wrote {page}")
    tell({"page": page})


if __name__ == "__main__":
    tyro.cli(main, prog=program())
