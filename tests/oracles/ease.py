"""EASE (2605.30912) reference.  The authors' code is NOT readable here; items marked [K] are known (a replication log
that ran the authors' code, with its option names), [C] agree with numbers in that log, [U] are a choice of this file.
Lists and math only.  Whole completions; the gated mean is over the list of completions passed [U].
"""

import math


def ease_layer(num_layers):
    """[K] option layer_index: -1 -> floor(2L/3) (28 layers -> 18, 36 -> 24); 0-based index [U]."""
    return 2 * num_layers // 3


def ease_target(grid_h, grid_w, boxes, sigma_scale=0.25, background=0.1):
    """Row-major target over the image tokens; boxes (x0, y0, x1, y1) in token units, fractional allowed.

    [K] Gaussian mixture over the boxes, sigma scale .25, background smoothing .1, sums to 1, all mass on image
        tokens, uniform when no box is usable.
    [C] sigma = .25 * (box width, box height), not cut at the box, q = .9 * mixture + .1 * uniform: the peak is
        5.5 .. 5.8 x uniform for a box of 40.7 % of a 252-token image, the log says 5.8; a floor of half a
        token or more on sigma is excluded by the log's 149 x.
    [U] every box normalised to 1 and equal weight; token centres at +.5.
    """
    n = grid_h * grid_w
    mixture, used = [0.0] * n, 0
    for x0, y0, x1, y1 in boxes:
        w, h = x1 - x0, y1 - y0
        if w <= 0 or h <= 0:
            continue
        cx, cy, sx, sy = (x0 + x1) / 2, (y0 + y1) / 2, sigma_scale * w, sigma_scale * h
        z = []
        for r in range(grid_h):
            for c in range(grid_w):
                z.append(-0.5 * (((c + 0.5 - cx) / sx) ** 2 + ((r + 0.5 - cy) / sy) ** 2))
        top = max(z)  # so that a box smaller than a token does not underflow
        e = [math.exp(v - top) for v in z]
        s = sum(e)
        for i in range(n):
            mixture[i] += e[i] / s
        used += 1
    if not used:
        return [1.0 / n] * n
    return [(1.0 - background) * m / used + background / n for m in mixture]


def ease_token_loss(attention, target, direction="model_to_target", eps=1e-12):
    """KL of one query's attention, renormalised over the image tokens ("vision_kl" [K], meaning [U]: scale of
    `attention` does not matter), mean over heads before renormalising [U].
    model_to_target [K] read as KL(attention || target) [U]; the other reading is KL(target || attention)."""
    s = max(sum(attention), eps)
    p = [a / s for a in attention]
    if direction == "model_to_target":
        a, b = p, target
    else:
        a, b = target, p
    return sum(x * (math.log(max(x, eps)) - math.log(max(y, eps))) for x, y in zip(a, b) if x > 0.0)


def ease_positions(length, limit=64):
    """[K] at most 64 response tokens a completion.  [U] evenly spaced, first and last included."""
    if length <= limit:
        return list(range(length))
    return [int(math.floor(i * (length - 1) / (limit - 1) + 0.5)) for i in range(limit)]


def ease_loss(attention, target, **kw):
    """attention[t]: list over image tokens; [U] per-token divergence, then mean over the tokens."""
    return sum(ease_token_loss(a, target, **kw) for a in attention) / len(attention)


def ease_group_loss(attentions, targets, rewards, threshold=0.5, weight=0.001, **kw):
    """weight * mean over completions that pass the gate; 0 when none does.
    [K] threshold .5, weight .001.  The log says a reward of exactly .5 passes: >= (other notes say >)."""
    kept = [ease_loss(a, q, **kw) for a, q, r in zip(attentions, targets, rewards) if r >= threshold]
    return weight * sum(kept) / len(kept) if kept else 0.0
