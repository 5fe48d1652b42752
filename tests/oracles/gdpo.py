"""GDPO (arXiv 2601.05242, NVlabs/GDPO): slow reference, written from the formulas.

Each reward is normalised within its group, the weighted sum is normalised over the WHOLE batch (all groups gathered
over the devices in both TRL versions; never a micro-batch).  std is unbiased (n - 1).
'nvidia_trl': None -> 0 before the statistics, eps 1e-4 twice; with one reward only: plain GRPO.
'trl':        None left out of the statistics and of the sum; all None: advantage 0; one reward: still batch-normalised.
'verl':       two rewards, weights 1, eps 1e-6; batch mean and variance over response TOKENS (a long response counts
              more), / sqrt(var + 1e-8).
"""

import math


def _mean(xs):
    return sum(xs) / len(xs)


def _std(xs):
    m = _mean(xs)
    return math.sqrt(sum((x - m) ** 2 for x in xs) / (len(xs) - 1))


def gdpo_advantages(rewards_by_name, weights, groups, variant="nvidia_trl", eps=None, batch_normalise=True, lengths=None):
    """rewards_by_name: name -> a value or None a sample; weights: name -> number; groups: a group key a sample."""
    n = len(groups)
    eps = {"verl": 1e-6}.get(variant, 1e-4) if eps is None else eps
    members = {}
    for i, g in enumerate(groups):
        members.setdefault(g, []).append(i)
    fill = variant != "trl"
    summed = [0.0] * n
    dead = [not fill and all(r[i] is None for r in rewards_by_name.values()) for i in range(n)]
    if variant == "nvidia_trl" and len(rewards_by_name) == 1:
        name, rewards = next(iter(rewards_by_name.items()))
        total = [weights.get(name, 1.0) * (r if r is not None else 0.0) for r in rewards]
        return [
            (total[i] - _mean([total[j] for j in members[groups[i]]])) / (_std([total[j] for j in members[groups[i]]]) + eps)
            for i in range(n)
        ]
    for name, rewards in rewards_by_name.items():
        weight = 1.0 if variant == "verl" else weights.get(name, 1.0)
        for index in members.values():
            values = {i: (0.0 if rewards[i] is None else rewards[i]) for i in index if fill or rewards[i] is not None}
            if variant == "verl" and len(index) == 1:
                for i, v in values.items():
                    summed[i] += v / (1.0 + eps)  # mean 0, std 1
                continue
            if len(values) < 2:
                continue  # trl: std is NaN, and the NaN-sum leaves it out
            mean, std = _mean(list(values.values())), _std(list(values.values()))
            for i, v in values.items():
                summed[i] += weight * (v - mean) / (std + eps)
    if not batch_normalise:
        return [0.0 if d else s for s, d in zip(summed, dead)]
    if variant == "verl":
        tokens = sum(lengths)
        mean = sum(s * t for s, t in zip(summed, lengths)) / tokens
        var = sum((s - mean) ** 2 * t for s, t in zip(summed, lengths)) / tokens * tokens / (tokens - 1)
        return [(s - mean) / math.sqrt(var + 1e-8) for s in summed]
    alive = [s for s, d in zip(summed, dead) if not d]
    if len(alive) < 2:
        return [0.0] * n
    mean, std = _mean(alive), _std(alive)
    return [0.0 if d else (s - mean) / (std + eps) for s, d in zip(summed, dead)]


def conditioned(easy, hard, threshold=1.0):
    """Paper, for priorities: the easy reward counts only where the hard one reaches its threshold.  Not in the released code."""
    return [e if h >= threshold else 0.0 for e, h in zip(easy, hard)]
