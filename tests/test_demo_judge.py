"""The shapes world's judge: verdicts by rule, and the perception reward through the real client."""

import json
import urllib.error
import urllib.request

import pytest

from demo.judge import NotAsked, answer, judge, serving
from labeling.annotate import Annotated, Asked, LLMAnnotator
from labeling.rules import RuleAnnotator
from rewardlib import JudgeEndpoint, Perception, Sample
from rewardlib.judge import JudgeClient, JudgeError, JudgeRequest

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


def test_the_annotator_asks_it():
    with serving() as url:
        (reply,) = LLMAnnotator(JudgeClient(JudgeEndpoint("reader", url))).annotate([Asked("How many?", RESPONSE)])
    assert isinstance(reply, Annotated)
    assert [(f.kind, f.phrase) for f in reply.facts] == [
        (f.kind, f.phrase) for f in RuleAnnotator().annotate([Asked("", RESPONSE)])[0].facts
    ]
    assert not reply.dropped


def asking(*contents):
    return {"model": "x", "messages": [{"role": "user", "content": content} for content in contents]}


QUESTION = json.dumps({"question": "?", "trace": "A red circle."})


def test_a_question_is_known_by_what_it_holds():
    assert answer(asking(QUESTION))["facts"][0]["phrase"] == "red circle"
    assert answer(asking([{"type": "text", "text": QUESTION}]))["facts"][0]["phrase"] == "red circle"
    assert answer(asking(QUESTION, "Your reply cannot be used. Answer again."))["facts"][0]["phrase"] == "red circle"


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"messages": "x"}, {"messages": [1]}, asking(None), asking("Hello"), asking("[1]"), asking("7"), asking({"a": 1}),
        asking('{"facts": [{"id": "f1"}], "response": "x"}'), asking('{"facts": "x", "response": "x"}'), asking('{"trace": 1}'),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_it_can_do(body):
    with pytest.raises(NotAsked, match=r"verdicts.*trace.*with facts"):
        answer(body)


def test_what_it_cannot_answer_is_a_clear_error():
    with serving() as url:
        (reply,) = JudgeClient(JudgeEndpoint("x", url)).ask_all([JudgeRequest("Say something", "about ships", None)])
        assert isinstance(reply, JudgeError)
        assert (reply.reason, "answers by rule" in str(reply)) == ("bad_request", True)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{url}/chat/completions", b"{broken")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url)
        assert json.load(urllib.request.urlopen(f"{url}/models"))["data"][0]["id"] == "reader"
