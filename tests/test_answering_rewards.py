"""Rewards that rest on replies, boxes, second answers and counterfactuals, against oracles written from the formulas."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rewardlib.asking import Continuation, Question
from rewardlib.boxes import BoxIoU, iou, written_box
from rewardlib.caption import SYSTEM, CaptionAnswer, caption_of
from rewardlib.claims import NO, YES, Claims, cut_places
from rewardlib.evidence import EvidenceSupport, answer_tokens
from rewardlib.reflection import Reflection, length_score
from rewardlib.sample import Counterfactual, Sample
from rewardlib.templates import LAYOUTS
from rewardlib.text import Format
from tests.oracles import ced, srpo, vapo, visionary, vlmr1

RIGHT = "<think>I see, at the left: a cup. It is red; so.</think><answer>4</answer>"


# ------------------------------------------------------------------------------------------ VLM-R1


def boxed(box):
    return f'<think>there</think><answer>{{"bbox_2d": {box}}}</answer>'


@pytest.mark.parametrize("seed", range(20))
def test_box_iou_in_the_coordinates_of_the_resized_image(seed):
    draw = random.Random(seed)
    x, y = sorted(draw.sample(range(112), 2)), sorted(draw.sample(range(84), 2))
    gold = [10.0, 20.0, 90.0, 150.0]
    text = boxed([x[0], y[0], x[1], y[1]])
    sample = Sample(text, images=(Image.new("RGB", (100, 200)),), regions=({"bbox": gold},), box_space=(112.0, 84.0))
    wanted = vlmr1.vlmr1_iou_reward(text, gold, (112, 84), (100, 200))
    (score,) = BoxIoU()([sample])
    if wanted or score < 0.02:  # the released code counts an overlap of one pixel as none
        assert score == pytest.approx(wanted, abs=0.02)


def test_boxes_may_have_decimals_and_words_around():
    assert written_box('```json\n{"bbox_2d": [1.5, 2, 30.25 , 4], "label": "cup"}\n```') == (1.5, 2, 30.25, 4)
    for answer in ("[1, 2, 3, 4]", '{"bbox_2d": [1, 2, 3]}', "{}", "", '{"bbox_2d": [1, 2, 3, "4"]}'):
        assert written_box(answer) is None


def test_the_region_that_fits_best_counts_and_no_box_is_worth_nothing():
    regions = ({"bbox": [0.0, 0.0, 10.0, 10.0]}, {"bbox": [50.0, 50.0, 60.0, 60.0]})
    sample = Sample(boxed([50, 50, 60, 60]), images=(Image.new("RGB", (100, 100)),), regions=regions)
    assert BoxIoU()([sample]) == [1.0]
    assert BoxIoU()([replace(sample, response="<answer>there</answer>")]) == [0.0]
    assert BoxIoU()([replace(sample, response=boxed([1, 2, 3, 4]) * 2)]) == [0.0]
    assert BoxIoU()([replace(sample, regions=())]) == [None]
    assert BoxIoU()([replace(sample, box_space=(1000.0, 1000.0), response=boxed([500, 500, 600, 600]))]) == [1.0]


def test_iou_of_boxes_without_area():
    assert iou((0, 0, 0, 0), (0, 0, 10, 10)) == 0.0
    assert iou((5, 5, 1, 1), (0, 0, 10, 10)) == 0.0


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (boxed([1, 2, 3, 4]), 1.0),
        ("<think>x</think><answer>[1, 2, 3, 4]</answer>", 0.0),
        ('<answer>{"bbox_2d": [1, 2, 3, 4]}</answer>', 0.0),
        (boxed([1, 2, 3, 4]) + " done", 0.0),
    ],
)
def test_the_format_of_boxes(response, kept):
    assert Format("box")([Sample(response)]) == [kept]


# ------------------------------------------------------------------------------------------ SRPO


def attempts(first, second=None):
    text = f"<think>one</think><answer>{first}</answer>"
    return text if second is None else f"{text}<reflection>hm</reflection><think>two</think><answer>{second}</answer>"


@pytest.mark.parametrize("first", ["4", "5"])
@pytest.mark.parametrize("second", ["4", "5", None])
def test_reflection_by_what_the_answers_are(first, second):
    sample = Sample(attempts(first, second), answer="4")
    # The released code makes nothing of a response with a single attempt: its reward fails, and is 0.
    wanted = 0.0 if second is None else srpo.srpo_reflection(first == "4", second == "4")
    assert Reflection(length_weight=0.0)([sample]) == [pytest.approx(wanted)]


@pytest.mark.parametrize("filler", ["", "x" * 10, "x" * 40, "x" * 200])
def test_a_reflection_is_to_be_as_long_as_what_it_reflects_on(filler):
    text = attempts("4", "4").replace("hm", filler + "hm").replace("one", "o" * 60)
    wanted = srpo.srpo_length(len(text), 60, 1)
    assert length_score(text) == pytest.approx(wanted)
    assert Reflection()([Sample(text, answer="4")]) == [pytest.approx(0.75 + 0.1 * wanted)]


def test_no_answer_and_no_gold():
    assert Reflection()([Sample("hm", answer="4"), Sample(attempts("4", "4"))]) == [0.0, None]
    assert length_score("<answer>4</answer>") == 0.0


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (attempts("4", "5"), True),
        (attempts("4"), False),
        (attempts("4", "5") + "and", False),
        (attempts("4", "5").replace("hm", ""), False),
        (attempts("4", "5").replace("</answer><", "</answer>\n<"), True),
    ],
)
def test_the_format_of_reflections(response, kept):
    assert Format("reflection")([Sample(response)]) == [float(kept)]
    assert bool(srpo.srpo_format(response)) == kept


# ------------------------------------------------------------------------------------------ Visionary-R1


DESCRIBED = "<info>Four red cups\non a table.</info><think>count</think><answer>4</answer>"
CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many cups?"}]}]


def test_the_policy_is_asked_with_the_description_in_place_of_the_image():
    (question,) = CaptionAnswer().questions(Sample(DESCRIBED, prompt=CHAT, answer="4"))
    assert question == Question("Description: Four red cups\non a table.\nQuestion: How many cups?", SYSTEM)
    told = LAYOUTS["caption"].instruction
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"How many cups?\n{told}"}]}]
    assert CaptionAnswer().questions(Sample(DESCRIBED, prompt=chat, answer="4")) == [question]
    assert caption_of(DESCRIBED) == visionary.caption_of(DESCRIBED, across_lines=True)
    assert CaptionAnswer().questions(Sample("<answer>4</answer>", prompt=CHAT, answer="4")) == []
    assert CaptionAnswer().questions(Sample(DESCRIBED, prompt=CHAT)) == []


@pytest.mark.parametrize(
    ("reply", "score"),
    [("4", 1.0), ("four", 1.0), ("There are 4 cups.", 1.0), ("5", 0.0), ("Hacking Sample.", 0.0), ("", 0.0), (None, None)],
)
def test_the_reply_to_the_description_is_scored(reply, score):
    sample = Sample(DESCRIBED, prompt=CHAT, answer="4", replies={"caption": (reply,)})
    assert CaptionAnswer()([sample]) == [score]


def test_no_description_is_worth_nothing_and_no_gold_is_no_score():
    assert CaptionAnswer()([Sample("<info> </info><answer>4</answer>", answer="4"), Sample(DESCRIBED)]) == [0.0, None]
    with pytest.raises(ValueError, match="needs the policy's replies"):
        CaptionAnswer()([Sample(DESCRIBED, answer="4")])


@pytest.mark.parametrize(("response", "kept"), [(DESCRIBED, 1.0), (DESCRIBED.replace("<info>", "so <info>"), 0.0), (RIGHT, 0.0)])
def test_the_format_of_descriptions(response, kept):
    assert Format("caption")([Sample(response)]) == [kept]


# ------------------------------------------------------------------------------------------ VAPO


FACTS = ("There is a cup.", "The cup is red.")
OTHERS = ("There is a dog.",)


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_behind_punctuation_of_the_reasoning(seed):
    draw = random.Random(seed)
    text = "".join(draw.choices("ab ,.\n!?;:", k=60)) + draw.choice(["</think>. a, b", "\\boxed{1}. a", ""])
    assert cut_places(text) == vapo.cut_positions(text)


def claimed(response=RIGHT, **changes):
    return replace(Sample(response, answer="4", annotations=FACTS, foreign=OTHERS, group=3), **changes)


def test_claims_are_asked_behind_parts_of_the_response():
    reward, sample = Claims(count=3), claimed()
    probes, asked = reward.probes(sample), reward.questions(sample)
    assert [probe.cut for probe in probes] == sorted(probe.cut for probe in probes)
    assert [probe.right for probe in probes] in ([True, False, True], [False, True, False])
    assert all((probe.claim in FACTS) == probe.right for probe in probes)
    for probe, question in zip(probes, asked, strict=True):
        assert isinstance(question, Continuation)
        assert question.text.startswith(RIGHT[: probe.cut + 1] + "\n")
        assert re.search(rf"{probe.claim} Is this claim correct\? Answer \(Yes/No\): $", question.text)
        assert question.words == (*YES, *NO)
    assert reward.probes(sample) == probes
    assert reward.questions(claimed(RIGHT.replace("4", "5"))) == []


@pytest.mark.parametrize("told", [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 0]])
def test_claims_told_right_from_wrong(told):
    reward, sample = Claims(count=4), claimed()
    probes = reward.probes(sample)
    replies = tuple("Yes" if probe.right == bool(right) else "no" for probe, right in zip(probes, told, strict=True))
    wanted = vapo.anchor_reward(told, [probe.cut for probe in probes], len(RIGHT))
    assert reward([replace(sample, replies={"claims": replies})]) == [pytest.approx(wanted)]


def test_what_could_not_be_asked_is_left_out_and_never_counts_as_wrong():
    reward, sample = Claims(count=2), claimed()
    right = ["Yes" if probe.right else "no" for probe in reward.probes(sample)]
    assert reward([replace(sample, replies={"claims": (right[0], None)})]) == [1.0]
    assert reward([replace(sample, replies={"claims": (None, None)})]) == [None]
    assert reward([claimed(foreign=())]) == [None]  # there is nothing to tell right ones from
    assert reward.questions(claimed(foreign=())) == []
    assert reward([claimed(RIGHT.replace("4", "5")), claimed(annotations=()), claimed(answer=None)]) == [0.0, None, None]


def test_the_same_reply_to_all_claims_earns_little():
    scores = []
    for n in range(200):
        sample = claimed(group=n)
        told = {"claims": ("Yes",) * 5}
        scores += Claims(count=5)([replace(sample, replies=told)])
    assert sum(scores) / len(scores) < 0.25


def test_a_response_without_punctuation_is_asked_at_its_end():
    probes = Claims(count=3).probes(claimed("<answer>4</answer>"))
    assert [probe.cut for probe in probes] == [len("<answer>4</answer>") - 1] * 3


# ------------------------------------------------------------------------------------------ Evidence-RL


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("answer", ["4", "5"])
def test_evidence_support(seed, answer):
    draw = np.random.default_rng(seed)
    response = f"so <answer>{answer}</answer>"
    ends = tuple(range(1, len(response) + 1))  # a token a character
    original, evidence, control = -draw.random((3, len(response)))
    sample = Sample(response, answer="4", token_ends=ends, counterfactual=Counterfactual(original, evidence, control))
    chosen = slice(response.index(answer), response.index(answer) + 1)
    falls = [ced.ced_support(original[chosen].tolist(), changed[chosen].tolist()) for changed in (evidence, control)]
    margin = math.tanh((falls[0] - falls[1]) / 0.5)
    wanted = ced.ced_correctness(answer == "4") * ced.ced_gate(margin) + 0.1 * margin
    assert EvidenceSupport()([sample]) == [pytest.approx(wanted)]


def test_the_answers_tokens():
    text = "so <answer>14</answer>."
    ends = (3, 11, 12, 13, 22, 23)
    assert text[ends[1] : ends[3]] == "14"
    assert answer_tokens(text, ends) == slice(2, 4)
    assert answer_tokens("14", (1, 2)) == slice(0, 2)
    assert answer_tokens(r"\boxed{14}", (7, 9, 10)) == slice(1, 2)
    assert answer_tokens("x <answer>1", (2, 10, 11)) == slice(2, 3)


def test_a_row_without_changed_images_is_not_scored():
    sample = Sample("4", answer="4", token_ends=(1,), counterfactual=Counterfactual(np.zeros(1)))
    assert EvidenceSupport()([sample]) == [None]
    with pytest.raises(ValueError, match="token_ends"):
        EvidenceSupport()([replace(sample, token_ends=None, counterfactual=Counterfactual(*np.zeros((3, 1))))])
