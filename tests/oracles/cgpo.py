"""Oracle for CGPO (ACM MM 2026), plain Python lists, slow on purpose.

Convention: batch = list of groups; group = list of completions; completion = list of per-token floats.
SCOPE: the released code takes both token shares within each update MICRO-batch (order- and GPU-count-dependent; entropy
of the policy being updated); the oracle takes them over ALL completion tokens of the WHOLE batch. The median / MAD of
the response scores are over the whole batch in both.
"""

import itertools
import math


def k3_dependence(logp, masked_logp, log_clip=20.0, cap=10.0):
    """S_t of one completion: d = clip(masked - logp, +-20), S = clip(exp(d) - d - 1, 0, 10); old policy, nats."""
    out = []
    for a, b in zip(logp, masked_logp):
        d = max(-log_clip, min(log_clip, b - a))
        out.append(max(0.0, min(cap, math.exp(d) - d - 1.0)))
    return out


def lower_median(values):
    """torch.median: the LOWER of the two middle values for an even count."""
    s = sorted(values)
    return s[(len(s) - 1) // 2]


def top_share_mask(values, share):
    """Exactly ceil(n*share) tokens of the batch; ties in batch order (the released sort order is arbitrary)."""
    flat = [(v, g, c, t) for g, gr in enumerate(values) for c, co in enumerate(gr) for t, v in enumerate(co)]
    mask = [[[False] * len(co) for co in gr] for gr in values]
    k = math.ceil(len(flat) * share - 1e-9)
    for i in sorted(range(len(flat)), key=lambda j: -flat[j][0])[:k]:
        _, g, c, t = flat[i]
        mask[g][c][t] = True
    return mask


def response_scales(dependence, lam=0.1, eps=1e-8):
    """alpha_i = 1 + lam * tanh((S_i - med) / (MAD + eps)), S_i = mean of S_t over ALL tokens of the completion;
    empty completions are left out of med / MAD and get 1. Fewer than two non-empty completions: all 1 (the released
    code raises an error there)."""
    means = [[(sum(c) / len(c) if c else None) for c in g] for g in dependence]
    valid = [m for g in means for m in g if m is not None]
    if len(valid) <= 1:
        return [[1.0 for _ in g] for g in means]
    med = lower_median(valid)
    mad = lower_median([abs(m - med) for m in valid])
    return [[1.0 if m is None else 1.0 + lam * math.tanh((m - med) / (mad + eps)) for m in g] for g in means]


def cgpo_factors(dependence, entropy, region_mask=None, rho_r=0.3, rho_p=0.3, lam=0.1, eps=1e-8):
    """Per-token factor on the advantage: alpha_i in the perception set (top rho_p by S_t, plus every token of a
    <region ..>..</region> span), 1 in the reasoning set only (top rho_r by entropy), 0 elsewhere. A token in both gets
    alpha_i. Not renormalised: the loss is a mean over all completion tokens."""
    alpha = response_scales(dependence, lam, eps)
    p = top_share_mask(dependence, rho_p)
    r = top_share_mask(entropy, rho_r)
    out = []
    for g, gr in enumerate(dependence):
        out.append([])
        for c, co in enumerate(gr):
            row = []
            for t in range(len(co)):
                percep = p[g][c][t] or (region_mask is not None and bool(region_mask[g][c][t]))
                row.append(alpha[g][c] if percep else (1.0 if r[g][c][t] else 0.0))
            out[-1].append(row)
    return out


# ---- counterfactual image -------------------------------------------------------------------------------------------
def to_pixels(box, width, height):
    """0-1000 integer box -> pixel box, round half to even, clamped to the image."""
    x1, y1, x2, y2 = box
    cx = lambda v: max(0, min(width, int(round(v / 1000.0 * width))))
    cy = lambda v: max(0, min(height, int(round(v / 1000.0 * height))))
    return cx(x1), cy(y1), cx(x2), cy(y2)


def flatten_regions(image, boxes):
    """image: rows > pixels > channels (0-255 ints), already resized. Each box (in order) is filled with its own
    per-channel mean over the ORIGINAL pixels, rounded half to even; later boxes overwrite earlier ones; empty skipped."""
    h, w = len(image), len(image[0])
    out = [[list(px) for px in row] for row in image]
    for box in boxes:
        x1, y1, x2, y2 = to_pixels(box, w, h)
        if x2 <= x1 or y2 <= y1:
            continue
        n = (x2 - x1) * (y2 - y1)
        fill = [int(round(sum(image[y][x][k] for y in range(y1, y2) for x in range(x1, x2)) / n)) for k in range(len(image[0][0]))]
        for y in range(y1, y2):
            for x in range(x1, x2):
                out[y][x] = list(fill)
    return out


# ---- grounding-consistency reward -----------------------------------------------------------------------------------
def iou(a, b):
    iw = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    ih = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = iw * ih
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def region_score(detected, predicted):
    """2 * M / (#predicted + #detected), M = best one-to-one sum of IoU (brute force); both empty 1, one empty 0."""
    if not detected and not predicted:
        return 1.0
    if not detected or not predicted:
        return 0.0
    small, large = sorted((list(detected), list(predicted)), key=len)
    best = max(sum(iou(s, l) for s, l in zip(small, perm)) for perm in itertools.permutations(large, len(small)))
    return 2.0 * best / (len(detected) + len(predicted))


def gc_response(predicted, detected):
    """predicted, detected: dicts (image_idx, normalised name) -> boxes; mean over the completion's OWN regions, a region
    not re-detected scores 0, no region scores 0."""
    if not predicted:
        return 0.0
    return sum(region_score(detected.get(k, []), b) for k, b in predicted.items()) / len(predicted)


def gc_group(group_predicted, detected):
    """Earlier variant, one score per completion of the group: frequency-weighted share of the group's re-detected regions."""
    n = len(group_predicted)
    freq = {}
    for pred in group_predicted:
        for k in pred:
            freq[k] = freq.get(k, 0) + 1.0 / n
    den = sum(f for k, f in freq.items() if detected.get(k))
    if den <= 0:
        return [0.0] * n
    return [sum(freq[k] * region_score(detected[k], b) for k, b in pred.items() if detected.get(k)) / den for pred in group_predicted]


def reward(accuracy, fmt, gc, format_weight=0.1, gc_weight=0.5):
    """.9 accuracy + .1 format + .5 gc, the last only when accuracy == 1."""
    return (1.0 - format_weight) * accuracy + format_weight * fmt + (gc_weight * gc if accuracy == 1.0 else 0.0)
