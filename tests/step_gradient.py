"""Save the gradient of a run's first step, before the optimizer makes anything of it; for torchrun.

torchrun --nproc-per-node 2 -m tests.step_gradient gradient.pt --data dataset --model model ...
"""

import sys

import torch

from train.batch import Normalizer
from train.data import load_rows
from train.loop import Across, make_methods, make_rewards
from train.parallel import World
from train.policy import load_policy
from train.sampling import draw_groups
from train.settings import from_command_line
from train.step import Plan, step

settings = from_command_line(sys.argv[2:])
world, rewards = World(settings), make_rewards(settings)
policy, rows = load_policy(settings, world.device), load_rows(settings.data, settings.template)
groups, _ = draw_groups(policy, rows, [r for r in rewards if not r.needs], settings, world, 0)
plan = Plan(settings, rewards, make_methods(settings), Across(world))
normalizer = Normalizer(world.total(sum(len(g.completions) for g in groups)), world.total(sum(g.tokens for g in groups)))
step(policy, groups, plan, normalizer)
world.add_gradients(policy.model.parameters())
if world.main:
    torch.save({name: p.grad for name, p in policy.model.named_parameters()}, sys.argv[1])
