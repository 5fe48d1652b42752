"""Oracle for PGPO token weights (arXiv 2604.01840), plain Python lists, slow on purpose.

Convention: batch = list of groups; group = list of completions; completion = list of per-token floats.
SCOPE: everything is per COMPLETION (min-max, quantile, renormalisation); no batch or micro-batch statistic.
The weights multiply the advantage (A_t = w_t * A); w >= 0, so this equals weighting the clipped term.
"""

import math

EPS = 1e-8


def k3_dependence(logp, blind_logp, log_clip=20.0, cap=10.0):
    """S_t for one completion: d = clip(blind - logp, +-20); S = clip(exp(d) - d - 1, 0, 10). Both log-probs are of the
    sampled token under the OLD policy (temperature 1, natural log); blind = attention to image tokens masked."""
    out = []
    for a, b in zip(logp, blind_logp):
        d = max(-log_clip, min(log_clip, b - a))
        out.append(max(0.0, min(cap, math.exp(d) - d - 1.0)))
    return out


def dependence(logprobs, blind_logprobs):
    return [[k3_dependence(a, b) for a, b in zip(ga, gb)] for ga, gb in zip(logprobs, blind_logprobs)]


def importance(dep):
    """I_t of one completion: min-max of log1p(max(S, 0)); a constant completion gives zeros."""
    v = [math.log1p(max(s, 0.0)) for s in dep]
    lo, hi = min(v), max(v)
    return [max(0.0, min(1.0, (x - lo) / max(hi - lo, EPS))) for x in v]


def pgpo_completion_weights(dep, tau=0.4, beta=2.0, mode="absolute", floor=0.0, renormalise=True):
    if not dep:
        return []
    imp = importance(dep)
    n = len(imp)
    if mode == "absolute":
        thr = tau
    elif mode == "quantile":  # ascending, index floor(L*tau), at most L-1
        thr = sorted(imp)[min(int(n * tau + 1e-9), n - 1)]
    else:
        raise ValueError(mode)
    raw = []
    for i in imp:
        if i < thr:
            raw.append(max(i / max(thr, EPS), floor))
        else:
            raw.append(1.0 + beta * (i - thr) / max(1.0 - thr, EPS))
    if not renormalise:
        return raw
    total = sum(raw)
    if total <= EPS:  # constant dependence (or a one-token completion): uniform weights
        return [1.0] * n
    return [w * n / total for w in raw]


def pgpo_weights(dependence, tau=0.4, beta=2.0, mode="absolute", floor=0.0, renormalise=True):
    """Defaults = the paper (Eq. 6-7). Authors' development code: mode="quantile", floor=0.1, renormalise=False."""
    return [[pgpo_completion_weights(c, tau, beta, mode, floor, renormalise) for c in g] for g in dependence]
