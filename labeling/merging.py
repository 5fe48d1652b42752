"""One thing, said or found several times, is one thing: facts of several traces, and boxes of one
phrase."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labeling.boxes import Detection, iou_matrix, overlap_share
from labeling.facts import Fact, normalize_phrase
from labeling.readers.phrases import contradict

# Words that tell one object from another of the same name: two facts that name different ones are
# two.
_PLACES = re.compile(
    r"\b(?:left|right|middle|cent(?:er|re)|top|bottom|upper|lower|first|second|third|fourth|last|inner|outer)\b",
    re.I,
)
SAME = 0.5  # IoU: from here on two boxes are of the same thing
INSIDE = 0.85  # of the smaller box: from here on two boxes of one phrase are of the same thing
MOST = 25  # boxes of one phrase; more are a pattern, not things to look at

Stated = tuple[str, Fact]  # a trace's id and what it says


def same_facts(stated: Sequence[tuple[str, Sequence[Fact]]]) -> list[list[Stated]]:
    """The facts of several traces, (trace id, its facts) each, as groups that say the same, in the
    order of their first statement.

    Within one trace every fact is one of its own: who writes "a red square and a red square" sees
    two. Across traces a fact joins the first group that says the same and has no fact of its trace
    yet.
    """
    groups: list[list[Stated]] = []
    for trace_id, facts in stated:
        open_groups = list(groups)
        for fact in facts:
            group = _first_alike(fact, open_groups)
            if group is None:
                groups.append([(trace_id, fact)])
            else:
                group.append((trace_id, fact))
                open_groups = [other for other in open_groups if other is not group]
    return groups


def _first_alike(fact: Fact, groups: Sequence[list[Stated]]) -> list[Stated] | None:
    alike = [group for group in groups if _alike(fact, group[0][1])]
    exact = [
        group
        for group in alike
        if normalize_phrase(group[0][1].statement) == normalize_phrase(fact.statement)
    ]
    return next(iter(exact or alike), None)


def _alike(a: Fact, b: Fact) -> bool:
    if a.kind != b.kind:
        return False
    if normalize_phrase(a.statement) == normalize_phrase(b.statement):
        return True
    if a.kind in ("attribute", "relation"):
        return False  # two facts about one thing
    if a.kind in ("count", "absence"):
        return normalize_phrase(a.quote) == normalize_phrase(b.quote) and _no_conflict(a, b)
    return normalize_phrase(a.phrase) == normalize_phrase(b.phrase) != "" and _no_conflict(a, b)


def _no_conflict(a: Fact, b: Fact) -> bool:
    """Whether two statements may be of the same place."""
    one, other = ({word.lower() for word in _PLACES.findall(fact.statement)} for fact in (a, b))
    return not one or not other or one == other


def merge_boxes(detections: Sequence[Detection]) -> list[Detection]:
    """Detections, best first, without those whose place a better one has taken: of the same phrase,
    or of one that no thing can be called as well ("yellow circle", "yellow diamond"). Of a phrase
    no more than ``MOST``."""
    kept: list[Detection] = []
    for candidate in sorted(detections, key=lambda d: (-d.score, d.phrase, d.bbox)):
        is_one_of_many = sum(d.phrase == candidate.phrase for d in kept) >= MOST
        if not is_one_of_many and not any(_has_taken(better, candidate) for better in kept):
            kept.append(candidate)
    return kept


def _has_taken(better: Detection, candidate: Detection) -> bool:
    overlap = float(iou_matrix([better.bbox], [candidate.bbox])[0, 0])
    if better.phrase == candidate.phrase:
        return overlap >= SAME or overlap_share(better.bbox, candidate.bbox) >= INSIDE
    return overlap >= SAME and contradict(better.phrase, candidate.phrase)
