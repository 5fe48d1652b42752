"""Train a multimodal LLM with GRPO that sees where the model looks.

    python -m train.grpo --data dataset --recipe sayo --model Qwen/Qwen2.5-VL-3B-Instruct
    torchrun --nproc-per-node 8 -m train.grpo --data dataset --recipe sayo

One step (``train.loop``): take prompts, sample a group of completions for each, reward them, turn
rewards into advantages, and step the optimizer on the sum of the groups' gradients. The image and
prompt of a group are encoded once for all its completions. Recipes say which rewards count and how,
and which methods (``train.methods``) change the maths. A killed run goes on where it was when the
same command is given again. The folder given by --out has report.html, to look at.
"""

from __future__ import annotations

from train.settings import from_command_line


def main() -> None:
    settings = from_command_line()
    from train.loop import command  # loads torch, which --help does without

    command(settings)


if __name__ == "__main__":
    main()
