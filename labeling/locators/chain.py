"""Several locators side by side: a fact goes to the first that serves its kind, and to the next
where that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from labeling.boxes import Detection
from labeling.domain import Domain
from labeling.info import ModelInfo
from labeling.locators.base import Answered, Locator, Sought
from labeling.merging import merge_boxes
from rewardlib.judge import JudgeError

DOUBT = 0.5  # of a locator's threshold: what is looked at where something is to be gone


@dataclass
class Located:
    """What was found in one image, by whomever.

    answers: of locators that ask somebody, by locator.
    failures: theirs, too; where there are any, what was not found may be there.
    out_of_domain: why a locator was not asked, since its checkpoint was taught other images, by
        locator.
    foreign: phrases that a locator was not asked for, since its checkpoint was never taught them.
    """

    detections: list[Detection] = field(default_factory=list)
    answers: dict[str, Answered] = field(default_factory=dict)
    failures: dict[str, JudgeError] = field(default_factory=dict)
    out_of_domain: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)

    def has(self, phrase: str) -> bool:
        return any(d.phrase == phrase for d in self.detections)

    def add(self, other: Located) -> None:
        """What was found when more was sought in the same image."""
        self.detections += other.detections
        for name, answer in other.answers.items():
            self.answers[name] = answer if name not in self.answers else self.answers[name] + answer
        self.failures |= other.failures
        self.out_of_domain |= other.out_of_domain
        self.foreign |= other.foreign


class LocatorChain:
    """``locators`` in the order in which they are asked; ``domains`` says, by a locator's name,
    what its checkpoint knows."""

    def __init__(
        self, locators: Sequence[Locator], domains: Mapping[str, Domain] | None = None
    ) -> None:
        self.locators = tuple(locators)
        self.domains = dict(domains or {})

    def infos(self) -> dict[str, ModelInfo]:
        return {locator.name: locator.info() for locator in self.locators}

    def threshold(self, name: str) -> float:
        return next(locator.threshold for locator in self.locators if locator.name == name)

    def locate(
        self, images: Sequence[Image.Image], sought: Sequence[Sequence[Sought]]
    ) -> list[Located]:
        """What each image shows of what is sought in it."""
        located = [Located() for _ in images]
        for locator in self.locators:
            wanted = [
                self._left_for(locator, *asked)
                for asked in zip(images, sought, located, strict=True)
            ]
            self._ask(locator, images, wanted, located)
        return located

    def _left_for(
        self, locator: Locator, image: Image.Image, sought: Sequence[Sought], located: Located
    ) -> list[Sought]:
        """What a locator is to look for: of its kinds, not found yet, and known to it."""
        domain = self.domains.get(locator.name)
        left = [s for s in sought if not located.has(s.phrase) and _serves(locator, domain, s)]
        if domain is None or not left:
            return left
        if why := domain.why(image):
            located.out_of_domain[locator.name] = why
            return []
        known = [s for s in left if domain.knows_phrase(s.phrase)]
        located.foreign |= {s.phrase for s in left} - {s.phrase for s in known}
        return known

    def look_again(
        self,
        images: Sequence[Image.Image],
        sought: Sequence[Sequence[Sought]],
        before: Sequence[Sequence[Detection]],
    ) -> list[Located]:
        """What each image still shows, even in doubt, of what was found ``before`` on another
        version of it: each locator is asked for the phrases that it found itself."""
        located = [Located() for _ in images]
        for locator in self.locators:
            wanted = [_found_by(locator.name, *known) for known in zip(sought, before, strict=True)]
            self._ask(locator, images, wanted, located, DOUBT * locator.threshold)
        return located

    def _ask(
        self,
        locator: Locator,
        images: Sequence[Image.Image],
        wanted: Sequence[Sequence[Sought]],
        located: Sequence[Located],
        threshold: float | None = None,
    ) -> None:
        rows = [i for i, phrases in enumerate(wanted) if phrases]
        if not rows:
            return
        replies = locator.locate([images[i] for i in rows], [wanted[i] for i in rows], threshold)
        for i, reply in zip(rows, replies, strict=True):
            if isinstance(reply, JudgeError):
                located[i].failures[locator.name] = reply
                continue
            if isinstance(reply, Answered):
                located[i].answers[locator.name] = reply
            detections = reply.detections if isinstance(reply, Answered) else reply
            own = [replace(d, locator=locator.name) for d in detections]
            located[i].detections += merge_boxes(own) if threshold is None else own


def _serves(locator: Locator, domain: Domain | None, sought: Sought) -> bool:
    """Whether a locator is for such facts. One that was taught a word that is written, such as
    "letter a", finds it as a thing."""
    if sought.kind in locator.kinds:
        return True
    return sought.kind == "text" and domain is not None and domain.knows_phrase(sought.phrase)


def _found_by(name: str, sought: Sequence[Sought], detections: Sequence[Detection]) -> list[Sought]:
    phrases = {d.phrase for d in detections if d.locator == name}
    return [s for s in sought if s.phrase in phrases]
