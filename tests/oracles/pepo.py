"""PEPO (2603.22847) reference, written from the formulas of the released code.  Lists and math only.

Everything that matters is computed per completion, so no batch dependence exists in the weights.
A hidden state list is layers[l][token][dim]; l runs over ALL entries of `output_hidden_states`
(embedding output, every decoder layer, the last one AFTER the final norm): L+1 entries, equal weight.
"""

import math


def _unit(v, eps=1e-12):
    n = max(math.sqrt(sum(x * x for x in v)), eps)
    return [x / n for x in v]


def pepo_similarity(layers_tokens, layers_image):
    """VS_t = mean over layers of the mean over image tokens of cos(h_t, h_v).

    h_t: hidden state at the response token's OWN position (the position that consumes it).
    Without image tokens the release takes every position but the first as `layers_image`.
    """
    n_tokens = len(layers_tokens[0])
    out = [0.0] * n_tokens
    for tokens, image in zip(layers_tokens, layers_image):
        units = [_unit(v) for v in image]
        for t in range(n_tokens):
            u = _unit(tokens[t])
            total = 0.0
            for v in units:
                total += sum(a * b for a, b in zip(u, v))
            out[t] += total / len(units)
    return [x / len(layers_tokens) for x in out]


def pepo_entropy(logits, temperature=1.0):
    """Entropy in nats of softmax(logits / sampling temperature), full vocabulary, at the PREDICTING position."""
    z = [x / temperature for x in logits]
    m = max(z)
    e = [math.exp(x - m) for x in z]
    s = sum(e)
    return sum(-(x / s) * (math.log(x / s)) for x in e if x > 0.0)


def _minmax(x, eps):
    lo, hi = min(x), max(x)
    return [(v - lo) / max(hi - lo, eps) for v in x]


def pepo_weights(similarity, entropy, alpha=0.05, temperature=1.8, eps=1e-6):
    """w_t = T * softmax_t( VS_t * g_t / temperature ),  g_t = 1 + alpha * tanh(m_t - mean(m)),
    m = minmax(VS) + minmax(H), all over the completion's own tokens.  sum(w) == T."""
    n = len(similarity)
    if n == 0:
        return []
    a, b = _minmax(similarity, eps), _minmax(entropy, eps)
    mixed = [x + y for x, y in zip(a, b)]
    mean = sum(mixed) / n
    z = [similarity[t] * (1.0 + alpha * math.tanh(mixed[t] - mean)) / temperature for t in range(n)]
    top = max(z)
    e = [math.exp(x - top) for x in z]
    s = sum(e)
    return [n * x / s for x in e]


def pepo_progress(step, max_steps):
    """lambda: optimizer steps already finished / total; 0 on the first step, (N-1)/N on the last."""
    return min(1.0, step / max(1, max_steps))


def pepo_factors(similarity, entropy, progress, **kw):
    """Per-token factor on the advantage (the KL term is not multiplied)."""
    return [1.0 - progress + progress * w for w in pepo_weights(similarity, entropy, **kw)]


def group_advantages(rewards, eps=1e-4):
    """ms-swift GRPO: sample standard deviation, eps added to it."""
    n = len(rewards)
    mean = sum(rewards) / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1)) if n > 1 else 0.0
    return [(r - mean) / (std + eps) for r in rewards]


def pepo_advantages(rewards, similarities, entropies, progress, **kw):
    """Group -> per completion the list of per-token advantages."""
    return [[a * f for f in pepo_factors(s, h, progress, **kw)] for a, s, h in zip(group_advantages(rewards), similarities, entropies)]
