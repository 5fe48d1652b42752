"""Chain-of-thought traces for questions that have none: a vision model behind an OpenAI-compatible
endpoint looks and reasons.

The image travels as a data URL, as the file that the dataset stores. Every draw has a seed and a
place in the reply cache of its own, so a collection that was stopped goes on where it was. Whether
a trace is right is not decided here: its final answer is checked like any other.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from labeling.info import ModelInfo
from rewardlib.judge import JudgeClient, JudgeError, JudgeReply, JudgeRequest

PROMPT_VERSION = "collect-1"
SYSTEM = """You answer questions about an image. First look: inside <think> </think>, write down in plain sentences what you see that bears
on the question (the objects with their colours, shapes, places and counts, the text and the marked quantities), then reason from it step by
step. Then give the final answer, and nothing else, inside <answer> </answer>. Where choices are given, answer with the letter of one."""  # noqa: E501


@dataclass(frozen=True)
class Question:
    """What is asked about which picture; ``image`` holds the bytes of a PNG, JPEG or WebP file."""

    text: str
    choices: tuple[str, ...]
    image: bytes


@dataclass(frozen=True)
class Trace:
    """A response of the vision model, as it wrote it, and what it took to get it."""

    text: str
    requests: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0


class TraceCollector:
    """Asks for ``draws`` traces of each question."""

    def __init__(self, client: JudgeClient, draws: int) -> None:
        self.client, self.draws = client, draws
        self.name = client.endpoint.model

    def collect(self, questions: Sequence[Question]) -> list[list[Trace | JudgeError]]:
        """The traces of every question, or the errors in their place, in order."""
        replies = iter(
            self.client.ask_all(
                [r for question in questions for r in trace_requests(question, self.draws)]
            )
        )
        return [[_trace(next(replies)) for _ in range(self.draws)] for _ in questions]

    def info(self) -> ModelInfo:
        e = self.client.endpoint
        settings = {
            "temperature": e.temperature,
            "seed": e.seed,
            "draws": self.draws,
            "prompt": PROMPT_VERSION,
        }
        return ModelInfo(e.model, settings=settings)


def trace_requests(question: Question, draws: int) -> Iterator[JudgeRequest]:
    """What the vision model is asked: the same question ``draws`` times."""
    text = question.text + "".join(
        f"\n({chr(65 + i)}) {choice}" for i, choice in enumerate(question.choices)
    )
    image = data_url(question.image)
    for draw in range(draws):
        yield JudgeRequest(SYSTEM, text, None, image=image, draw=draw)


def _trace(reply: JudgeReply | JudgeError) -> Trace | JudgeError:
    if isinstance(reply, JudgeError):
        return reply.with_flags("--collector.")
    return Trace(reply.value, 1, reply.prompt_tokens, reply.completion_tokens)


def data_url(image: bytes) -> str:
    """An image file as a URL that holds it."""
    with Image.open(io.BytesIO(image)) as opened:
        kind = Image.MIME[str(opened.format)]
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
