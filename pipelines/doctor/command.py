"""What works on this machine: one line a check, and what to do about each that does not.

    sightline doctor                                          # or: python -m pipelines.doctor
    sightline doctor --judge-url http://localhost:8000/v1     # ask this judge which models it serves
    sightline doctor --json                                   # for scripts; exit status 1 if anything has failed

It needs nothing but Python, so that it can say what is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

from pipelines.doctor import endpoints, machine, packages
from pipelines.doctor.check import Check
from rewardlib.redact import redact

COMMANDS = {
    "flows.build_dataset": "label rows: image questions with traces in, a dataset with located evidence out",
    "flows.publish_dataset": "put a finished dataset on the Hub, checked before and after",
    "flows.serve": "a local Prefect server, the deployments and a worker",
    "pipelines.validate": "does a dataset keep its promises?",
    "pipelines.score": "precision, recall and mask IoU, where the truth is known",
    "pipelines.gallery": "every row of a dataset as a page to look at",
    "pipelines.review": "go through a dataset by hand: accept, reject, re-role, redraw; and make the corrected one",
    "pipelines.agreement": "can the judge be trusted? kappa against other judges, seeds and people",
    "pipelines.export": "a dataset in other tools' formats: EasyR1, verl, VLM-R1, ms-swift, Visual-CoT, COCO",
    "pipelines.card": "write a dataset's card again",
    "train.anchor": "Faithful-MR1's first stage: a <Focus> token drawn to the evidence",
    "train.grpo": "reinforcement learning with rewards that see where the model looks",
    "train.evaluate": "accuracy, format, pointing and counterfactual drop of a model",
    "train.report": "a run's page: curves, completions, and where they looked",
    "demo.run": "all of it on drawn scenes with tiny models, offline, on a CPU",
    "demo.judge": "a rule-based judge behind the protocol of an endpoint",
}
_MARKS = {"ok": "ok  ", "missing": "--  ", "failed": "FAIL"}
_LONGEST = 400  # characters of what was found; endpoints can be talkative


def checks(judge_url: str | None, key_env: str) -> Iterator[Check]:
    """Every check in turn. One that breaks is itself a failure, never the end of the others."""
    planned: dict[str, Callable[[], Check | list[Check]]] = {
        "python": packages.python,
        "extras": packages.extras,
        "torch": machine.torch_pair,
        "gpu": machine.gpu,
        "checkpoints": machine.checkpoints,
        "machine": machine.headroom,
        "judge": partial(endpoints.judge, judge_url, key_env),
        "hub": endpoints.hub,
        "prefect": endpoints.prefect,
    }
    for name, check in planned.items():
        try:
            found = check()
        except Exception as error:
            found = Check(name, "failed", f"the check broke: {type(error).__name__}: {error}", "report it as a bug, with this line")
        yield from found if isinstance(found, list) else [found]


def presentable(check: Check, secrets: Sequence[str]) -> Check:
    """A check without secrets and without anything that a terminal would obey."""

    def cleaned(text: str) -> str:
        plain = "".join(c if c.isprintable() else " " for c in redact(text, *secrets))
        return plain if len(plain) <= _LONGEST else plain[:_LONGEST] + " ..."

    return replace(check, found=cleaned(check.found), remedy=cleaned(check.remedy))


def doctor(judge_url: str | None, key_env: str, as_json: bool) -> int:
    """Print the report; returns the exit status."""
    # Only the environment is searched by name: a key may be in a variable of any other, the Hub's in a file.
    secrets = [secret for secret in (os.environ.get(key_env), _stored_token()) if secret]
    done = []
    for check in checks(judge_url, key_env):
        done.append(presentable(check, secrets))
        if not as_json:
            print(_lines(done[-1]), flush=True)
    failed = sum(check.state == "failed" for check in done)
    if as_json:
        print(json.dumps({"failed": failed, "checks": [asdict(check) for check in done]}, indent=1))
    else:
        print(f"\n{failed} of {len(done)} checks failed" if failed else "\nnothing has failed")
    return 1 if failed else 0


def _stored_token() -> str | None:
    try:
        return endpoints.hub_token()
    except Exception:
        return None  # the Hub's own check asks again, and says what is wrong


def _lines(check: Check) -> str:
    line = f"{_MARKS[check.state]}  {check.name:<13} {check.found}"
    return f"{line}\n{' ' * 20}> {check.remedy}" if check.remedy else line


def parser() -> argparse.ArgumentParser:
    there = {module: what for module, what in COMMANDS.items() if importlib.util.find_spec(module)}  # of this installation
    epilog = "\n".join(
        [
            "everything else is run as a module; each explains itself with --help:",
            *(f"  python -m {module:<23} {what}" for module, what in there.items()),
        ]
    )
    raw = argparse.RawDescriptionHelpFormatter
    about = "Labels where a multimodal model should look, and rewards it for looking there."
    whole = argparse.ArgumentParser("sightline", description=about, epilog=epilog, formatter_class=raw)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    one = commands.add_parser("doctor", help="what works here, and what to do about the rest", description=__doc__, formatter_class=raw)
    one.add_argument("--judge-url", metavar="URL", help="the judge's OpenAI-compatible endpoint; by default OPENAI_BASE_URL, if set")
    one.add_argument("--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable that holds its key (default: %(default)s)")
    one.add_argument("--json", action="store_true", help="print the checks as JSON: name, state (ok, missing, failed), found, remedy")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    whole = parser()
    given = whole.parse_args(arguments)
    if given.command is None:
        whole.print_help()
        return 0
    try:
        return doctor(given.judge_url, given.api_key_env, given.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of `sightline doctor | head`; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
