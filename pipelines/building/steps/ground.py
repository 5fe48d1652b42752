"""Where in the image the facts are: a region for every place that a locator finds.

Given regions stay, and are all there is of their phrases: a finding at the same place confirms them with its score, any other is none.

A right trace may say no more than "The answer is B". Where nothing is found of what the traces tell, what the question names is looked for:
a model that is asked about angle ABC should look there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from labeling import masks
from labeling.boxes import Detection, iou_matrix
from labeling.domain import Domain
from labeling.facts import ROLES, normalize_phrase
from labeling.locators.base import Sought
from labeling.locators.chain import Located, LocatorChain
from labeling.verify import Claim, Verifier
from pipelines.building.asked import named_in_question
from pipelines.building.steps.annotate import NO_FACT, TO_READ
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.payment import ENDPOINT_FAILED, fail, pay, settle
from pipelines.dataset.regions import new_region
from pipelines.dataset.schema import Item, Ledger
from rewardlib.judge import JudgeError

SAME_OBJECT = 0.5  # IoU from which a finding confirms a given region
COUNT_DIFFERS = "count_differs"  # flag of a fact that states another number than was found
_WRITING = ("text", "measure")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NOT_FOUND = "no phrase found in the image"
_OUT_OF_DOMAIN = "out of domain"


@dataclass(frozen=True)
class Ground(Step):
    """required: whether a row without a region goes no further. verifier: a second opinion on every finding."""

    locators: LocatorChain
    required: bool = True
    verifier: Verifier | None = None
    stage: ClassVar[str] = "ground"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        sought = [sought_in(item.row) for item in items]
        located = self.locators.locate([item.image for item in items], sought)
        self._ask_questions(items, sought, located)
        if self.verifier is not None:
            _second_opinion(self.verifier, [item.image for item in items], located, ledger)
        return [self._ground(item.row, wanted, found, ledger) for item, wanted, found in zip(items, sought, located, strict=True)]

    def _ask_questions(self, items: Sequence[Item], sought: list[list[Sought]], located: list[Located]) -> None:
        """Look for what the question names, where nothing else is found."""
        empty = [n for n, item in enumerate(items) if _is_empty(item.row, sought[n], located[n])]
        named = {n: _not_yet(named_in_question(items[n].row), sought[n]) for n in empty}
        silent = [n for n, phrases in named.items() if phrases]
        if not silent:
            return
        again = self.locators.locate([items[n].image for n in silent], [named[n] for n in silent])
        for n, found in zip(silent, again, strict=True):
            sought[n] += named[n]
            located[n].add(found)

    def _ground(self, row: dict[str, Any], sought: Sequence[Sought], located: Located, ledger: Ledger) -> Rejection | None:
        settle(located, ledger)
        ledger.counts["rows_out_of_domain"] += bool(located.out_of_domain)
        ledger.counts["phrases_out_of_domain"] += len(located.foreign)
        _add_regions(row, located, ledger)
        _set_roles(row)
        _flag_counts(row, ledger)
        found = {normalize_phrase(region["phrase"]) for region in row["regions"]}
        ledger.counts["phrases"] += len(sought)
        ledger.counts["phrases_not_found"] += sum(s.phrase not in found for s in sought)
        if self.required and not row["regions"]:
            rejection = _rejection(sought, located, next(iter(self.locators.domains.values()), None))
            return (
                rejection
                if row["annotations"]
                else replace(rejection, detail=f"{NO_FACT}, and of what its question names: {rejection.detail}; {TO_READ}")
            )
        ledger.counts["regions"] += len(row["regions"])
        ledger.counts["rows_by_question"] += any(
            region["role_by"] == "question" and not region["annotation_ids"] for region in row["regions"]
        )
        for region in row["regions"]:
            ledger.counts[f"regions_{region['role']}"] += 1
            ledger.counts[f"regions_by_{region['locator']}"] += 1
        return None


def sought_in(row: Mapping[str, Any]) -> list[Sought]:
    """The distinct phrases to look for, those of the facts before those of given regions."""
    sought: dict[str, Sought] = {}
    is_marked = any(region["locator"] == "given" for region in row["regions"])
    for a in row["annotations"]:
        if is_marked and a["kind"] in _WRITING:
            continue  # whoever gave boxes has marked the writing that matters
        if phrase := normalize_phrase(a["phrase"]):
            sought.setdefault(phrase, Sought(phrase, a["kind"], a["quote"]))
    asked = {s.phrase: s for s in named_in_question(row)} if any(region["role_by"] == "question" for region in row["regions"]) else {}
    for region in row["regions"]:
        if phrase := normalize_phrase(region["phrase"]):
            given = Sought(phrase, quote=region["phrase"])
            sought.setdefault(phrase, given if region["locator"] == "given" else asked.get(phrase, given))
    return list(sought.values())


def _is_empty(row: Mapping[str, Any], sought: Sequence[Sought], located: Located) -> bool:
    """Whether nothing is found of what the traces tell. Facts that name nothing to look for are a mistake of whoever read them."""
    mistaken = row["annotations"] and not sought
    return not (mistaken or row["regions"] or located.detections or located.failures)


def _not_yet(phrases: Sequence[Sought], sought: Sequence[Sought]) -> list[Sought]:
    known = {s.phrase for s in sought}
    return [s for s in phrases if s.phrase not in known]


def _add_regions(row: dict[str, Any], located: Located, ledger: Ledger) -> None:
    given = {normalize_phrase(region["phrase"]) for region in row["regions"]}
    for detection in located.detections:
        if _confirm(row["regions"], detection):
            continue
        if detection.phrase in given:
            ledger.counts["findings_beside_given_regions"] += 1
        else:
            row["regions"].append(_region(len(row["regions"]), detection))
    ids: dict[str, list[str]] = {}
    for a in row["annotations"]:
        ids.setdefault(normalize_phrase(a["phrase"]), []).append(a["annotation_id"])
    for region in row["regions"]:
        if phrase := normalize_phrase(region["phrase"]):
            region["annotation_ids"] = ids.get(phrase, [])


def _confirm(regions: list[dict[str, Any]], detection: Detection) -> bool:
    """Whether a finding is a given region seen again; the best one lends it its score."""
    for region in regions:
        same_phrase = region["locator"] == "given" and normalize_phrase(region["phrase"]) == detection.phrase
        if same_phrase and iou_matrix([region["bbox"]], [detection.bbox])[0, 0] >= SAME_OBJECT:
            if region["score"] is None:
                region |= {"score": detection.score, "confirmed_by": detection.locator}
            return True
    return False


def _region(n: int, detection: Detection) -> dict[str, Any]:
    mask = detection.mask if detection.mask is not None and np.any(detection.mask) else None
    return new_region(
        f"r{n}",
        detection.phrase,
        detection.bbox,
        detection.locator,
        score=detection.score,
        text=detection.text,
        mask=None if mask is None else masks.encode(mask),
        mask_source=None if mask is None else "locator",
        flags=list(detection.flags),
    )


def _set_roles(row: dict[str, Any]) -> None:
    """A region is to the answer what the facts that name it are: the strongest of their roles. What no fact names, the question does."""
    annotations = {a["annotation_id"]: a for a in row["annotations"]}
    for region in row["regions"]:
        naming = [annotations[key] for key in region["annotation_ids"]]
        if region["role"] == "unknown" and naming:
            role = strongest([annotation["role"] for annotation in naming])
            region |= {"role": role, "role_by": next(a["role_by"] for a in naming if a["role"] == role)}
        elif region["role"] == "unknown" and region["locator"] != "given":
            region |= {"role": "evidence", "role_by": "question"}


def strongest(roles: Sequence[str]) -> str:
    """What a region is, by the roles of its facts: one that needs it makes it evidence; it is context only if every fact is."""
    return min(roles, key=_STRENGTH.__getitem__)


_STRENGTH = {"evidence": 0, "unknown": 1, "context": 2}
assert set(_STRENGTH) == set(ROLES)


def _flag_counts(row: dict[str, Any], ledger: Ledger) -> None:
    """Note the facts that state another number of things than were found."""
    found: dict[str, int] = {}
    for region in row["regions"]:
        phrase = normalize_phrase(region["phrase"])
        found[phrase] = found.get(phrase, 0) + 1
    for a in row["annotations"]:
        number, phrase = stated_number(a["quote"]), normalize_phrase(a["phrase"])
        if a["kind"] == "count" and number is not None and phrase in found and found[phrase] != number:
            a["flags"].append(COUNT_DIFFERS)
            ledger.counts["counts_that_differ"] += 1


def stated_number(quote: str) -> int | None:
    """The number that a count begins with: "two red circles", "12 dots"."""
    word = re.match(r"\W*(\w+)", quote)
    if word is None:
        return None
    text = word[1].lower()
    if text in _NUMBERS:
        return _NUMBERS.index(text)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else None


def _rejection(sought: Sequence[Sought], located: Located, domain: Domain | None) -> Rejection:
    names = ", ".join(s.phrase for s in sought) or "nothing"
    if located.failures:
        return Rejection(ENDPOINT_FAILED[2], "; ".join(f"{name}: {error}" for name, error in located.failures.items()))
    if domain is not None and (located.out_of_domain or located.foreign):
        why = [f"the image is none of it ({told})" for told in located.out_of_domain.values()]
        what = ", ".join(why or [f"it was never taught: {', '.join(sorted(located.foreign))}"])
        cure = f"name a checkpoint that knows more, e.g. --detector.name {domain.cure}"
        return Rejection(_OUT_OF_DOMAIN, f"looked for {names}; the detector knows {domain.about} only, and {what}; {cure}")
    return Rejection(
        _NOT_FOUND,
        f"looked for {names}; lower --detector.threshold, name a larger --detector.name, or drop the row: an image that does not show it "
        "cannot be labelled",
    )


def _second_opinion(verifier: Verifier, images: Sequence[Image.Image], located: Sequence[Located], ledger: Ledger) -> None:
    """Drop the findings that do not show their phrase, says somebody who has seen them; where he fails, they stay, flagged."""
    claims = [Claim(image, d.bbox, d.phrase) for image, found in zip(images, located, strict=True) for d in found.detections]
    answers = iter(verifier.verify(claims))
    for found in located:
        kept = []
        for detection in found.detections:
            answer = next(answers)
            if isinstance(answer, JudgeError):
                fail("verifier", answer, ledger)
                kept.append(detection)
                continue
            pay("verifier", answer, ledger)
            ledger.counts["findings_refuted"] += not answer.shows
            if answer.shows:
                kept.append(detection)
        found.detections = kept
