"""The labelling steps, one function each: items in, the surviving items out, everything else in the ledger.

    collect -> check -> annotate -> ground -> segment -> intervene

Each step fills its own columns of the row and leaves the others alone, so any of them can be called by itself on rows made elsewhere.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from labeling import masks
from labeling.annotate import HALF_CHARACTER, Annotated, Annotator
from labeling.boxes import Detection, Detector, iou_matrix
from labeling.collect import Question, Trace, TraceCollector
from labeling.counterfactual import Intervention, Removal, intervene, verify_removal
from labeling.prompts import normalize_phrase
from labeling.segment import Segment, Segmenter
from pipelines.config import CounterfactualConfig
from pipelines.schema import MAX_TRACE, Item, Ledger
from rewardlib.answers import check_answer, final_answer
from rewardlib.ink import is_encodable
from rewardlib.judge import JudgeError, Usage
from rewardlib.rows.images import png

SAME_OBJECT = 0.5  # IoU from which a finding confirms a given region
FAILURES = ("collector_failed: ", "judge_failed: ")  # counts of questions to an endpoint that had no usable reply, by reason
_TO_FIND = "lower --detector.threshold, or drop the row: an image that does not show it cannot be labelled"
WASTED = "_wasted"  # in the names of the counts of what such questions took; it is part of what all questions took
ENDPOINT_FAILED = ("no trace could be collected", "the judge failed")  # why a row is rejected that they left without


def collect(items: Sequence[Item], collector: TraceCollector | None, ledger: Ledger) -> list[Item]:
    """Ask for traces where a row has none."""
    bare = [item for item in items if collector is not None and not item.row["traces"]]
    if collector is None or not bare:
        return list(items)
    questions = [Question(item.row["question"], tuple(item.row["choices"]), item.row["image"]["bytes"]) for item in bare]
    failures: dict[str, JudgeError] = {}
    for item, replies in zip(bare, collector.collect(questions), strict=True):
        for reply in replies:
            if isinstance(reply, JudgeError):
                failures[item.row["id"]] = reply
                _fail("collector", reply, ledger)
            else:
                _add_trace(item, collector.name, reply, ledger)
    kept = []
    for item in items:
        if item.row["traces"] or item.row["regions"]:
            kept.append(item)
        else:
            ledger.reject(item.row, "collect", ENDPOINT_FAILED[0], str(failures.get(item.row["id"], "no trace was usable")))
    return kept


def _fail(stage: str, error: JudgeError, ledger: Ledger) -> None:
    """Count a question that had no usable reply, and what it took all the same."""
    ledger.counts[f"{stage}_failed: {error.reason}"] += 1
    if error.usage.requests:
        _pay(stage, error.usage, ledger)
        _pay(f"{stage}{WASTED}", error.usage, ledger)


def _pay(stage: str, taken: Usage | Trace | Annotated, ledger: Ledger) -> None:
    """Enter what an answer took into the account of ``pipelines.cost``."""
    ledger.counts[f"{stage}_requests"] += taken.requests
    ledger.counts[f"{stage}_prompt_tokens"] += taken.prompt_tokens
    ledger.counts[f"{stage}_completion_tokens"] += taken.completion_tokens


def carry_over(counts: Mapping[str, int], ledger: Ledger) -> None:
    """Enter what an earlier attempt at the same shard, with these counts, paid in vain into the account of this one."""
    for name, count in counts.items():
        if WASTED in name:
            ledger.counts[name] += count
            ledger.counts[name.replace(WASTED, "")] += count


def _add_trace(item: Item, model: str, reply: Trace, ledger: Ledger) -> None:
    _pay("collector", reply, ledger)
    if problem := _unusable(reply.text, item):
        ledger.counts[f"traces_dropped: {problem}"] += 1
        return
    ledger.counts["traces_collected"] += 1
    trace = {"trace_id": f"t{len(item.row['traces'])}", "model": model, "text": reply.text, "answer": None, "correct": None}
    item.row["traces"].append(trace)


def _unusable(text: str, item: Item) -> str | None:
    """Why a row cannot have this trace."""
    if not is_encodable(text):
        return HALF_CHARACTER
    if any(trace["text"] == text for trace in item.row["traces"]):
        return "repeated"  # a server that does not sample says the same each time
    return "too long" if len(text) > MAX_TRACE else None


def check(items: Sequence[Item], ledger: Ledger) -> list[Item]:
    """Judge every trace's final answer; a row whose traces are all wrong teaches nothing true about its image."""
    kept = []
    for item in items:
        row = item.row
        for trace in row["traces"]:
            trace["answer"] = final_answer(trace["text"])
            trace["correct"] = check_answer(trace["text"], [row["answer"], *row["alternatives"]], row["choices"])
        correct = sum(t["correct"] for t in row["traces"])
        ledger.counts["traces_correct"] += correct
        ledger.counts["traces_wrong"] += len(row["traces"]) - correct
        if row["traces"] and not correct and not row["regions"]:
            answers = ", ".join(repr(t["answer"]) for t in row["traces"])
            ledger.reject(row, "check", "no trace with the right answer", f"the answer is {row['answer']!r}, the traces say {answers}")
        else:
            kept.append(item)
    return kept


def annotate(items: Sequence[Item], annotator: Annotator, ledger: Ledger) -> list[Item]:
    """Read the visual facts out of every correct trace."""
    jobs = [(item, trace) for item in items for trace in item.row["traces"] if trace["correct"]]
    replies = annotator.annotate([(item.row["question"], trace["text"]) for item, trace in jobs]) if jobs else []
    failures: dict[str, list[str]] = {}
    dropped: dict[str, dict[str, None]] = {}  # the reasons by row, each once
    for (item, trace), reply in zip(jobs, replies, strict=True):
        if isinstance(reply, JudgeError):
            failures.setdefault(item.row["id"], []).append(f"{trace['trace_id']}: {reply}")
            _fail("judge", reply, ledger)
        else:
            _add_annotations(item, trace["trace_id"], reply, ledger)
            if reply.dropped_for:
                dropped.setdefault(item.row["id"], {}).update(dict.fromkeys(reply.dropped_for))
    kept = []
    for item in items:
        row = item.row
        if row["annotations"] or row["regions"]:
            kept.append(item)
        elif row["id"] in failures:
            ledger.reject(row, "annotate", ENDPOINT_FAILED[1], "; ".join(failures[row["id"]]))
        else:
            detail = "the annotator found nothing that the traces read off the image"
            if row["id"] in dropped:
                detail = f"none of the facts that the annotator named is usable: {', '.join(dropped[row['id']])}"
            ledger.reject(row, "annotate", "no visual fact in its traces", detail)
    return kept


def _add_annotations(item: Item, trace_id: str, reply: Annotated, ledger: Ledger) -> None:
    _pay("judge", reply, ledger)
    for reason in reply.dropped_for:
        ledger.counts[f"annotations_dropped: {reason}"] += 1
    for fact in reply.facts:
        item.row["annotations"].append(
            {
                "annotation_id": f"a{len(item.row['annotations'])}",
                "trace_id": trace_id,
                "kind": fact.kind,
                "statement": fact.statement,
                "phrase": fact.phrase,
                "quote": fact.quote,
                "start": fact.start,
                "end": fact.end,
            }
        )
        ledger.counts["annotations"] += 1


def ground(items: Sequence[Item], detector: Detector, ledger: Ledger, *, required: bool = True) -> list[Item]:
    """Find every annotation's phrase in the image. Given regions stay, and are all there is of their phrases: a finding at the same place
    confirms them with its score, any other is none."""
    phrases = [_phrases(item) for item in items]
    found = detector.detect([item.image for item in items], [list(p) for p in phrases])
    kept = []
    for item, wanted, detections in zip(items, phrases, found, strict=True):
        row = item.row
        given = {normalize_phrase(str(region["phrase"])) for region in row["regions"]}
        for detection in detections:
            if _confirm(row["regions"], detection):
                continue
            if detection.phrase in given:
                ledger.counts["findings_beside_given_regions"] += 1
            else:
                row["regions"].append(_region(len(row["regions"]), detection, wanted[detection.phrase]))
        missing = set(wanted) - {normalize_phrase(r["phrase"]) for r in row["regions"]}
        ledger.counts["phrases"] += len(wanted)
        ledger.counts["phrases_not_found"] += len(missing)
        if required and not row["regions"]:
            ledger.reject(row, "ground", "no phrase found in the image", f"looked for {', '.join(wanted) or 'nothing'}; {_TO_FIND}")
        else:
            kept.append(item)
            ledger.counts["regions"] += len(row["regions"])
    return kept


def _phrases(item: Item) -> dict[str, list[str]]:
    """The distinct phrases to look for, each with the ids of its annotations."""
    wanted: dict[str, list[str]] = {}
    for annotation in item.row["annotations"]:
        if phrase := normalize_phrase(annotation["phrase"]):
            wanted.setdefault(phrase, []).append(annotation["annotation_id"])
    for region in item.row["regions"]:
        if phrase := normalize_phrase(region["phrase"]):
            region["annotation_ids"] = wanted.setdefault(phrase, [])
    return wanted


def _confirm(regions: list[dict[str, Any]], detection: Detection) -> bool:
    """Whether a finding is a given region seen again; the best one lends it its score."""
    for region in regions:
        same_phrase = region["mask_source"] == "given" and normalize_phrase(str(region["phrase"])) == detection.phrase
        if same_phrase and iou_matrix([region["bbox"]], [detection.bbox])[0, 0] >= SAME_OBJECT:
            region["score"] = region["score"] or detection.score
            return True
    return False


def _region(n: int, detection: Detection, annotation_ids: list[str]) -> dict[str, Any]:
    return {
        "region_id": f"r{n}",
        "annotation_ids": annotation_ids,
        "phrase": detection.phrase,
        "bbox": list(detection.bbox),
        "score": detection.score,
        "mask": None,
        "mask_score": None,
        "mask_source": None,
        "flags": [],
    }


def segment(items: Sequence[Item], segmenter: Segmenter, ledger: Ledger) -> list[Item]:
    """Draw the mask of every region that has none."""
    for item in items:
        bare = [r for r in item.row["regions"] if r["mask"] is None]
        for region, piece in zip(bare, segmenter.segment(item.image, [r["bbox"] for r in bare]), strict=True):
            _set_mask(region, piece)
            ledger.counts["masks_from_box"] += piece.source == "box"
        ledger.counts["masks"] += len(bare)
    return list(items)


def _set_mask(region: dict[str, Any], piece: Segment) -> None:
    given = region["mask_source"] == "given"
    region["mask"] = masks.encode(piece.mask)
    region["mask_score"] = piece.score
    region["mask_source"] = "given" if given else piece.source
    region["flags"] = [*region["flags"], *piece.flags]


def make_counterfactuals(
    items: Sequence[Item], config: CounterfactualConfig, detector: Detector, ledger: Ledger, *, required: bool = False
) -> list[Item]:
    """Remove the evidence and, elsewhere, as much of something else; let the detector verify both."""
    made = [(item, pair) for item in items if item.row["regions"] for pair in _pairs(item, config)]
    verdicts = verify_removal(detector, [(pair, _findings(item)) for item, pair in made])
    for (item, pair), removals in zip(made, verdicts, strict=True):
        regions = [r["region_id"] for r in item.row["regions"]]
        for intervention, removal in zip(pair, removals, strict=True):
            item.row["counterfactuals"].append(_counterfactual(intervention, removal, regions))
            ledger.counts[f"{intervention.role}_images"] += 1
            ledger.counts[f"{intervention.role}_verified"] += removal.verified is True
        ledger.counts["controls_without_room"] += len(pair) == 1
    kept = []
    for item in items:
        if required and not item.row["counterfactuals"]:
            ledger.reject(item.row, "intervene", "no counterfactual", "the row has no region to remove")
        else:
            kept.append(item)
    return kept


def _pairs(item: Item, config: CounterfactualConfig) -> list[list[Intervention]]:
    regions = [(masks.decode(r["mask"]), r["bbox"]) for r in item.row["regions"]]
    pairs = []
    for n in range(config.pairs):
        seed = int.from_bytes(hashlib.sha256(f"{config.seed}/{item.row['id']}/{n}".encode()).digest()[:6], "big")
        rng = random.Random(seed)
        fill, shape = rng.choice(config.fills), rng.choice(config.shapes)
        pairs.append(intervene(item.image, regions, fill=fill, shape=shape, seed=seed))
    return pairs


def _findings(item: Item) -> list[Detection]:
    return [
        Detection(normalize_phrase(r["phrase"]), tuple(r["bbox"]), r["score"]) for r in item.row["regions"] if r["score"] and r["phrase"]
    ]


def _counterfactual(made: Intervention, removal: Removal, regions: list[str]) -> dict[str, Any]:
    return {
        "role": made.role,
        "fill": made.fill,
        "shape": made.shape,
        "region_ids": regions,
        "image": {"bytes": png(made.image), "path": None},
        "mask": masks.encode(made.mask),
        "area_fraction": float(made.mask.mean()),
        "seed": made.seed,
        "verified": removal.verified,
        "score_before": removal.score_before,
        "score_after": removal.score_after,
    }
