"""Save the gradient of a run's first step, before the optimizer makes anything of it; for torchrun.

torchrun --nproc-per-node 2 -m tests.step_gradient gradient.pt --data dataset --model model ...
"""

import sys

import torch

from train.batch import Normalizer
from train.data import load_rows
from train.distributed import World
from train.engines.local import LocalEngine
from train.loading import load_policy
from train.loop import make_methods
from train.plan import Plan
from train.rewards import make_rewards
from train.sampling import Sampler
from train.settings import from_command_line
from train.step import step

settings = from_command_line(sys.argv[2:])
world, rewards = World.of(settings), make_rewards(settings)
policy, rows = load_policy(settings, world.device), load_rows(settings.data, settings.template)
plan = Plan(settings, rewards, make_methods(settings), world)
groups, _, _ = Sampler(policy, LocalEngine(policy), plan).draw_groups(rows, world, 0)
normalizer = Normalizer(world.total(sum(len(g.completions) for g in groups)), world.total(sum(g.tokens for g in groups)))
step(policy, groups, plan, normalizer)
world.add_gradients(policy.model.parameters())
if world.main:
    torch.save({name: p.grad for name, p in policy.model.named_parameters()}, sys.argv[1])
