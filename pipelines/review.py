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

from pathlib import Path
from typing import Annotated, Any

import tyro

from pipelines.reviewing.kinds import Only, Tool
from rewardlib.console import failing_clearly, say, tell
from rewardlib.program import program


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
    # What --help does without.
    from pipelines.dataset import store
    from pipelines.export import ExportError
    from pipelines.reviewing.correct import apply_file
    from pipelines.reviewing.corrections import CorrectionError
    from pipelines.reviewing.page import PAGE_ROWS, write_page
    from pipelines.reviewing.tools import corrections_from, write_for

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
            said = apply_file(dir, apply, out, segmenter)
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


if __name__ == "__main__":
    tyro.cli(main, prog=program())
