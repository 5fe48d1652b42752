"""Does a dataset keep its promises? Checks every row and every file, and says which row breaks which promise.

    python -m pipelines.validate DIR

Prints a table, then one line of JSON. Exit status 1 if anything is wrong.
"""

from __future__ import annotations

import hashlib
import io
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image

from labeling import masks
from labeling.facts import DECIDERS, ROLES
from pipelines.dataset import store
from rewardlib.console import console, failing_clearly, say, table, tell
from rewardlib.program import program

Finding = tuple[str, str]  # (promise, what breaks it)

PROMISES = {
    "files": "every file is the one that the manifest names",
    "rows": "rows in = rows out + rejects, and no id twice",
    "rejects": "every reject has a stage and a reason",
    "text": "every column that a reader needs has a value",
    "image": "the image decodes to its recorded size and hash",
    "quotes": "every quote is what its trace says at [start, end)",
    "boxes": "every box is inside its image",
    "masks": "every mask has the image's size and overlaps its box",
    "references": "every id that is referred to exists",
    "pixels": "a counterfactual equals the original outside its mask, bit for bit",
    "control": "a control touches no evidence, and has its area",
    "roles": "every role is known and decided by somebody; what is erased as evidence or context has that role",
    "effects": "every effect lies in its interval",
}


def validate(out: Path) -> dict[str, Any]:
    """Check a dataset folder; the result counts rows, and findings by promise, and lists the first hundred findings."""
    manifest = store.read_manifest(out)
    findings: list[Finding] = list(_check_files(out, manifest))
    seen: Counter[str] = Counter()
    if not findings:
        findings += _check_rejects(out, manifest)
        kept = set(PROMISES) if manifest.get("schema_version", 1) >= 3 else set(PROMISES) - {"roles"}  # older ones erased what is mentioned
        for row in store.read_rows(out):
            seen[row["id"]] += 1
            findings += [(promise, f"row {row['id']}: {what}") for promise, what in check_row(row) if promise in kept]
        findings += [("rows", f"the id {key!r} occurs {n} times") for key, n in seen.items() if n > 1]
        if seen.total() != manifest["rows"]:
            findings.append(("rows", f"the manifest counts {manifest['rows']} rows, the shards hold {seen.total()}"))
    broken = Counter(promise for promise, _ in findings)
    return {"rows": seen.total(), "valid": not findings, "findings": dict(broken), "examples": [f"{p}: {w}" for p, w in findings[:100]]}


def _check_files(out: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    for shard in manifest["shards"]:
        path = out / shard["file"]
        if not path.exists():
            yield "files", f"{shard['file']} is missing; run the build again, finished shards are reused"
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                yield "files", f"{shard['file']} was changed after the build"
    named = {shard["file"] for shard in manifest["shards"]}
    for path in sorted((out / "data").glob("*")):
        if path.relative_to(out).as_posix() not in named:
            yield "files", f"data/{path.name} is not of this build, and loaders would read it"
    try:
        store.read_rejects(out)
    except Exception as error:  # polars has many error classes of its own
        yield "files", f"rejects.parquet cannot be read: {error}"


def _check_rejects(out: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    rejects = store.read_rejects(out)
    if manifest["counts"].get("rows_in", 0) != manifest["rows"] + len(rejects):
        yield "rows", f"{manifest['counts'].get('rows_in')} rows in, {manifest['rows']} out, {len(rejects)} rejected"
    for reject in rejects:
        if not (reject.stage and reject.reason and reject.detail):
            yield "rejects", f"row {reject.id} was rejected without a stage, reason or detail"


def check_row(row: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with one row, given as a plain dict with images as ``{"bytes", "path"}``."""
    for name in ("id", "source", "split", "license", "question", "answer", "image_sha256"):
        if not row[name]:
            yield "text", f"{name} is empty"
    yield from _check_traces(row)
    yield from _check_references(row)
    try:
        pixels = _decode(row["image"])
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        yield "image", f"the image does not decode: {error}"
        return
    if pixels.shape[:2] != (row["height"], row["width"]):
        yield "image", f"the image is {pixels.shape[1]}x{pixels.shape[0]}, the row says {row['width']}x{row['height']}"
        return
    if hashlib.sha256(row["image"]["bytes"]).hexdigest() != row["image_sha256"]:
        yield "image", "the image's bytes do not have the recorded hash"
    yield from _check_roles(row)
    for region in row["regions"]:
        yield from _check_region(region, row["width"], row["height"])
    yield from _check_counterfactuals(row, pixels)


def _decode(image: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))


def _check_traces(row: dict[str, Any]) -> Iterator[Finding]:
    texts = {t["trace_id"]: t["text"] for t in row["traces"]}
    for a in row["annotations"]:
        if not a["statement"] or not a["quote"]:
            yield "text", f"annotation {a['annotation_id']} has no statement or no quote"
        if a["trace_id"] not in texts:
            yield "references", f"annotation {a['annotation_id']} names the trace {a['trace_id']!r}, which is not there"
            continue
        for place in (a, *a["also"]):
            text = texts.get(place["trace_id"], "")
            if text[place["start"] : place["end"]] != place["quote"]:
                where = f"[{place['start']}, {place['end']}) of {place['trace_id']}"
                yield "quotes", f"annotation {a['annotation_id']}: {place['quote']!r} is not at {where}"


def _check_references(row: dict[str, Any]) -> Iterator[Finding]:
    annotations, regions = {a["annotation_id"] for a in row["annotations"]}, {r["region_id"] for r in row["regions"]}
    for kind, ids, column in (("annotation", annotations, row["annotations"]), ("region", regions, row["regions"])):
        if len(ids) != len(column):
            yield "references", f"two {kind}s have the same id"
    for r in row["regions"]:
        if unknown := set(r["annotation_ids"]) - annotations:
            yield "references", f"region {r['region_id']} names annotations that are not there: {sorted(unknown)}"
    for c in row["counterfactuals"]:
        if unknown := set(c["region_ids"]) - regions:
            yield "references", f"a counterfactual names regions that are not there: {sorted(unknown)}"


def _check_roles(row: dict[str, Any]) -> Iterator[Finding]:
    for kind, column in (("annotation", row["annotations"]), ("region", row["regions"])):
        for entry in column:
            name = f"{kind} {entry[f'{kind}_id']}"
            if entry["role"] not in ROLES or entry["role_by"] not in DECIDERS:
                yield "roles", f"{name} has the role {entry['role']!r}, decided by {entry['role_by']!r}"
            elif (entry["role"] == "unknown") != (entry["role_by"] == "nobody") and entry["role_by"] not in ("given", "person"):
                yield "roles", f"{name} has the role {entry['role']}, decided by {entry['role_by']}"
    roles = {region["region_id"]: region["role"] for region in row["regions"]}
    # A control names the evidence that it is a control of.
    erased = {("context" if c["role"] == "context" else "evidence", key) for c in row["counterfactuals"] for key in c["region_ids"]}
    for wanted, key in sorted(erased):
        if roles.get(key, wanted) != wanted:
            yield "roles", f"a counterfactual erases {wanted}, and region {key} is {roles[key]}"
    for region in row["regions"]:
        effect, low, high = (region[name] for name in ("effect", "effect_low", "effect_high"))
        if effect is not None and not (low is not None and high is not None and low <= effect <= high):
            yield "effects", f"region {region['region_id']} has the effect {effect}, which is not in [{low}, {high}]"


def _check_region(region: dict[str, Any], width: int, height: int) -> Iterator[Finding]:
    name, box = region["region_id"], region["bbox"]
    if len(box) != 4 or not all(math.isfinite(v) for v in box) or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        yield "boxes", f"region {name}: {box} is no box inside {width}x{height}"
        return
    try:
        mask = masks.decode(region["mask"])
    except ValueError as error:
        yield "masks", f"region {name}: {error}"
        return
    if mask.shape != (height, width):
        yield "masks", f"region {name}: the mask has the shape {mask.shape}, the image {(height, width)}"
    elif not (mask & masks.from_box(box, height, width)).any():
        yield "masks", f"region {name}: the mask does not overlap its box"


def _check_counterfactuals(row: dict[str, Any], pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Iterator[Finding]:
    evidence: masks.Mask | None = None  # of the pair that is being read: evidence first, then its control
    for n, c in enumerate(row["counterfactuals"]):
        mask = None
        try:
            mask, changed = masks.decode(c["mask"]), _decode(c["image"])
        except (OSError, ValueError, TypeError, SyntaxError) as error:
            yield "pixels", f"counterfactual {n} does not decode: {error}"
        else:
            if changed.shape != pixels.shape or mask.shape != pixels.shape[:2]:
                yield "pixels", f"counterfactual {n} has another size than the image"
                mask = None
            elif (changed != pixels)[~mask].any():
                yield "pixels", f"counterfactual {n} differs from the image outside its mask"
        if c["role"] == "evidence":
            evidence = mask
        elif c["role"] == "context":
            if mask is not None and evidence is not None and (mask & evidence).any():
                yield "control", f"counterfactual {n} erases context, and touches evidence"
        elif n == 0 or row["counterfactuals"][n - 1]["role"] != "evidence":
            yield "control", f"counterfactual {n} is a control without the evidence it belongs to"
        elif mask is not None and evidence is not None and (mask & evidence).any():
            yield "control", f"counterfactual {n} is a control that touches evidence"
        elif mask is not None and evidence is not None and mask.sum() != evidence.sum():
            yield "control", f"counterfactual {n} covers {mask.sum()} pixels, the evidence it is a control for {evidence.sum()}"


def main(dir: Annotated[Path, tyro.conf.Positional]) -> None:
    """Check every promise that a dataset folder makes.

    Args:
        dir: A folder written by flows.build_dataset.
    """
    with failing_clearly(store.StoreError):
        result = validate(dir)
    rows = [[promise, text, str(result["findings"].get(promise, 0) or "ok")] for promise, text in PROMISES.items()]
    console.print(table(f"{dir}: {result['rows']} rows", ["", "promise", "broken"], rows))
    for example in result["examples"][:20]:
        say(f"  {example}")
    tell(result, always=True)
    sys.exit(0 if result["valid"] else 1)


if __name__ == "__main__":
    tyro.cli(main, prog=program())
