"""From what a configuration says of an endpoint to what asks it."""

from __future__ import annotations

from dataclasses import fields

from pipelines.config import EndpointConfig
from rewardlib.judge import JudgeEndpoint


def endpoint_of(config: EndpointConfig) -> JudgeEndpoint:
    return JudgeEndpoint(**config.model_dump(include={field.name for field in fields(JudgeEndpoint)}))
