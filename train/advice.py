"""What is worth knowing of a model and the settings before the first step."""

from __future__ import annotations

from train.policy import Policy
from train.settings import Settings


def template_advice(policy: Policy, settings: Settings) -> list[str]:
    """What is worth knowing, before the first step, of the format reward with this model's chat
    template.
    """
    if not settings.format or settings.template not in ("think-answer", "perception-r1"):
        return []
    if policy.opening:
        return ["the model's chat template opens <think>, which counts as the response's"]
    remedy = "take --template boxed or answer, or --format 0"
    if "</think>" in policy.generation_prompt:
        closed = "the model's chat template closes <think></think> in the prompt"
        return [f"{closed}, so --template {settings.template} can hardly be kept to: {remedy}"]
    if not policy.family.writes_think:
        return [
            "Instruct models of this family do not write <think> of their own accord, and one that "
            "never does never earns the format "
            f"reward of --template {settings.template}: {remedy}, or take a Thinking model"
        ]
    return []
