"""Where rows are stored, for builds and trainers alike: files, folders of them, and the Hub.

    rows.jsonl  rows.json  rows.csv  rows.tsv  rows.parquet       also .gz, .zst, .bz2 of the texts
    instances.json                                                COCO, whose images carry questions
    shards/part-*.jsonl                                           a pattern
    dataset/  dataset/data/                                       a folder of shards, a build's or anybody's
    pictures/                                                     an image folder with metadata.jsonl or metadata.csv
    saved/                                                        what `datasets` saved
    hiyouga/geometry3k                                            a dataset on the Hub

A source gives random access to rows without holding them: lines by byte offsets, tables memory-mapped. A row that cannot be
read is a ``RowError`` in its place, never a crash and never a shift of the rows after it. What a row means is the subject of
``rewardlib.rows``.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.rows.base import Source, SourceError
from pipelines.rows.parts import InFolder, Joined
from pipelines.rows.splits import is_of, split_in
from pipelines.rows.texts import PACKED, TEXTS, CocoSource, kind_of, open_text
from rewardlib.rows.images import Folders

ACCEPTED = (
    "expected JSON Lines, a JSON array, CSV, Parquet or COCO (texts also as .gz or .zst), a folder or a pattern of such files, an "
    "image folder with metadata.jsonl, a folder saved by `datasets`, a folder made by `python -m flows.build_dataset`, or a Hub id"
)
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SAVED = ("state.json", "dataset_dict.json")
_SAYS_NOTHING = ("rows", "data", "train", "metadata", "dataset")  # names of files that are no names of datasets
_NO_ROWS = ("rejects.parquet", "manifest.json", "dataset_infos.json", "dataset_info.json")


def open_source(data: str, split: str | None = "train", *, asks: bool = True) -> Source:
    """What ``data`` names: a file, a folder, a pattern or a Hub id; of several splits the named one.

    Without a name it is the only one that there is, or train. ``SourceError`` with the remedy where there is none, or it has no rows, or
    is a COCO file without questions though its rows are to ask something.
    """
    path = Path(os.path.abspath(data))  # links stay: the Hub's cache is made of them, and images lie beside the link
    try:
        source = _open(data, path, split)
    except SourceError as error:
        raise SourceError(f"cannot read {data}: {error}; {ACCEPTED}") from error
    except (OSError, ValueError, IndexError, pa.ArrowException, csv.Error) as error:
        raise SourceError(f"cannot read {data}: {error}; {ACCEPTED}") from error
    if not len(source):
        raise SourceError(f"{data} has no rows")
    if asks and isinstance(source, CocoSource) and "question" not in source.columns():
        raise SourceError(
            f"{source.name} is COCO without questions: give the entries of its images a question and an answer, which COCO allows, or "
            "write JSONL rows whose regions are its boxes (as x0, y0, x1, y1)"
        )
    return source


def folders_of(data: str, image_root: Path | None = None, *, is_closed: bool = False) -> Folders:
    """Where the images are that the rows of ``data`` name: below ``image_root``, else beside the rows or in images/ there.

    Shards often lie in data/, with the images beside that folder. Who only looks may find them above any folder.
    """
    if image_root is not None:
        return Folders((Path(os.path.abspath(image_root)),), is_closed)
    path = Path(os.path.abspath(data))
    base = path if path.is_dir() else path.parent
    if not base.is_dir() or (not path.exists() and not _is_pattern(data) and not path.suffix):
        return Folders((), is_closed)  # a Hub id
    places: tuple[Path, ...] = (base, base / "images")
    if not is_closed or base.name in ("data", "annotations"):
        places += (base.parent, base.parent / "images")
    return Folders(places, is_closed)


def _open(data: str, path: Path, split: str | None) -> Source:
    if path.is_dir():
        return _open_folder(path, split)
    if path.is_file():
        return _open_files([path], _name(path))
    if _is_pattern(data):
        files = [Path(os.path.abspath(file)) for file in sorted(glob.glob(data, recursive=True)) if Path(file).is_file()]
        if not files:
            raise SourceError("no file is called like that")
        return _open_files(files, files[0].parent.name)
    if kind_of(path) is not None or path.suffix or Path(data).is_absolute() or data.startswith("."):
        raise SourceError("there is no such file or folder")
    from pipelines.rows.tables import open_hub  # takes long to load

    return open_hub(data, split or "train")


def _open_folder(folder: Path, split: str | None) -> Source:
    if any((folder / name).exists() for name in _SAVED) or any(folder.glob("*.arrow")):
        from pipelines.rows.tables import open_saved  # as above

        return open_saved(folder, split)
    for place in (folder, folder / (split or "train")):
        if metadata := [place / name for name in _METADATA if (place / name).exists()]:
            return InFolder(_open_files(metadata[:1], folder.name), place.relative_to(folder))
    # A build keeps its rows in data/, other tables beside it.
    others: set[str] = set()
    for place in (folder / "data", folder):
        files = [file for file in sorted(place.glob("*")) if file.is_file() and kind_of(file) and not file.name.startswith(".")]
        files = [file for file in files if file.name not in _NO_ROWS]
        told = {name for file in files if (name := split_in(file.name)) is not None}
        wanted = split or (min(told) if len(told) == 1 else "train")
        chosen = [file for file in files if is_of(file.name, wanted)] or [file for file in files if split_in(file.name) is None]
        for kind in (".parquet", *TEXTS):
            if of_kind := [file for file in chosen if kind_of(file) == kind]:
                return _open_files(of_kind, folder.name)
        others |= told
    if others:
        raise SourceError(f"it has no files of the split {split}, only of {', '.join(sorted(others))}; name the files: {folder.name}/...")
    raise SourceError("there is no file of rows in it")


def _open_files(files: Sequence[Path], name: str) -> Source:
    """Files of one kind as one source."""
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1 or None in kinds:
        wrong = next(file for file in files if len(kinds) > 1 or kind_of(file) is None)
        raise SourceError(f"{wrong.name} is no file of rows, or of another kind than those beside it")
    if kinds == {".parquet"}:
        from pipelines.rows.tables import open_parquet  # as above

        return open_parquet(files, name)
    parts = [open_text(file, name if len(files) == 1 else file.name) for file in files]
    return parts[0] if len(parts) == 1 else Joined(parts, name)


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _name(path: Path) -> str:
    """A file's name without its endings, or its folder's where the file's says nothing."""
    stem = path.name
    while Path(stem).suffix.lower() in (*TEXTS, *PACKED, ".parquet"):
        stem = Path(stem).stem
    return path.parent.name if stem in _SAYS_NOTHING else stem
