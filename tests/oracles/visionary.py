"""Visionary-R1 (arXiv 2505.14677): slow reference, written from the formulas.

Defaults are the released values.  The released trainer computes over one prompt a device (8 completions); nothing
here depends on the micro-batch, except where `shifted` repeats a released slip.
"""

import math
import re

BETA, CAPTION_WEIGHT, EPS = 0.04, 0.1, 1e-4


def caption_of(text, across_lines=False):
    """Released: the dot does not cross a newline, so a caption of several lines counts as none (across_lines=True mends it)."""
    start = text.find("<info>")
    while start != -1:
        end = text.find("</info>", start + 6)
        if end == -1:
            return None
        body = text[start + 6 : end]
        if across_lines or "\n" not in body:
            return body.strip()
        start = text.find("<info>", start + 1)
    return None


def answer_of(text):
    """First <answer>..</answer>, newlines allowed, stripped; '' where missing."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + 8) if start != -1 else -1
    return "" if end == -1 else text[start + 8 : end].strip()


def format_reward(text):
    """Whole text: <info>..</info> ONE whitespace character <think>..</think> any whitespace <answer>..</answer>."""
    ok = re.fullmatch(r"<info>[\s\S]*?</info>\s<think>[\s\S]*?</think>\s*<answer>[\s\S]*?</answer>", text)
    return 1.0 if ok else 0.0


def is_number(text):
    try:
        float(text)
        return True
    except ValueError:
        return False


def first_number(text):
    """First [sign]digits[.digits]; /100 where the stripped text ends with a percent sign; None where none."""
    found = re.search(r"[-+]?\d*\.?\d+", text)
    if not found:
        return None
    value = float(found.group())
    return value / 100 if text.strip().endswith("%") else value


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def rouge_mean(gold, out):
    """Mean of the F of ROUGE-1, -2, -L over lower-case alphanumeric words.  Released: with Porter stemming (not here)."""
    g, o = re.findall(r"[a-z0-9]+", gold.lower()), re.findall(r"[a-z0-9]+", out.lower())

    def f(hits, n_gold, n_out):
        p, r = (hits / n_out if n_out else 0.0), (hits / n_gold if n_gold else 0.0)
        return 2 * p * r / (p + r) if p + r else 0.0

    def ngram(n):
        gs, os_ = [tuple(g[i : i + n]) for i in range(len(g) - n + 1)], [tuple(o[i : i + n]) for i in range(len(o) - n + 1)]
        hits = sum(min(gs.count(x), os_.count(x)) for x in set(gs))
        return f(hits, len(gs), len(os_))

    table = [[0] * (len(o) + 1) for _ in range(len(g) + 1)]
    for i in range(len(g)):
        for j in range(len(o)):
            table[i + 1][j + 1] = table[i][j] + 1 if g[i] == o[j] else max(table[i][j + 1], table[i + 1][j])
    return (ngram(1) + ngram(2) + f(table[-1][-1], len(g), len(o))) / 3


def match(out, gold, kind="numerical"):
    """Score of an answer's text against gold's.  kinds: 'OCR', 'free-form', anything else."""
    if kind == "free-form":
        return max(0.0, min(1.0, rouge_mean(gold, out)))
    if is_number(gold):
        return 1.0 if first_number(out) == float(gold) else 0.0
    if kind == "OCR":
        longest = max(len(gold), len(out))
        return 0.0 if longest == 0 else max(0.0, 1 - levenshtein(gold.lower(), out.lower()) / longest)
    return 1.0 if out.lower() == gold.lower() else 0.0


def accuracy_reward(text, gold, kind="numerical"):
    return match(answer_of(text), gold, kind)


def caption_rewards(completions, replies, gold, kind="numerical", weight=CAPTION_WEIGHT, shifted=False, across_lines=False):
    """replies[i]: the whole text the policy answered from caption i alone (no image); ignored where there is no caption.

    The whole reply is compared (no tags looked for, no strip); exactly 'Hacking Sample' scores 0.  shifted=True
    repeats a slip of the release: rewards of the completions WITH a caption fill the first places of the group.
    """
    scored = []
    for i, text in enumerate(completions):
        if caption_of(text, across_lines) is not None:
            reply = replies[i]
            scored.append((i, 0.0 if reply == "Hacking Sample" else match(reply, gold, kind)))
    out = [0.0] * len(completions)
    for place, (i, value) in enumerate(scored):
        out[place if shifted else i] = weight * value
    return out


def kl_weight(epoch, beta=BETA):
    """Cosine: beta at epoch 0, 0 at epoch 1; `epoch` is the fractional epoch, so with more epochs it rises again."""
    return beta / 2 * (1 + math.cos(math.pi * epoch))


def total(text, gold, caption_reward, kind="numerical"):
    return accuracy_reward(text, gold, kind) + format_reward(text) + caption_reward


def group_advantages(rewards, eps=EPS):
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (std + eps) for r in rewards]
