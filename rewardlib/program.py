"""How the running program was called."""

from __future__ import annotations

import sys


def program() -> str:
    """``sightline score``, or ``python -m pipelines.score``: what the usage of ``--help`` begins with."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if sys.argv[0].startswith("sightline ") or module is None:
        return sys.argv[0]
    return f"python -m {module.name.removesuffix('.__main__')}"
