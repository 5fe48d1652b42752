"""Sightline's rewards inside TRL's own GRPOTrainer, with a tiny Qwen2.5-VL."""

import json

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from datasets import Image as ImageFeature  # noqa: E402

from rewardlib import Accuracy, AttentionContrast, CausalAttention, Format, JudgeEndpoint, Measurer, Perception  # noqa: E402
from rewardlib.adapters.trl import trl_reward  # noqa: E402
from tests.judge_server import Server, completion  # noqa: E402
from tests.tiny_models import FAMILIES, PROCESSORS, model  # noqa: E402


def dataset():
    rows = []
    for n in range(4):
        image = Image.new("RGB", (56 + 28 * n, 84), (60 * n, 90, 200))
        rows.append(
            {
                "prompt": [{"role": "user", "content": "how many?" + "!" * n}],
                "image": image,
                "answer": "4",
                "annotations": [{"statement": "there are four squares"}],
                "regions": [{"bbox": [5.0, 5.0, 40.0, 40.0], "mask": None}],
                "counterfactuals": [{"role": "evidence", "image": Image.new("RGB", image.size)}],
            }
        )
    made = Dataset.from_list(rows)
    return made.cast_column("image", ImageFeature())


def train(tmp_path, rewards, steps=2):
    processor, policy = PROCESSORS["qwen2_5_vl"](), model(FAMILIES["qwen2_5_vl"]())
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=12,
        logging_steps=1,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    trainer = trl.GRPOTrainer(policy, rewards(policy, processor), args=settings, train_dataset=dataset(), processing_class=processor)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry], policy


def honest_judge(number, body):
    """One verdict for every id that it is asked about."""
    facts = json.loads(body["messages"][1]["content"])["facts"]
    return completion(json.dumps({"verdicts": [{"id": fact["id"], "present": True} for fact in facts]}))


def test_text_attention_and_judged_rewards_train_together(tmp_path):
    with Server(honest_judge).running() as server:
        judge = JudgeEndpoint(model="judge", base_url=server.url)

        def rewards(policy, processor):
            measurer = Measurer(policy, processor)
            return [
                trl_reward(Accuracy()),
                trl_reward(Format("answer", window=(60, 100))),
                trl_reward(AttentionContrast(), measurer),
                trl_reward(CausalAttention(), measurer),
                trl_reward(Perception(judge)),
            ]

        logs, _ = train(tmp_path, rewards)
    assert len(logs) == 2
    for entry in logs:
        assert entry["rewards/accuracy/mean"] == 0  # random letters
        assert -1 < entry["rewards/attention_contrast/mean"] < 1
        assert entry["rewards/attention_contrast/std"] > 0  # a signal where accuracy gives none
        assert entry["rewards/causal_attention/mean"] == 0
        assert entry["rewards/perception/mean"] == 1
        assert entry["rewards/perception/missing"] == 0
    assert server.requests


def test_a_judge_that_is_down_is_left_out_and_counted(tmp_path):
    judge = JudgeEndpoint(model="judge", base_url="http://127.0.0.1:9/v1", retries=0)
    logs, _ = train(
        tmp_path, lambda policy, processor: [trl_reward(AttentionContrast(), Measurer(policy, processor)), trl_reward(Perception(judge))], 1
    )
    assert logs[0]["rewards/perception/missing"] == 1
    assert logs[0]["reward"] == pytest.approx(logs[0]["rewards/attention_contrast/mean"])


def test_the_attention_reward_alone_moves_the_policy(tmp_path):
    before = model(FAMILIES["qwen2_5_vl"]()).state_dict()
    _, policy = train(tmp_path, lambda policy, processor: [trl_reward(AttentionContrast(), Measurer(policy, processor))], 1)
    assert any(not torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_rewards_that_need_the_model_say_so():
    with pytest.raises(ValueError, match=r"reward 'attention_contrast' needs attention, entropy: pass Measurer\(model, processor\)"):
        trl_reward(AttentionContrast())
