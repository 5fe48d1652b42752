"""Evidence-RL / CED (2608.08021) reference, written from the formulas of the released code.  Lists and math only.

All values are of one completion; advantages of one group (32 completions of one prompt = one optimizer step).
"""

import math

EVIDENCE_FAMILIES = ("counting", "attribute", "spatial")  # existence / other: correctness only


def ced_support(logps, logps_intervened):
    """s = mean log-prob on the image - mean log-prob under the intervention, over the FINAL-ANSWER tokens only."""
    return sum(logps) / len(logps) - sum(logps_intervened) / len(logps_intervened)


def ced_margin(s_evidence, s_non, eps=1e-6):
    """m = tanh((s_ev - mean) / (std + eps)), POPULATION std; k = 1: std 0, so m = tanh(1e6 * difference), a sign;
    k = 0: tanh(s_ev)."""
    k = len(s_non)
    if k == 0:
        return math.tanh(s_evidence)
    mean = sum(s_non) / k
    std = math.sqrt(sum((x - mean) ** 2 for x in s_non) / k) if k > 1 else 0.0
    return math.tanh((s_evidence - mean) / (std + eps))


def ced_gate(margin, tau=0.2):
    if tau <= 0:
        return 1.0 if margin > 0 else 0.0
    return 0.5 * (1.0 + math.tanh(margin / tau))


def ced_correctness(correct, right=1.0, wrong=-0.25):
    """correct: True / False, or None for a row without reference answer (0)."""
    return 0.0 if correct is None else (right if correct else wrong)


def ced_reward(correct, s_evidence, s_non, family="counting", tau=0.2, epsilon=0.1, mode="gated", valid=True):
    """gated (released): c * g(m) + epsilon * m;  additive: c + epsilon * m;  correctness: c.
    Families without evidence training get c.  valid=False (no final answer found, or any error while scoring): 0,
    the correctness included."""
    if not valid:
        return 0.0
    c = ced_correctness(correct)
    if family not in EVIDENCE_FAMILIES or mode == "correctness":
        return c
    m = ced_margin(s_evidence, s_non)
    return (c if mode == "additive" else c * ced_gate(m, tau)) + epsilon * m


def ced_final_reward(reward, style_penalty=0.0, veto=False, logp=0.0, ref_logp=0.0, kl=0.01):
    """Order in the trainer: veto, style penalty (0 .. .35), KL (k1 of the mean answer log-prob, inside the reward)."""
    if veto:
        reward = min(reward - 0.25, -0.5)
    return reward - min(max(style_penalty, 0.0), 0.35) - kl * (logp - ref_logp)


def ced_advantages(rewards):
    """POPULATION std, no eps; below 1e-4 only centred."""
    n = len(rewards)
    mean = sum(rewards) / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / n)
    return [(r - mean) / std if std >= 1e-4 else r - mean for r in rewards]


def ced_iou(a, b):
    """Boxes (x, y, w, h)."""
    iw = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    ih = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if iw <= 0 or ih <= 0:
        return 0.0
    return iw * ih / (a[2] * a[3] + b[2] * b[3] - iw * ih)


def ced_evidence_box(box, width, height):
    """A missing or empty box becomes the centred 35 % x 35 % box (flagged, but rewarded all the same)."""
    if box is not None and box[2] > 0 and box[3] > 0:
        x, y = min(max(box[0], 0.0), width), min(max(box[1], 0.0), height)
        w, h = min(box[2], width - x), min(box[3], height - y)
        if w > 0 and h > 0:
            return (x, y, w, h)
    w, h = max(1.0, 0.35 * width), max(1.0, 0.35 * height)
    return ((width - w) / 2, (height - h) / 2, w, h)


def ced_negative_ok(evidence, candidate, limit=0.05):
    """Negatives: same size, uniform position, accepted at IoU <= .05 with the evidence box (24 tries)."""
    return ced_iou(evidence, candidate) <= limit


def ced_box_tokens(box, width, height, grid_h, grid_w, merge=2):
    """Patches (before the merge) whose centre lies in the box, borders included, then merged; if none, the patch
    under the box centre."""
    x, y, w, h = box
    cw, ch = width / grid_w, height / grid_h
    cells = []
    for r in range(grid_h):
        for c in range(grid_w):
            if x <= (c + 0.5) * cw <= x + w and y <= (r + 0.5) * ch <= y + h:
                cells.append((r, c))
    if not cells:
        cells = [(min(grid_h - 1, max(0, int((y + h / 2) / ch))), min(grid_w - 1, max(0, int((x + w / 2) / cw))))]
    return sorted({(r // merge) * (grid_w // merge) + c // merge for r, c in cells})


def ced_ring_tokens(tokens, rows, cols, ring=2):
    """Tokens at Chebyshev distance 1..ring of the region (merged grid); all others if that is empty; else all."""
    inside = set(tokens)
    out = []
    for i in range(rows * cols):
        if i in inside:
            continue
        d = min(max(abs(i // cols - j // cols), abs(i % cols - j % cols)) for j in inside)
        if d <= ring:
            out.append(i)
    if not out:
        out = [i for i in range(rows * cols) if i not in inside] or list(range(rows * cols))
    return out


def ced_intervene(states, tokens, ring):
    """'mean' (released): every token of the region gets the mean of the ring's states at the FIRST layer's input."""
    dim = len(states[0])
    mean = [sum(states[i][d] for i in ring) / len(ring) for d in range(dim)]
    inside = set(tokens)
    return [list(mean) if i in inside else list(s) for i, s in enumerate(states)]
