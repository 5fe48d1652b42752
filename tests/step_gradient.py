"""Save the gradient of a run's first step, before the optimizer makes anything of it; for torchrun.

torchrun --nproc-per-node 2 -m tests.step_gradient gradient.pt --data dataset --model model ...
"""

import sys

import torch

from train.data import load_rows
from train.group import Whole, assess, learn
from train.grpo import make_rewards
from train.parallel import World
from train.policy import load_policy
from train.prompts import draw_groups
from train.settings import from_command_line

settings = from_command_line(sys.argv[2:])
world, rewards = World(settings), make_rewards(settings)
policy, rows = load_policy(settings, world.device), load_rows(settings.data, settings.template)
weights = {reward.name: getattr(settings, reward.name) for reward in rewards}
groups, _ = draw_groups(policy, rows, [r for r in rewards if not r.needs], settings, world, 0)
whole = Whole(world.total(sum(len(g.completions) for g in groups)), world.total(sum(g.tokens for g in groups)))
for group in groups:
    lesson, live = assess(policy, group, rewards, weights, settings)
    learn(policy, group, lesson, settings, whole, live)
world.add_gradients(policy.model.parameters())
if world.main:
    torch.save({name: p.grad for name, p in policy.model.named_parameters()}, sys.argv[1])
