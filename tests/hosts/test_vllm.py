"""Sampling on a real vLLM, on the CPU: its tokens and log-probabilities are the trainer's, and its death costs a run nothing."""

import json
import os
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", exc_type=ImportError)
os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

import torch
from PIL import Image
from scipy import stats

from demo.tasks import draw
from demo.teach_policy import make_row
from tests.hosts.vllm_process import VLLM
from tests.tiny_models import FAMILIES, MROPE, PROCESSORS, model
from train.distributed import World
from train.engines import Sampling
from train.engines.transport import ByBroadcast, ByFolder
from train.engines.vllm_colocated import ColocatedVLLM
from train.engines.vllm_server import ServerError, VLLMServer
from train.forward import forward
from train.loading import load_model
from train.loop import train
from train.methods import RECIPES
from train.serve import BROADCAST
from train.settings import Settings

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "demo" / "checkpoints" / "policy"
SAMPLING = Sampling(max_tokens=40)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = VLLM(POLICY, tmp_path_factory.mktemp("vllm") / "log").start().wait()
    yield started
    started.kill()


@pytest.fixture
def policy():
    return load_model(str(POLICY), "cpu", trained=True)


def world(out):
    return World("cpu", out)


@pytest.fixture(params=["server", "colocated"])
def engine(request, policy, server, tmp_path):
    if request.param == "server":
        return VLLMServer(policy, world(tmp_path), [server.url], ByFolder(policy, world(tmp_path), tmp_path / "engine"))
    return ColocatedVLLM(policy, world(tmp_path), str(POLICY), 1024, 0)


def picture(seed, size):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def prompts(policy):
    """Prompts with 0, 1, 2 and 3 images, and questions about boards."""
    sizes = [(112, 112), (168, 84), (140, 196)]
    found = []
    for count in range(4):
        parts = [*({"type": "image"} for _ in range(count)), {"type": "text", "text": "What color is the star?"}]
        found.append(policy.encode([{"role": "user", "content": parts}], [picture(n, sizes[n]) for n in range(count)]))
    rng = random.Random(0)
    for n in range(4):
        scene, (question,) = draw(rng)
        row = make_row(scene, question, "think-answer", str(n))
        found.append(policy.encode(row.messages, row.images))
    return found


@dataclass(frozen=True)
class AllowedMass:
    """The logarithm (N,) of the mass of all that may be sampled."""

    name = "allowed"

    @contextmanager
    def watch(self, inputs):
        def read(hidden):
            (logits,) = inputs.logits(hidden, chunk=100_000)
            banned = logits.index_fill(1, inputs.policy.suppressed, -torch.inf)
            return banned.logsumexp(dim=1) - logits.logsumexp(dim=1)

        yield read


def worst(policy, asked, found, temperature=1.0):
    """The largest difference of log-probabilities between vLLM and the trainer. What vLLM never samples has a mass, which it gives to
    the rest; the trainer's loss knows it as a part of the ratio of both.
    """
    differences = []
    for prompt, group in zip(asked, found, strict=True):
        with torch.no_grad():
            output = forward(policy, prompt, [each.ids for each in group], temperature=temperature, measures=[AllowedMass()])
        ours = output.logprobs - output.measured["allowed"]
        differences.append((ours - torch.cat([each.logprobs for each in group])).abs().max().item())
    return max(differences)


def update(policy):
    """As an optimizer would: all weights, the tower's too."""
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.02 * weight.std().nan_to_num(0.0) * torch.randn_like(weight))


def test_token_ids_and_log_probabilities_are_ours_before_and_after_updates(policy, engine):
    asked = prompts(policy)  # that vLLM asks these very tokens is checked for every prompt
    assert worst(policy, asked, engine.generate(asked, 4, SAMPLING, range(8))) < 1e-4
    for _ in range(5):
        update(policy)
        engine.sync()
    assert worst(policy, asked, engine.generate(asked, 4, SAMPLING, range(8))) < 1e-4


def test_what_may_not_be_sampled_is_not(policy, engine):
    for weight in policy.model.parameters():
        weight.data.normal_(std=0.02)
    engine.sync()
    (group,) = engine.generate(prompts(policy)[4:5], 64, SAMPLING, [0])
    ids = torch.cat([each.ids for each in group])
    assert not torch.isin(ids, policy.suppressed).any()
    assert all(not torch.isin(each.ids[:-1], policy.ends).any() for each in group)


def test_the_likeliest_response_is_ours(policy, engine):
    from train.engines.local import greedy

    asked = prompts(policy)[4:]
    found = engine.generate(asked, 1, replace(SAMPLING, temperature=0.0), range(4))
    assert [each.ids.tolist() for (each,) in found] == [ids.tolist() for ids in greedy(policy, asked, SAMPLING.max_tokens)]


def test_weights_go_straight_into_the_servers_memory(policy, tmp_path):
    """By Gloo here; the same group is NCCL's between GPUs."""
    served = VLLM(POLICY, tmp_path / "log", BROADCAST).start()
    try:
        engine = VLLMServer(policy, world(tmp_path), [served.wait().url], ByBroadcast(policy, world(tmp_path)))
        asked = prompts(policy)
        assert worst(policy, asked, engine.generate(asked, 4, SAMPLING, range(8))) < 1e-4
        for _ in range(3):
            update(policy)
            engine.sync()
            assert worst(policy, asked, engine.generate(asked, 4, SAMPLING, range(8))) < 1e-4
        served.kill()
        served.start().wait()
        with pytest.raises(ServerError, match="has lost the weights"):
            engine.generate(asked, 1, SAMPLING, range(8))
    finally:
        served.kill()


# ---------------------------------------------------------------------------------------------------------------------------------------
# Other families


TEXT = {"head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096}
OF = {  # heads of a size that vLLM's CPU kernels run
    "qwen2_vl": {"head_dim": 32, "rope_parameters": MROPE | {"mrope_section": [8, 4, 4]}},
    "qwen3_vl": {"rope_parameters": MROPE | {"mrope_section": [16, 8, 8], "mrope_interleaved": True}},
    "internvl": {},
    "smolvlm": {},
}


@pytest.mark.parametrize("family", OF)
def test_other_families_are_asked_and_sampled_as_they_are_scored(family, tmp_path):
    """With no image, one and two, some of them in tiles."""
    model(FAMILIES[family](**TEXT | OF[family])).save_pretrained(tmp_path / "policy")
    PROCESSORS[family]().save_pretrained(tmp_path / "policy")
    made = load_model(str(tmp_path / "policy"), "cpu", trained=True)
    served = VLLM(tmp_path / "policy", tmp_path / "log").start()
    pictures = [picture(0, (150, 70)), picture(1, (90, 90))]
    asked = []
    for count in range(3):
        parts = [*({"type": "image"} for _ in range(count)), {"type": "text", "text": "how many?"}]
        asked.append(made.encode([{"role": "user", "content": parts}], pictures[:count]))
    short = Sampling(max_tokens=10)
    try:
        sampler = VLLMServer(made, world(tmp_path), [served.wait().url], ByFolder(made, world(tmp_path), tmp_path / "engine"))
        assert worst(made, asked, sampler.generate(asked, 4, short, range(3))) < 1e-4
        update(made)
        sampler.sync()
        assert worst(made, asked, sampler.generate(asked, 4, short, range(3))) < 1e-4
    finally:
        served.kill()


# ---------------------------------------------------------------------------------------------------------------------------------------
# Whole runs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    rng = random.Random(3)
    rows = []
    for n in range(60):
        scene, (question,) = draw(rng, "credit")
        rows.append({"id": str(n), "question": question.text, "answer": question.answer, "choices": list(question.choices)})
        scene.image.save(folder / f"{n}.png")
        rows[-1]["image"] = f"{n}.png"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def settings(dataset, out, **more):
    values = asdict(RECIPES["grpo"]) | {"prompts": 4, "num_generations": 8, "max_tokens": 64, "learning_rate": 1e-4, "window": None}
    return Settings(**values | {"data": str(dataset), "model": str(POLICY), "out": out, "device": "cpu", "trackers": ()} | more)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_twenty_steps_reach_the_same_reward(dataset, server, tmp_path):
    differences = []
    for seed in range(5):
        last = {}
        for engine in ("local", "vllm"):
            out = tmp_path / f"{engine}-{seed}"
            url = (server.url,) if engine == "vllm" else ()
            train(settings(dataset, out, steps=20, seed=seed, engine=engine, engine_url=url, save_every=20))
            found = lines(out)
            last[engine] = np.mean([line["reward"] for line in found[-8:]])
            if engine == "vllm":
                assert max(line["sampling/logp_difference"] for line in found) < 1e-3
        differences.append(last["vllm"] - last["local"])
    half = stats.t.ppf(0.975, 4) * np.std(differences, ddof=1) / np.sqrt(5)
    print(f"vllm - local: {np.mean(differences):+.3f} ± {half:.3f}")
    assert abs(np.mean(differences)) < half


def test_the_next_step_is_sampled_while_this_one_is_learnt(dataset, server, tmp_path):
    """By weights that are one update old, which the loss corrects for."""
    train(settings(dataset, tmp_path / "run", steps=12, engine="vllm", engine_url=(server.url,), ahead=True, save_every=12))
    first, *later = lines(tmp_path / "run")
    assert all(line["prompts"] == 4 for line in (first, *later))
    assert first["sampling/logp_difference"] < 1e-3
    assert np.mean([line["sampling/logp_difference"] for line in later]) > 1e-3
    assert max(line["sampling/logp_difference"] for line in later) < 0.3
    assert all(abs(line["sampling/importance_ratio"] - 1) < 0.1 for line in later)


def test_a_server_killed_at_random_moments_loses_nothing(dataset, tmp_path):
    served = VLLM(POLICY, tmp_path / "log").start().wait()
    rng, kills, over = random.Random(0), [], threading.Event()

    def murder():
        while len(kills) < 5 and not over.is_set():
            time.sleep(rng.uniform(1, 6))
            served.kill()
            kills.append(time.monotonic())
            served.start().wait()

    thread = threading.Thread(target=murder)
    thread.start()
    try:
        train(settings(dataset, tmp_path / "run", steps=60, engine="vllm", engine_url=(served.url,), save_every=60))
    finally:
        over.set()
        thread.join()
        served.kill()
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == list(range(60))
    assert all(line["prompts"] == 4 for line in found)
    assert max(line["sampling/logp_difference"] for line in found) < 1e-3  # no completion by other weights
    assert len(kills) == 5
