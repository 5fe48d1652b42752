"""DyCo-RL (2606.08035) reference, written from the formulas of the released code.  Lists and math only.

Attention rows: LAST decoder layer, mean over heads, of the query that PREDICTS token t (row 0 = last prompt
position).  The release computes rows during generate() on whole padded batches: rows of a finished completion go on
over pad tokens until the longest of the batch ends.  This oracle uses a completion's own tokens only.
Row 0 of the release is the mean over ALL prompt queries of an attention without causal mask (prefill); here the
caller passes row 0, and it only serves as predecessor of row 1.
"""

import math

VIS, TXT, NEUTRAL = "vis", "txt", "neutral"


def dyco_split(row, first_image, last_image):
    """Released boundaries: image = [first image pad, last image pad), text = [last image pad, end).
    So the LAST image token counts as text and what precedes the image (system prompt) as neither."""
    s = sum(max(x, 0.0) for x in row) + 1e-8
    row = [max(x, 0.0) / s for x in row]
    return row[first_image:last_image], row[last_image:]


def _norm(x):
    s = sum(x) + 1e-8
    return [v / s for v in x]


def fisher_rao(a, b, floor=1e-12):
    """2 arccos( sum sqrt(p q) ), entries floored, renormalised, coefficient clamped to [0, 1]."""
    a, b = [max(x, floor) for x in a], [max(x, floor) for x in b]
    sa, sb = max(sum(a), floor), max(sum(b), floor)
    bc = sum(math.sqrt((x / sa) * (y / sb)) for x, y in zip(a, b))
    return 2.0 * math.acos(min(max(bc, 0.0), 1.0))


def dyco_tokens(image_attention, text_attention, tau=0.05):
    """For tokens 1..T-1: (v_img, v_txt, role, s_t).  Token 0 has no predecessor and is left out."""
    out = []
    for t in range(1, len(image_attention)):
        v_img = fisher_rao(_norm(image_attention[t - 1]), _norm(image_attention[t]))
        p, q = _norm(text_attention[t - 1]), _norm(text_attention[t])
        n = min(len(p), len(q))  # the keys both rows can see; renormalised inside
        v_txt = fisher_rao(p[:n], q[:n])
        r_img, r_txt = sum(image_attention[t]), sum(text_attention[t])
        total = max(r_img + r_txt, 1e-8)
        if v_img - v_txt > 0.0:  # no margin for vision
            role, s = VIS, r_img / total
        elif v_img - v_txt < -tau:  # margin for text
            role, s = TXT, r_txt / total
        else:
            role, s = NEUTRAL, 0.0
        out.append((v_img, v_txt, role, s))
    return out


def dyco_scores(image_attention, text_attention, tau=0.05):
    """S = sigmoid(mean of s_t over tokens that are not neutral); 0.5 when there is none."""
    active = [s for _, _, role, s in dyco_tokens(image_attention, text_attention, tau) if role != NEUTRAL]
    if not active:
        return 0.5
    return 1.0 / (1.0 + math.exp(-sum(active) / len(active)))


def dyco_normalised(scores):
    """tanh of the z-score with the SAMPLE std, no eps; all zero when std <= 1e-8 or there is one score.
    Release: over one device's generate batch, 4 completions = one group with the released settings."""
    n = len(scores)
    mean = sum(scores) / n
    std = math.sqrt(sum((x - mean) ** 2 for x in scores) / (n - 1)) if n > 1 else 0.0
    if std <= 1e-8:
        return [0.0] * n
    return [math.tanh((x - mean) / std) for x in scores]


def dyco_factors(scores, lengths, alpha=0.2, min_length=60, low=0.8, high=1.2):
    """Factor on the completion's advantage, whatever its sign.  Length = tokens in the loss mask (EOS included).
    min_length 60 (3B) / 150 (more than 5e9 parameters).  The -1 comes after z-score and tanh."""
    z = dyco_normalised(scores)
    z = [-1.0 if n < min_length else x for x, n in zip(z, lengths)]
    return [min(max(1.0 + alpha * x, low), high) for x in z]


def dyco_sapo_length_factor(length, min_length=60):
    """With the SAPO loss only: a further factor."""
    return min(length / min_length, 1.0)


def group_advantages(rewards, eps=1e-4):
    n = len(rewards)
    mean = sum(rewards) / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1))
    return [(r - mean) / (std + eps) for r in rewards]
