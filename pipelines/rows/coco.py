"""COCO's JSON: one object with images, annotations and categories; boxes x, y, width, height in pixels, masks as run lengths or polygons.

COCO knows no questions. An entry of its images may have fields of one's own, though, and there they are read from (and written to by
``pipelines.export``): ``question``, ``answer``, ``choices``, ``row_id``, ``split``, ``source``. A category's name is the region's phrase.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rewardlib import rle
from rewardlib.rows.regions import ROLES
from rewardlib.rows.values import number

UNNAMED = "(unnamed)"  # other tools want a name of every label
_OWN = ("question", "choices", "answer", "alternatives", "split", "source")


class Coco(Sequence[dict[str, Any]]):
    """A row for every image of a file's content, made when it is asked for.

    ``ValueError`` at once if ids are missing, and when a row is asked for, of which an annotation cannot be read.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._annotations: defaultdict[Any, list[Any]] = defaultdict(list)
        try:
            self.images = [dict(image) for image in content["images"]]
            self._phrases = {category["id"]: category["name"] for category in content.get("categories") or ()}
            self._licenses = {license["id"]: license.get("name") for license in content.get("licenses") or ()}
            _require_distinct("images", [image.get("id") for image in self.images])
            _require_distinct("categories", [category["id"] for category in content.get("categories") or ()])
            for annotation in content["annotations"]:
                self._annotations[annotation["image_id"]].append(annotation)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"an annotation has no image_id, a category no id and name, or a licence no id: {error!r}; correct it"
            ) from error

    def raw(self, index: int) -> list[Any]:
        """Everything in the file that a row depends on."""
        image, annotations = self.images[index], self._of(self.images[index])
        return [image, self._licenses, annotations, [self._phrases.get(found.get("category_id")) for found in annotations]]

    def names(self) -> set[str]:
        """Of the columns that any row has."""
        named = {name for name in (*_OWN, "license") for image in self.images if name in image}
        return {"id", "image", "regions", "width", "height", *named}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        image = self.images[index]
        if missing := [name for name in ("id", "file_name") if name not in image]:
            raise ValueError(f"entry {index} of images has no {' and no '.join(missing)}")
        row = {
            "id": image.get("row_id", image["id"]),
            "image": image["file_name"],
            "license": self._licenses.get(image.get("license")),
            "width": image.get("width"),
            "height": image.get("height"),
            "regions": [self._region(annotation, image) for annotation in self._of(image)],
        }
        own = {name: image[name] for name in _OWN if name in image}
        return {name: value for name, value in (row | own).items() if value is not None}

    def _of(self, image: Any) -> list[Any]:
        return self._annotations.get(image.get("id"), [])

    def _region(self, annotation: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
        what = f"annotation {annotation.get('id')!r}"
        try:
            x, y, width, height = map(number, annotation["bbox"])
            box = [x, y, x + width, y + height]
            phrase = self._phrases[annotation["category_id"]]
            phrase = "" if phrase == UNNAMED else phrase
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{what} has no bbox of four numbers, or a category that the file does not define: {error!r}") from error
        try:
            mask = mask_of(annotation.get("segmentation"), image)
        except Exception as error:  # pycocotools raises bare Exceptions
            raise ValueError(f"{what} has a segmentation that is neither run lengths nor polygons: {error}") from error
        attributes = annotation.get("attributes")
        said = dict(annotation) | (dict(attributes) if isinstance(attributes, Mapping) else {})
        role = str(said.get("role") or "").lower()  # other tools have roles of their own
        return {"phrase": phrase, "bbox": box, "mask": mask, **({"role": role} if role in ROLES else {})}


def _require_distinct(name: str, ids: Sequence[Any]) -> None:
    """``ValueError`` for an id that two entries have, as in files that were put together without new numbers."""
    present = [repr(key) for key in ids if key is not None]
    if len(set(present)) < len(present):
        twice = next(key for key in present if present.count(key) > 1)
        raise ValueError(f"two entries of {name} have the id {twice}, so that nobody knows whose boxes are whose; number them anew")


def mask_of(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any] | None:
    """Polygons and plain run lengths as compressed ones."""
    if not segmentation:
        return None
    return rle.compressed(segmentation, round(number(image["height"])), round(number(image["width"])))


def xywh(box: Sequence[float]) -> list[float]:
    """COCO's box of an xyxy one."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]
