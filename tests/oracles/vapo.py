"""VAPO, vision-anchored policy optimisation (arXiv 2509.25848): slow reference, written from the formulas.

Positions are 0-based CHARACTER indices of the punctuation in the decoded response; the length is the response's
number of characters.  No batch statistic: everything is per response.
"""

import math
import re

MARKS = ",.\n!?;:"
BETA, FORMAT_WEIGHT, ANCHOR_WEIGHT = 1.5, 0.1, 0.1
LONG, TAIL = 6000, 128


def think_part(response):
    """Text before the first </think>; else before the first \\boxed; else everything.  (The opening tag stays in.)"""
    for mark in ("</think>", "\\boxed"):
        at = response.find(mark)
        if at != -1:
            return response[:at]
    return response


def cut_positions(response, tokens=0, apart=2):
    """Indices of punctuation to cut after.  tokens: prompt + response tokens; above 6000 the last 128 characters are left out."""
    part = think_part(response)
    stop = len(part) - TAIL if tokens > LONG else len(part)
    kept = []
    for i, c in enumerate(part):
        if i >= stop:
            break
        if c in MARKS and (not kept or i - kept[-1] >= apart):
            kept.append(i)
    return kept


def choose_anchors(positions, k, length, rng):
    """k sorted positions: drawn without replacement; too few: all, the last repeated; none: all at the last character."""
    if not positions:
        return [length - 1] * k
    if k <= len(positions):
        return sorted(rng.sample(positions, k))
    return list(positions) + [positions[-1]] * (k - len(positions))


def choose_claims(n_claims, k, rng):
    """k different claims of the example's (released: 20), one an anchor, uniformly without replacement."""
    return rng.sample(range(n_claims), k)


def probe_text(response, position, claim):
    """What follows the prompt (image kept): the response up to and with the mark, then the question, a space last."""
    return response[: position + 1] + "\n<anchor>" + claim + " Is this claim correct? Answer (Yes/No): "


def said_yes(token_text):
    """One greedy token, restricted to ten: yes Yes True true 1 | 0 no No False false (none with a space before)."""
    if token_text in ("yes", "Yes", "True", "true", "1"):
        return True
    if token_text in ("no", "No", "False", "false", "0"):
        return False
    raise ValueError(token_text)


def anchor_flags(answers_yes, claim_true):
    """s of each anchor: 1 where the yes/no equals the truth of THE CLAIM ASKED.

    The release compares with label_1..label_k in stored order though the claims were drawn at random (a slip:
    its anchors' labels belong to other claims).  This is the intended pairing.
    """
    return [1 if bool(a) == bool(t) else 0 for a, t in zip(answers_yes, claim_true)]


def anchor_reward(flags, positions, length, beta=BETA):
    if not flags:
        return 0.0
    top = bottom = 0.0
    for s, a in zip(flags, positions):
        w = math.exp(beta * a / length)
        top += w * s
        bottom += w
    return max(0.0, (top / bottom - 0.5) / 0.5)


def format_reward(response):
    """The whole text: <think> first, later </think>, later \\boxed{ ... }, then anything."""
    return 1.0 if re.fullmatch(r"<think>[\s\S]*</think>[\s\S]*\\boxed\{[\s\S]*\}[\s\S]*", response) else 0.0


def vapo_reward(positions, length, flags, accuracy, fmt, beta=BETA, format_weight=FORMAT_WEIGHT, anchor_weight=ANCHOR_WEIGHT):
    """accuracy, fmt: 0 or 1.  flags None: no anchors asked (validation, and the release as it stands): .9/.1."""
    if flags is None:
        return (1 - format_weight) * accuracy + format_weight * fmt
    gated = anchor_reward(flags, positions, length, beta) if accuracy == 1.0 else 0.0
    return (1 - format_weight - anchor_weight) * accuracy + format_weight * fmt + anchor_weight * gated


def group_kept(totals, low=0.01, high=0.99):
    """Online filtering: a group stays where the mean TOTAL reward lies strictly between."""
    return low < sum(totals) / len(totals) < high
