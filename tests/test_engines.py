"""Sampling on a vLLM server, and what the loss makes of another program's samples."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.test_train_core import picture, policy, prompts  # noqa: E402
from tests.vllm_server import FakeVLLM  # noqa: E402
from train.correction import importance_weights  # noqa: E402
from train.engines import Sampling, local, vllm_server  # noqa: E402
from train.engines.ahead import Ahead  # noqa: E402
from train.engines.local import rollout  # noqa: E402
from train.engines.transport import ByBroadcast, ByFolder  # noqa: E402
from train.engines.vllm import collapsed  # noqa: E402
from train.engines.vllm_server import ServerError, VLLMServer  # noqa: E402
from train.evaluate import EvaluateSettings  # noqa: E402
from train.evaluation import evaluate  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loop import train  # noqa: E402
from train.serve import command_of  # noqa: E402
from train.settings import Settings  # noqa: E402


class Alone:
    rank, size, main = 0, 1, True

    def gather_objects(self, items):
        return list(items)

    def wait(self):
        pass


@pytest.fixture
def made():
    return policy("qwen2_5_vl")


@pytest.fixture
def server(made, monkeypatch):
    monkeypatch.setattr(vllm_server, "PAUSE", 0.01)
    fake = FakeVLLM(made.processor)
    yield fake
    fake.close()


@pytest.fixture
def engine(made, server, tmp_path):
    return VLLMServer(made, Alone(), [server.url], ByFolder(made, Alone(), tmp_path / "engine"))


SAMPLING = Sampling(max_tokens=12)


def test_completions_come_with_the_policys_probabilities(made, engine):
    asked = prompts(made)
    for prompt, drawn in zip(asked, engine.generate(asked, 3, SAMPLING, [0, 1, 2]), strict=True):
        assert len(drawn) == 3
        with torch.no_grad():
            output = forward(made, prompt, [each.ids for each in drawn])
        assert torch.allclose(output.logprobs, torch.cat([each.logprobs for each in drawn]), atol=1e-5)


def test_an_update_reaches_the_server_and_its_caches_are_emptied(made, engine, server):
    (prompt, *_) = prompts(made)
    before = engine.version
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    server.log.clear()
    engine.sync()
    assert engine.version != before
    assert server.version == engine.version
    assert server.log == ["collective_rpc", *vllm_server.CACHES, "update_weight_version"]
    ((drawn,),) = engine.generate([prompt], 1, SAMPLING, [0])
    with torch.no_grad():
        assert torch.allclose(forward(made, prompt, [drawn.ids]).logprobs, drawn.logprobs, atol=1e-5)


@pytest.mark.parametrize("failures", [[500], [503, 502], [0], [0, 500, 0]], ids=str)
def test_what_fails_is_sampled_again(made, engine, server, failures):
    server.failures = list(failures)
    found = engine.generate(prompts(made), 2, SAMPLING, [0, 1, 2])
    assert [len(group) for group in found] == [2, 2, 2]
    assert not server.failures


def test_a_server_that_was_started_again_is_given_the_weights_again(made, engine, server):
    server.restart()
    server.log.clear()
    engine.generate(prompts(made)[:1], 1, SAMPLING, [0])
    assert server.version == engine.version
    assert server.log[0] == "collective_rpc"


def test_of_many_requests_one_brings_the_weights(made, engine, server):
    server.restart()
    server.log.clear()
    engine.generate(prompts(made) * 4, 1, SAMPLING, range(12))
    assert server.log.count("collective_rpc") == 1


def test_completions_by_other_weights_are_not_taken(made, engine, server, monkeypatch):
    """Somebody else's update in the middle of a prompt."""
    answer, times = server.generate, []

    def meddled(body):
        times.append(1)
        reply = answer(body)
        if len(times) == 1:
            server.version = "somebody-else-7"
        return reply

    monkeypatch.setattr(server, "generate", meddled)
    engine.generate(prompts(made)[:1], 1, SAMPLING, [0])
    assert len(times) == 2
    assert server.version == engine.version


def test_a_server_that_stays_away_stops_the_run_with_a_sentence(made, engine, server, monkeypatch):
    monkeypatch.setattr(vllm_server, "PATIENCE", 0.05)
    server.failures = [500] * 1000
    with pytest.raises(ServerError, match=r"has not answered for .* start it again .* it goes on where it was"):
        engine.generate(prompts(made)[:1], 1, SAMPLING, [0])


def test_a_server_without_the_route_says_how_to_start_one(made, engine, server):
    server.failures = [404]
    with pytest.raises(ServerError, match="--enable-scale-out"):
        engine.generate(prompts(made)[:1], 1, SAMPLING, [0])


def test_a_refusal_is_told(made, engine, server):
    server.failures = [400]
    with pytest.raises(ServerError, match=r"refuses inference/v1/generate.*made to fail"):
        engine.generate(prompts(made)[:1], 1, SAMPLING, [0])


def test_another_prompt_than_ours_is_noticed(made, engine, server):
    server.says_prompt = [1, 2, 3]
    with pytest.raises(ValueError, match="asks another prompt than the trainer: 3 tokens against"):
        engine.generate(prompts(made)[:1], 1, SAMPLING, [0])


def test_prompts_go_round_the_servers(made, server, tmp_path):
    other = FakeVLLM(made.processor)
    engine = VLLMServer(made, Alone(), [server.url, f"{other.url}/v1/"], ByFolder(made, Alone(), tmp_path / "engine"))
    engine.generate(prompts(made), 1, SAMPLING, [0, 1, 2])
    assert [fake.log.count("inference/v1/generate") for fake in (server, other)] == [2, 1]
    other.close()


def test_an_image_is_one_token_for_vllm(made):
    image_token = made.model.config.image_token_id
    for prompt, images in zip(prompts(made), (1, 2, 0), strict=True):
        ids = collapsed(made, prompt)
        assert ids.count(image_token) == images == len(prompt.pictures)
        assert [i for i in ids if i != image_token] == [i for i in prompt.ids.tolist() if i != image_token]


def test_the_command_has_what_the_client_needs():
    command = command_of("model", 8123, ["--dtype", "float32"])
    assert command[:4] == ["vllm", "serve", "model", "--port"]
    assert {"--enable-scale-out", "processed_logprobs", "float32"} <= set(command)


# ---------------------------------------------------------------------------------------------------------------------------------------
# Runs


@pytest.fixture
def settings(made, server, tmp_path):
    made.model.save_pretrained(tmp_path / "policy")
    made.processor.save_pretrained(tmp_path / "policy")
    rows = [{"id": str(n), "question": f"how many? {n}", "answer": "4", "image": f"{n}.png"} for n in range(4)]
    for n in range(4):
        picture((112, 84), n).save(tmp_path / f"{n}.png")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"steps": 3, "prompts": 2, "num_generations": 4, "max_tokens": 12, "learning_rate": 1e-2, "format": 1.0, "window": (3, 5)}
    where = {"data": str(tmp_path / "rows.jsonl"), "model": str(tmp_path / "policy"), "out": tmp_path / "run", "save_every": 1}
    return Settings(**small, **where, engine="vllm", engine_url=(server.url,), trackers=(), device="cpu", template="answer")


def lines(settings):
    return [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_samples_on_the_server_by_its_newest_weights(settings, server):
    train(settings)
    found = lines(settings)
    assert len(found) == 3
    assert all(line["sampling/logp_difference"] < 1e-4 for line in found)
    assert all(line["sampling/importance_ratio"] == pytest.approx(1, abs=1e-4) for line in found)
    assert server.log.count("collective_rpc") == 4  # at the start, and after every update


@pytest.mark.parametrize("lora", [0, 4])
def test_weights_go_over_by_broadcast(settings, server, made, lora):
    server.config = made.model.config
    train(replace(settings, engine_weights="broadcast", lora=lora))
    found = lines(settings)
    assert len(found) == 3
    assert all(line["sampling/logp_difference"] < 1e-4 for line in found)
    assert server.log.count("init_weight_transfer_engine") == 1
    assert server.log.count("update_weights") == server.log.count("finish_weight_update") == 4
    assert "collective_rpc" not in server.log


def test_weights_that_are_lost_are_not_sent_again(made, server, tmp_path):
    server.config = made.model.config
    engine = VLLMServer(made, Alone(), [server.url], ByBroadcast(made, Alone()))
    engine.generate(prompts(made)[:1], 1, SAMPLING, [0])
    server.restart()
    with pytest.raises(ServerError, match="start the run again, it goes on where it was"):
        engine.generate(prompts(made)[:1], 1, SAMPLING, [0])


def test_a_server_that_was_started_again_is_joined_again_with_the_next_weights(made, server):
    server.config = made.model.config
    engine = VLLMServer(made, Alone(), [server.url], ByBroadcast(made, Alone()))
    engine.sync()
    assert server.log.count("init_weight_transfer_engine") == 1
    server.restart()
    engine.sync()
    assert server.log.count("init_weight_transfer_engine") == 2
    (group,) = engine.generate(prompts(made)[:1], 2, SAMPLING, [0])
    assert len(group) == 2


def test_a_run_goes_on_with_its_engine(settings, server):
    train(replace(settings, steps=2))
    server.restart()
    train(settings)
    assert [line["step"] for line in lines(settings)] == [0, 1, 2]
    assert lines(settings)[2]["sampling/logp_difference"] < 1e-4


def test_what_was_sampled_ahead_is_one_update_old(settings):
    train(replace(settings, ahead=True))
    first, *later = lines(settings)
    assert first["sampling/logp_difference"] < 1e-4
    assert all(line["sampling/logp_difference"] > 1e-4 for line in later if line["grad_norm"])
    assert [line["prompts"] for line in lines(settings)] == [2, 2, 2]


def test_a_server_answers_an_evaluation_as_the_policy_does(settings, server):
    asked = EvaluateSettings(data=settings.data, model=settings.model, out=settings.out / "own", max_tokens=12, device="cpu")
    own = evaluate(asked)
    there = evaluate(replace(asked, out=settings.out / "there", engine_url=(server.url,)))
    assert own == there
    assert server.log.count("inference/v1/generate") == 4


def test_a_failure_ahead_is_told_when_its_completions_are_wanted(made, engine, server):
    ahead = Ahead(engine)
    server.failures = [400]
    ahead.begin(prompts(made)[:1], 1, SAMPLING, [0])
    ahead.sync()
    with pytest.raises(ServerError, match="made to fail"):
        ahead.generate(prompts(made)[:1], 1, SAMPLING, [0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"engine": "local"}, "give --engine vllm too"),
        ({"ahead": True, "engine_url": ()}, "give --engine-url"),
        ({"engine_weights": "broadcast", "engine_url": ()}, "give --engine-url too"),
    ],
)
def test_settings_that_do_not_go_together(settings, change, told):
    with pytest.raises(ValueError, match=told):
        train(replace(settings, **change))


# ---------------------------------------------------------------------------------------------------------------------------------------
# The local decoder


@torch.no_grad()
def test_chunks_and_dropping_what_has_ended_change_nothing(made, monkeypatch):
    asked = prompts(made)

    def draw():
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(asked))]
        return [[row.tolist() for row in group] for group in rollout(made, asked, 6, Sampling(max_tokens=60), generators)]

    monkeypatch.setattr(local, "ENDED", 2.0)
    whole = draw()
    lengths = {len(row) for group in whole for row in group}
    assert len(lengths) > 3  # some end early
    for ended, at_once in ((1e-6, 256), (0.3, 256), (1e-6, 1), (1e-6, 12)):
        monkeypatch.setattr(local, "ENDED", ended)
        monkeypatch.setattr(local, "AT_ONCE", at_once)
        assert draw() == whole


# ---------------------------------------------------------------------------------------------------------------------------------------
# Correction

LOG = torch.tensor([0.5, 2.0, 4.0, 1.0]).log()  # ratios of four tokens, of two completions
INDEX = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("correction", "weights"),
    [
        ("token_truncate", [0.5, 2.0, 3.0, 1.0]),
        ("token_mask", [0.5, 2.0, 0.0, 1.0]),
        ("sequence_truncate", [1.0, 1.0, 3.0, 3.0]),
        ("sequence_mask", [1.0, 1.0, 0.0, 0.0]),
        ("none", [1.0] * 4),
    ],
)
def test_importance_weights(correction, weights):
    found = importance_weights(LOG - 3, torch.full((4,), -3.0), INDEX, correction, 3.0)
    assert found.tolist() == pytest.approx(weights, abs=1e-6)


def test_what_is_not_known_weighs_one():
    sampled = torch.tensor([float("nan"), -1.0])
    assert importance_weights(torch.tensor([-1.0, -1.0]), sampled, torch.tensor([0, 0]), "token_truncate", 2.0).tolist() == [1.0, 1.0]


def test_a_huge_ratio_does_not_overflow():
    found = importance_weights(torch.tensor([0.0]), torch.tensor([-500.0]), torch.tensor([0]), "sequence_truncate", 1e30)
    assert torch.isfinite(found).all()


def test_the_weights_carry_no_gradient():
    logprobs = torch.zeros(2, requires_grad=True)
    found = importance_weights(logprobs, torch.full((2,), -0.1), torch.tensor([0, 1]), "token_truncate", 2.0)
    assert not found.requires_grad


def test_prompts_know_their_pictures(made):
    assert [len(prompt.pictures) for prompt in prompts(made)] == [1, 2, 0]
    assert replace(prompts(made)[0], pictures=()).pictures == ()
