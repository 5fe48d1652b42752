"""Sampling on ``vllm serve`` processes, wherever they run.

    python -m train.serve --model Qwen/Qwen2.5-VL-3B-Instruct      # or --say the command
    python -m train.grpo --data dataset --engine vllm --engine-url http://localhost:8000

A prompt goes over as token ids with its images as PNG, and token ids with their log-probabilities
come back; that vLLM asks exactly our tokens is checked for every prompt. How new weights go over is
said in ``train.engines.transport``. They have a version, which the server keeps: one that has died,
was started again or samples for somebody else is noticed, is given the weights again, and samples
the prompt again.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any
from uuid import uuid4

import httpx

from train.engines.base import Completion, Processes, Sampling
from train.engines.transport import Away, Transport
from train.engines.vllm import check_prompt, collapsed, completion, parameters
from train.policy import Policy, Prompt

AT_ONCE = 64  # requests under way at a server
PATIENCE = 600.0  # seconds that a server may be away, or need for a prompt
PAUSE = 2.0  # seconds between two looks at a server that is away
CACHES = (
    "reset_prefix_cache",
    "reset_mm_cache",
    "reset_encoder_cache",
)  # hold what old weights made
START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs"
)


class ServerError(ValueError):
    """A server that does not do what it should, and what to do about it."""


class VLLMServer:
    """Several servers as one; a process of the run asks one after the other."""

    def __init__(
        self,
        policy: Policy,
        world: Processes,
        urls: Sequence[str],
        transport: Transport,
        say: Callable[[str], None] = print,
    ) -> None:
        """say: tells people of a server that is waited for."""
        self.policy, self.world, self.transport = policy, world, transport
        self.servers = [Server(url, say) for url in urls]
        self.run, self.updates = uuid4().hex[:8], 0
        self.sync()

    @property
    def version(self) -> str:
        """What the servers are told that their weights are."""
        return f"sightline-{self.run}-{self.updates}"

    def sync(self) -> None:
        """As ``Engine`` says."""
        self.updates += 1
        self.run = self.world.gather_objects([self.run])[0]
        self.transport.take()
        self.world.wait()
        if self.world.main:
            for server in self.servers:
                server.patiently(lambda server=server: server.load(self.transport, self.version))
        self.transport.drop()
        self.world.wait()

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """As ``Engine`` says; vLLM draws with its own random numbers, whatever the seeds are."""
        wanted = parameters(self.policy, count, sampling)

        def ask(number: int) -> list[Completion]:
            server = self.servers[(number + self.world.rank) % len(self.servers)]
            return self._ask(server, prompts[number], wanted)

        with ThreadPoolExecutor(AT_ONCE * len(self.servers)) as pool:
            return list(pool.map(ask, range(len(prompts))))

    def _ask(self, server: Server, prompt: Prompt, wanted: dict[str, Any]) -> list[Completion]:
        """A prompt's completions, by these weights."""
        parts = [{"type": "image_url", "url": data_url(image)} for image in prompt.pictures]
        body = {
            "token_ids": collapsed(self.policy, prompt),
            "sampling_params": wanted,
            "return_token_ids": True,
        }
        if parts:
            body["content_parts"] = parts

        def once() -> dict[str, Any]:
            server.have(self.transport, self.version)
            reply: dict[str, Any] = server.post("inference/v1/generate", body)
            if server.version() != self.version:
                raise Away("it has been given other weights meanwhile")
            return reply

        reply = server.patiently(once)
        check_prompt(prompt, reply.get("prompt_token_ids"))
        found = []
        for choice in sorted(reply["choices"], key=lambda choice: choice["index"]):
            told = choice["logprobs"]["content"]
            logprobs = [token["logprob"] for token in told]
            found.append(completion(choice["token_ids"], logprobs, self.policy.device))
        return found


class Server:
    """One ``vllm serve`` process."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self.say, self.loading = say, Lock()
        self.url = url.rstrip("/").removesuffix("/v1")
        self.client = httpx.Client(base_url=self.url, timeout=httpx.Timeout(PATIENCE, connect=10.0))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The reply to a request; ``Away`` where there is none, ``ServerError`` for a refusal."""
        return self._checked("POST", path, body)

    def get(self, path: str) -> Any:
        """The reply to a request; as ``post``."""
        return self._checked("GET", path)

    def version(self) -> str | None:
        """What this server was last told that its weights are."""
        told: dict[str, Any] = self.get("weight_info")
        return told["weight_version"]

    def have(self, transport: Transport, version: str) -> None:
        """Take over weights, unless they are there; of all that notice it at once, one does."""
        with self.loading:
            if self.version() == version:
                return
            if not transport.lasts:
                raise ServerError(
                    f"--engine-url {self.url} has lost the weights that it was sent, and they are "
                    "sent once (--engine-weights broadcast): start the run again, it goes on where "
                    "it was"
                )
            self.load(transport, version)

    def load(self, transport: Transport, version: str) -> None:
        """Take over weights, and forget what the old ones made."""
        transport.give(self, version)
        for cache in CACHES:
            self.post(cache)
        self.post("update_weight_version", {"new_version": version})

    def patiently(self, work: Any) -> Any:
        """What ``work`` returns; again where the server was away, until it is back."""
        given_up = time.monotonic() + PATIENCE
        said = False
        while True:
            try:
                return work()
            except Away as error:
                if time.monotonic() > given_up:
                    raise ServerError(
                        f"--engine-url {self.url} has not answered for {PATIENCE:.0f} seconds "
                        f"({error}); start it again ({START}), and the run: it goes on where it was"
                    ) from error
                if not said:
                    self.say(f"{self.url} is away ({error}); waiting for it, and sampling again")
                    said = True
                time.sleep(PAUSE)

    def _checked(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            reply = self.client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        if reply.status_code >= 500:
            raise Away(f"{path}: {reply.status_code} {reply.text[:200]}")
        if reply.status_code == 404:
            raise ServerError(
                f"--engine-url {self.url} has no /{path}: start it with {START} "
                "(vLLM 0.30 or newer)"
            )
        if reply.is_error:
            raise ServerError(f"--engine-url {self.url} refuses {path}: {reply.text[:500]}")
        return reply.json() if reply.content else None


def data_url(image: Any) -> str:
    """An image as PNG, which loses nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
