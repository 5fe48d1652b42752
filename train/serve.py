"""Start vLLM as a server that ``train.grpo --engine vllm --engine-url …`` samples on.

    python -m train.serve --model Qwen/Qwen2.5-VL-3B-Instruct --port 8000
    python -m train.serve --model … --say      # only say the command, to run it elsewhere

    python -m train.serve --model … --weights broadcast    # for --engine-weights broadcast

Everything behind ``--`` goes to ``vllm serve`` as it is, such as ``-- --tensor-parallel-size 2``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from rewardlib.program import program
from train.folders import find_model

ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}  # lets the trainer replace weights and reset caches
FLAGS = ("--enable-scale-out", "--logprobs-mode", "processed_logprobs")
# The receiver is ``train.weight_receiver``: this package has to be installed beside vLLM.
BROADCAST = ("--weight-transfer-config", '{"backend": "sightline"}')


def command_of(model: str, port: int, more: Sequence[str] = ()) -> list[str]:
    """The command, without its environment."""
    return ["vllm", "serve", model, "--port", str(port), *FLAGS, *more]


def main() -> None:
    parser = argparse.ArgumentParser(
        program(), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="the Hub id or folder that is trained")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--say", action="store_true", help="say the command instead of running it")
    parser.add_argument(
        "--weights",
        choices=["folder", "broadcast"],
        default="folder",
        help="how the trainer sends them; for broadcast this package has to be installed with vLLM",
    )
    parser.add_argument("more", nargs="*", help="further flags of vllm serve, behind --")
    a = parser.parse_args()
    receiver = BROADCAST if a.weights == "broadcast" else ()
    command = command_of(find_model(a.model), a.port, [*receiver, *a.more])
    if a.say:
        print(*(f"{name}={value}" for name, value in ENVIRONMENT.items()), shlex.join(command))
        return
    try:
        os.execvpe(command[0], command, os.environ | ENVIRONMENT)
    except FileNotFoundError:
        sys.exit("vllm is not on the path: install it (pip install vllm), or --say the command")


if __name__ == "__main__":
    main()
