"""Where completions come from, an engine a file. ``train.loading`` makes the one that is asked for.

engine = LocalEngine(policy)
groups = engine.generate(prompts, 8, Sampling(max_tokens=512), seeds)  # 8 completions of each
engine.sync()                                                          # after an update
"""

from train.engines.base import Completion, Engine, Processes, Sampling

__all__ = ["Completion", "Engine", "Processes", "Sampling"]
