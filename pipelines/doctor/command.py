"""What works on this machine: one line a check, and what to do about each that does not.

    sightline doctor                                          # or: python -m pipelines.doctor
    sightline doctor --judge-url http://localhost:8000/v1     # ask this judge which models it serves
    sightline doctor --json                                   # for scripts; exit status 1 if anything has failed

It needs nothing but Python, so that it can say what is missing.
"""

from __future__ import annotations

import argparse
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
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser("sightline doctor", description=__doc__, formatter_class=raw)
    made.add_argument("--judge-url", metavar="URL", help="the judge's OpenAI-compatible endpoint; by default OPENAI_BASE_URL, if set")
    made.add_argument("--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable that holds its key (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="print the checks as JSON: name, state (ok, missing, failed), found, remedy")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    given = parser().parse_args(arguments)
    try:
        return doctor(given.judge_url, given.api_key_env, given.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of `sightline doctor | head`; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
