"""One GRPO step here and in TRL's GRPOTrainer: same tiny Qwen2.5-VL, same image and prompt, same group and lengths, float32, no vLLM.

    sayo    16 completions of 110 tokens for one image of 1,024 tokens (SAYO's shape)
    small   8 completions of 64 tokens for an image of 16 tokens

    python -m bench.grpo_vs_trl [--shape sayo|small]

Each trainer runs in a process of its own, with a text reward, and with the attention contrast as well (which TRL gets through
``rewardlib.measure``). Prints a table, writes bench/results/grpo_vs_trl.json with step times, tokens a second and the memory added at the
peak, and ends with a line of JSON: for each shape ``speedup`` and ``memory_ratio`` over TRL with the text reward, and ``attention_cost``,
the attention reward's share of our step, measured with and without it in turns. Beside the shapes stands ``methods``: the seconds of a step
at SAYO's shape with each method over those of GRPO's, and of one scoring forward, image and all, without gradient,
over the same, all in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from rewardlib import AttentionContrast, Measurer, Sample
from rewardlib.sample import Score
from tests.tiny_models import MROPE, PROCESSORS, model, qwen2_5_vl

RESULTS = Path(__file__).parent / "results" / "grpo_vs_trl.json"
SHAPES = {"sayo": (896, 16, 110), "small": (112, 8, 64)}  # side of the image in pixels, group, new tokens
QUESTION = "How many red cups are there on the table?"
REGION = {"bbox": [10.0, 10.0, 60.0, 60.0]}


def tiny_policy() -> tuple[Any, Any]:
    """1.8 million parameters: text 4 layers of 128, vision 4 layers of 128."""
    text = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    rope = MROPE | {"mrope_section": [4, 6, 6]}
    config = qwen2_5_vl(**text, head_dim=32, vocab_size=1000, max_position_embeddings=4096, rope_parameters=rope)
    vision = {"depth": 4, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "out_hidden_size": 128}
    for name, value in vision.items():
        setattr(config.vision_config, name, value)
    processor = PROCESSORS["qwen2_5_vl"]()
    processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 1024 * 28 * 28}
    return model(config), processor


class OddIds:
    """Share of odd token ids: cheap, and different from response to response, so that every step has a gradient to compute."""

    name = "odd_ids"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [sum(token % 2 for token in s.response_ids) / len(s.response_ids) for s in samples]


def ours(shape: str, attention: bool, steps: int) -> list[float]:
    """Seconds of every step of ``train.step``."""
    step = our_step(shape)
    return [_timed(lambda number=number: step(number, attention)) for number in range(steps)]


def cost(shape: str, steps: int) -> float:
    """The attention reward's share of our step, the median over steps with and without it in turns."""
    step = our_step(shape)
    pairs = [[_timed(lambda number=number, looks=looks: step(number, looks)) for looks in (False, True)] for number in range(steps + 1)]
    return statistics.median(1 - without / looking for without, looking in pairs[1:])


def method_costs(shape: str, steps: int) -> dict[str, float]:
    """Seconds of a step with each method over GRPO's, and of one forward without gradient: medians over rounds of all in turns."""
    from train.methods import METHODS

    step = our_step(shape)
    ratios: dict[str, list[float]] = {"grpo": [], **{name: [] for name in METHODS}, "forward": []}
    for number in range(steps + 1):
        seconds = {name: _timed(lambda number=number, name=name: step(number, False, name)) for name in ratios}
        for name, taken in seconds.items():
            ratios[name].append(taken / seconds["grpo"])
    return {name: statistics.median(values[1:]) for name, values in ratios.items()}


def our_step(shape: str) -> Callable[..., None]:
    """A whole step, from sampling to the optimizer, with a text reward and, if asked, the attention contrast or a method.

    The step of the name "forward" is one scoring forward of the last step's completions, without gradient.
    """
    from train.batch import Group, Normalizer
    from train.data import to_row
    from train.engines.local import LocalEngine
    from train.forward import forward
    from train.methods import METHODS
    from train.plan import Plan
    from train.policy import Policy
    from train.sampling import Sampler, encode_row
    from train.settings import Settings
    from train.step import step as learn_from

    side, group, tokens = SHAPES[shape]
    settings = Settings(data="", num_generations=group, max_tokens=tokens)
    policy = Policy(*tiny_policy())
    policy.ends = torch.tensor([-1])  # every completion has its full length, as in TRL below
    policy.reference = Policy(*tiny_policy())
    changed = [{"role": role, "image": _image(side)} for role in ("evidence", "control")]
    columns = {"id": "0", "image": _image(side), "question": QUESTION, "answer": "4", "regions": [REGION]}
    row = to_row(columns | {"counterfactuals": changed}, "answer")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-6, fused=True)  # as in both trainers

    last: list[Group] = []

    def step(number: int, attention: bool, method: str = "grpo") -> None:
        if method == "forward":
            with torch.no_grad():
                forward(policy, encode_row(policy, row, settings), last[0].completions)
            return
        rewards: list[Any] = [OddIds(), *([AttentionContrast()] if attention else [])]
        methods = [METHODS[method]()] if method in METHODS else []
        chosen = replace(settings, attention_contrast=1.0, methods=tuple(each.name for each in methods))
        plan = Plan(chosen, rewards, methods).at(0.5)
        (sampled,) = last[:] = Sampler(policy, LocalEngine(policy), plan).sample([row], [number], [number])
        ((signal,), _) = learn_from(policy, [sampled], plan, Normalizer(group, sampled.tokens))
        assert not signal.empty
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def theirs(shape: str, attention: bool, steps: int) -> list[float]:
    """Seconds of every step of TRL's trainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rewardlib.adapters.trl import trl_reward

    side, group, tokens = SHAPES[shape]
    policy, processor = tiny_policy()
    rewards = [trl_reward(OddIds()), *([trl_reward(AttentionContrast(), Measurer(policy, processor))] if attention else [])]
    row = {"prompt": [{"role": "user", "content": QUESTION}], "image": _image(side), "answer": "4", "regions": [REGION]}
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=group, num_generations=group, max_completion_length=tokens,
            generation_kwargs={"min_new_tokens": tokens}, report_to=[], save_strategy="no", use_cpu=True, bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = GRPOTrainer(
            policy, rewards, args=settings, train_dataset=Dataset.from_list([row] * steps), processing_class=processor, callbacks=[Clock()]
        )
        trainer.train()
    return seconds


RUNS: dict[str, Callable[[str, bool, int], list[float]]] = {"ours": ours, "trl": theirs}


def _image(side: int) -> Image.Image:
    return Image.effect_noise((side, side), 80).convert("RGB")


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, shape: str, attention: bool, steps: int) -> dict[str, float]:
    """Median step time after the first step, and the process's memory above what loading it took."""
    tiny_policy()
    before = _status("VmRSS")
    seconds = RUNS[name](shape, attention, steps + 1)
    _, group, tokens = SHAPES[shape]
    median = statistics.median(seconds[1:])
    return {"step_seconds": median, "tokens_per_second": group * tokens / median, "peak_mib": (_status("VmHWM") - before) / 1024}


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--cost", help=argparse.SUPPRESS)
    parser.add_argument("--methods", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.cost:
        print(json.dumps(cost(a.cost, a.steps)))
        return
    if a.methods:
        print(json.dumps(method_costs(a.methods, a.steps)))
        return
    if a.measure:
        print(json.dumps(measure(a.measure[0], a.measure[1], a.measure[2] == "attention", a.steps)))
        return
    runs: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for shape in a.shape or SHAPES:
        for reward in ("text", "attention"):
            for name in RUNS:
                runs[f"{shape}/{reward}/{name}"] = found = _apart("--steps", a.steps, "--measure", name, shape, reward)
                print(f"{shape:6} {reward:10} {name:5} {found['step_seconds']:8.2f} s  {found['peak_mib']:7.0f} MiB", flush=True)
        own, trl = (runs[f"{shape}/text/{name}"] for name in RUNS)
        ratios[shape] = {
            "speedup": trl["step_seconds"] / own["step_seconds"],
            "memory_ratio": own["peak_mib"] / trl["peak_mib"],
            "attention_cost": _apart("--steps", 3 * a.steps, "--cost", shape),
        }
    shape = (a.shape or ["sayo"])[0]
    ratios["methods"] = _apart("--steps", 2 * a.steps, "--methods", shape)
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"ratios": ratios, "runs": runs, **machine}, indent=1) + "\n")
    print(json.dumps(ratios))


def _apart(*arguments: Any) -> Any:
    """What this module prints last when it runs in a process of its own."""
    command = [sys.executable, "-m", "bench.grpo_vs_trl", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
