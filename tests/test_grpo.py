"""The training command, from a dataset to a checkpoint, with a tiny random policy."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")

from rewardlib import rle  # noqa: E402
from rewardlib.sample import Counterfactual  # noqa: E402
from tests.judge_server import Server  # noqa: E402
from tests.test_trl import honest_judge  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402
from train.data import DataError, load_rows  # noqa: E402
from train.group import learn, sample_group  # noqa: E402
from train.grpo import make_rewards, prompt_indices, train  # noqa: E402
from train.policy import load_policy  # noqa: E402
from train.settings import RECIPES, Settings, from_command_line  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    model(FAMILIES["qwen2_5_vl"]()).save_pretrained(folder)
    PROCESSORS["qwen2_5_vl"]().save_pretrained(folder)
    return folder


def picture(spread):
    return Image.effect_noise((112, 84), spread).convert("RGB")


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    """Six rows as `flows.build_dataset` writes them."""
    mask = np.zeros((84, 112), bool)
    mask[10:40, 10:60] = True
    columns = {
        "id": [f"row{n}" for n in range(6)],
        "image": [picture(60 + n) for n in range(6)],
        "question": [f"How many? {n}" for n in range(6)],
        "choices": [[]] * 6,
        "answer": ["4"] * 6,
        "annotations": [[{"statement": "a square"}]] * 6,
        "traces": [[{"text": f"{n} squares, <answer>4</answer>", "correct": n < 5}] for n in range(6)],
        "regions": [[{"bbox": [10.0, 10.0, 60.0, 40.0], "mask": rle.encode(mask)}]] * 6,
        "counterfactuals": [[{"role": "evidence", "image": picture(0)}, {"role": "control", "image": picture(10)}]] * 6,
    }
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("id", "question", "answer")},
            "image": datasets.Image(),
            "choices": datasets.List(datasets.Value("string")),
            "annotations": datasets.List({"statement": datasets.Value("string")}),
            "traces": datasets.List({"text": datasets.Value("string"), "correct": datasets.Value("bool")}),
            "regions": datasets.List(
                {
                    "bbox": datasets.List(datasets.Value("float32")),
                    "mask": {"size": datasets.List(datasets.Value("int32")), "counts": datasets.Value("string")},
                }
            ),
            "counterfactuals": datasets.List({"role": datasets.Value("string"), "image": datasets.Image()}),
        }
    )
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "data").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000.parquet")
    return folder


@pytest.fixture
def settings(policy_folder, dataset_folder, tmp_path):
    small = {"steps": 2, "prompts": 2, "group": 4, "max_tokens": 12, "learning_rate": 1e-3}
    return Settings(data=str(dataset_folder), model=str(policy_folder), out=tmp_path / "run", **small)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_of(out):
    from safetensors.torch import load_file

    (checkpoint,) = out.glob("checkpoint-*")
    return load_file(checkpoint / "model.safetensors")


REWARDS = ("accuracy", "format", "repetition", "perception", "attention_contrast", "causal_attention")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name, settings):
    recipe = RECIPES[name]
    small = {field: getattr(settings, field) for field in ("data", "model", "out", "steps", "prompts", "group", "max_tokens")}
    with Server(honest_judge).running() as server:
        train(Settings(**asdict(recipe) | small, recipe=name, judge="judge", judge_url=server.url))
    first, second = metrics(settings.out)
    used = {key.split("/")[1] for key in first if key.startswith("rewards/")}
    assert used == {reward for reward in REWARDS if getattr(recipe, reward)}
    assert all(first[f"rewards/{key}/missing"] == 0 for key in used)
    assert np.isfinite(second["grad_norm"])
    assert not second["skipped"]
    assert ("kl" in first) == bool(recipe.kl)


def test_the_command(settings):
    flags = {
        "data": settings.data,
        "model": settings.model,
        "recipe": "sayo",
        "out": settings.out,
        "steps": 2,
        "prompts": 1,
        "max-tokens": 12,
    }
    command = [sys.executable, "-m", "train.grpo", *(str(part) for flag, value in flags.items() for part in (f"--{flag}", value))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "step 1  reward" in done.stdout
    saved = json.loads((settings.out / "settings.json").read_text())
    assert (saved["recipe"], saved["learning_rate"]) == ("sayo", 5e-6)
    done = subprocess.run([*command, "--recipe", "perception-r1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "error: the perception reward needs a judge" in done.stderr


def test_a_stopped_run_goes_on_as_if_it_had_not_been(settings):
    whole = replace(settings, recipe="sayo", attention_contrast=1.0, steps=4)
    parts = replace(whole, out=settings.out.with_name("parts"), save_every=1)
    train(whole)
    for steps in (1, 2, 4):
        train(replace(parts, steps=steps))
    expected, resumed = weights_of(whole.out), weights_of(parts.out)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert timeless(whole.out) == timeless(parts.out)


def timeless(out):
    return [{name: value for name, value in line.items() if "time" not in name and "perf" not in name} for line in metrics(out)]


def test_lora_trains_the_adapter_alone_and_resumes(settings):
    chosen = replace(settings, lora=4, kl=0.01, freeze_vision=True, attention_contrast=1.0, steps=1)
    train(chosen)
    train(replace(chosen, steps=2))
    (checkpoint,) = settings.out.glob("checkpoint-*")
    assert (checkpoint / "adapter_model.safetensors").exists()
    assert not (checkpoint / "model.safetensors").exists()
    first, second = metrics(settings.out)
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert second["kl"] > 0
    policy = load_policy(chosen)
    assert all("lora_" in name for name, p in policy.model.named_parameters() if p.requires_grad)


def test_checkpointing_and_freezing_change_the_cost_and_nothing_else(settings):
    chosen = replace(settings, attention_contrast=1.0, causal_attention=0.5)
    whole = gradient(chosen, [0, 1])
    again = gradient(replace(chosen, checkpointing=True), [0, 1])
    assert all(torch.allclose(whole[name], again[name], atol=1e-6) for name in whole)
    frozen = gradient(replace(chosen, freeze_vision=True), [0, 1])
    assert set(frozen) == {name for name in whole if "visual" not in name}
    assert all(torch.allclose(whole[name], frozen[name], atol=1e-6) for name in frozen)


def test_a_run_does_not_go_on_with_other_data(settings, tmp_path):
    train(replace(settings, steps=1))
    other = tmp_path / "other"
    other.symlink_to(settings.data)
    with pytest.raises(ValueError, match=r"was trained on .*choose another --out"):
        train(replace(settings, data=str(other), steps=2))


class LowIds:
    """Share of the first tokens of the vocabulary in the response: something that a random policy can learn in a few steps."""

    name = "low_ids"
    needs = frozenset()

    def __call__(self, samples):
        return [sum(token < 20 for token in s.response_ids) / len(s.response_ids) for s in samples]


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_what_is_rewarded_becomes_likelier(loss, settings):
    chosen = replace(settings, loss=loss, group=24, max_tokens=8)
    policy, rows = load_policy(chosen), load_rows(chosen.data, chosen.template)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    seen = []
    for step in range(20):
        group = sample_group(policy, rows[0], chosen, seed=step)
        seen.append(learn(policy, group, [LowIds()], {"low_ids": 1.0}, chosen, completions=24, tokens=group.tokens)["reward"])
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(seen[-4:]) > 2 * np.mean(seen[:4])


def gradient(settings, split):
    """The gradient of one step over four prompts, learnt from in the order of ``split``."""
    policy, rows = load_policy(settings), load_rows(settings.data, settings.template)
    rewards = make_rewards(settings)
    weights = {reward.name: getattr(settings, reward.name) for reward in rewards}
    groups = [sample_group(policy, rows[i], settings, seed=i) for i in range(4)]
    tokens = sum(group.tokens for group in groups)
    for i in split:
        learn(policy, groups[i], rewards, weights, settings, completions=16, tokens=tokens)
    return {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}


def test_the_order_of_groups_changes_nothing(settings):
    chosen = replace(settings, attention_contrast=1.0, causal_attention=0.5, visual_reweighting=True)
    first, second = gradient(chosen, [0, 1, 2, 3]), gradient(chosen, [3, 1, 0, 2])
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-6), name


def test_a_group_of_equal_rewards_adds_no_gradient(settings):
    chosen = replace(settings, format=0.0, max_tokens=3)  # random letters are never right
    assert all(not value.any() for value in gradient(chosen, [0, 1]).values())


def test_counterfactuals_reach_the_rewards(settings):
    chosen = replace(settings, causal_attention=1.0)
    policy, rows = load_policy(chosen), load_rows(chosen.data, chosen.template)
    group = sample_group(policy, rows[0], chosen, seed=0)
    learn(
        policy,
        group,
        make_rewards(chosen),
        {"accuracy": 0.9, "format": 0.1, "causal_attention": 1.0},
        chosen,
        completions=4,
        tokens=group.tokens,
    )
    for sample in group.samples:
        seen = sample.counterfactual
        assert isinstance(seen, Counterfactual)
        assert len(seen.original) == len(seen.evidence) == len(seen.control) == len(sample.response_ids)
        assert not np.allclose(seen.original, seen.evidence)


def test_every_epoch_visits_every_row_once():
    found = [i for step in range(6) for i in prompt_indices(8, 4, step, seed=1)]
    for epoch in range(3):
        assert sorted(found[8 * epoch : 8 * epoch + 8]) == list(range(8))
    assert found[:8] != found[8:16]


def test_recipes_are_defaults_that_flags_override():
    settings = from_command_line(["--data", "d", "--recipe", "vgpo", "--attention-contrast", "0.5", "--group", "4"])
    assert (settings.visual_reweighting, settings.attention_contrast, settings.group, settings.clip_high) == (True, 0.5, 4, 0.28)


def test_help_teaches_and_loads_no_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "train.grpo", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for words in ("--recipe {grpo,sayo,perception-r1,faithful-mr1,vgpo}", "SAYO's attention on the region", "completions per prompt"):
        assert words in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_mistakes_are_explained(settings, tmp_path):
    with pytest.raises(ValueError, match="the perception reward needs a judge: give --judge MODEL"):
        make_rewards(replace(settings, perception=0.7))
    with pytest.raises(DataError, match="cannot read"):
        load_rows(str(tmp_path / "nothing"), "boxed")
    datasets.Dataset.from_list([{"problem": "x"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no column answer, image, question; it has problem"):
        load_rows(str(tmp_path), "boxed")
