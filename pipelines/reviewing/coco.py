"""Regions as COCO, for a person to correct in CVAT or FiftyOne; and what comes back as corrections.

    FOLDER/instances.json    COCO; each annotation with ``attributes``: role, region_id and so on
    FOLDER/images/           a file a row, whose name finds the row again where fields get lost
    FOLDER/labels.json       the labels with their attributes, as CVAT's raw constructor takes them

Neither tool says which rows a person has looked at, so what was not changed gives no entry.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from labeling.facts import ROLES
from pipelines.dataset import formats
from pipelines.reviewing.corrections import Correction, CorrectionError, read_json
from pipelines.reviewing.drawings import Drawing, clipped, differences, label
from pipelines.rows.coco import mask_of
from rewardlib import rle

Row = dict[str, Any]

_SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"RIFF": "webp"}
_KEPT = ("role", "score", "locator", "region_id")


def write_coco(rows: Iterable[Row], dataset: str, out: Path) -> int:
    """Write the folder; the number of rows."""
    categories: dict[str, int] = {}
    licenses: dict[str, int] = {}
    images: list[Row] = []
    annotations: list[Row] = []
    (out / "images").mkdir()
    for number, row in enumerate(rows):
        data = row["image"]["bytes"]
        suffix = next(suffix for mark, suffix in _SUFFIXES.items() if data.startswith(mark))
        name = f"{file_stem(row['id'])}.{suffix}"
        (out / "images" / name).write_bytes(data)
        image = formats.coco_image(row, number, name)
        images.append({**image, "license": licenses.setdefault(row["license"], len(licenses) + 1)})
        found = zip(formats.coco_annotations(row, image["id"], row["regions"]), row["regions"], strict=True)
        for annotation, region in found:
            phrase = label(annotation.pop("category"))
            category = categories.setdefault(phrase, len(categories) + 1)
            head = {"id": len(annotations) + 1, "category_id": category}
            annotations.append({**head, **annotation, "attributes": _attributes(region, row)})
    content = {
        "info": {"description": "Sightline regions to review", "dataset": dataset},
        "licenses": [{"id": n, "name": name} for name, n in licenses.items()],
        "categories": [{"id": n, "name": name} for name, n in categories.items()],
        "images": images,
        "annotations": annotations,
    }
    _write(out / "instances.json", content)
    _write(out / "labels.json", [_cvat_label(name) for name in categories])
    return len(images)


def file_stem(row: str) -> str:
    """What a row's picture is called: ids may hold anything."""
    return hashlib.sha256(row.encode()).hexdigest()[:24]


def _attributes(region: Row, row: Row) -> Row:
    kept = {name: region[name] for name in _KEPT if region[name] is not None}
    return {**kept, "phrase": label(region["phrase"]), "row_id": row["id"]}


def _cvat_label(name: str) -> Row:
    role = {"name": "role", "input_type": "select", "default_value": "unknown", "values": ROLES}
    region = {"name": "region_id", "input_type": "text", "default_value": "", "values": [""]}
    return {"name": name, "attributes": [{**a, "mutable": False} for a in (role, region)]}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------- and back


def read_coco(path: Path, rows: Mapping[str, Row], dataset: str) -> Iterator[Correction]:
    """What differs from the dataset, of the rows whose pictures the file lists."""
    content = read_json(path)
    try:
        stated = (content.get("info") or {}).get("dataset", dataset)
        phrases = {category["id"]: category["name"] for category in content["categories"]}
        drawn = defaultdict(list)
        for annotation in content["annotations"]:
            drawn[annotation["image_id"]].append(annotation)
        images = [(i["id"], i["file_name"], i.get("row_id")) for i in content["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{path} is no COCO file of images, annotations and categories: {error!r}"
        raise CorrectionError(problem, "export it as COCO") from error
    if stated != dataset:
        problem = f"{path} is about the dataset {stated!r:.80}, not about {dataset!r}"
        raise CorrectionError(problem, "give the dataset that it was made from")
    stems = {file_stem(name): name for name in rows}
    first: dict[str, int] = {}
    for number, (key, file, name) in enumerate(images, start=1):
        where = f"{path}, image {number}"
        row = rows.get(str(name or "") or stems.get(PurePosixPath(str(file)).stem, ""))
        if row is None:
            problem = f"{where}: {file!r} is the picture of no row of the dataset"
            raise CorrectionError(problem, "keep the names of files, or take it out")
        if first.setdefault(row["id"], number) != number:
            problem = f"{where}: {file!r} is the picture of the same row as image {first[row['id']]}"
            raise CorrectionError(problem, "list each picture once, with all its annotations")
        drawings = [_drawing(annotation, phrases, row, where) for annotation in drawn[key]]
        yield from differences(row, drawings, number)


def _drawing(annotation: Row, phrases: dict[Any, str], row: Row, where: str) -> Drawing:
    """CVAT keeps attributes in ``attributes``, FiftyOne beside COCO's own fields."""
    what = f"{where}, annotation {annotation.get('id')!r}"
    said = annotation | (annotation.get("attributes") or {})
    try:
        x, y, width, height = map(float, annotation["bbox"])
        phrase = label(phrases[annotation["category_id"]])
        found = mask_of(annotation.get("segmentation"), row)
        mask = None if found is None else rle.decode(found)
    except Exception as error:  # pycocotools raises bare Exceptions
        raise CorrectionError(
            f"{what} has no bbox of four numbers, no category of the file, or a segmentation "
            f"that is neither run lengths nor polygons: {error!r}",
            "correct it",
        ) from error
    if mask is not None and mask.shape != (row["height"], row["width"]):
        sizes = f"{mask.shape[1]}x{mask.shape[0]} pixels, the image {row['width']}x{row['height']}"
        raise CorrectionError(f"{what}: its mask is {sizes}", "keep the pictures as they are")
    mask = mask if mask is not None and mask.any() else None
    box = clipped((x, y, x + width, y + height), row, what)
    role = said.get("role") if said.get("role") in ROLES else None
    outlined = isinstance(annotation.get("segmentation"), list)
    return Drawing(phrase, box, mask, role, said.get("region_id") or None, outlined)
