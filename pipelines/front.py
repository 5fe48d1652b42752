"""One command for everything: ``sightline build``, ``sightline train``, ``sightline doctor`` and the others.

Each is a module that can be run by itself (``python -m flows.build_dataset``); here they have short names. It needs nothing but Python,
so that it can say what is missing.

    sightline                          # what there is
    sightline build --help             # what one takes
    sightline score ... --json         # nothing but the result, as a line of JSON
    sightline --completion bash        # for the shell; or zsh: source <(sightline --completion bash)
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Command:
    """A module under a short name, and the extra that it needs."""

    module: str
    about: str
    extra: str


COMMANDS = {
    "build": Command("flows.build_command", "label rows: image questions with traces in, a dataset with located evidence out", "flows"),
    "collect": Command("pipelines.collect", "ask a vision model for traces of rows that have none", "label"),
    "validate": Command("pipelines.validate", "does a dataset keep its promises?", "label"),
    "score": Command("pipelines.score", "precision, recall and mask IoU, where the truth is known", "label"),
    "gallery": Command("pipelines.gallery", "every row of a dataset as a page to look at", "label"),
    "review": Command("pipelines.review", "go through a dataset by hand, and make the corrected one", "label"),
    "agreement": Command("pipelines.agreement", "can the judge be trusted? kappa against other judges, seeds and people", "label"),
    "export": Command("pipelines.export", "a dataset in other tools' formats: EasyR1, verl, VLM-R1, ms-swift, COCO", "label"),
    "card": Command("pipelines.card", "write a dataset's card again", "label"),
    "publish": Command("flows.publish_command", "put a finished dataset on the Hub, checked before and after", "flows"),
    "train": Command("train.grpo", "reinforcement learning with rewards that see where the model looks", "train"),
    "anchor": Command("train.anchor", "Faithful-MR1's first stage: a <Focus> token drawn to the evidence", "train"),
    "evaluate": Command("train.evaluate", "accuracy, format, pointing and counterfactual drop of a model", "train"),
    "report": Command("train.report", "a run's page: curves, completions, and where they looked", "train"),
    "vllm": Command("train.serve", "start a vLLM server for training", "train"),
    "serve": Command("flows.serve", "a local Prefect server, the deployments and a worker", "flows"),
    "doctor": Command("pipelines.doctor", "what works here, and what to do about the rest", ""),
    "demo": Command("demo.run", "all of it on drawn scenes with tiny models, offline, on a CPU", "demo"),
    "demo-judge": Command("demo.judge", "a rule-based judge behind the protocol of an endpoint", "demo"),
}
OWN_OUTPUT = ("vllm", "serve", "doctor", "demo", "demo-judge")  # they end with no result, or have a --json of their own
ABOUT = "Labels where a multimodal model should look, and rewards it for looking there."
SHELLS = {
    "bash": "complete -W '{names}' -o default sightline",
    "zsh": "compctl -k '({names})' + -f sightline",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    if str(ROOT) not in sys.path:  # the demo is found in a checkout, and is not installed
        sys.path.append(str(ROOT))
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = given or ["--help"]
    try:
        if name in ("--help", "-h"):
            print(help_text())
        elif name == "--version":
            print(f"sightline {_version()}")
        elif name == "--completion" and rest and rest[0] in SHELLS:
            print(SHELLS[rest[0]].format(names=" ".join(COMMANDS)))
        elif name in COMMANDS:
            return _run(name, rest)
        else:
            print(_unknown(name), file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of `sightline | head`; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def help_text() -> str:
    """What there is in this installation."""
    lines = [f"  {name:<11} {command.about}" for name, command in COMMANDS.items() if _is_there(command)]
    parts = [ABOUT, "", "usage: sightline COMMAND [...]", "", *lines, "", "Each explains itself: sightline COMMAND --help"]
    return "\n".join([*parts, "Nothing but the result, as JSON: sightline COMMAND ... --json", "Others: --version, --completion bash|zsh"])


def _run(name: str, rest: Sequence[str]) -> int:
    """Run a module as if by itself, under its short name."""
    command = COMMANDS[name]
    if not _is_there(command):
        print(f"sightline {name} is not part of this installation: pip install 'sightline[{command.extra}]'", file=sys.stderr)
        return 1
    if "--json" in rest and name not in OWN_OUTPUT:
        from rewardlib.console import only_results

        only_results()
        rest = [flag for flag in rest if flag != "--json"]
    sys.argv = [f"sightline {name}", *rest]
    try:
        _run_as_main(command.module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("flows", "labeling", "pipelines", "rewardlib", "train", "demo"):
            raise
        print(f"sightline {name} needs {error.name}: pip install 'sightline[{command.extra}]'", file=sys.stderr)
        return 1
    return 0


def _run_as_main(name: str) -> None:
    """As ``python -m`` does, but for the first argument, which stays the short name."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:  # a package
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or not isinstance(spec.loader, InspectLoader):
        raise ModuleNotFoundError(f"no module named {name}", name=name)
    module = ModuleType("__main__")
    vars(module).update(__spec__=spec, __file__=spec.origin, __package__=spec.parent, __loader__=spec.loader)
    sys.modules["__main__"] = module  # where types are looked up that a module names as text
    code = spec.loader.get_code(spec.name)
    assert code is not None
    exec(code, vars(module))


def _is_there(command: Command) -> bool:
    return importlib.util.find_spec(command.module.split(".")[0]) is not None


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"sightline has no command {name!r}{hint} There are: {', '.join(COMMANDS)}"


def _version() -> str:
    try:
        return version("sightline")
    except PackageNotFoundError:  # a checkout that is not installed
        return "of this checkout"
