"""The page on which a person goes through rows."""

from __future__ import annotations

import base64
import io
from itertools import chain
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from labeling import masks
from pipelines.dataset import store
from pipelines.gallery import outline_path
from pipelines.reviewing.choosing import Row, chosen
from pipelines.reviewing.corrections import CorrectionError, dataset_hash
from pipelines.reviewing.kinds import Only
from rewardlib.page import content_policy, inert

PAGE_ROWS = 200
_DATA = "@rows@"  # in the page: where its rows go
MAX_BYTES, MAX_SIDE = 400_000, 1600  # of a picture that is embedded as it is stored
_TRACE = ("trace_id", "model", "text", "correct")
_KINDS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}


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
