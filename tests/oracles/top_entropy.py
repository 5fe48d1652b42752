"""Top-entropy token filter ("Beyond the 80/20 rule", arXiv 2506.01939; TRL top_entropy_quantile): slow reference.

Kept: the completion tokens (no padding) whose entropy reaches the (1 - share) quantile, ties included.
TRL takes the quantile over one micro-batch gathered from all devices, so it depends on the accumulation; the paper
writes 'within the batch B'.  This oracle takes it over everything given (scope='batch'), or per completion.
Where (1 - share) * (n - 1) is whole, the token at the bar is decided by rounding: torch in float32 drops it at
times (n = 11, 21, 31, 36 seen); compare in float64, or avoid such n.
The mask multiplies the policy term only (not the KL); the denominators keep counting ALL completion tokens.
"""

import math

SHARE = 0.2


def entropy(logits, temperature=1.0):
    """Of softmax(logits / temperature), natural log: the full vocabulary, the policy being trained."""
    top = max(x / temperature for x in logits)
    weights = [math.exp(x / temperature - top) for x in logits]
    z = sum(weights)
    return -sum(w / z * math.log(w / z) for w in weights if w > 0)


def quantile(values, q):
    """Linear interpolation between order statistics, place q * (n - 1) (torch.quantile's default)."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(math.floor(place))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def top_entropy_mask(entropies, share=SHARE, valid=None, scope="batch"):
    """entropies: a list of numbers a completion; valid: same shape, 1 for tokens that count (None: all)."""
    if valid is None:
        valid = [[1] * len(row) for row in entropies]
    if share >= 1.0:
        return [[bool(v) for v in row] for row in valid]
    pooled = [h for row, ok in zip(entropies, valid) for h, v in zip(row, ok) if v]
    out = []
    for row, ok in zip(entropies, valid):
        own = pooled if scope == "batch" else [h for h, v in zip(row, ok) if v]
        if not own:
            out.append([False] * len(row))
            continue
        bar = quantile(own, 1 - share)
        out.append([bool(v) and h >= bar for h, v in zip(row, ok)])
    return out


def filtered_loss(policy, kl, mask, valid, beta=0.0, reduce="token"):
    """policy, kl: per-token losses.  'token' (DAPO): sum over kept / ALL valid tokens; 'sequence' (GRPO): mean of row means."""
    rows, count, total = [], 0, 0.0
    for p, k, m, v in zip(policy, kl, mask, valid):
        terms = [(a if keep else 0.0) + beta * b for a, b, keep, ok in zip(p, k, m, v) if ok]
        total += sum(terms)
        count += len(terms)
        rows.append(sum(terms) / max(len(terms), 1))
    return total / max(count, 1) if reduce == "token" else sum(rows) / len(rows)
