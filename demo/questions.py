"""Questions about a scene that cannot be answered without looking, with chain-of-thought traces in varied wording.

Some traces are wrong (they miss an object and reach another answer), some right ones mention a thing that is not there: what a labelling
pipeline meets in the field, with the truth at hand.

    python -m demo.questions --out demo_out/scenes --rows 200      # rows.jsonl and images, as flows.build_dataset reads them
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demo.scenes import CANVAS_SIZE, COLORS, SHAPES, STRIP_BOXES, Scene, Thing, make_scene
from labeling import masks

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Question:
    """``evidence`` are the objects that have to be seen; ``wrong`` is a plausible other answer."""

    kind: str
    text: str
    answer: str
    wrong: str
    evidence: tuple[Thing, ...]
    reason: str
    choices: tuple[str, ...] = ()


def ask(rng: random.Random, scene: Scene) -> Question | None:
    """A question of a random kind that this scene can answer; None for an empty scene."""
    kinds = [_color, _shape, _count, _position, _comparison, _statement, _letter]
    for kind in rng.sample(kinds, len(kinds)):
        if scene.things and (question := kind(rng, scene)) is not None:
            return question
    return None


def _unique(scene: Scene, key: Any) -> list[Thing]:
    tally = Counter(key(t) for t in scene.things)
    return [t for t in scene.things if tally[key(t)] == 1 and not t.shape.startswith("letter")]


def _color(rng: random.Random, scene: Scene) -> Question | None:
    if not (things := _unique(scene, lambda t: t.shape)):
        return None
    thing = rng.choice(things)
    others = rng.sample([c for c in COLORS if c != thing.color], 3)
    choices = tuple(rng.sample([thing.color, *others], 4))
    return Question("color", f"What color is the {thing.shape}?", thing.color, others[0], (thing,), f"So it is {thing.color}", choices)


def _shape(rng: random.Random, scene: Scene) -> Question | None:
    if not (things := _unique(scene, lambda t: t.color)):
        return None
    thing = rng.choice(things)
    wrong = rng.choice([s for s in SHAPES if s != thing.shape])
    return Question("shape", f"What shape is the {thing.color} object?", thing.shape, wrong, (thing,), f"So it is a {thing.shape}")


def _count(rng: random.Random, scene: Scene) -> Question | None:
    name = rng.choice(scene.things).name
    matching = tuple(t for t in scene.things if t.name == name)
    n = len(matching)
    return Question("count", f"How many {_plural(name)} are there?", str(n), str(n + rng.choice((-1, 1))), matching, f"That makes {n}")


def _position(rng: random.Random, scene: Scene) -> Question | None:
    things = _unique(scene, lambda t: t.name)
    if scene.kind == "strip" and things:
        thing = rng.choice(things)
        wrong = rng.choice([p for p in STRIP_BOXES if p != thing.place])
        text, reason = f"Which box contains the {thing.name}: left, middle or right?", f"So it is the {thing.place} one"
        return Question("position", text, thing.place, wrong, (thing,), reason, tuple(STRIP_BOXES))
    pairs = [(a, b) for a in things for b in things if abs(a.center[0] - b.center[0]) > 15]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    side, other = ("left", "right") if a.center[0] < b.center[0] else ("right", "left")
    text = f"Is the {a.name} to the left or to the right of the {b.name}?"
    return Question("position", text, side, other, (a, b), f"The first is further to the {side}", ("left", "right"))


def _comparison(rng: random.Random, scene: Scene) -> Question | None:
    things = _unique(scene, lambda t: t.name)
    pairs = [(a, b) for a in things for b in things if a.size != b.size]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    larger = a.mask.sum() > b.mask.sum()
    answer, wrong = ("yes", "no") if larger else ("no", "yes")
    reason = f"One is {a.size} and the other is {b.size}"
    return Question("comparison", f"Is the {a.name} larger than the {b.name}?", answer, wrong, (a, b), reason, ("yes", "no"))


def _statement(rng: random.Random, scene: Scene) -> Question | None:
    name = rng.choice(scene.things).name
    matching = tuple(t for t in scene.things if t.name == name)
    claimed = len(matching) + rng.choice((0, 0, 1, -1))
    plural = f"{NUMBERS[claimed]} {_plural(name)}" if claimed != 1 else f"one {name}"
    verb = "is" if claimed == 1 else "are"
    answer, wrong = ("true", "false") if claimed == len(matching) else ("false", "true")
    text = f"Is this statement true or false? There {verb} exactly {plural}."
    return Question("statement", text, answer, wrong, matching, f"So the statement is {answer}", ("true", "false"))


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith("cross") else f"{name}s"


def _letter(rng: random.Random, scene: Scene) -> Question | None:
    letters = [t for t in scene.things if t.shape.startswith("letter")]
    if len(letters) != 1:
        return None
    letter = letters[0].shape[-1].upper()
    wrong = rng.choice([c for c in "ABCDEFGH" if c != letter])
    return Question("letter", "Which letter is written in the image?", letter, wrong, tuple(letters), f"It reads {letter}")


# ------------------------------------------------------------------------------------------------------------------- traces


def write_trace(rng: random.Random, scene: Scene, question: Question, *, right: bool) -> str:
    """A chain of thought about the question's evidence and some of its surroundings, with the right answer or a wrong one."""
    seen = list(question.evidence)
    others = [t for t in scene.things if t not in seen]
    seen += rng.sample(others, min(len(others), rng.randint(0, 3)))
    if not right and len(seen) > 1:
        seen.remove(rng.choice(question.evidence))  # the mistake is one of perception
    lines = [_observe(rng, seen)]
    if rng.random() < 0.15:
        lines.append(f"There is no {_absent(rng, scene)} anywhere.")
    if rng.random() < 0.1:
        lines.append(f"There is also a {_absent(rng, scene)}.")  # it is not there
    answer = question.answer if right else question.wrong
    lines.append(question.reason + "." if right else "That settles it.")
    return f"<think>{' '.join(lines)}</think><answer>{answer}</answer>"


def _observe(rng: random.Random, seen: Sequence[Thing]) -> str:
    """Where things have a place, box by box; otherwise in one of several wordings."""
    if all(t.place for t in seen) and rng.random() < 0.7:
        by_place = {p: [t for t in seen if t.place == p] for p in STRIP_BOXES}
        return " ".join(f"The {p} box contains {_listing(ts)}." for p, ts in by_place.items() if ts)
    opening = rng.choice(("I can see {}.", "There is {} in the image.", "Looking at the image, I notice {}.", "The picture shows {}."))
    if len(seen) > 2 and rng.random() < 0.5:
        return " ".join(opening.format(_listing([t])) for t in seen)
    return opening.format(_listing(seen))


def _listing(things: Sequence[Thing]) -> str:
    names = [f"the letter {t.shape[-1].upper()}" if t.shape.startswith("letter") else with_article(t.name) for t in things]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def with_article(name: str) -> str:
    """A name with its indefinite article."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _absent(rng: random.Random, scene: Scene) -> str:
    present = {t.name for t in scene.things}
    return rng.choice([name for c in COLORS for s in SHAPES if (name := f"{c} {s}") not in present])


# --------------------------------------------------------------------------------------------------------------------- rows


def make_row(
    rng: random.Random,
    row_id: str,
    kind: Literal["strip", "canvas"] | None = None,
    size: tuple[int, int] = CANVAS_SIZE,
) -> tuple[dict[str, Any], Scene]:
    """A row about a new scene, and the scene."""
    question = None
    while question is None:
        scene = make_scene(rng, kind, size)
        question = ask(rng, scene)
    rights = [True] + [rng.random() < 0.6 for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.06:
        rights = [False]
    traces = [(write_trace(rng, scene, question, right=right), right) for right in rng.sample(rights, len(rights))]
    return row_of(row_id, scene, question, traces), scene


def row_of(row_id: str, scene: Scene, question: Question, told: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """A row as the pipeline reads it, of traces that are right or not, plus ``gold_regions``: every object that a right one names."""
    traces = [{"model": "template", "text": text, "reported_correct": right} for text, right in told]
    named = " ".join(t["text"].lower() for t in traces if t["reported_correct"])
    gold = [_gold(thing, question) for thing in scene.things if thing.name in named]
    return {
        "id": row_id,
        "source": "shapes",
        "license": "cc0-1.0",
        "image": f"images/{row_id}.png",
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "traces": traces,
        "gold_regions": gold,
    }


def _gold(thing: Thing, question: Question) -> dict[str, Any]:
    role = "evidence" if any(thing is needed for needed in question.evidence) else "context"
    return {"phrase": thing.name, "bbox": list(thing.bbox), "mask": masks.encode(thing.mask), "role": role}


def write_rows(
    out: Path,
    count: int,
    seed: int,
    kind: Literal["strip", "canvas"] | None = None,
    sizes: Sequence[tuple[int, int]] = (CANVAS_SIZE,),
) -> Path:
    """Write ``rows.jsonl`` and ``images/``; returns the path of the rows. Canvases have the ``sizes`` (width, height) in turn."""
    rng = random.Random(seed)
    rows = (make_row(rng, f"shapes-{seed}-{n:05d}", kind, sizes[n % len(sizes)]) for n in range(count))
    return save_rows(out, rows)


def save_rows(out: Path, rows: Iterable[tuple[dict[str, Any], Scene]]) -> Path:
    """Write rows and their scenes' images; returns the path of ``rows.jsonl``."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    path = out / "rows.jsonl"
    with path.open("w") as file:
        for row, scene in rows:
            scene.image.save(out / row["image"])
            file.write(json.dumps(row) + "\n")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write questions about random scenes, with traces and ground truth.")
    parser.add_argument("--out", type=Path, default=Path("demo_out/scenes"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    print(write_rows(a.out, a.rows, a.seed))
