"""What every adapter promises, without the hosts; tests/hosts runs them inside verl and ms-swift, and test_trl inside TRL."""

import asyncio
import importlib.util
import inspect
import json
import pickle
from functools import partial

import numpy as np
import pytest
from PIL import Image

from rewardlib import Accuracy, AttentionContrast, CausalAttention, Format, JudgeEndpoint, Perception, Repetition, Sample
from rewardlib.adapters import swift
from rewardlib.adapters.easyr1 import EasyR1Score
from rewardlib.adapters.rows import to_sample, to_samples
from rewardlib.adapters.trl import trl_reward
from rewardlib.adapters.verl import VerlScore
from rewardlib.adapters.weighted import WeightedScore
from rewardlib.sample import Counterfactual, VisualAttention
from tests.judge_server import Server, completion

RIGHT, WRONG = r"so \boxed{4}", "it is 5"
ROW = {"answer": "4", "choices": ["3", "4"], "annotations": ["four squares", "one is red"]}
NOWHERE = JudgeEndpoint(model="judge", base_url="http://127.0.0.1:9/v1", retries=0)


class Named:
    """A reward of a user's own, at a fixed score."""

    needs = frozenset()

    def __init__(self, name, score=1.0):
        self.name, self.score = name, score

    def __call__(self, samples):
        return [self.score] * len(samples)


@pytest.fixture
def judge():
    """A judge that finds half of the facts stated, in order."""

    def verdicts(number, body):
        facts = json.loads(body["messages"][1]["content"])["facts"]
        return completion(json.dumps({"verdicts": [{"id": fact["id"], "present": n % 2 == 0} for n, fact in enumerate(facts)]}))

    with Server(verdicts).running() as server:
        yield JudgeEndpoint(model="judge", base_url=server.url)


# Rows


@pytest.mark.parametrize("row", [ROW, json.dumps(ROW), "\n" + json.dumps(ROW, indent=1)], ids=["mapping", "json", "indented json"])
def test_a_row_is_a_mapping_or_its_json_text(row):
    sample = to_sample(RIGHT, row, prompt="how many?", group=7, ids=[1, 2], length=2)
    assert (sample.answer, sample.choices, sample.annotations) == ("4", ("3", "4"), ("four squares", "one is red"))
    assert (sample.response, sample.prompt, sample.group, sample.response_ids, sample.length) == (RIGHT, "how many?", 7, (1, 2), 2)


@pytest.mark.parametrize("row", ["4", "{1, 2}", '{"x": 1}', "[1, 2]", 4])
def test_anything_else_is_the_bare_gold_answer(row):
    assert to_sample(RIGHT, row).answer == str(row)


@pytest.mark.parametrize("name", ["answer", "solution", "ground_truth", "gt"])
def test_the_gold_answer_has_several_names(name):
    assert to_sample(RIGHT, {name: 4}).answer == "4"
    assert to_sample(RIGHT, json.dumps({name: 4})).answer == "4"


def test_the_first_gold_answer_that_is_not_null_counts():
    assert to_sample(RIGHT, {"gt": "2", "answer": None, "solution": "4"}).answer == "4"
    assert to_sample(RIGHT, {"answer": None}).answer is None


def test_annotations_are_statements_or_strings():
    facts = [{"statement": "four squares", "kind": "count"}, "one is red"]
    assert to_sample(RIGHT, {"annotations": facts}).annotations == ("four squares", "one is red")


def test_counterfactuals_are_found_by_role_and_the_first_of_each_counts():
    pictures = [Image.new("L", (n, 1)) for n in (1, 2, 3)]
    roles = ["evidence", "control", "evidence"]
    sample = to_sample(RIGHT, {"counterfactuals": [{"role": r, "image": p} for r, p in zip(roles, pictures, strict=True)]})
    assert (sample.evidence_image, sample.control_image) == (pictures[0], pictures[1])


def test_null_columns_are_empty():
    sample = to_sample(RIGHT, dict.fromkeys(["answer", "choices", "annotations", "image", "images", "regions", "counterfactuals"]))
    assert sample.answer is sample.evidence_image is sample.control_image is None
    assert sample.choices == sample.annotations == sample.images == sample.regions == ()


def test_lists_of_a_trainer_become_samples_and_the_rest_is_left_out():
    columns = {"answer": ["4", None], "choices": [None, ["3", "4"]], "annotations": ["of", "three", "items"], "trainer_state": object()}
    first, second = to_samples([RIGHT, WRONG], columns, ["a", "b"], [[1], [2, 3]])
    assert (first.answer, first.choices, first.prompt, first.response_ids) == ("4", (), "a", (1,))
    assert (second.answer, second.choices, second.prompt, second.response_ids) == (None, ("3", "4"), "b", (2, 3))
    assert first.annotations == second.annotations == ()


# One number per sample


def test_the_total_is_the_weighted_sum_beside_its_parts():
    scorer = WeightedScore([Accuracy(), Format("boxed")], weights=[0.9, 0.1])
    right, wrong = scorer.score([Sample(RIGHT, answer="4"), Sample(r"\boxed{5}", answer="4")])
    assert right == {"total": 1.0, "accuracy": 1.0, "format": 1.0, "missing": 0.0}
    assert wrong == {"total": 0.1, "accuracy": 0.0, "format": 1.0, "missing": 0.0}
    assert WeightedScore([Accuracy(), Format("boxed")]).score([Sample(RIGHT, answer="4")])[0]["total"] == 2.0


def test_what_could_not_be_scored_raises_unless_a_value_is_given_and_counted():
    samples = [Sample(RIGHT, answer="4"), Sample(RIGHT)]
    with pytest.raises(RuntimeError, match=r"accuracy, perception could not be scored .* give missing=VALUE"):
        WeightedScore([Accuracy(), Format("boxed"), Perception(NOWHERE)]).score(samples[1:])
    known, unknown = WeightedScore([Accuracy(), Format("boxed")], [0.5, 0.5], missing=0.25).score(samples)
    assert known["missing"] == 0
    assert unknown == {"total": 0.625, "accuracy": 0.25, "format": 1.0, "missing": 1.0}


def test_a_missing_value_of_zero_is_a_value():
    assert WeightedScore([Accuracy()], missing=0.0).score([Sample(RIGHT)]) == [{"total": 0.0, "accuracy": 0.0, "missing": 1.0}]


def test_every_reward_needs_a_weight():
    with pytest.raises(ValueError, match="2 rewards, but 1 weights"):
        WeightedScore([Accuracy(), Format()], weights=[1.0])


@pytest.mark.parametrize("scorer", [VerlScore, EasyR1Score])
@pytest.mark.parametrize(("reward", "name"), [(AttentionContrast(), "attention_contrast"), (CausalAttention(), "causal_attention")])
def test_rewards_that_need_the_model_are_refused(scorer, reward, name):
    with pytest.raises(ValueError, match=f"rewards {name} need measurements of the model, which this host does not let a reward make"):
        scorer([Accuracy(), reward])


@pytest.mark.parametrize(
    ("scorer", "names"),
    [(VerlScore, ["accuracy", "accuracy"]), (VerlScore, ["score"]), (EasyR1Score, ["overall"]), (EasyR1Score, ["missing"])],
)
def test_rewards_need_names_of_their_own(scorer, names):
    with pytest.raises(ValueError, match="rewards need names of their own"):
        scorer([Named(name) for name in names])


def test_inside_an_event_loop_the_scores_are_the_same(judge):
    scorer = WeightedScore([Accuracy(), Perception(judge)], weights=[0.9, 0.1])
    samples = [to_sample(RIGHT, ROW), to_sample(WRONG, ROW)]
    assert asyncio.run(scorer.score_async(samples)) == scorer.score(samples)
    assert [found["total"] for found in scorer.score(samples)] == pytest.approx([0.95, 0.05])


# Hosts


def test_verl_scores_one_response_and_ignores_what_it_does_not_know():
    scorer = VerlScore([Accuracy(), Format("boxed")], weights=[0.9, 0.1])
    found = scorer(data_source="squares", solution_str=RIGHT, ground_truth="4", extra_info={"num_turns": 2}, reward_router_address="x")
    assert found == {"score": 1.0, "accuracy": 1.0, "format": 1.0, "missing": 0.0}
    assert scorer("squares", RIGHT, "4") == found


def test_verl_takes_what_ground_truth_says_over_extra_info():
    scorer = VerlScore([Accuracy()])
    assert scorer("squares", RIGHT, "4", {"answer": "Two and two make five. #### 5"})["score"] == 1
    assert (
        scorer("squares", RIGHT, json.dumps({"solution": "B", "choices": ["3", "4"]}), {"answer": "5", "choices": ["4", "3"]})["score"] == 1
    )
    assert scorer("squares", RIGHT, "B", {"choices": ["3", "4"]})["score"] == 1
    assert scorer("squares", RIGHT, None, {"answer": "4"})["score"] == 1


def test_verl_awaits_a_judge(judge):
    scorer = VerlScore([Accuracy(), Perception(judge)], weights=[0.9, 0.1])
    assert inspect.iscoroutinefunction(partial(scorer.call_async)), "verl asks this to decide whether to await"
    assert not inspect.iscoroutinefunction(scorer)
    found = asyncio.run(scorer.call_async("squares", RIGHT, "4", {"annotations": ROW["annotations"]}))
    assert found == scorer("squares", RIGHT, "4", {"annotations": ROW["annotations"]})
    assert found["score"] == pytest.approx(0.95)


def test_verl_scores_a_batch_like_its_responses():
    scorer = VerlScore([Accuracy(), Format("boxed")])
    whole = scorer.batch(["squares"] * 2, [RIGHT, WRONG], ["4", "5"], [{}, {"num_turns": 1}], other=1)
    assert whole == [scorer("squares", RIGHT, "4"), scorer("squares", WRONG, "5")]


def load_as_easyr1(path, name="compute_score", **keywords):
    """The function and its type, in EasyR1's way."""
    spec = importlib.util.spec_from_file_location("custom_reward_fn", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.REWARD_NAME == "sightline"
    return partial(getattr(module, name), **keywords), module.REWARD_TYPE


@pytest.mark.parametrize("kind", ["batch", "sequential"])
def test_easyr1_gets_dicts_with_overall(tmp_path, kind):
    file = tmp_path / "my_reward.py"
    file.write_text(f"""
from rewardlib import Accuracy, Format
from rewardlib.adapters import swift
from rewardlib.adapters.easyr1 import EasyR1Score

REWARD_NAME, REWARD_TYPE = "sightline", "{kind}"
compute_score = EasyR1Score([Accuracy(), Format("answer", window=(3, 4))], weights=[0.9, 0.1]).{kind}
""")
    score, found_kind = load_as_easyr1(file, temperature=1.0)
    assert found_kind == kind
    truths = ["4", json.dumps({"answer": "B", "choices": ["3", "4"]}), json.dumps(ROW)]
    responses = [("<answer>4</answer>", 3), ("<answer>4</answer>", 8), ("5", 1)]
    inputs = [{"response": r, "response_length": n, "ground_truth": t} for (r, n), t in zip(responses, truths, strict=True)]
    found = score(inputs) if kind == "batch" else [score(one) for one in inputs]
    assert [one["overall"] for one in found] == pytest.approx([1.0, 0.93, 0.0])
    assert found[1] == {"overall": pytest.approx(0.93), "accuracy": 1.0, "format": pytest.approx(0.3), "missing": 0.0}


def test_easyr1_has_no_row_without_a_number():
    rows = [{"response": RIGHT, "response_length": 4, "ground_truth": json.dumps({"answer": None, "choices": ["3", "4"]})}]
    with pytest.raises(RuntimeError, match="accuracy could not be scored"):
        EasyR1Score([Accuracy()]).batch(rows)
    assert EasyR1Score([Accuracy()], missing=0.5).batch(rows) == [{"overall": 0.5, "accuracy": 0.5, "missing": 1.0}]


@pytest.mark.parametrize("score", [1, True, np.float32(1), np.int64(1)])
def test_hosts_get_floats(score):
    reward = Named("own", score)
    scores = [
        *trl_reward(reward)(["q"], [RIGHT], [[1]]),
        *VerlScore([reward])("squares", RIGHT, "4").values(),
        *EasyR1Score([reward]).sequential({"response": RIGHT, "ground_truth": "4"}).values(),
    ]
    assert {type(value) for value in scores} == {float}
    assert trl_reward(Named("own", float("nan")))(["q"], [RIGHT], [[1]]) == [None]


# Pickling, since hosts send rewards to their workers


def copied(value):
    return pickle.loads(pickle.dumps(value))


def measured():
    attention = VisualAttention(np.linspace(0.1, 0.3, 4), np.linspace(0.4, 0.8, 4), 3.0, 12.0)
    logs = Counterfactual(np.full(4, -0.1), np.full(4, -0.9), np.full(4, -0.2))
    known = {"entropy": np.linspace(0.2, 2.0, 4), "attention": attention, "counterfactual": logs}
    return Sample(RIGHT, answer="4", annotations=("four squares", "one is red"), response_ids=(1, 2, 3, 4), **known)


@pytest.mark.parametrize(
    "reward",
    [Accuracy(0.1), Format("boxed", window=(60, 100)), Repetition(1), AttentionContrast(), CausalAttention(), Perception(NOWHERE)],
    ids=lambda reward: reward.name,
)
def test_a_pickled_reward_scores_the_same(reward):
    samples = [measured()]
    assert (copied(reward).name, copied(reward).needs) == (reward.name, reward.needs)
    assert copied(reward)(samples) == reward(samples)


def test_a_pickled_judge_asks_again(judge):
    reward = Perception(judge)
    assert reward([measured()]) == [0.5]
    assert copied(reward)([measured()]) == [0.5]  # also after its client was made


@pytest.mark.parametrize(
    "call",
    [
        lambda: partial(VerlScore([Accuracy(), Format("boxed")], [0.9, 0.1]), "squares", RIGHT, "4"),
        lambda: partial(VerlScore([Accuracy()], missing=0.5).batch, ["squares"], [RIGHT], [None], [{}]),
        lambda: partial(EasyR1Score([Accuracy(0.1)], [0.5]).batch, [{"response": RIGHT, "ground_truth": "4"}]),
        lambda: partial(EasyR1Score([Repetition(1)]).sequential, {"response": "a a", "ground_truth": "4"}),
        lambda: partial(trl_reward(Format("boxed")), ["how many?"], [RIGHT], [[1]]),
    ],
    ids=["verl", "verl batch", "easyr1 batch", "easyr1 sequential", "trl"],
)
def test_a_pickled_adapter_scores_the_same(call):
    assert copied(call())() == call()()


def test_a_pickled_coroutine_of_verl_scores_the_same(judge):
    call = VerlScore([Accuracy(), Perception(judge)], [0.5, 0.5]).call_async
    assert inspect.iscoroutinefunction(copied(call))
    assert asyncio.run(copied(call)("squares", RIGHT, json.dumps(ROW)))["score"] == 0.75


def test_columns_may_be_missing_single_or_arrays():
    row = {
        "answer": "  ",
        "solution": "4",
        "choices": np.array(["3", "4"]),
        "annotations": "a square",
        "regions": None,
        "image": "no/such.png",
    }
    sample = to_sample("4", row)
    assert (sample.answer, sample.choices, sample.annotations, sample.regions) == ("4", ("3", "4"), ("a square",), ())
    assert sample.images == ("no/such.png",)  # opened by whoever looks at it
    assert to_sample("4", {"answer": "", "annotations": [None, "x"]}).answer is None
    assert to_sample("4", {"annotations": [None, "x"]}).annotations == ("x",)


def test_a_response_at_the_end_of_the_chat_is_no_gold_answer():
    """ms-swift hands rewards the chat with the response in it."""
    chat = [{"role": "user", "content": "how many?"}, {"role": "assistant", "content": "<answer>4</answer>"}]
    (found,) = swift._samples(["<answer>4</answer>"], {"messages": [chat]})
    assert found.answer is None
    assert found.prompt == chat[:-1]
