"""Rows as tasks of Label Studio, and its exports as corrections.

Regions go as predictions: rectangles in percent of the image, and masks as brush strokes in
Label Studio's own run lengths (thi.ng/rle-pack over the four channels of a picture, row by row).
docs/review.md says how to set a project up.
"""

from __future__ import annotations

import base64
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from labeling import masks
from labeling.facts import ROLES
from pipelines.reviewing.corrections import Correction, CorrectionError, read_json
from pipelines.reviewing.drawings import Drawing, box_of, clipped, differences, label

Row = dict[str, Any]

MASK = "-mask"  # after a region's id: its brush stroke, which Label Studio takes for another region
_SIZES = (3, 4, 8, 16)  # bits that a run's length may take
_MARKS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}


# ----------------------------------------------------------------------------- brush run lengths


def encode_brush(mask: masks.Mask) -> list[int]:
    """A mask as a brush stroke: every run a flag, a size, a length and a value of eight bits."""
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1) + 1
    lengths = 4 * np.diff(ends, prepend=0)
    bits = [f"{4 * flat.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
        bits += _runs(length, 255 * int(flat[end - 1]))
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _runs(length: int, value: int) -> Iterator[str]:
    """A run, in parts where it is longer than sixteen bits can say."""
    while length:
        part = min(length, 1 << _SIZES[-1])
        index = next(i for i, size in enumerate(_SIZES) if part <= 1 << size)
        yield f"1{index:02b}{part - 1:0{_SIZES[index]}b}{value:08b}"
        length -= part


def decode_brush(encoded: Sequence[int], height: int, width: int) -> masks.Mask:
    """The mask of a brush stroke; ``ValueError`` if it is none of this size."""
    try:
        bits = np.unpackbits(np.asarray(encoded, np.int64).astype(np.uint8, casting="unsafe"))
        if any(not 0 <= value <= 255 for value in encoded):
            raise ValueError("a value is no byte")
        values = _values(bits, 4 * height * width)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a brush stroke: {error}") from error
    alpha: masks.Mask = values.reshape(height, width, 4)[:, :, 3] >= 128
    return alpha


def _values(bits: np.ndarray[Any, np.dtype[np.uint8]], wanted: int) -> Any:
    text = (bits + ord("0")).astype(np.uint8).tobytes().decode("ascii")
    place = 0

    def take(size: int) -> int:
        nonlocal place
        place += size
        if place > len(text):
            raise ValueError("not a brush stroke: it ends too early")
        return int(text[place - size : place], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if count != wanted or word != 8:
        found = f"{count} values of {word} bits, and not {wanted} of 8"
        raise ValueError(f"not a brush stroke of this image: {found}")
    values, done = np.zeros(count, np.uint8), 0
    while done < count:
        same, length = take(1), take(sizes[take(2)]) + 1
        if done + length > count:
            raise ValueError("not a brush stroke: its runs are longer than it says")
        if same:
            values[done : done + length] = take(8)
        else:
            place += 8 * length
            if place > len(text):
                raise ValueError("not a brush stroke: it ends too early")
            values[done : done + length] = np.packbits(bits[place - 8 * length : place])
        done += length
    return values


# -------------------------------------------------------------------------------------- to tasks


def write_tasks(rows: Iterable[Row], dataset: str, out: Path, images_at: str | None) -> int:
    """Write ``tasks.json`` and ``config.xml`` into a folder; the number of tasks.

    Pictures are in the tasks; or, if Label Studio is told where they are (``images_at``, an
    address), in ``images/`` beside them.
    """
    phrases: dict[str, None] = {}
    written = 0
    with (out / "tasks.json").open("w", encoding="utf-8") as file:
        for row in rows:
            picture = _picture(row, out, images_at)
            named = [*row["regions"], *(a for a in row["annotations"] if a["phrase"])]
            phrases.update(dict.fromkeys(label(entry["phrase"]) for entry in named))
            file.write(",\n" if written else "[")
            file.write(json.dumps(task(row, dataset, picture), ensure_ascii=False))
            written += 1
        file.write("]\n" if written else "[]\n")
    (out / "config.xml").write_text(config(list(phrases)), encoding="utf-8")
    return written


def _picture(row: Row, out: Path, images_at: str | None) -> str:
    data: bytes = row["image"]["bytes"]
    kind = next(name for mark, name in _MARKS.items() if data.startswith(mark))
    if images_at is None:
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    name = f"{row['image_sha256']}.{kind}"
    (out / "images").mkdir(exist_ok=True)
    (out / "images" / name).write_bytes(data)
    return f"{images_at.rstrip('/')}/images/{name}"


def task(row: Row, dataset: str, picture: str) -> dict[str, Any]:
    """A row as a task with one prediction."""
    facts = [f"{a['role'] or 'unknown'}: {a['statement']}" for a in row["annotations"]]
    about = "\n".join([f"answer: {row['answer']}", *facts])
    data = {"image": picture, "question": row["question"], "about": about}
    result = [part for region in row["regions"] for part in _results(region, row)]
    return {
        "data": {**data, "row": row["id"], "dataset": dataset},
        "predictions": [{"model_version": "sightline", "result": result}],
    }


def _results(region: Row, row: Row) -> Iterator[dict[str, Any]]:
    """A region's rectangle, its role and its brush stroke."""
    width, height = row["width"], row["height"]
    x0, y0, x1, y1 = region["bbox"]
    place = {"x": 100 * x0 / width, "y": 100 * y0 / height, "rotation": 0}
    place |= {"width": 100 * (x1 - x0) / width, "height": 100 * (y1 - y0) / height}
    name, phrase = region["region_id"], label(region["phrase"])
    image = {"original_width": width, "original_height": height, "image_rotation": 0}
    shared = {"to_name": "image", **image}
    box = {"id": name, "from_name": "box", "type": "rectanglelabels", **shared}
    yield {**box, "value": {**place, "rectanglelabels": [phrase]}, "meta": {"text": [name]}}
    role = {"id": name, "from_name": "role", "type": "choices", **shared}
    yield {**role, "value": {**place, "choices": [region["role"] or "unknown"]}}
    runs = encode_brush(masks.decode(region["mask"]))
    stroke = {"id": name + MASK, "from_name": "mask", "type": "brushlabels", **shared}
    value = {"format": "rle", "rle": runs, "brushlabels": [phrase]}
    yield {**stroke, "value": value, "meta": {"text": [name + MASK]}}


def config(phrases: Sequence[str]) -> str:
    """The labelling interface, with a label for every phrase."""
    view = ElementTree.Element("View")
    add = ElementTree.SubElement
    add(view, "Header", value="$question")
    add(view, "Text", name="about", value="$about")
    add(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    for kind, name in (("RectangleLabels", "box"), ("BrushLabels", "mask")):
        labels = add(view, kind, name=name, toName="image")
        for phrase in phrases:
            add(labels, "Label", value=phrase)
    role = add(view, "Choices", name="role", toName="image", perRegion="true", choice="single")
    verdict = add(view, "Choices", name="verdict", toName="image", choice="single")
    for choices, values in ((role, ROLES), (verdict, ("accept", "reject"))):
        for value in values:
            add(choices, "Choice", value=value)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


# ------------------------------------------------------------------------------------ and back


def read_export(path: Path, rows: Mapping[str, Row], dataset: str) -> Iterator[Correction]:
    """What people did in the tasks of an export; tasks without an annotation say nothing."""
    tasks = read_json(path)
    if not isinstance(tasks, list):
        problem = f"{path} is no export of Label Studio, which is a list of tasks"
        raise CorrectionError(problem, "export as JSON")
    for number, done in enumerate(tasks, start=1):
        where = f"{path}, task {number}"
        data = done.get("data") if isinstance(done, dict) else None
        if not isinstance(data, dict) or not isinstance(done.get("annotations"), list):
            problem = f"{where} has no data and annotations"
            raise CorrectionError(problem, "export as JSON, not as JSON-MIN")
        with _blaming(where):
            results = _submitted(done["annotations"])
            if results is not None:
                row = _row_of(data, rows, dataset, where)
                yield from _corrections(row, results, number, where)


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    """``CorrectionError`` for whatever an export holds that Label Studio does not write."""
    try:
        yield
    except CorrectionError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        problem = f"{where} holds a result that cannot be read: {error!r}"
        raise CorrectionError(problem, "export it again") from error


def _submitted(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The results of the annotation that was submitted or changed last."""
    valid = [a for a in annotations if not a.get("was_cancelled")]
    valid.sort(key=lambda a: (str(a.get("updated_at") or ""), a.get("id") or 0))
    return valid[-1]["result"] or [] if valid else None


def _row_of(data: dict[str, Any], rows: Mapping[str, Row], dataset: str, where: str) -> Row:
    if data.get("dataset") != dataset:
        problem = f"{where} is about the dataset {data.get('dataset')!r:.80}, not about {dataset!r}"
        raise CorrectionError(problem, "give the dataset that the tasks were made from")
    if not isinstance(data.get("row"), str) or data["row"] not in rows:
        problem = f"{where}: there is no row {data.get('row')!r:.80} in the dataset"
        raise CorrectionError(problem, "take the task out")
    return rows[data["row"]]


def _corrections(row: Row, results: Sequence[Any], number: int, where: str) -> Iterator[Correction]:
    verdicts = [r["value"]["choices"] for r in results if r.get("from_name") == "verdict"]
    if ["reject"] in verdicts:
        yield Correction(row["id"], "reject", entry=number)
        return
    yield Correction(row["id"], "accept", entry=number)
    yield from differences(row, list(_drawings(row, results, where)), number)


def _drawings(row: Row, results: Sequence[dict[str, Any]], where: str) -> Iterator[Drawing]:
    """Rectangles, each with its role and its brush stroke; then strokes without a rectangle."""
    roles = {r["id"]: r["value"]["choices"][0] for r in results if r.get("from_name") == "role"}
    strokes = {_name(r): r for r in results if r.get("type") == "brushlabels"}
    for result in results:
        if result.get("type") == "rectanglelabels":
            name = _name(result)
            stroke = strokes.pop(name + MASK, None)
            mask = None if stroke is None else _stroke(stroke, row)
            box = clipped(_pixels(result["value"], row), row, where)
            role = roles.get(result["id"])
            yield Drawing(_label(result, where), box, mask, role, name)
    for stroke in strokes.values():
        mask = _stroke(stroke, row)
        if mask is not None:
            name = _name(stroke).removesuffix(MASK)
            yield Drawing(_label(stroke, where), box_of(mask), mask, roles.get(stroke["id"]), name)


def _name(result: dict[str, Any]) -> str:
    """The id that a region went with: versions of Label Studio add to it, or keep it in notes."""
    noted = (result.get("meta") or {}).get("text") or [result["id"]]
    return str(noted[0]).partition("#")[0]


def _label(result: dict[str, Any], where: str) -> str:
    labels = result["value"].get(result["type"])
    if not labels:
        problem = f"{where}: the region {result['id']!r} has no label"
        raise CorrectionError(problem, "give it one, and export again")
    return label(labels[0])


def _stroke(result: dict[str, Any], row: Row) -> masks.Mask | None:
    """The mask of a brush stroke; None where all of it was erased."""
    mask = decode_brush(result["value"]["rle"], row["height"], row["width"])
    return mask if mask.any() else None


def _pixels(value: dict[str, Any], row: Row) -> list[float]:
    """The box of a rectangle, which Label Studio turns about its top left corner."""
    width, height = row["width"] / 100, row["height"] / 100
    x, y = value["x"] * width, value["y"] * height
    w, h = value["width"] * width, value["height"] * height
    turn = math.radians(value.get("rotation") or 0)
    corners = [(a * w, b * h) for a in (0, 1) for b in (0, 1)]
    xs = [x + a * math.cos(turn) - b * math.sin(turn) for a, b in corners]
    ys = [y + a * math.sin(turn) + b * math.cos(turn) for a, b in corners]
    return [min(xs), min(ys), max(xs), max(ys)]
