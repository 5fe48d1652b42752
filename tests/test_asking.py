"""What rewards ask of the policy about its own completions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from rewardlib.caption import CaptionAnswer  # noqa: E402
from rewardlib.claims import NO, YES, Claims  # noqa: E402
from rewardlib.sample import Sample  # noqa: E402
from tests.test_train_core import ask, picture, policy  # noqa: E402
from train.asking import answer_questions  # noqa: E402
from train.engines.local import LocalEngine  # noqa: E402
from train.settings import Settings  # noqa: E402

SETTINGS = Settings(data="", max_tokens=6, num_generations=3, device="cpu")
RESPONSES = (
    "<info>one cup, two dogs</info><think>it is. red</think><answer>4</answer>",
    "<answer>4</answer>",
    "<info>four; cups</info><think>a, b</think><answer>5</answer>",
)


def groups(made, numbers=(0, 1)):
    """Prompts with an image, and three responses each; a right one, one without description, a wrong one."""
    made_groups = []
    for number in numbers:
        chat = ask(f"how many {number}?")
        facts = {"annotations": ("a cup is red", "it is a dog"), "foreign": ("a cat",)}
        samples = [Sample(response, prompt=chat, answer="4", group=number, response_ids=(5, 6, 7), **facts) for response in RESPONSES]
        prompt = made.encode(chat, [picture((90, 90), number)])
        made_groups.append(SimpleNamespace(number=number, prompt=prompt, samples=samples))
    return made_groups


def replies(made, rewards, settings=SETTINGS, numbers=(0, 1)):
    asked = groups(made, numbers)
    answer_questions(made, LocalEngine(made), asked, rewards, settings)
    return {group.number: [dict(sample.replies) for sample in group.samples] for group in asked}


def test_questions_are_answered_and_scored():
    made = policy("qwen2_5_vl")
    rewards = [CaptionAnswer(), Claims(count=2)]
    told = replies(made, rewards)
    for first, second, third in told.values():
        assert [len(each["caption"]) for each in (first, second, third)] == [1, 0, 1]
        assert [len(each["claims"]) for each in (first, second, third)] == [2, 2, 0]
        assert all(word in (*YES, *NO) for word in first["claims"])
    asked = groups(made)
    answer_questions(made, LocalEngine(made), asked, rewards, SETTINGS)
    for group in asked:
        assert CaptionAnswer()(group.samples)[1] == 0.0
        assert None not in Claims(count=2)(group.samples)


@pytest.mark.parametrize("changed", [{"micro_batch": 1}, {"micro_batch": 2}, {"prompts": 9}])
def test_replies_do_not_depend_on_micro_batches(changed):
    made = policy("qwen2_5_vl")
    rewards = [CaptionAnswer(), Claims(count=3)]
    assert replies(made, rewards) == replies(made, rewards, replace(SETTINGS, **changed))


def test_replies_do_not_depend_on_what_else_is_asked():
    made = policy("qwen3_vl")
    rewards = [CaptionAnswer(), Claims(count=3)]
    together = replies(made, rewards, numbers=(0, 1, 2))
    assert replies(made, rewards, numbers=(2, 0)) == {2: together[2], 0: together[0]}


def test_a_question_that_cannot_be_asked_is_no_wrong_answer():
    made = policy("qwen2_5_vl")
    told = replies(made, [CaptionAnswer()], replace(SETTINGS, max_prompt=3))
    assert [each["caption"] for each in told[0]] == [[None], [], [None]]
    asked = groups(made)
    answer_questions(made, LocalEngine(made), asked, [CaptionAnswer()], replace(SETTINGS, max_prompt=3))
    assert CaptionAnswer()(asked[0].samples) == [None, 0.0, None]


def test_nothing_is_asked_where_no_reward_asks():
    made = policy("qwen2_5_vl")
    assert all(not told for group in replies(made, []).values() for told in group)
