"""How far the embedded detector can be trusted: does it find what is not there, and does it find the same in the same image?

On new scenes of the shapes world, half strips and half canvases:

- ``absent_found``: of an image and the name of an object that only another image has (200 pairs), how often it is found all the same;
- ``lost_to_jitter``: of the boxes found in an image, how many are not found (same phrase, IoU 0.5 with the box moved as the image) once it
  is moved by a pixel and saved as JPEG, 20 times each;
- ``by_threshold``: both, and recall and precision of the objects' boxes, at other thresholds.

    python -m bench.grounding [--pairs 200] [--scenes 30] [--seed 77]

Prints a table, writes bench/results/grounding.json, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from demo.scenes import Scene, make_scene
from demo.teach_detector import names_of
from labeling.boxes import Detection, iou_matrix
from labeling.domain import Domain
from labeling.locators.base import Sought
from labeling.locators.loading import load_locator
from labeling.locators.zero_shot import ZeroShotLocator
from rewardlib.console import console, table

DETECTOR = Path(__file__).parents[1] / "labeling" / "embedded" / "detector"
RESULTS = Path(__file__).parent / "results" / "grounding.json"
JITTERS = 20
SAME = 0.5  # IoU
THRESHOLDS = (0.14, 0.16, 0.18, 0.19, 0.2, 0.21, 0.22, 0.26)
Asked = tuple[Image.Image, list[str]]
Move = tuple[int, int]


def scenes(count: int, seed: int) -> list[Scene]:
    """New ones, of either kind, none of them empty."""
    rng = random.Random(seed)
    drawn: list[Scene] = []
    while len(drawn) < count:
        scene = make_scene(rng, ("strip", "canvas")[len(drawn) % 2])
        if scene.things:
            drawn.append(scene)
    return drawn


def swapped(drawn: Sequence[Scene], seed: int) -> list[Asked]:
    """Every image with the name of an object of the next image of its kind, which nothing in it can be called."""
    rng = random.Random(seed)
    pairs = []
    for scene, other in zip(drawn, [*drawn[2:], *drawn[:2]], strict=True):
        present = {name for thing in scene.things for name in names_of(thing)}
        names = sorted({thing.name for thing in other.things} - present)
        if names:
            pairs.append((scene.image, [rng.choice(names)]))
    return pairs


def found_in(locator: ZeroShotLocator, asked: Sequence[Asked]) -> list[list[Detection]]:
    wanted = [[Sought(phrase) for phrase in phrases] for _, phrases in asked]
    return locator.locate([image for image, _ in asked], wanted, min(THRESHOLDS))


def above(threshold: float, found: Sequence[Sequence[Detection]]) -> list[list[Detection]]:
    return [[detection for detection in each if detection.score >= threshold] for each in found]


def jitter(rng: random.Random, image: Image.Image) -> tuple[Image.Image, Move]:
    """The image moved by up to a pixel either way and saved as JPEG, and how it was moved."""
    move = rng.randint(-1, 1), rng.randint(-1, 1)
    file = io.BytesIO()
    ImageChops.offset(image, *move).save(file, "JPEG", quality=rng.randint(75, 95))
    return Image.open(file).convert("RGB"), move


def share_found(found: Sequence[Sequence[Detection]]) -> float:
    return sum(bool(each) for each in found) / len(found)


def lost(before: Sequence[Sequence[Detection]], after: Sequence[Sequence[Detection]], moves: Sequence[Move]) -> float:
    """The share of boxes that are not found again, ``JITTERS`` times after."""
    gone = [
        not is_there(box, after[at], moves[at])
        for n, found in enumerate(before)
        for at in range(n * JITTERS, (n + 1) * JITTERS)
        for box in found
    ]
    return sum(gone) / len(gone)


def is_there(box: Detection, found: Sequence[Detection], move: Move) -> bool:
    same = [other.bbox for other in found if other.phrase == box.phrase]
    (x0, y0, x1, y1), (x, y) = box.bbox, move
    return bool(same) and bool(iou_matrix([(x0 + x, y0 + y, x1 + x, y1 + y)], same).max() >= SAME)


def recall_and_precision(drawn: Sequence[Scene], found: Sequence[Sequence[Detection]]) -> tuple[float, float]:
    """Of all objects, asked for by name, the share with a box of that name; of all boxes, the share with such an object."""
    hits = objects = right = boxes = 0
    for scene, detections in zip(drawn, found, strict=True):
        for thing in scene.things:
            same = [d.bbox for d in detections if d.phrase == thing.name]
            hits += bool(same) and bool(iou_matrix([thing.bbox], same).max() >= SAME)
        for detection in detections:
            same = [thing.bbox for thing in scene.things if thing.name == detection.phrase]
            right += bool(same) and bool(iou_matrix([detection.bbox], same).max() >= SAME)
        objects, boxes = objects + len(scene.things), boxes + len(detections)
    return hits / objects, right / boxes


def measure(pairs: int, count: int, seed: int) -> dict[str, Any]:
    domain = Domain.read(DETECTOR)
    assert domain is not None
    assert domain.threshold is not None
    locator = load_locator(str(DETECTOR), threshold=domain.threshold)
    drawn = scenes(pairs, seed)
    named = [(scene.image, sorted({thing.name for thing in scene.things})) for scene in drawn]
    absent = swapped(drawn, seed)
    rng = random.Random(seed)
    jittered = [(jitter(rng, image), phrases) for image, phrases in named[:count] for _ in range(JITTERS)]
    moved, moves = [(image, phrases) for (image, _), phrases in jittered], [move for (_, move), _ in jittered]
    of_named, of_absent, of_moved = (found_in(locator, asked) for asked in (named, absent, moved))
    table_of: dict[str, dict[str, float]] = {}
    for threshold in sorted({*THRESHOLDS, domain.threshold}):
        found = above(threshold, of_named)
        recall, precision = recall_and_precision(drawn, found)
        table_of[f"{threshold:g}"] = {
            "absent_found": share_found(above(threshold, of_absent)),
            "lost_to_jitter": lost(found[:count], above(threshold, of_moved), moves),
            "recall": recall,
            "precision": precision,
        }
    own = table_of[f"{domain.threshold:g}"]
    return {**own, "threshold": domain.threshold, "pairs": len(absent), "by_threshold": table_of}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--scenes", type=int, default=30, help="that are jittered")
    parser.add_argument("--seed", type=int, default=77)
    a = parser.parse_args()
    result = measure(a.pairs, a.scenes, a.seed)
    lines = [[name, *(f"{value:.3f}" for value in figures.values())] for name, figures in result["by_threshold"].items()]
    console.print(table("The embedded detector", ["threshold", "absent found", "lost to jitter", "recall", "precision"], lines))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "by_threshold"}))


if __name__ == "__main__":
    main()
