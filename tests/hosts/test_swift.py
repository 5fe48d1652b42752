"""A plugin file as users write it, loaded and run by ms-swift's own code: its arguments, its reward computation, and a whole GRPO run."""

import json
import math
import os
import string
from types import SimpleNamespace

import pytest

pytest.importorskip("swift.rewards", exc_type=ImportError)
os.environ |= {"HF_HUB_OFFLINE": "1", "USE_HF": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch
from swift.arguments import BaseArguments
from swift.dataset import load_dataset
from swift.pipelines import rlhf_main
from swift.rewards import orms
from swift.rl_core.advantage import compute_advantages
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.template.template_inputs import TemplateInputs
from swift.template.vision_utils import load_image
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pipelines.dataset import formats as write
from tests.hosts.labelled import SIZE, labelled
from tests.judge_server import Server, completion

PLUGIN = """
from swift.rewards import orms

from rewardlib import Accuracy, Format, JudgeEndpoint, Perception
from rewardlib.adapters.swift import swift_orm


class Asked:
    name, needs = "asked", frozenset()

    def __call__(self, samples):
        return [float(s.prompt[-1] == {{"role": "user", "content": "how many?"}}) for s in samples]


orms["sightline_accuracy"] = swift_orm(Accuracy())
orms["sightline_format"] = swift_orm(Format("answer", window=(3, 4)))
orms["sightline_perception"] = swift_orm(Perception(JudgeEndpoint(model="judge", base_url="{url}", retries=0)))
orms["sightline_asked"] = swift_orm(Asked())
"""
RIGHT, WRONG = "<answer>4</answer>", "<answer>5</answer>"
NOWHERE = "http://127.0.0.1:9/v1"


def honest(number, body):
    """Half of the facts are stated, says this judge."""
    facts = json.loads(body["messages"][1]["content"])["facts"]
    return completion(json.dumps({"verdicts": [{"id": fact["id"], "present": n % 2 == 0} for n, fact in enumerate(facts)]}))


def rewards(tmp_path, names, samples, url=NOWHERE):
    """Scores (N, names) and the names that ms-swift logs, by its import of ``--external_plugins`` and the steps of its GRPO trainer."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN.format(url=url))
    BaseArguments._import_external_plugins(SimpleNamespace(external_plugins=[str(plugin)], custom_register_path=[]))
    settings = SimpleNamespace(reward_weights=None)
    trainer = SimpleNamespace(args=settings, accelerator=SimpleNamespace(device="cpu"), use_gym_env=False)
    GRPOTrainer._prepare_rewards(trainer, [f"sightline_{name}" for name in names])
    found = compute_rewards_per_func(samples, trainer.reward_funcs, trainer.reward_model_plugins, torch.device("cpu"), SimpleNamespace())
    return found, trainer.reward_func_names


def sample(response, **columns):
    """A dataset row after the rollout."""
    messages = [{"role": "user", "content": "how many?"}, {"role": "assistant", "content": response}]
    return GRPOSample.from_row({"messages": messages, **columns})


def test_rewards_see_columns_prompts_and_tokens_of_one_turn_or_several(tmp_path):
    samples = [
        sample(RIGHT, answer="4", response_token_ids=[7, 8, 9]),
        sample(WRONG, answer="4", response_token_ids=[[7, 8], [9, 7, 8, 9]]),
        sample(RIGHT, solution="A", choices=["4", "5"], response_token_ids=[7, 8, 9]),
    ]
    found, names = rewards(tmp_path, ["accuracy", "format", "asked"], samples)
    assert names == ["accuracy", "format", "asked"]
    assert found.tolist() == [[1, 1, 1], [0, pytest.approx(0.6 * 4 / 6), 1], [1, 1, 1]]


def test_images_are_left_alone(tmp_path):
    """ms-swift's may be addresses, which nothing here should open to read a text."""
    images = [[{"bytes": None, "path": "nowhere.png"}], ["https://nowhere.invalid/a.png"]]
    found, _ = rewards(tmp_path, ["accuracy"], [sample(RIGHT, answer="4", images=given) for given in images])
    assert found.tolist() == [[1.0], [1.0]]


def test_a_judge_is_awaited_beside_the_other_rewards(tmp_path):
    facts = [{"statement": "four squares"}, {"statement": "one is red"}]
    samples = [sample(RIGHT, answer="4", annotations=facts), sample(WRONG, answer="4", annotations=facts[:1])]
    with Server(honest).running() as server:
        found, names = rewards(tmp_path, ["accuracy", "perception"], samples, server.url)
    assert names == ["accuracy", "perception"]
    assert found.tolist() == [[1.0, 0.5], [0.0, 1.0]]


def test_what_could_not_be_scored_is_missing_and_weighs_like_zero(tmp_path):
    """The first is the adapter's, the second ms-swift's: why its documentation says so."""
    samples = [sample(RIGHT, answer="4", annotations=["four squares"]), sample(RIGHT)]
    found, _ = rewards(tmp_path, ["accuracy", "perception"], samples)  # no gold answer in the second row, and no judge
    assert found[0, 0] == 1
    assert math.isnan(found[0, 1]), "the judge is down"
    assert found[1].isnan().all()
    options = {"advantage_estimator": "grpo", "scale_rewards": "none", "kl_in_reward": False, "beta": 0.0, "kl_values": None}
    _, total = compute_advantages(found, torch.ones(2), num_generations=2, **options)
    assert total.tolist() == [1.0, 0.0]


def test_a_gold_answer_survives_the_loading_of_a_dataset_beside_messages_or_as_solution(tmp_path):
    def load(row, **options):
        path = tmp_path / f"{row[0]}.jsonl"
        path.write_text(json.dumps({row[0]: row[1], "answer": "4", "annotations": [{"statement": "four squares"}]}) + "\n")
        return load_dataset([str(path)], remove_unused_columns=False, **options)[0][0]

    messages, question = ("messages", [{"role": "user", "content": "how many?"}]), ("question", "how many?")
    assert load(messages)["answer"] == "4"
    assert "answer" not in load(question)
    assert load(question, columns={"answer": "solution"})["solution"] == "4"
    assert load(question)["annotations"] == [{"statement": "four squares"}]


def test_an_exported_row_is_read(tmp_path, monkeypatch):
    """By its preprocessor, which drops rows that it cannot read, and by what opens images for a template."""
    row = labelled()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(row["image"]["bytes"])
    told = [write.ms_swift(row, 0, "images/a.png"), write.ms_swift(labelled(regions=[], choices=[]), 1, "images/a.png")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in told))
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(tmp_path))
    table, _ = load_dataset([str(tmp_path / "train.jsonl")], remove_unused_columns=False, strict=True)
    first, second = table
    assert first["objects"] == {"ref": ["square"], "bbox": [[8, 8, 20, 20]], "bbox_type": "real"}
    assert (first["solution"], first["choices"], second["choices"]) == ("red", ["red", "blue"], [])
    assert load_image(first["images"][0]["path"]).size == SIZE
    asked, reply = TemplateInputs.from_dict(dict(first)).chosen.messages
    assert (asked["content"], reply["content"]) == ("<image>Which colour?\n(A) red\n(B) blue", row["traces"][0]["text"])


@pytest.fixture
def tiny_model(tmp_path):
    """A Qwen2 of two layers and its tokenizer of one token for every character, saved."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = Tokenizer(models.BPE({letter: n for n, letter in enumerate(string.printable)}, []))
    letters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token=special[0], eos_token=special[2], additional_special_tokens=special
    )
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, **sizes)
    tokenizer.save_pretrained(tmp_path / "model")
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_run_logs_every_reward_under_its_name(tmp_path, tiny_model):
    row = {"messages": [{"role": "user", "content": "how many?"}], "answer": "4", "annotations": [{"statement": "four squares"}]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    names = ["accuracy", "format", "perception", "asked"]
    with Server(honest).running() as server:
        (tmp_path / "plugin.py").write_text(PLUGIN.format(url=server.url))
        # fmt: off
        done = rlhf_main([
            "--rlhf_type", "grpo", "--model", str(tiny_model), "--model_type", "qwen2", "--template", "qwen", "--tuner_type", "full",
            "--dataset", str(tmp_path / "rows.jsonl"), "--split_dataset_ratio", "0", "--external_plugins", str(tmp_path / "plugin.py"),
            "--reward_funcs", *(f"sightline_{name}" for name in names), "--num_generations", "2", "--per_device_train_batch_size", "2",
            "--max_steps", "1", "--max_completion_length", "8", "--max_length", "128", "--torch_dtype", "float32",
            "--logging_steps", "1", "--report_to", "none", "--save_strategy", "no", "--check_model", "false",
            "--output_dir", str(tmp_path / "out"),
        ])
        # fmt: on
    (entry,) = [entry for entry in done["log_history"] if "reward" in entry]
    assert {name: entry[f"rewards/{name}/mean"] for name in names} == {"accuracy": 0, "format": 0, "perception": 1, "asked": 1}
    assert entry["reward"] == 2
    assert set(orms) >= {f"sightline_{name}" for name in names}
