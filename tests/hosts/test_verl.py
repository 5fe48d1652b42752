"""Reward files as users write them, loaded and run by verl's own code: its configuration, loader, reward managers and reward workers."""

import asyncio
import json
import logging
import os
import string
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", exc_type=ImportError)
os.environ |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from hydra import compose, initialize_config_module
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopManager, migrate_legacy_reward_impl
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.workers.reward_manager import get_reward_manager_cls

from pipelines.dataset import formats as write
from pipelines.dataset.features import VERL
from tests.hosts.labelled import SIZE, labelled
from tests.judge_server import Server, completion

PLAIN = """
from rewardlib import Accuracy, Format
from rewardlib.adapters.verl import VerlScore

compute_score = VerlScore([Accuracy(), Format("boxed")], weights=[0.9, 0.1])
"""
JUDGED = """
from rewardlib import Accuracy, JudgeEndpoint, Perception
from rewardlib.adapters.verl import VerlScore

judge = JudgeEndpoint(model="judge", base_url="{url}", retries=0)
compute_score = VerlScore([Accuracy(), Perception(judge)], weights=[0.5, 0.5], missing={missing}).call_async
"""
OWN = """
from rewardlib import Accuracy
from rewardlib.adapters.verl import VerlScore


class Concise:
    name, needs = "concise", frozenset()

    def __call__(self, samples):
        return [float(len(s.response) < 10) for s in samples]


compute_score = VerlScore([Accuracy(), Concise()], weights=[0.9, 0.1])
"""
RIGHT, WRONG = r"so \boxed{4}", "it is 5"


@pytest.fixture(scope="session")
def tokenizer():
    """One token for every character."""
    vocabulary = {token: n for n, token in enumerate(["<pad>", "<eos>", *string.printable])}
    letters = Tokenizer(models.BPE(vocabulary, []))
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def configure(tmp_path, tokenizer):
    """verl's configuration for a reward file's text, with command-line overrides as a user gives them."""
    tokenizer.save_pretrained(tmp_path / "model")

    def make(text, *overrides):
        (tmp_path / "my_reward.py").write_text(text)
        named = [f"reward.custom_reward_function.path={tmp_path}/my_reward.py", "reward.custom_reward_function.name=compute_score"]
        own = [f"actor_rollout_ref.model.path={tmp_path}/model", "reward.num_workers=1", *overrides]
        with initialize_config_module("verl.trainer.config", version_base=None):
            return migrate_legacy_reward_impl(compose("ppo_trainer", overrides=[*named, *own]))

    return make


@pytest.fixture
def batch(tokenizer):
    """A DataProto of responses, as verl's rollout leaves it: token ids, and the dataset's columns beside them."""

    def make(responses, truths=("4", "4"), **extra):
        ids = [tokenizer(response).input_ids for response in responses]
        width, prompt = max(map(len, ids)), tokenizer("how many?").input_ids
        tensors = {
            "prompts": torch.tensor([prompt] * len(ids)),
            "responses": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * (len(prompt) + len(row)) + [0] * (width - len(row)) for row in ids]),
        }
        columns = {
            "data_source": ["squares"] * len(ids),
            "reward_model": [{"style": "rule", "ground_truth": truth} for truth in truths],
            "extra_info": [{"split": "train", "index": n, **extra} for n in range(len(ids))],
        }
        return DataProto.from_dict(tensors, {name: np.array(column, dtype=object) for name, column in columns.items()})

    return make


def run(config, tokenizer, data):
    """Every sample through the reward manager that the configuration names, all at once as verl's reward workers do."""

    async def score():
        manager = load_reward_manager(config, tokenizer)
        return await asyncio.gather(*(manager.run_single(data[n : n + 1]) for n in range(len(data))))

    return asyncio.run(score())


def honest(number, body):
    """Half of the facts are stated, says this judge, after a moment."""
    time.sleep(0.2)
    facts = json.loads(body["messages"][1]["content"])["facts"]
    return completion(json.dumps({"verdicts": [{"id": fact["id"], "present": n % 2 == 0} for n, fact in enumerate(facts)]}))


@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo"])
def test_scores_and_their_parts_arrive(configure, tokenizer, batch, manager):
    results = run(
        configure(PLAIN, f"reward.reward_manager.name={manager}"), tokenizer, batch([RIGHT, WRONG, r"\boxed{5}"], ["4", "4", "4"])
    )
    assert [result["reward_score"] for result in results] == pytest.approx([1.0, 0.0, 0.1])
    assert results[0]["reward_extra_info"] == {"score": 1.0, "accuracy": 1.0, "format": 1.0, "missing": 0.0}
    assert len({tuple(result["reward_extra_info"]) for result in results}) == 1


def test_ground_truth_goes_over_the_solutions_that_datasets_keep_in_extra_info(configure, tokenizer, batch):
    data = batch([RIGHT, WRONG], answer="Two and two make five. #### 5", question="how many?")
    assert [result["reward_score"] for result in run(configure(PLAIN), tokenizer, data)] == pytest.approx([1.0, 0.0])


def test_choices_are_found_in_extra_info_and_in_json_ground_truth(configure, tokenizer, batch):
    truth = json.dumps({"answer": "B", "choices": ["three", "four"]})
    results = run(configure(PLAIN), tokenizer, batch([r"\boxed{four}", r"\boxed{three}"], [truth, truth]))
    assert [result["reward_extra_info"]["accuracy"] for result in results] == [1.0, 0.0]
    results = run(configure(PLAIN), tokenizer, batch([r"\boxed{four}", r"\boxed{three}"], ["B", "B"], choices=["three", "four"]))
    assert [result["reward_extra_info"]["accuracy"] for result in results] == [1.0, 0.0]


def test_a_judge_is_awaited_for_all_samples_at_once(configure, tokenizer, batch):
    with Server(honest).running() as server:
        config = configure(JUDGED.format(url=server.url, missing=None))
        assert asyncio.iscoroutinefunction(get_custom_reward_fn(config))
        results = run(config, tokenizer, batch([RIGHT, WRONG], annotations=[{"statement": "four squares"}, {"statement": "one is red"}]))
    assert [result["reward_score"] for result in results] == pytest.approx([0.75, 0.25])
    assert results[0]["reward_extra_info"] == {"score": 0.75, "accuracy": 1.0, "perception": 0.5, "missing": 0.0}
    assert server.most_in_flight == 2


def test_a_judge_that_is_down_raises_or_counts_as_missing(configure, tokenizer, batch):
    url, data = "http://127.0.0.1:9/v1", batch([RIGHT, WRONG], annotations=["four squares"])
    with pytest.raises(RuntimeError, match="perception could not be scored"):
        run(configure(JUDGED.format(url=url, missing=None)), tokenizer, data)
    results = run(configure(JUDGED.format(url=url, missing=0.3)), tokenizer, data)
    assert [result["reward_score"] for result in results] == pytest.approx([0.65, 0.15])
    assert [result["reward_extra_info"]["missing"] for result in results] == [1.0, 1.0]


def test_the_rate_limited_manager_makes_an_error_a_zero(configure, tokenizer, batch):
    """Why the adapter's documentation advises against it."""
    results = run(configure(PLAIN, "reward.reward_manager.name=rate_limited"), tokenizer, batch([RIGHT], [None]))
    assert results[0]["reward_score"] == 0.0
    assert "accuracy could not be scored" in results[0]["reward_extra_info"]["error"]


def test_older_managers_score_a_batch(configure, tokenizer, batch):
    scorer = get_custom_reward_fn(configure(PLAIN))
    one_by_one = get_reward_manager_cls("naive")(tokenizer, 0, compute_score=scorer)(batch([RIGHT, WRONG]), return_dict=True)
    whole = configure(PLAIN.replace("[0.9, 0.1])", "[0.9, 0.1]).batch"))
    at_once = get_reward_manager_cls("batch")(tokenizer, 0, get_custom_reward_fn(whole))(batch([RIGHT, WRONG]), return_dict=True)
    for found in (one_by_one, at_once):
        assert found["reward_tensor"].sum(dim=1).tolist() == pytest.approx([1.0, 0.0])
        assert found["reward_tensor"][0, len(RIGHT) - 1] == 1.0  # on the last token
        assert found["reward_extra_info"] == {"score": [1.0, 0.0], "accuracy": [1.0, 0.0], "format": [1.0, 0.0], "missing": [0.0, 0.0]}
    with pytest.raises(RuntimeError, match="accuracy could not be scored"):
        get_reward_manager_cls("naive")(tokenizer, 0, compute_score=scorer)(batch([RIGHT, WRONG], ["4", None]))


def test_the_v1_trainer_logs_an_error_and_goes_on_without_the_response(configure, tokenizer, batch, monkeypatch, caplog):
    rollout = pytest.importorskip("verl.trainer.ppo.v1.agent_loop_tq", exc_type=ImportError)
    run_prompt = rollout.AgentLoopWorkerTQ.__ray_metadata__.modified_class._run_prompt
    config, data, statuses, scored = configure(PLAIN), batch([RIGHT, WRONG], ["4", None]), [], []

    async def put(key, partition_id, tag):
        statuses.append(tag["status"])

    async def main():
        manager = load_reward_manager(config, tokenizer)

        async def session(*_, session_id, **__):
            scored.append(await manager.run_single(data[session_id : session_id + 1]))

        worker = SimpleNamespace(config=config, _run_agent_loop=session)
        await run_prompt(worker, {"uid": "a", "__rollout_n__": 2}, {}, {"validate": False})

    monkeypatch.setattr(rollout.tq, "async_kv_put", put)
    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert statuses == ["running", "failure"]
    assert [result["reward_score"] for result in scored] == [1.0]
    assert "accuracy could not be scored" in caplog.text


@pytest.mark.parametrize("manager", ["naive", "remote"])
def test_ray_workers_load_the_file_and_pass_errors_on(configure, batch, manager):
    """With a reward of the file's own, which has no module that a worker could import; the remote manager pickles it."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        workers = RewardLoopManager(configure(OWN, f"reward.reward_manager.name={manager}"))
        found = workers.compute_rm_score(batch([RIGHT, WRONG]))
        assert found.batch["rm_scores"].sum(dim=1).tolist() == pytest.approx([0.9, 0.1])
        assert found.meta_info["reward_extra_keys"] == ["score", "accuracy", "concise", "missing"]
        assert found.non_tensor_batch["accuracy"].tolist() == [1.0, 0.0]
        with pytest.raises(ray.exceptions.RayTaskError, match="accuracy could not be scored"):
            workers.compute_rm_score(batch([RIGHT, WRONG], ["4", None]))
    finally:
        ray.shutdown()


def test_exported_rows_are_read(tmp_path, configure):
    told = [write.verl(labelled(), 0, ""), write.verl(labelled(regions=[], choices=[], annotations=[]), 1, "")]
    pq.write_table(pa.Table.from_pylist(told, schema=VERL.arrow_schema), tmp_path / "train.parquet")
    config = configure(PLAIN, "data.filter_overlong_prompts=false", f"+data.cache_dir={tmp_path}").data
    processor = SimpleNamespace(image_processor=None)
    rows = RLHFDataset(str(tmp_path / "train.parquet"), tokenizer=None, config=config, processor=processor)
    found = collate_fn([rows[0], rows[1]])
    shown, asked = found["raw_prompt"][0][0]["content"]
    assert (shown["type"], shown["image"].size) == ("image", SIZE)
    assert asked == {"type": "text", "text": "Which colour?\n(A) red\n(B) blue"}
    assert found["index"].tolist() == [0, 1]
    told = (found["data_source"][0], r"\boxed{A}", found["reward_model"][0]["ground_truth"], found["extra_info"][0])
    score = get_custom_reward_fn(configure(PLAIN))
    assert score(*told)["accuracy"] == 1
