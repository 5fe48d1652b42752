"""The training command, from a dataset to a checkpoint, with a tiny random policy."""

import io
import json
import math
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")

from rewardlib import Accuracy, JudgeEndpoint, Perception, rle  # noqa: E402
from rewardlib.sample import Counterfactual, Sample  # noqa: E402
from tests.judge_server import Server, failure  # noqa: E402
from tests.test_trl import honest_judge  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402
from train.batch import Normalizer  # noqa: E402
from train.data import DataError, load_rows  # noqa: E402
from train.distributed import World  # noqa: E402
from train.engines.local import LocalEngine  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loading import load_model, load_policy  # noqa: E402
from train.loop import learning_rate, make_methods, train  # noqa: E402
from train.losses import LOSSES  # noqa: E402
from train.methods import METHODS, RECIPES  # noqa: E402
from train.methods.vgpo import VGPO  # noqa: E402
from train.missing import heed  # noqa: E402
from train.order import row_index  # noqa: E402
from train.plan import Plan  # noqa: E402
from train.rewards import REWARDS, make_rewards  # noqa: E402
from train.sampling import Sampler  # noqa: E402
from train.settings import MethodSettings, Settings, from_command_line  # noqa: E402
from train.step import assess, step  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    model(FAMILIES["qwen2_5_vl"]()).save_pretrained(folder)
    PROCESSORS["qwen2_5_vl"]().save_pretrained(folder)
    return folder


def picture(spread):
    """Grey noise, the same in every run: Pillow's own follows from whatever was drawn before."""
    noise = np.random.default_rng(spread).normal(128, spread, (84, 112))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")


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
        "annotations": [[{"statement": f"a square {n}"}] for n in range(6)],
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
    small = {"steps": 2, "prompts": 2, "num_generations": 4, "max_tokens": 12, "learning_rate": 1e-3}
    return Settings(data=str(dataset_folder), model=str(policy_folder), out=tmp_path / "run", **small)


def sampler(policy, settings, rewards=()):
    return Sampler(policy, LocalEngine(policy), Plan(settings, rewards, make_methods(settings)))


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_of(out):
    from safetensors.torch import load_file

    (weights,) = out.glob("checkpoint-*/*model.safetensors")  # the model's, or an adapter's
    return load_file(weights)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name, settings):
    recipe = RECIPES[name]
    small = {field: getattr(settings, field) for field in ("data", "model", "out", "steps", "prompts", "num_generations", "max_tokens")}
    with Server(honest_judge).running() as server:
        # A random policy answers all questions alike, so that filtering would leave nothing to measure.
        chosen = asdict(recipe) | small | {"filter_groups": False}
        train(Settings(**chosen, recipe=name, judge="judge", judge_url=server.url))
    first, second = metrics(settings.out)
    used = {key.split("/")[1] for key in first if key.startswith("rewards/")}
    assert used == {reward for reward in (each.name for each in REWARDS) if getattr(recipe, reward)}
    assert all(first[f"rewards/{key}/missing"] == 0 for key in used)
    assert np.isfinite(second["grad_norm"])
    assert not second["skipped"]
    assert ("kl" in first) == replace(settings, kl=recipe.kl, methods=recipe.methods).has_reference


OTHERS = sorted(set(FAMILIES) - {"qwen2_5_vl"})


def learns_by(family, name, settings, folder, steps):
    """The metrics of a run of a family's random model by a recipe."""
    model(FAMILIES[family]()).save_pretrained(folder)
    PROCESSORS[family]().save_pretrained(folder)
    small = {field: getattr(settings, field) for field in ("data", "out", "prompts", "num_generations", "max_tokens")}
    train(
        Settings(
            **asdict(RECIPES[name]) | small | {"steps": steps, "filter_groups": False, "temperature": 3.0}, model=str(folder), recipe=name
        )
    )
    assert load_model(str(settings.out / f"checkpoint-{steps}"), "cpu").model.config.model_type == family
    return metrics(settings.out)


@pytest.mark.parametrize("name", ["sayo", "faithful-mr1", "vgpo"])
@pytest.mark.parametrize("family", OTHERS)
def test_every_family_learns_by_the_same_recipes(family, name, settings, tmp_path):
    first, second = learns_by(family, name, settings, tmp_path / "policy", 2)
    assert all(first[key] == 0 for key in first if key.endswith("/missing"))
    assert second["grad_norm"] > 0 or name != "sayo"  # a random policy answers nothing right, but it looks somewhere


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sayo", "faithful-mr1", "vgpo", "papo"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_ten_steps(family, name, settings, tmp_path):
    lines = learns_by(family, name, settings, tmp_path / "policy", 10)
    assert len(lines) == 10
    assert all(np.isfinite(line["grad_norm"]) and not line["skipped"] for line in lines)


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
    given = [sys.executable, "-m", "train.grpo", *(str(part) for flag, value in flags.items() for part in (f"--{flag}", value))]
    done = subprocess.run(given, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "step 2/2  reward" in done.stdout
    assert (settings.out / "report.html").exists()
    saved = json.loads((settings.out / "settings.json").read_text())
    assert (saved["recipe"], saved["learning_rate"]) == ("sayo", 5e-6)
    done = subprocess.run([*given, "--recipe", "perception-r1"], capture_output=True, text=True, cwd=ROOT)
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


def command(settings, **flags):
    given = {"data": settings.data, "model": settings.model, "out": settings.out, "group": 4, "max-tokens": 12, "learning-rate": 1e-3}
    parts = [str(part) for flag, value in (given | flags).items() for part in (f"--{flag}", value)]
    return ["-m", "train.grpo", *parts, "--trackers", "--device", "cpu"]


def launched(count, arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", str(free_port())]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_two_processes_find_the_gradient_of_one(settings, tmp_path):
    given = command(settings, prompts=3, recipe="sayo", kl=0.01, loss="gspo")[2:]
    for count in (1, 2):
        launched(count, ["-m", "tests.step_gradient", str(tmp_path / f"{count}.pt"), *given])
    one, two = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert any(value.abs().max() > 1e-3 for value in one.values())
    assert all(torch.allclose(value, two[name], atol=1e-6) for name, value in one.items())


def test_two_processes_log_and_save_what_one_does(settings):
    whole = replace(settings, recipe="sayo", attention_contrast=1.0, prompts=3, learning_rate=1e-5, trackers=())
    train(whole)
    out = settings.out.with_name("two")
    launched(2, command(whole, **{"out": out, "steps": 2, "prompts": 3, "attention-contrast": 1.0, "learning-rate": 1e-5}))
    for one, two in zip(timeless(whole.out), timeless(out), strict=True):
        assert one.keys() == two.keys()
        assert all(two[name] == pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in one.items())
    assert all(torch.allclose(value, weights_of(out)[name], atol=2e-5) for name, value in weights_of(whole.out).items())
    shown = [polars.read_parquet(run / "completions" / "step-000000.parquet") for run in (whole.out, out)]
    assert shown[0]["completion"].to_list() == shown[1]["completion"].to_list()


@pytest.mark.parametrize(
    "changed", [{"prompts": 2}, {"prompts": 4, "lora": 2, "tokens-per-forward": 400}], ids=["all weights", "an adapter, prompts together"]
)
def test_sharded_processes_learn_what_one_does_and_go_on(changed, settings):
    flags = changed | {"attention-contrast": 1.0, "causal-attention": 0.5, "kl": 0.01, "learning-rate": 1e-5, "save-every": 1}
    whole, out = settings.out, settings.out.with_name("sharded")
    launched(1, command(settings, **flags, steps=2))
    for steps in (1, 2):
        launched(2, [*command(settings, **flags, steps=steps, out=out), "--shard"])
    for one, two in zip(timeless(whole), timeless(out), strict=True):
        assert all(two[name] == pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in one.items())
    expected, found = weights_of(whole), weights_of(out)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(value, found[name], atol=2e-5) for name, value in expected.items())


def test_sharded_processes_filter_groups_as_one_does(settings):
    """All groups that are left are the first process's, and the other stands in with backward passes that add nothing."""
    flags = {"prompts": 2, "steps": 2, "learning-rate": 1e-4}
    whole, out = settings.out, settings.out.with_name("sharded")
    launched(1, ["-m", "tests.picky_run", *command(settings, **flags)[2:], "--filter-groups"])
    launched(2, ["-m", "tests.picky_run", *command(settings, **flags, out=out)[2:], "--filter-groups", "--shard"])
    for one, two in zip(timeless(whole), timeless(out), strict=True):
        assert one["prompts"] == 2
        assert one["grad_norm"] > 0
        assert all(two[name] == pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in one.items())
    expected, found = weights_of(whole), weights_of(out)
    assert all(torch.allclose(value, found[name], atol=2e-4) for name, value in expected.items())


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"attention-contrast": 1.0}, {"methods": "papo"}, {"methods": "vppo"}], ids=["sayo", "papo", "vppo"])
def test_a_run_killed_ten_times_ends_like_one_that_was_not(changed, settings):
    flags = {"steps": 12, "prompts": 2, "save-every": 1, "show-every": 3} | changed
    whole = subprocess.run([sys.executable, *command(settings, **flags)], capture_output=True, text=True, cwd=ROOT)
    assert whole.returncode == 0, whole.stderr
    parts, rng, kills = settings.out.with_name("killed"), random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen([sys.executable, *command(settings, **flags, out=parts)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        # At a random moment after a random number of steps, in the middle of whatever it does.
        for _ in range(rng.randint(1, 2)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        kills += 1
    done = subprocess.run([sys.executable, *command(settings, **flags, out=parts)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    expected, resumed = weights_of(settings.out), weights_of(parts)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert timeless(settings.out) == timeless(parts)
    names = [path.name for path in sorted((settings.out / "completions").iterdir())]
    assert names == [path.name for path in sorted((parts / "completions").iterdir())]
    for name in names:
        assert polars.read_parquet(settings.out / "completions" / name).equals(polars.read_parquet(parts / "completions" / name))


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


def test_a_run_does_not_go_on_with_other_settings(settings):
    train(replace(settings, steps=1))
    with pytest.raises(ValueError, match=r"other settings \(num_generations was 4, now 2\): give its own, or another --out"):
        train(replace(settings, num_generations=2, steps=2))


class LowIds:
    """Share of the first tokens of the vocabulary in the response: something that a random policy can learn in a few steps."""

    name = "low_ids"
    needs = frozenset()

    def __call__(self, samples):
        return [sum(token < 20 for token in s.response_ids) / len(s.response_ids) for s in samples]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_micro_batches_change_nothing(size, settings):
    chosen = replace(settings, num_generations=8, attention_contrast=1.0, causal_attention=0.5, methods=("vgpo",), kl=0.1)
    whole, parts = gradient(chosen, [0, 1]), gradient(replace(chosen, micro_batch=size), [0, 1])
    assert set(whole) == set(parts)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-6), name


def test_several_updates_clip_against_the_policy_that_sampled(settings):
    chosen = replace(settings, attention_contrast=1.0, learning_rate=0.02, steps=2)
    train(replace(chosen, num_iterations=3))
    assert any(line["clip_ratio/low_mean"] + line["clip_ratio/high_mean"] > 0 for line in metrics(settings.out))
    train(replace(chosen, out=settings.out.with_name("once")))
    assert all(line["clip_ratio/low_mean"] == line["clip_ratio/high_mean"] == 0 for line in metrics(settings.out.with_name("once")))


def test_every_update_of_a_step_is_reported(settings, monkeypatch):
    norms = iter([1.0, float("nan"), 3.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr("train.distributed.World.clip_gradients", lambda *_: next(norms))
    train(replace(settings, num_iterations=3, steps=2))
    first, second = metrics(settings.out)
    assert (first["grad_norm"], first["skipped"]) == (2.0, 1.0)
    assert [first[f"updates/{n}/grad_norm"] for n in range(3)] == [1.0, None, 3.0]
    assert (second["grad_norm"], second["skipped"]) == (2.0, 0.0)


def test_a_group_of_one_is_refused(settings):
    with pytest.raises(ValueError, match="--num-generations 1: an advantage is a completion's reward against the others of its prompt"):
        train(replace(settings, num_generations=1))


THINKING = [
    ("qwen2_5_vl", "<think>\n", "<think>\n", "the model's chat template opens <think>, which counts as the response's"),
    ("qwen2_5_vl", "<think></think>", "", r"closes <think></think> in the prompt, so --template think-answer can hardly be kept to: take"),
    ("qwen3_vl", "", "", "Instruct models of this family do not write <think> of their own accord.*take --template boxed or answer"),
    ("qwen2_5_vl", "", "", None),
]


@pytest.mark.parametrize(("family", "ending", "opening", "advice"), THINKING)
def test_chat_templates_of_thinking_models(family, ending, opening, advice, settings, tmp_path, capsys):
    processor = PROCESSORS[family]()
    processor.chat_template += "{% if add_generation_prompt %}" + ending + "{% endif %}"
    model(FAMILIES[family]()).save_pretrained(tmp_path / "thinking")
    processor.save_pretrained(tmp_path / "thinking")
    chosen = replace(settings, model=str(tmp_path / "thinking"), steps=1)
    policy, rows = load_policy(chosen), load_rows(settings.data, settings.template)
    (group,) = sampler(policy, chosen).sample([rows[0]], [0], [0])
    assert [sample.opening for sample in group.samples] == [opening] * 4
    train(chosen)
    said = capsys.readouterr().out
    assert re.search(advice, said) if advice else "think" not in said
    train(replace(chosen, out=tmp_path / "boxed", template="boxed"))
    assert "think" not in capsys.readouterr().out


def test_rows_that_cannot_be_used_are_left_out_named_and_counted(settings, tmp_path, capsys):
    Image.new("RGB", (2400, 10)).save(tmp_path / "strip.png")
    picture(60).save(tmp_path / "good.png")
    row = {"image": "good.png", "question": "How many?", "answer": "4"}
    bad = {
        "strip": {"image": "strip.png"},
        "token": {"question": "What is <|image_pad|>?"},
        "absent": {"image": "none.png"},
        "video": {"videos": ["a.mp4"]},
        "gold": {"choices": ["a", "b"], "answer": "E"},
    }
    rows = [
        {"id": "good", **row},
        {"id": "text", "question": "How many?", "answer": "4"},
        *({"id": name, **row, **bad[name]} for name in bad),
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(replace(settings, data=str(tmp_path / "rows.jsonl"), steps=4, prompts=2))
    left = [json.loads(line) for line in (settings.out / "left_out.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"] for row in left} == {
        "strip": "prompt cannot be encoded",
        "token": "special token in a text",
        "absent": "missing image",
        "video": "unread media",
        "gold": "bad answer",
    }
    said = capsys.readouterr().out
    assert all(said.count(f"left out row {name}: ") == 1 for name in bad)
    page = (settings.out / "report.html").read_text()
    assert "5 rows could not be used and were left out" in page
    assert "missing image" in page
    assert sum(line["prompts"] for line in metrics(settings.out)) == 3  # of the eight, good once more and text


def test_recipes_have_their_papers_schedules():
    assert RECIPES["vgpo"].filter_groups
    assert RECIPES["sayo"].schedule == "linear"
    chosen = Settings(data="", steps=100, **asdict(RECIPES["perception-r1"]))
    assert [round(learning_rate(step, chosen) / chosen.learning_rate, 3) for step in (0, 2, 4, 5, 99)] == [0.167, 0.5, 0.833, 1, 1]


def test_the_learning_rate_rises_then_falls(settings):
    chosen = replace(settings, schedule="linear", warmup=3, steps=13, learning_rate=1.0)
    assert [round(learning_rate(step, chosen), 2) for step in (0, 1, 3, 8, 12)] == [0.25, 0.5, 1.0, 0.5, 0.1]
    assert learning_rate(8, replace(chosen, schedule="cosine")) == pytest.approx(0.5)
    assert learning_rate(12, replace(chosen, schedule="constant")) == 1


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_rewarded_becomes_likelier(loss, settings):
    chosen = replace(settings, loss=loss, num_generations=24, max_tokens=8)
    policy, rows = load_policy(chosen), load_rows(chosen.data, chosen.template)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    seen = []
    for number in range(20):
        (group,) = sampler(policy, chosen).sample([rows[0]], [number], [number])
        _, (figures,) = step(policy, [group], Plan(chosen, [LowIds()]), Normalizer(24, group.tokens))
        seen.append(figures["reward"])
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(seen[-4:]) > 2 * np.mean(seen[:4])


def gradient(settings, split):
    """The gradient of one step over four prompts, learnt from in the order of ``split``."""
    policy, rows = load_policy(settings), load_rows(settings.data, settings.template)
    plan = Plan(settings, make_rewards(settings), make_methods(settings)).at(0.5)
    groups = Sampler(policy, LocalEngine(policy), plan).sample([rows[i] for i in range(4)], range(4), range(4))
    normalizer = Normalizer(4 * settings.num_generations, sum(group.tokens for group in groups))
    step(policy, [groups[i] for i in split], plan, normalizer)
    return {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("focus", ["image", "evidence"])
def test_vgpo_by_attention_does_not_depend_on_micro_batches_or_order(focus, settings):
    by_state = replace(settings, methods=("vgpo",), attention_contrast=1.0)
    chosen = replace(by_state, method=MethodSettings(vgpo=VGPO(focus=focus)))
    whole, by_states = gradient(chosen, [0, 1, 2, 3]), gradient(by_state, [0, 1, 2, 3])
    assert any(not torch.allclose(value, by_states[name], atol=1e-6) for name, value in whole.items())
    for other, order in [(replace(chosen, micro_batch=3), [0, 1, 2, 3]), (replace(chosen, tokens_per_forward=10_000), [3, 1, 0, 2])]:
        again = gradient(other, order)
        assert all(torch.allclose(value, again[name], atol=1e-6) for name, value in whole.items())


COMBINATIONS = [(name,) for name in METHODS]
COMBINATIONS += [("vgpo", "papo", "vppo"), ("gdpo", "pepo", "ease", "entropy-bonus"), ("tor", "dyco-rl", "noisyrollout")]


@pytest.mark.parametrize("methods", COMBINATIONS)
def test_methods_do_not_depend_on_micro_batches_or_order(methods, settings):
    chosen = replace(settings, methods=methods, attention_contrast=1.0)
    whole = gradient(chosen, [0, 1, 2, 3])
    assert any(value.abs().sum() > 0 for value in whole.values())
    forwards = [replace(chosen, tokens_per_forward=tokens) for tokens in (200, 10_000)]
    others = [(replace(chosen, micro_batch=3), [0, 1, 2, 3]), (chosen, [3, 1, 0, 2]), (replace(chosen, checkpointing=True), [0, 1, 2, 3])]
    for other, order in [*others, (forwards[0], [3, 1, 0, 2]), (forwards[1], [0, 1, 2, 3])]:
        again = gradient(other, order)
        assert again.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.allclose(value, again[name], atol=1e-6), (name, order)


def corrected(settings, shifts, order=(0, 1)):
    """The gradient of completions that were drawn with other probabilities: less by ``shifts``, one for each token of a group."""
    policy, rows = load_policy(settings), load_rows(settings.data, settings.template)
    plan = Plan(settings, make_rewards(settings), [])
    groups = Sampler(policy, LocalEngine(policy), plan).sample([rows[0], rows[1]], range(2), range(2))
    for group in groups:
        group.scores = {"accuracy": [0.0, 1.0, 0.0, 1.0], "format": [0.0] * 4}
        with torch.no_grad():
            own = forward(policy, group.prompt, group.completions, temperature=settings.temperature).logprobs
        group.sampled_logprobs = own - shifts[: len(own)]
    figures = step(policy, [groups[n] for n in order], plan, Normalizer(8, sum(group.tokens for group in groups)))[1]
    return {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}, figures


def test_what_another_program_has_sampled_is_weighed_by_the_ratio(settings):
    as_drawn, figures = corrected(settings, torch.zeros(100))
    without, _ = corrected(replace(settings, correction="none"), torch.full((100,), 0.4))
    more, told = corrected(settings, torch.full((100,), math.log(1.5)))
    assert figures[0]["sampling/importance_ratio"] == pytest.approx(1, abs=1e-5)
    assert told[0]["sampling/logp_difference"] == pytest.approx(math.log(1.5), abs=1e-5)
    for name, value in as_drawn.items():
        assert torch.allclose(value, without[name], atol=1e-6)
        assert torch.allclose(1.5 * value, more[name], atol=1e-6)


@pytest.mark.parametrize("correction", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_the_correction_does_not_depend_on_micro_batches_or_order(correction, settings):
    chosen, shifts = replace(settings, correction=correction), 0.8 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    whole, _ = corrected(chosen, shifts)
    assert any(value.abs().sum() > 0 for value in whole.values())
    for other, order in ((replace(chosen, micro_batch=3), (0, 1)), (chosen, (1, 0)), (replace(chosen, tokens_per_forward=10_000), (0, 1))):
        again, _ = corrected(other, shifts, order)
        assert all(torch.allclose(value, again[name], atol=1e-6) for name, value in whole.items())


def test_parts_of_a_single_prompt_teach_the_vision_tower_too(settings):
    """Its images are encoded for sampling, without a graph; what learns from parts of the group encodes them again."""
    policy, rows = load_policy(settings), load_rows(settings.data, settings.template)

    def learnt(size):
        plan = Plan(replace(settings, micro_batch=size), [LowIds()])
        groups = Sampler(policy, LocalEngine(policy), plan).sample([rows[0]], [0], [0])
        policy.model.zero_grad()
        step(policy, groups, plan, Normalizer(4, groups[0].tokens))
        return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}

    whole, parts = learnt(None), learnt(2)
    assert whole.keys() == parts.keys()
    assert any("visual" in name for name in whole)
    assert all(torch.allclose(value, parts[name], atol=1e-6) for name, value in whole.items())


def test_an_adapter_follows_from_the_seed(settings):
    def adapter(seed):
        policy = load_policy(replace(settings, lora=4, seed=seed))
        return {name: p.detach().clone() for name, p in policy.model.named_parameters() if "lora_A" in name}

    torch.manual_seed(3)
    first = adapter(0)
    torch.manual_seed(4)
    assert all(torch.equal(value, adapter(0)[name]) for name, value in first.items())
    assert not all(torch.equal(value, adapter(1)[name]) for name, value in first.items())


def test_a_dataset_without_controls_is_no_dataset_for_what_needs_them(settings, tmp_path):
    whole = datasets.load_dataset("parquet", data_files=f"{settings.data}/data/*.parquet", split="train")
    bare = whole.map(lambda row: {"counterfactuals": [c for c in row["counterfactuals"] if c["role"] == "evidence"]})
    bare.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="the evidence support reward needs control images"):
        train(replace(settings, data=str(tmp_path / "bare.parquet"), evidence_support=1.0))


def test_boxes_need_no_answers(settings, tmp_path):
    whole = datasets.load_dataset("parquet", data_files=f"{settings.data}/data/*.parquet", split="train")
    whole.remove_columns("answer").to_parquet(tmp_path / "bare.parquet")
    train(replace(settings, data=str(tmp_path / "bare.parquet"), accuracy=0.0, box_iou=1.0, template="box", steps=1))
    assert metrics(settings.out)[0]["rewards/box_iou/missing"] == 0
    with pytest.raises(DataError, match="no answer column"):
        train(replace(settings, data=str(tmp_path / "bare.parquet"), out=settings.out.with_name("other")))


def test_a_recipe_that_is_none_is_said(capsys):
    with pytest.raises(SystemExit) as stopped:
        from_command_line(["--data", "x", "--recipe", "papoo"])
    assert stopped.value.code == 2
    assert "papoo" in capsys.readouterr().err


def test_a_run_of_several_methods_goes_on_where_it_was(settings):
    """Weights and figures of a run that was stopped between steps are those of one that was not."""
    chosen = replace(settings, methods=("papo", "vppo"), steps=3, save_every=1)
    train(chosen)
    train(replace(chosen, steps=2, out=settings.out.with_name("again")))
    train(replace(chosen, out=settings.out.with_name("again")))
    whole, again = weights_of(settings.out), weights_of(settings.out.with_name("again"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert metrics(settings.out)[-1]["reward"] == metrics(settings.out.with_name("again"))[-1]["reward"]
    assert "methods/papo/penalty" in metrics(settings.out)[-1]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (("pap",), "--methods pap: there are"),
        (("papo", "papo"), "each method counts once"),
        (("sayo",), "it changes rewards and values alone; take --recipe sayo"),
    ],
)
def test_methods_that_cannot_be(methods, message, settings):
    with pytest.raises(ValueError, match=message):
        train(replace(settings, methods=methods))


def test_methods_have_flags_of_their_own():
    assert from_command_line(["--data", "x", "--methods", "papo", "papo"]).methods == ("papo", "papo")  # which the run refuses
    settings = from_command_line(["--data", "x", "--recipe", "papo", "--papo.perception-kl", "0.02", "--methods", "papo", "vppo"])
    assert (settings.method.papo.perception_kl, settings.methods, settings.kl) == (0.02, ("papo", "vppo"), 0.01)


def test_the_order_of_groups_changes_nothing(settings):
    chosen = replace(settings, attention_contrast=1.0, causal_attention=0.5, methods=("vgpo",))
    first, second = gradient(chosen, [0, 1, 2, 3]), gradient(chosen, [3, 1, 0, 2])
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-6), name


def test_a_group_of_equal_rewards_adds_no_gradient(settings):
    chosen = replace(settings, format=0.0, max_tokens=3)  # random letters are never right
    assert all(not value.any() for value in gradient(chosen, [0, 1]).values())


def test_counterfactuals_reach_the_rewards(settings):
    chosen = replace(settings, causal_attention=1.0)
    policy, rows = load_policy(chosen), load_rows(chosen.data, chosen.template)
    (group,) = sampler(policy, chosen).sample([rows[0]], [0], [0])
    assess(policy, [group], Plan(chosen, make_rewards(chosen)))
    for sample in group.samples:
        seen = sample.counterfactual
        assert isinstance(seen, Counterfactual)
        assert len(seen.original) == len(seen.evidence) == len(seen.control) == len(sample.response_ids)
        assert not np.allclose(seen.original, seen.evidence)


def test_groups_of_equal_text_rewards_are_drawn_again(settings):
    class Picky:
        name, needs = "picky", frozenset()

        def __call__(self, samples):
            return [float(i % 2) if sample.group % 3 == 0 else 1.0 for i, sample in enumerate(samples)]

    policy, rows = load_policy(settings), load_rows(settings.data, settings.template)
    chosen = replace(settings, prompts=3, filter_groups=True, max_tokens=2, trackers=())
    world = World.of(chosen)
    groups, drawn, _ = sampler(policy, chosen, [Picky()]).draw_groups(rows, world, 0)
    assert ([group.number for group in groups], drawn) == ([0, 3, 6], 9)
    groups, drawn, _ = sampler(policy, replace(chosen, filter_groups=False), [Picky()]).draw_groups(rows, world, drawn)
    assert ([group.number for group in groups], drawn) == ([9, 10, 11], 12)


def test_prompts_that_are_too_long_are_left_out_with_a_word(settings, capsys):
    with pytest.raises(ValueError, match=r"none of the first 1 steps drew a row that can be asked.*prompt too long"):
        train(replace(settings, max_prompt=20, steps=1))
    assert "left out row row" in capsys.readouterr().out
    assert "--max-prompt" in (settings.out / "left_out.jsonl").read_text()
    assert not [*settings.out.glob("checkpoint-*")]  # else the same command would call it done
    assert (settings.out / "report.html").exists()
    (line,) = metrics(settings.out)
    assert (line["prompts"], line["completions/mean_length"]) == (0, None)


NONSENSE = {
    "--steps 0": {"steps": 0},
    "--prompts 0": {"prompts": 0},
    "--max-tokens -1": {"max_tokens": -1},
    "--num-iterations 0": {"num_iterations": 0},
    "--micro-batch 0": {"micro_batch": 0},
    "--tokens-per-forward 0": {"tokens_per_forward": 0},
    "give one of them": {"micro_batch": 2, "tokens_per_forward": 100},
    "--save-every 0": {"save_every": 0},
    "--show-every 0": {"show_every": 0},
    "--max-skipped 0": {"max_skipped": 0},
    "--temperature 0": {"temperature": 0.0},
    "--temperature nan": {"temperature": float("nan")},
    "--top-p 1.5": {"top_p": 1.5},
    "--learning-rate inf": {"learning_rate": float("inf")},
    "--max-grad-norm 0": {"max_grad_norm": 0.0},
    "--kl -1": {"kl": -1.0},
    "--clip-low nan": {"clip_low": float("nan")},
    "--warmup -1": {"warmup": -1.0},
    "--lora -4": {"lora": -4},
    "--accuracy nan": {"accuracy": float("nan")},
    "--window 20 10": {"window": (20, 10)},
    "--layers": {"layers": ()},
    "no reward has a weight": {"accuracy": 0.0, "format": 0.0},
}


@pytest.mark.parametrize(("said", "changed"), NONSENSE.items(), ids=NONSENSE)
def test_settings_under_which_nothing_is_learnt_are_refused(said, changed, settings):
    with pytest.raises(ValueError, match=re.escape(said)):
        train(replace(settings, model="nowhere", **changed))  # before anything is loaded


def test_a_run_that_has_learnt_goes_on_over_steps_without_rows(settings):
    train(replace(settings, steps=1, save_every=1))
    train(replace(settings, steps=2, save_every=1, max_skipped=1))
    assert len(metrics(settings.out)) == 2


def test_clipping_can_be_switched_off(settings):
    train(replace(settings, steps=1, attention_contrast=1.0, max_grad_norm=float("inf"), clip_high=float("inf")))
    (line,) = metrics(settings.out)
    assert line["skipped"] == 0
    assert line["grad_norm"] > 0


def test_rows_left_out_before_a_restart_stay_known(settings):
    kept = {"id": "earlier", "reason": "prompt too long", "detail": "raise --max-prompt"}
    train(replace(settings, steps=1, save_every=1))
    (settings.out / "left_out.jsonl").write_text(json.dumps(kept) + "\n")
    train(replace(settings, steps=2, save_every=1))
    assert json.loads((settings.out / "left_out.jsonl").read_text()) == kept
    shutil.rmtree(next(settings.out.glob("checkpoint-*")))
    train(replace(settings, steps=1, save_every=1))  # from the start
    assert not (settings.out / "left_out.jsonl").exists()


def test_updates_that_are_not_finite_are_skipped_and_then_stop_the_run(settings, monkeypatch):
    monkeypatch.setattr("train.distributed.World.clip_gradients", lambda *_: float("nan"))
    with pytest.raises(ValueError, match=r"3 updates in a row had a gradient that is not finite: lower --learning-rate"):
        train(replace(settings, steps=5, max_skipped=3, save_every=1))
    assert [line["skipped"] for line in metrics(settings.out)] == [1, 1]
    (checkpoint,) = settings.out.glob("checkpoint-*")
    before, after = (load_model(str(folder)).model.state_dict() for folder in (settings.model, checkpoint))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_dead_judge_stops_the_run(settings):
    dead = replace(settings, perception=1.0, judge="judge", steps=1)
    said = r"perception scored none of the \d+ .*401: no such key.*--judge-url.*--perception 0.*--missing warn"
    with Server(lambda number, body: failure(401, "no such key")).running() as server, pytest.raises(ValueError, match=said):
        train(replace(dead, judge_url=server.url))
    assert not settings.out.joinpath("metrics.jsonl").exists()


def test_training_goes_on_without_its_judge_and_says_so(settings, capsys):
    with Server(lambda number, body: failure(401, "no such key")).running() as server:
        train(replace(settings, perception=1.0, judge="judge", judge_url=server.url, steps=1, missing="warn"))
    (line,) = metrics(settings.out)
    assert line["rewards/perception/missing"] > 0.8  # of an empty response no judge is asked
    assert not line["rewards/perception/mean"]
    assert line["rewards/perception/silent"] == 1
    assert line["rewards/accuracy/missing"] == 0
    assert "WARNING  step 1: the reward perception scored none" in capsys.readouterr().out
    page = (settings.out / "report.html").read_text()
    assert "perception scored nothing in 1 of 1 steps" in page
    assert "rewards/perception/silent" not in page


def test_rows_without_labels_make_no_reward_silent(settings):
    class Alone:
        main = True
        gather_objects = staticmethod(list)

    def group(*samples, **scores):
        return SimpleNamespace(samples=list(samples), scores=scores)

    rewards = [Accuracy(), Perception(JudgeEndpoint("judge"))]
    bare, empty, full = Sample("x"), Sample("", answer="4", annotations=("a",)), Sample("x", answer="4", annotations=("a",))
    unlabelled = group(bare, bare, accuracy=[None, None], perception=[None, None])
    wordless = group(empty, accuracy=[0.0], perception=[0.0])
    dead = group(full, empty, accuracy=[1.0, 0.0], perception=[None, 0.0])
    assert heed([unlabelled, wordless], rewards, settings, Alone, 0) == {}
    assert heed([], rewards, settings, Alone, 0) == {}
    assert heed([dead, group(full, accuracy=[1.0], perception=[0.5])], rewards, settings, Alone, 0) == {}
    assert heed([dead], rewards, replace(settings, missing="warn"), Alone, 0) == {"rewards/perception/silent": 1.0}
    with pytest.raises(ValueError, match="perception scored none of the 1 completions"):
        heed([dead, unlabelled, wordless], rewards, settings, Alone, 0)


def test_two_processes_stop_together(settings):
    flags = {"perception": 1.0, "judge": "x", "judge-url": "http://127.0.0.1:9/v1", "prompts": 2, "steps": 1}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    done = subprocess.run([*launch, *command(settings, **flags)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "the reward perception scored none" in done.stderr


def test_a_full_disk_is_explained_and_leaves_the_last_checkpoint(settings, monkeypatch):
    train(replace(settings, steps=1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match=r"checkpoint-2 could not be written .*No space left.* make room and start again"):
        train(replace(settings, steps=2))
    monkeypatch.undo()
    assert [path.name for path in settings.out.glob("checkpoint-*[0-9]")] == ["checkpoint-1"]
    train(replace(settings, steps=2))
    assert [line["step"] for line in metrics(settings.out)] == [0, 1]


def test_rows_without_labels_are_counted_or_stop_the_run(settings, tmp_path, capsys):
    bare = datasets.load_dataset("parquet", data_files=f"{settings.data}/data/*.parquet", split="train").remove_columns("regions")
    bare.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(
        DataError, match=r"attention contrast reward needs regions of evidence, and none of the 6 rows of .*bare.parquet has any"
    ):
        train(replace(settings, data=str(tmp_path / "bare.parquet"), attention_contrast=1.0))
    whole = datasets.load_dataset("parquet", data_files=f"{settings.data}/data/*.parquet", split="train")
    some = whole.map(lambda row, n: {"regions": [] if n == 2 else row["regions"]}, with_indices=True, features=whole.features)
    some.to_parquet(tmp_path / "some.parquet")
    train(replace(settings, data=str(tmp_path / "some.parquet"), attention_contrast=1.0, prompts=6, steps=1))
    assert "1 of 6 rows have no regions" in capsys.readouterr().out
    assert metrics(settings.out)[0]["rewards/attention_contrast/missing"] == pytest.approx(1 / 6)


def test_a_torn_line_of_metrics_is_forgotten(settings):
    train(replace(settings, steps=1))
    with (settings.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "rew')
    train(replace(settings, steps=2))
    assert [line["step"] for line in metrics(settings.out)] == [0, 1]


def test_completions_are_kept_with_what_they_looked_at(settings):
    train(replace(settings, attention_contrast=1.0, steps=1))
    table = polars.read_parquet(settings.out / "completions" / "step-000000.parquet")
    assert table.columns[:8] == ["step", "id", "question", "answer", "completion", "tokens", "reward", "advantage"]
    assert {"rewards/accuracy", "rewards/format", "rewards/attention_contrast"} < set(table.columns)
    first = table.row(0, named=True)
    assert Image.open(io.BytesIO(first["image"])).size == (112, 84)
    assert np.allclose(first["boxes"], [[10 / 112, 10 / 84, 60 / 112, 40 / 84]])
    maps = [row for row in table["attention"].to_list() if row]
    assert 2 <= len(maps) <= 4
    assert all(np.array(grid).shape == (3, 4) and 0 < np.sum(grid) < 1 for grid in maps)


def test_every_epoch_visits_every_row_once():
    found = [row_index(8, number, seed=1) for number in range(24)]
    for epoch in range(3):
        assert sorted(found[8 * epoch : 8 * epoch + 8]) == list(range(8))
    assert found[:8] != found[8:16]


def test_recipes_are_defaults_that_flags_override():
    settings = from_command_line(["--data", "d", "--recipe", "vgpo", "--attention-contrast", "0.5", "--group", "4"])
    assert (settings.methods, settings.attention_contrast, settings.num_generations, settings.clip_high) == (("vgpo",), 0.5, 4, 0.28)


def test_help_teaches_and_loads_no_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "train.grpo", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for words in (
        "--recipe {grpo,sayo,perception-r1,faithful-mr1,vgpo,papo,",
        "attention on the labelled region",
        "completions sampled for each prompt",
    ):
        assert words in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_mistakes_are_explained(settings, tmp_path):
    with pytest.raises(ValueError, match="the perception reward needs a judge: give --judge MODEL"):
        make_rewards(replace(settings, perception=0.7))
    with pytest.raises(DataError, match="cannot read"):
        load_rows(str(tmp_path / "nothing"), "boxed")
    datasets.Dataset.from_list([{"problem": "x"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no answer column, only problem; answers are read from answer, solution"):
        load_rows(str(tmp_path), "boxed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said(policy_folder):
    with pytest.raises(ValueError, match=r"sees no GPU.*--device cpu"):
        load_model(str(policy_folder), "cuda")


def test_a_group_that_is_learnt_from_in_parts_keeps_no_graph_from_sampling(policy_folder, dataset_folder, tmp_path):
    whole = Settings(
        data=str(dataset_folder), model=str(policy_folder), out=tmp_path, num_generations=4, prompts=1, max_tokens=4, device="cpu"
    )
    policy, rows = load_model(str(policy_folder), "cpu", trained=True), load_rows(str(dataset_folder), "think-answer")

    def needs_graph(settings):
        (group,) = sampler(policy, settings).sample([rows[0]], [0], [0])
        return any(part.requires_grad for part in group.prompt.features["mm_encoder_outputs"]["image"].values() if torch.is_tensor(part))

    assert needs_graph(whole)
    assert not needs_graph(replace(whole, micro_batch=2))
