"""Oracle for ToR token reweighting (arXiv 2603.25077), plain Python lists, slow on purpose.

Convention: a batch is a list of groups; a group a list of completions; a completion a list of per-token floats.
SCOPE: both thresholds are taken over ALL completion tokens of the WHOLE batch (after group filtering), as in the paper
and in the current re-implementation (`*_thr_granularity=batch`); older versions took them per update micro-batch.
All inputs come from the OLD (rollout) policy re-scored by the trainer at the sampling temperature (1.0), natural log.
"""

import math


def top_p_entropy(probs, top_p=0.95):
    """Entropy in nats of the renormalised nucleus. A token is kept when the mass of the tokens ranked above it is
    < top_p (so the most likely one always is). top_p >= 1: plain entropy."""
    ranked = sorted(probs, reverse=True)
    kept, above = [], 0.0
    for p in ranked:
        if top_p >= 1.0 or above < top_p:
            kept.append(p)
        above += p
    total = sum(kept)
    h = 0.0
    for p in kept:
        q = p / total
        if q > 0.0:
            h -= q * math.log(q)
    return h


def n_keep(n_tokens, share):
    """ceil(n * share); the 1e-9 only guards against products such as 3.0000000000000004."""
    return math.ceil(n_tokens * share - 1e-9)


def top_share_mask(values, share, ties="first", positive_only=False):
    """0/1 mask (same nesting) of the top `share` of all tokens of the batch, exactly ceil(n*share) of them.
    ties: "first" = batch order among equal values; "all" = every token equal to the threshold is kept (then the count
    may exceed ceil). The re-implementation draws tied tokens uniformly at random (seed: data.seed and step): compare
    such code with `mask_is_valid` below. positive_only (NOT in the code): tokens with value 0 are never selected."""
    flat = []
    for g, group in enumerate(values):
        for c, comp in enumerate(group):
            for t, v in enumerate(comp):
                flat.append((v, g, c, t))
    mask = [[[0.0] * len(comp) for comp in group] for group in values]
    k = n_keep(len(flat), share)
    if k <= 0:
        return mask
    order = sorted(range(len(flat)), key=lambda i: -flat[i][0])  # sorted() is stable: ties in batch order
    threshold = flat[order[k - 1]][0]
    for rank, i in enumerate(order):
        v, g, c, t = flat[i]
        if (rank < k or (ties == "all" and v == threshold)) and not (positive_only and v <= 0.0):
            mask[g][c][t] = 1.0
    return mask


def mask_is_valid(values, mask, share):
    """Whether `mask` is a top-share mask up to the choice among tied tokens: exact count, nothing selected below
    anything left out."""
    kept, dropped = [], []
    for gv, gm in zip(values, mask):
        for cv, cm in zip(gv, gm):
            for v, m in zip(cv, cm):
                (kept if m else dropped).append(v)
    return len(kept) == n_keep(len(kept) + len(dropped), share) and (not kept or not dropped or min(kept) >= max(dropped))


def perception_scores(logprobs, blind_logprobs):
    """|log p(y_t | image) - log p(y_t | no image)|, unclamped (Eq. 8)."""
    return [[[abs(a - b) for a, b in zip(x, y)] for x, y in zip(gx, gy)] for gx, gy in zip(logprobs, blind_logprobs)]


def tor_weights(
    logprobs, blind_logprobs, entropy, top_entropy=0.3, top_perception=0.3, w_reason=1.0, w_percep=0.5, ties="first", positive_only=False
):
    """Weight of every token's clipped policy-gradient term: w_reason in the entropy set, else w_percep in the
    perception set, else 0. Not renormalised: the loss stays a mean over ALL completion tokens.
    `entropy`: top_p_entropy(.., 0.95) of the old policy for each token's distribution."""
    t_r = top_share_mask(entropy, top_entropy, ties, positive_only)
    t_p = top_share_mask(perception_scores(logprobs, blind_logprobs), top_perception, ties, positive_only)
    out = []
    for gr, gp in zip(t_r, t_p):
        out.append([[w_reason if r else (w_percep if p else 0.0) for r, p in zip(cr, cp)] for cr, cp in zip(gr, gp)])
    return out
