"""SRPO reflection rewards (arXiv 2506.01713, SUSTechBruce/SRPO_MLLMs): slow reference, written from the formulas.

Variants: 'openrlhf' (srpo_reward_func.py; the README says the paper's results come from it: the default),
'verl' (srpo_rm.py as meant by its comments and numbers), 'verl_as_written' (what its operators evaluate to).
Everything is per response.
"""

import math
import re

PAIRS = {  # (first right, second right) -> accuracy reward
    "openrlhf": {(False, True): 1.0, (True, True): 0.75, (True, False): 0.25, (False, False): 0.0},
    "verl": {(False, True): 1.0, (True, True): 0.75, (True, False): -0.25, (False, False): 0.0},
    # == binds looser than & in Python and chains: the second branch is g1 == (True & g2) == False, the third never holds
    "verl_as_written": {(False, True): 0.0, (True, True): 0.75, (True, False): 0.0, (False, False): -0.25},
}
ONE_ANSWER_RIGHT = 0.5  # openrlhf: exactly one <answer>, and it is right
LENGTH_WEIGHT, FORMAT_REWARD, VERL_FORMAT_WEIGHT = 0.1, 0.5, 0.5
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<reflection>", "</reflection>", "<think>", "</think>", "<answer>", "</answer>"]


def srpo_reflection(first_right, second_right, variant="openrlhf"):
    """second_right None: the text has one answer only (openrlhf: .5 if right; verl: first and last box are the same one)."""
    if second_right is None:
        if variant == "openrlhf":
            return ONE_ANSWER_RIGHT if first_right else 0.0
        second_right = first_right
    return PAIRS[variant][(bool(first_right), bool(second_right))]


def answers(text):
    """openrlhf: first and LAST <answer>..</answer>.  None: no answer; (a, None): one."""
    found = [m.group(1) for m in re.finditer(r"<answer>([\s\S]*?)</answer>", text)]
    if not found:
        return None
    return (found[0], found[-1] if len(found) > 1 else None)


def boxed(text, last=False):
    """verl: content of the first / last \\boxed{..} of the WHOLE response (thinking included), braces balanced; else 'None'."""
    at = text.rfind("\\boxed{") if last else text.find("\\boxed{")
    if at == -1:
        return "None"
    depth, start = 0, at + 7
    for i in range(start, len(text)):
        if text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth < 0:
                return text[start:i].strip()
    return "None"


def lone_choice(final_answer, gold):
    """openrlhf rescue, where the pair reward is 0: gold is a..d, and the last answer's text has that letter anywhere
    and none of the other three -> accuracy 1.  (Case-blind, in any word: 'b' but no a, c, d.)"""
    g, text = gold.lower(), final_answer.lower()
    return g in "abcd" and len(g) == 1 and g in text and all(c not in text for c in "abcd" if c != g)


def srpo_length(total, think1, answer1):
    """Tokens of the whole response, of the first thinking, of the first answer (both stripped, tags outside)."""
    target, top = 2 * (think1 + answer1), 2.5 * (think1 + answer1)
    if top == 0:
        return 0.0
    return math.exp(-((abs(total - target) / (top - target)) ** 2))


def srpo_format(text):
    """.5 where the ten tags stand in order, each once, filled, whitespace between the blocks, anything before, nothing after."""
    found = list(re.finditer(r"</?(?:think|answer|reflection)>", text))
    if [m.group() for m in found] != TAGS:
        return 0.0
    for i in range(0, 10, 2):
        if found[i + 1].start() == found[i].end():
            return 0.0
        tail = text[found[i + 1].end() : found[i + 2].start() if i < 8 else len(text)]
        if tail.strip():
            return 0.0
    return FORMAT_REWARD


def srpo_total(accuracy, fmt, length, variant="openrlhf"):
    """openrlhf: acc + fmt + .1 len (max 1.6).  verl: .5 acc + .5 fmt + .1 len (max .85); fmt is .5 or 0 in both.
    length None (fewer than two think or answer blocks): released openrlhf raises and the WHOLE reward becomes 0."""
    if variant == "openrlhf":
        return 0.0 if length is None else accuracy + fmt + LENGTH_WEIGHT * length
    return (1 - VERL_FORMAT_WEIGHT) * accuracy + VERL_FORMAT_WEIGHT * fmt + LENGTH_WEIGHT * (length or 0.0)


def group_kept(accuracies, low=0.1, high=0.9):
    """openrlhf, filter run: the group stays where the mean accuracy reward lies in [.1, .9] (inclusive)."""
    return low <= sum(accuracies) / len(accuracies) <= high


def as_written(g1, g2):
    """The operators of srpo_rm.py, spelled out."""
    if g1 and g2:
        return 0.75
    if g1 == (True and g2) and (True and g2) is False:
        return -0.25
    if g1 == (False and g2) and (False and g2) is True:
        return 1.0
    return 0
