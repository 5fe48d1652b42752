"""The shapes world's judge: verdicts by rule, and the perception reward through the real client."""

import pytest

from demo.judge import judge, serving
from rewardlib import JudgeEndpoint, Perception, Sample

RESPONSE = (
    "<think>The left box contains a red cross. There is no purple star anywhere. I can see two black stars.</think><answer>2</answer>"
)


@pytest.mark.parametrize(
    ("fact", "present"),
    [
        ("There is a red cross.", True),
        ("The left box contains a red cross.", True),
        ("The right box contains a red cross.", False),
        ("There is no purple star.", True),
        ("There is a purple star.", False),
        ("I can see a black star.", True),
        ("There is a blue square.", False),
        ("It is a nice day.", False),
    ],
)
def test_verdicts(fact, present):
    assert judge([{"id": "f1", "fact": fact}], RESPONSE) == {"verdicts": [{"id": "f1", "present": present}]}


def test_the_perception_reward_asks_it():
    facts = ("There is a red cross.", "There is a blue square.")
    with serving() as url:
        reward = Perception(JudgeEndpoint("rules", url))
        assert reward([Sample(RESPONSE, annotations=facts), Sample("A blue square.", annotations=facts)]) == [0.5, 0.5]
    assert not reward.failures
