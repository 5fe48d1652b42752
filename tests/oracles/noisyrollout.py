"""Oracle for NoisyRollout (arXiv 2504.13055; authors' code John-AI-Lab/NoisyRollout). numpy only for image arrays.

SCOPE: advantages are per prompt GROUP of clean + noisy completions together. The released loss is a token mean per
micro-batch of 2 sequences, then a mean over micro-batches (order-dependent); `token_mean_loss` is over the whole batch.
"""

import math

import numpy as np

NUM_STEPS = 1000


def betas(n=NUM_STEPS, lo=1e-5, hi=5e-3):
    """beta_i = sigmoid(x_i) * (hi - lo) + lo, x_i = n equally spaced points on [-6, 6]."""
    out = []
    for i in range(n):
        x = -6.0 + 12.0 * i / (n - 1)
        out.append(lo + (hi - lo) / (1.0 + math.exp(-x)))
    return out


def alpha_bar(step, n=NUM_STEPS):
    """prod_{i=0..step} (1 - beta_i): index 0 already holds one noise step."""
    p = 1.0
    for i, b in enumerate(betas(n)):
        if i > step:
            break
        p *= 1.0 - b
    return p


def noise_step(progress, alpha0=500, slope=30.0, mid=40.0 / 60.0):
    """int(alpha0 * (1 - sigmoid(slope * (progress - mid)))), progress = step/total with step counted from 1.
    Geo3K 7B: 500, 30, 40/60; K12 7B: 450, 60, 40/120 (gamma = 40 STEPS in both: mid depends on the run length)."""
    x = slope * (progress - mid)
    decay = 1.0 - 1.0 / (1.0 + math.exp(-x))
    return int(alpha0 * decay)


def add_noise(pixels01, step, standard_normal):
    """sqrt(abar) x + sqrt(1 - abar) eps on raw [0,1] pixels (after the resize, before the processor's normalisation),
    clipped to [0,1]. One draw per image; shared by all noisy completions of the prompt."""
    a = alpha_bar(int(step))
    y = math.sqrt(a) * np.asarray(pixels01, dtype=np.float64) + math.sqrt(1.0 - a) * np.asarray(standard_normal, dtype=np.float64)
    return np.clip(y, 0.0, 1.0)


def to_uint8(pixels01):
    """ToPILImage of a float tensor: multiply by 255 and TRUNCATE."""
    return np.floor(np.asarray(pixels01, dtype=np.float64) * 255.0).astype(np.uint8)


def group_layout(n_per_view):
    """Views of one group's completions, in the order of the released code."""
    return ["clean"] * n_per_view + ["noisy"] * n_per_view


def mixed_advantages(clean_rewards, noisy_rewards, eps=1e-6):
    """(clean advantages, noisy advantages): one group, mean and UNBIASED std over clean + noisy together."""
    r = list(clean_rewards) + list(noisy_rewards)
    m = sum(r) / len(r)
    sd = math.sqrt(sum((x - m) ** 2 for x in r) / (len(r) - 1))
    a = [(x - m) / (sd + eps) for x in r]
    return a[: len(clean_rewards)], a[len(clean_rewards) :]


def token_mean_loss(new_logp, old_logp, advantages, entropy=None, clip=0.2, entropy_coef=1e-3):
    """new_logp, old_logp: batch > group > completion > token, BOTH given the CLEAN image, also for completions sampled
    from the noisy one (no importance correction). advantages: batch > group > completion. Symmetric clip, no dual clip,
    no KL; minus entropy_coef * mean full-vocabulary entropy (nats, current policy, clean image)."""
    num, ent, n = 0.0, 0.0, 0
    for g, group in enumerate(new_logp):
        for c, comp in enumerate(group):
            adv = advantages[g][c]
            for t, lp in enumerate(comp):
                d = lp - old_logp[g][c][t]
                ratio = math.exp(d)
                clipped = min(max(ratio, 1.0 - clip), 1.0 + clip)
                num += max(-adv * ratio, -adv * clipped)
                if entropy is not None:
                    ent += entropy[g][c][t]
                n += 1
    return num / n - entropy_coef * ent / n
