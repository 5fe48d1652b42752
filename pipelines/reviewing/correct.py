"""A dataset with a person's corrections put in: a dataset like any other, in a new folder.

What a person changed says so: ``role_by`` is "person", a region that was redrawn or added has the
locator "person". Counterfactual images that are no longer true are made anew. The same dataset
with the same corrections gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from labeling import masks
from labeling.counterfactual import UNSEEN
from labeling.facts import normalize_phrase
from labeling.segmenters import Segment, Segmenter
from pipelines.building.steps.ground import strongest
from pipelines.building.steps.intervene import Draw, draws_of, interventions, stored
from pipelines.config import CounterfactualConfig, SegmenterConfig
from pipelines.dataset import store
from pipelines.dataset.regions import new_region
from pipelines.dataset.schema import SCHEMA_VERSION, Ledger
from pipelines.export import appearing
from pipelines.reviewing.corrections import (
    Correction,
    CorrectionError,
    Corrections,
    check,
    entries_of,
    read,
)

Row = dict[str, Any]
PERSON = "person"
_OWN_ROLE = ("given", "effect", PERSON)  # who decides on a region and not on its facts
STAGE, REASON = "review", "rejected by a person"
_REMADE = ("rows", "rejected", "rejects", "counts", "shards")  # of a manifest, by store.finish


def apply_file(dataset: Path, path: Path, out: Path, segmenter: str | None) -> dict[str, Any]:
    """``apply`` of a file of corrections, with a segmenter by folder or Hub id; what was done."""
    found = read(path, dataset)
    manifest = apply(dataset, found, out, load_segmenter(segmenter) if segmenter else None)
    return {"rows": manifest["rows"], "rejected": manifest["rejected"], **found.counts()}


def load_segmenter(name: str) -> Segmenter:
    """A segmenter by folder or Hub id; torch is loaded for nobody else."""
    from pipelines.building.models import ModelError, load_segmenter_of

    try:
        return load_segmenter_of(SegmenterConfig(name=name), "cpu", "float32")
    except ModelError as error:
        remedy = "give a folder, or a Hub id within reach; without --segmenter a mask is the box"
        raise CorrectionError(str(error), remedy) from error


def apply(
    dataset: Path,
    corrections: Corrections,
    out: Path,
    segmenter: Segmenter | None = None,
) -> dict[str, Any]:
    """Write the corrected dataset, all of it or nothing, and return its manifest.

    ``CorrectionError`` for corrections that do not fit, ``ExportError`` for a folder that holds
    something, ``StoreError`` for a dataset that is not finished.
    """
    manifest = store.read_manifest(dataset)
    with store.at_rest(dataset), appearing(out.resolve()) as folder:
        check(corrections, dataset)
        about = {name: value for name, value in manifest.items() if name not in _REMADE}
        about["schema_version"] = SCHEMA_VERSION  # older rows are read as today's
        about["corrections"] = _account(corrections, segmenter, manifest)
        records = list(_shards(dataset, manifest, corrections, folder, segmenter))
        return store.finish(folder, records, about)


def _account(
    corrections: Corrections,
    segmenter: Segmenter | None,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """What the manifest says of the corrections; those of an earlier review are in ``before``."""
    account = {
        "sha256": corrections.sha256(),
        "dataset": corrections.dataset,
        "counts": corrections.counts(),
        "segmenter": None if segmenter is None else segmenter.info().name,
    }
    before = manifest.get("corrections")
    return account | ({"before": before} if before else {})


def _shards(
    dataset: Path,
    manifest: dict[str, Any],
    corrections: Corrections,
    folder: Path,
    segmenter: Segmenter | None,
) -> Iterator[store.ShardRecord]:
    """Shard by shard. The build's counts and rejects go with the first."""
    rows, wanted = store.read_rows(dataset), corrections.by_row()
    config = CounterfactualConfig(**manifest["config"].get("counterfactual", {}))
    ledger = Ledger()
    ledger.counts.update(manifest["counts"])
    ledger.rejects.extend(store.read_rejects(dataset))
    key = hashlib.sha256(f"{corrections.dataset}/{corrections.sha256()}".encode()).hexdigest()
    for shard in manifest["shards"]:
        kept = []
        for row in islice(rows, shard["rows"]):
            mine = wanted.get(row["id"], [])
            if any(c.target == "row" and c.action == "reject" for c in mine):
                said = f"in the corrections {corrections.sha256()[:16]}"
                detail = f"{said}; take the entry out to keep the row"
                ledger.reject(row, STAGE, REASON, detail)
            else:
                whole = corrected(row, mine, segmenter, config)
                kept.append(_true(whole))
                if left_out := len(whole["counterfactuals"]) - len(kept[-1]["counterfactuals"]):
                    ledger.counts["images_of_no_known_role"] += left_out
        yield store.write_shard(folder, Path(shard["file"]).stem, key, kept, ledger)
        ledger = Ledger()


# --------------------------------------------------------------------------------------- one row


def corrected(
    row: Row,
    mine: Sequence[Correction],
    segmenter: Segmenter | None = None,
    config: CounterfactualConfig = CounterfactualConfig(),
) -> Row:
    """A row with its corrections, none of which rejects it."""
    if not any(c.target != "row" or c.action == "add" for c in mine):
        return row
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    after = {**row, "annotations": list(_annotations(row, mine))}
    after["regions"] = _regions(after, mine, image, segmenter)
    after["counterfactuals"] = _counterfactuals(row, after, image, config)
    return after


def _annotations(row: Row, mine: Sequence[Correction]) -> Iterator[Row]:
    for annotation in row["annotations"]:
        said = {c.action: c for c in entries_of(mine, annotation=annotation["annotation_id"])}
        if "reject" in said:
            continue
        # The reason was of whoever decided before.
        decided = {"role_by": PERSON, "role_reason": None} if said else {}
        role = {"role": said["role"].role} if "role" in said else {}
        yield {**annotation, **decided, **role}


def _regions(
    row: Row,
    mine: Sequence[Correction],
    image: Image.Image,
    segmenter: Segmenter | None,
) -> list[Row]:
    """The row's regions, redrawn where a person drew, and those that a person added."""
    drawn = dict(_pieces(mine, image, segmenter))
    left = {a["annotation_id"]: a for a in row["annotations"]}
    regions = []
    for region in row["regions"]:
        said = {c.action: c for c in entries_of(mine, region=region["region_id"])}
        facts = [left[a] for a in region["annotation_ids"] if a in left]
        follows = not said and region["role_by"] not in _OWN_ROLE
        if "reject" in said or (follows and region["annotation_ids"] and not facts):
            continue
        region = {**region, "annotation_ids": [fact["annotation_id"] for fact in facts]}
        role = strongest([fact["role"] for fact in facts]) if facts else region["role"]
        if follows and role != region["role"] and any(fact["role_by"] == PERSON for fact in facts):
            region |= {"role": role, "role_by": PERSON}
        region |= {"role_by": PERSON} if said else {}
        region |= {"role": said["role"].role} if "role" in said else {}
        if "redraw" in said:
            region |= _drawn(said["redraw"], drawn[said["redraw"]], "redrawn")
        regions.append(region)
    taken = {region["region_id"] for region in row["regions"]}  # the rejected ones' too
    free = (f"r{n}" for n in range(2 * len(row["regions"]) + len(mine)) if f"r{n}" not in taken)
    added = [c for c in mine if c.action == "add"]
    return regions + [_added(next(free), c, row, drawn[c]) for c in added]


def _added(name: str, correction: Correction, row: Row, piece: Segment) -> Row:
    phrase = normalize_phrase(correction.phrase or "")
    same = [a for a in row["annotations"] if normalize_phrase(a["phrase"] or "") == phrase]
    return new_region(name, correction.phrase or "", correction.bbox or (), PERSON) | {
        "annotation_ids": [annotation["annotation_id"] for annotation in same],
        "role": correction.role,
        "role_by": PERSON,
        **_drawn(correction, piece, "added"),
    }


def _drawn(correction: Correction, piece: Segment, flag: str) -> Row:
    """What a drawing says anew; what models measured of the old one is no longer known."""
    scored = piece.source == "sam" and correction.mask is None
    return {
        "bbox": list(correction.bbox or ()),
        "locator": PERSON,
        **dict.fromkeys(("confirmed_by", "score", "text", "effect", "effect_low", "effect_high")),
        "mask": masks.encode(piece.mask),
        "mask_score": piece.score if scored else None,
        "mask_source": "given" if correction.mask is not None else piece.source,
        "flags": [*piece.flags, flag],
    }


def _pieces(
    mine: Sequence[Correction],
    image: Image.Image,
    segmenter: Segmenter | None,
) -> Iterator[tuple[Correction, Segment]]:
    """The mask of everything drawn: the person's own, the segmenter's, or the box."""
    boxes = [c for c in mine if c.bbox is not None and c.mask is None]
    for c in mine:
        if c.mask is not None:
            yield c, Segment(masks.decode(c.mask), 0.0, "box")
    if segmenter is not None and boxes:
        (segments,) = segmenter.segment([image], [[c.bbox or () for c in boxes]])
        yield from zip(boxes, segments, strict=True)
        return
    for c in boxes:
        yield c, Segment(masks.from_box(c.bbox or (), image.height, image.width), 0.0, "box")


# ------------------------------------------------------------------------- counterfactual images


def _counterfactuals(before: Row, after: Row, image: Image.Image, config: CounterfactualConfig) -> list[Row]:
    """Those of the row while they are true; else made anew by the same draws, and not verified. A row that had none, since nobody
    knew its evidence, gets those that a build would have made."""
    images = before["counterfactuals"]
    roles = {"evidence", *(c["role"] for c in images)}
    if _erased(before, roles) == _erased(after, roles):
        return list(images)
    draws = [Draw(c["fill"], c["shape"], c["seed"]) for c in images if c["role"] == "evidence"]
    made = interventions(after, image, draws or draws_of(after["id"], config))
    return [stored(after, changed, UNSEEN) for pair in made for changed in pair]


def _true(row: Row) -> Row:
    """A row without the images that do not erase what they say. Datasets of old versions erased all that was mentioned, and of that
    nobody knows the role."""
    roles = {region["region_id"]: region["role"] for region in row["regions"]}

    def holds(image: Row) -> bool:
        wanted = "context" if image["role"] == "context" else "evidence"
        return all(roles.get(key) == wanted for key in image["region_ids"])

    images = [image for image in row["counterfactuals"] if holds(image)]
    return row if len(images) == len(row["counterfactuals"]) else {**row, "counterfactuals": images}


def _erased(row: Row, roles: Collection[str]) -> list[tuple[Any, ...]]:
    """What counterfactual images depend on."""
    regions = [r for r in row["regions"] if r["role"] in roles]
    return [(r["region_id"], r["role"], tuple(r["bbox"]), r["mask"]["counts"]) for r in regions]
