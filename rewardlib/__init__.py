"""Rewards that see where a multimodal model looks, for any trainer. ``import rewardlib`` loads neither torch nor anything heavy.

sample      Sample, the Reward protocol, combine          attention   SAYO's contrast, causal attention      (numpy)
text        Accuracy, Format, Repetition                  tokens      regions of an image -> image tokens    (numpy)
perception  Perception-R1's judge                         probe       AttentionProbe                         (torch)
judge       any OpenAI-compatible endpoint                advantages  group-relative advantages              (torch)
adapters    TRL, verl, EasyR1, ms-swift                   vgpo        visual re-weighting                    (torch)
measure     a pass of its own for hosts without one       anchor      the <Focus> token's loss               (torch)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardlib.advantages import group_advantages as group_advantages
    from rewardlib.attention import AttentionContrast as AttentionContrast
    from rewardlib.attention import CausalAttention as CausalAttention
    from rewardlib.cache import ReplyCache as ReplyCache
    from rewardlib.judge import JudgeClient as JudgeClient
    from rewardlib.judge import JudgeEndpoint as JudgeEndpoint
    from rewardlib.judge import JudgeError as JudgeError
    from rewardlib.judge import JudgeRequest as JudgeRequest
    from rewardlib.measure import Measurer as Measurer
    from rewardlib.perception import Perception as Perception
    from rewardlib.probe import AttentionProbe as AttentionProbe
    from rewardlib.probe import JoinedMass as JoinedMass
    from rewardlib.sample import Reward as Reward
    from rewardlib.sample import Sample as Sample
    from rewardlib.sample import combine as combine
    from rewardlib.text import Accuracy as Accuracy
    from rewardlib.text import Format as Format
    from rewardlib.text import Repetition as Repetition
    from rewardlib.vgpo import focus_score as focus_score
    from rewardlib.vgpo import visual_advantages as visual_advantages

# Loaded when first used: whoever wants a format reward should not wait for torch.
_HOME = {
    "sample": ("Reward", "Sample", "combine"),
    "text": ("Accuracy", "Format", "Repetition"),
    "perception": ("Perception",),
    "judge": ("JudgeClient", "JudgeEndpoint", "JudgeError", "JudgeRequest"),
    "attention": ("AttentionContrast", "CausalAttention"),
    "probe": ("AttentionProbe", "JoinedMass"),
    "cache": ("ReplyCache",),
    "measure": ("Measurer",),
    "advantages": ("group_advantages",),
    "vgpo": ("focus_score", "visual_advantages"),
}
__all__ = [name for names in _HOME.values() for name in names]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"rewardlib.{module}"), name)
    raise AttributeError(f"module 'rewardlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
