"""What is installed: Python, and every extra by the distribution's own metadata.

No package is imported for it, and ``packaging`` is not there on a base installation: ranges are compared by their numbers here.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from typing import Any

from pipelines.doctor.check import Check

DISTRIBUTION = "sightline"


def python() -> Check:
    here, wanted = sys.version.split()[0], _wanted_python()
    if within(here, wanted):
        return Check("python", "ok", f"{here} at {sys.executable}")
    return Check("python", "failed", f"{here}, Sightline wants {wanted}", f"make an environment with a Python {wanted}")


def _wanted_python() -> str:
    try:
        return str(metadata.metadata(DISTRIBUTION).json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Requirement:
    """A line of the metadata such as ``fastapi<0.151,>=0.139; extra == "flows"``; ``extra`` is empty for the base."""

    name: str
    extras: tuple[str, ...]
    versions: str
    extra: str


_LINE = re.compile(r"([\w.-]+)\s*(?:\[([^\]]*)\])?\s*\(?([^;()]*)\)?\s*(?:;.*?\bextra\s*==\s*['\"]([\w-]+)['\"])?")
_RANGE = re.compile(r"(>=|<=|==|!=|>|<)\s*v?([\d.]+)(\.\*)?\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def parse_requirement(line: str) -> Requirement:
    """A requirement of wheel or egg metadata; other markers than the extra are not looked at."""
    found = _LINE.match(line)
    if found is None:
        raise ValueError(f"{line!r} is no requirement; install Sightline again, its metadata is damaged")
    name, extras, versions, extra = found.groups(default="")
    return Requirement(name.lower(), tuple(e.strip() for e in extras.split(",") if e.strip()), versions.strip(), extra)


def within(version: str, versions: str) -> bool:
    """Whether a version is in a range such as ``<0.151,>=0.139``, by its numbers alone: 2.11.0rc1+cu128 counts as 2.11.0."""
    for part in filter(None, (p.strip() for p in versions.split(","))):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"the version range {part!r} is not understood; expected one of {', '.join(_COMPARE)} and numbers")
        have, want = _release(version), _release(found[2])
        if found[3]:
            have, want = (have + [0] * len(want))[: len(want)], want
        pairs = list(zip_longest(have, want, fillvalue=0))
        if not _COMPARE[found[1]]([a for a, _ in pairs], [b for _, b in pairs]):
            return False
    return True


def _release(version: str) -> list[int]:
    found = re.match(r"(?:\d+!)?v?(\d+(?:\.\d+)*)", version)
    return [int(n) for n in found[1].split(".")] if found else [0]


def extras() -> list[Check]:
    """The base packages, then every extra that the distribution names."""
    try:
        about = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        found = "Sightline itself is not installed, so its extras are not known"
        return [Check("base", "missing", found, "pip install --editable '.[all]' in its folder")]
    requirements = [parse_requirement(line) for line in about.requires or []]
    return [extra_check(extra, requirements) for extra in ("", *(about.metadata.get_all("Provides-Extra") or []))]


def extra_check(extra: str, requirements: list[Requirement]) -> Check:
    """An extra is missing while one of its packages is; it has failed where all are there and one has a version that does not go."""
    own, parts = _contents(extra, requirements)
    inside = {part: _all_of(part, requirements) for part in parts}
    wanted = [*own, *(r for part in parts for r in inside[part])]
    versions = {r.name: installed(r.name) for r in wanted}
    name = f"extra {extra}" if extra else "base"
    absent = [r.name for r in own if versions[r.name] is None]
    absent += [f"{n} of {part}" for part in parts if (n := sum(versions[r.name] is None for r in inside[part]))]
    outside = dict.fromkeys(f"{r.name} {v}, not {r.versions}" for r in wanted if (v := versions[r.name]) and not within(v, r.versions))
    if not absent and not outside:
        return Check(name, "ok", ", ".join([*(f"{r.name} {versions[r.name]}" for r in own), *(f"all of {part}" for part in parts)]))
    told = [f"{label}: {', '.join(names)}" for label, names in (("not installed", absent), ("outside the range", outside)) if names]
    remedy = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"
    return Check(name, "missing" if absent and extra else "failed", "; ".join(told), remedy)


def _contents(extra: str, requirements: list[Requirement]) -> tuple[list[Requirement], list[str]]:
    """The packages that an extra names itself, and the extras of Sightline that it brings along."""
    named = [r for r in requirements if r.extra == extra]
    return [r for r in named if r.name != DISTRIBUTION], [e for r in named if r.name == DISTRIBUTION for e in r.extras]


def _all_of(extra: str, requirements: list[Requirement]) -> list[Requirement]:
    own, parts = _contents(extra, requirements)
    return own + [r for part in parts for r in _all_of(part, requirements)]


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
