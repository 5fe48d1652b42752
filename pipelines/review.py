"""A person goes through a dataset: looks at rows, corrects them, and has a corrected dataset.

    python -m pipelines.review DIR                                       # a page, DIR/review.html
    python -m pipelines.review DIR --apply corrections.json --out NEWDIR
    python -m pipelines.review DIR --to label-studio --out FOLDER        # or coco: CVAT, FiftyOne
    python -m pipelines.review DIR --from label-studio export.json --out corrections.json

The page is one HTML file that needs no server; it keeps what was done in the browser, and saves it
as a small JSON file. Nothing in it runs from a row's text. docs/review.md says how to go through a
dataset, and what the corrections look like.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from jinja2 import Environment, PackageLoader
from PIL import Image

from labeling import masks
from labeling.segmenters import Segmenter
from pipelines.config import SegmenterConfig
from pipelines.dataset import store
from pipelines.dataset.schema import COLUMNS
from pipelines.export import ExportError, appearing
from pipelines.gallery import outline_path
from pipelines.reviewing import corrections
from pipelines.reviewing.coco import read_coco, write_coco
from pipelines.reviewing.correct import apply as make_corrected
from pipelines.reviewing.corrections import CorrectionError, Corrections, dataset_hash
from pipelines.reviewing.label_studio import read_export, write_tasks
from rewardlib.console import failing_clearly, say, tell
from rewardlib.page import content_policy, inert

Row = dict[str, Any]
Tool = Literal["label-studio", "coco"]
Only = Literal["evidence", "context", "unknown", "unfound", "boxes", "unverified"]

PAGE_ROWS = 200
_DATA = "@rows@"  # in the page: where its rows go
MAX_BYTES, MAX_SIDE = 400_000, 1600  # of a picture that is embedded as it is stored
_TRACE = ("trace_id", "model", "text", "correct")
_KINDS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}


def _has_role(row: Row, role: str) -> bool:
    return role in {entry["role"] or "unknown" for entry in row["regions"] + row["annotations"]}


def _unfound(row: Row) -> bool:
    """Whether a fact names something that no region shows."""
    grounded = {name for region in row["regions"] for name in region["annotation_ids"]}
    return any(a["phrase"] and a["annotation_id"] not in grounded for a in row["annotations"])


_ONLY: dict[Only, Callable[[Row], bool]] = {
    "evidence": lambda row: _has_role(row, "evidence"),
    "context": lambda row: _has_role(row, "context"),
    "unknown": lambda row: _has_role(row, "unknown"),
    "unfound": _unfound,
    "boxes": lambda row: any(r["mask_source"] == "box" for r in row["regions"]),
    "unverified": lambda row: not all(c["verified"] for c in row["counterfactuals"]),
}


def chosen(dataset: Path, only: Only | None, offset: int, limit: int | None) -> Iterator[Row]:
    """The rows to look at: those that ``only`` names, from the ``offset``-th of them."""
    columns = [name for name in COLUMNS if name != "counterfactuals" or only == "unverified"]
    rows = store.read_rows(dataset, columns)
    fitting = (row for row in rows if only is None or _ONLY[only](row))
    return islice(fitting, offset, None if limit is None else offset + limit)


# -------------------------------------------------------------------------------------- the page


def write_page(
    dataset: Path,
    out: Path | None = None,
    *,
    limit: int = PAGE_ROWS,
    offset: int = 0,
    only: Only | None = None,
) -> tuple[Path, int]:
    """Write the page; where it lies, and how many rows it shows."""
    manifest = store.read_manifest(dataset)
    rows = chosen(dataset, only, offset, limit)
    first = next(rows, None)
    if first is None:
        asked = f"--offset {offset}" + ("" if only is None else f" and --only {only}")
        problem = f"no row of {dataset} ({manifest['rows']} rows) fits {asked}"
        raise CorrectionError(problem, "lower the offset, or choose others")
    about: Row = {"name": dataset.resolve().name, "dataset": dataset_hash(dataset)}
    about |= {"total": manifest["rows"], "offset": offset, "only": only}
    before, after = _shell().split(_DATA)
    path = out or dataset / "review.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    shown = 0
    with aside.open("w", encoding="utf-8") as file:  # row by row: pictures are large
        file.write(f'{before}{inert(about)[:-1]},"rows":[')
        for shown, row in enumerate(chain([first], rows), start=1):
            file.write("," * (shown > 1) + "\n" + inert(view(row)))
        file.write(f"\n]}}{after}")
    aside.replace(path)
    return path, shown


def _shell() -> str:
    """The page without its rows, in whose place is a mark."""
    environment = Environment(loader=PackageLoader("pipelines", "."), autoescape=True)
    template = environment.get_template("review.html")
    policy = content_policy(template.render()) + "; base-uri 'none'; form-action 'none'"
    return template.render(policy=policy, data=_DATA)


def view(row: Row) -> Row:
    """What the page knows of a row."""
    named = ("id", "question", "answer", "choices", "width", "height", "source", "split")
    facts = ("annotation_id", "trace_id", "kind", "statement", "phrase", "quote", "start", "end")
    return {
        **{name: row[name] for name in named},
        "image": picture(row["image"]["bytes"]),
        "traces": [{name: trace[name] for name in _TRACE} for trace in row["traces"]],
        "annotations": [_with_role(a, *facts, "role_reason") for a in row["annotations"]],
        "regions": [_view_region(r) for r in row["regions"]],
    }


def _view_region(region: Row) -> Row:
    names = ("region_id", "annotation_ids", "phrase", "bbox", "locator", "score", "text", "effect")
    shown = _with_role(region, *names, "effect_low", "effect_high", "mask_source", "flags")
    return {**shown, **_outline(masks.decode(region["mask"]))}


def _outline(mask: masks.Mask) -> Row:
    """A mask's outline, and where it is: only what is around it is looked at."""
    if not mask.any():
        return {"outline": "", "at": [0, 0]}
    x0, y0, x1, y1 = masks.bounding_box(mask)
    x0, y0 = max(0, x0 - 1), max(0, y0 - 1)
    return {"outline": outline_path(mask[y0 : y1 + 1, x0 : x1 + 1]), "at": [x0, y0]}


def _with_role(entry: Row, *names: str) -> Row:
    shown = {name: entry[name] for name in names}
    return {**shown, "role": entry["role"] or "unknown", "role_by": entry["role_by"]}


def picture(data: bytes) -> str:
    """A stored image as part of the page; a heavy one smaller, which the page shows as large."""
    kind = next((name for mark, name in _KINDS.items() if data.startswith(mark)), None)
    if kind is None or len(data) > MAX_BYTES:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# ---------------------------------------------------------------------------------- other tools


def write_for(
    tool: Tool,
    dataset: Path,
    out: Path,
    *,
    limit: int | None = None,
    offset: int = 0,
    only: Only | None = None,
    images_at: str | None = None,
) -> int:
    """Write rows into a new folder for another tool; how many there are."""
    known = dataset_hash(dataset)
    rows = chosen(dataset, only, offset, limit)
    with appearing(out.resolve()) as folder:
        if tool == "label-studio":
            return write_tasks(rows, known, folder, images_at)
        return write_coco(rows, known, folder)


def corrections_from(tool: Tool, export: Path, dataset: Path) -> Corrections:
    """What people did in another tool."""
    columns = ["id", "width", "height", "regions", "annotations"]
    rows = {row["id"]: row for row in store.read_rows(dataset, columns)}
    known = dataset_hash(dataset)
    read = read_export if tool == "label-studio" else read_coco
    found = corrections.ordered(read(export, rows, known), known, str(export))
    corrections.check(found, dataset)
    return found


# ---------------------------------------------------------------------------------- the command


def main(
    dir: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    limit: int | None = None,
    offset: int = 0,
    only: Only | None = None,
    apply: Path | None = None,
    segmenter: str | None = None,
    to: Tool | None = None,
    images_at: str | None = None,
    from_: Annotated[tuple[Tool, Path] | None, tyro.conf.arg(name="from")] = None,
) -> None:
    """Go through a dataset by hand.

    Without --apply, --to or --from it writes the page: open it, press ? for its keys, and save.

    Args:
        dir: A folder written by flows.build_dataset.
        out: Where to write: the page (DIR/review.html if not given), the corrected dataset, the
            folder for another tool, or the corrections.
        limit: How many rows at most; of a page 200, for another tool all, if not given.
        offset: How many rows to skip: the second page of 200 has --offset 200.
        only: Rows that have a region or fact of a role; or a fact that no region shows (unfound),
            a mask that is only its box (boxes), or a counterfactual that is not verified.
        apply: Corrections as the page saves them: write the corrected dataset to --out.
        segmenter: A SAM that draws the masks of redrawn boxes, by folder or Hub id; without one
            the mask is the box.
        to: Write the rows for another tool: label-studio, or coco for CVAT and FiftyOne.
        images_at: The address under which Label Studio finds the folder; without it the pictures
            are inside its tasks.
        from_: What another tool exported: write it as corrections to --out.
    """
    with failing_clearly(store.StoreError, CorrectionError, ExportError):
        if sum(mode is not None for mode in (apply, to, from_)) > 1:
            raise CorrectionError("--apply, --to and --from do different things", "give one")
        if apply is None and to is None and from_ is None:
            rows = PAGE_ROWS if limit is None else limit
            page, shown = write_page(dir, out, limit=rows, offset=offset, only=only)
            say(f"wrote {page} with {shown} rows; open it in a browser and press ? for the keys")
            return
        if out is None:
            raise CorrectionError("--apply, --to and --from need --out", "say where to write")
        if apply is not None:
            said = _apply(dir, apply, out, segmenter)
        elif to is not None:
            options: dict[str, Any] = {"limit": limit, "offset": offset, "only": only}
            said = {"rows": write_for(to, dir, out, **options, images_at=images_at)}
        else:
            assert from_ is not None
            found = corrections_from(*from_, dir)
            store.write_text(out, found.text())
            said = found.counts()
    say(f"wrote {out}")
    tell(said, always=True)


def _apply(dataset: Path, path: Path, out: Path, segmenter: str | None) -> dict[str, Any]:
    found = corrections.read(path, dataset)
    manifest = make_corrected(dataset, found, out, load_segmenter(segmenter) if segmenter else None)
    return {"rows": manifest["rows"], "rejected": manifest["rejected"], **found.counts()}


def load_segmenter(name: str) -> Segmenter:
    """A segmenter by folder or Hub id; torch is loaded for nobody else."""
    from pipelines.building.models import ModelError, load_segmenter_of

    try:
        return load_segmenter_of(SegmenterConfig(name=name), "cpu", "float32")
    except ModelError as error:
        remedy = "give a folder, or a Hub id within reach; without --segmenter a mask is the box"
        raise CorrectionError(str(error), remedy) from error


if __name__ == "__main__":
    tyro.cli(main)
