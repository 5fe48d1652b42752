"""Tasks in which looking decides the answer, and the ways in which a careless mind fails at them.

Every question is about a board, of which a policy that looks can see everything. Whoever goes wrong here has looked wrong: at another
object, not at all, or no more.

``credit``: two colours are offered, and whoever looks for one of them, instead of for the object, is right by luck half of the time. The
    answer says little about the look; attention says it at once (SAYO).
``perception``: the answer needs two facts, which a judge checks one by one (Perception-R1).
``faithful``: a caption says which answer it would be, truly or not. Whoever trusts it is right half of the time, whatever the trace has
    stated before (Faithful-MR1).
``long``: three other objects are described first, and the answer needs one more look, late; whoever has ceased to look repeats a colour
    that was said (VGPO).
``look``: plain questions, whose answer tells whoever looked wrong.

    python -m demo.tasks --task credit --out runs/credit --rows 200      # rows.jsonl and images, as flows.build_dataset reads them
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import hypot
from pathlib import Path
from typing import Any, Literal

from demo.questions import Question, row_of, save_rows, with_article
from demo.scenes import CANVAS_SIZE, Scene, Thing, make_scene

Task = Literal["look", "credit", "perception", "faithful", "long"]
MIDDLE = CANVAS_SIZE[0] / 2


def draw(rng: random.Random, *tasks: Task, count: int = 1) -> tuple[Scene, list[Question]]:
    """A board and that many different questions about it, of the tasks, or of all if none is named."""
    while True:
        scene = make_scene(rng, "board")
        if len(questions := ask(rng, scene, *tasks, count=count)) == count:
            return scene, questions


def ask(rng: random.Random, scene: Scene, *tasks: Task, count: int) -> list[Question]:
    """As many different questions about a scene, or fewer where it does not answer so many."""
    found: dict[str, Question] = {}
    for _ in range(3 * count):
        kinds = KINDS[rng.choice(tasks or list(KINDS))]
        if len(found) < count and (question := rng.choice(kinds)(rng, scene)):
            found.setdefault(question.text, question)
    return list(found.values())


# ---------------------------------------------------------------------------------------------------------------- questions


def _color(rng: random.Random, scene: Scene) -> Question | None:
    thing, other = _of_two_colors(rng, scene)
    return other and _question("color", f"What color is the {thing.shape}?", thing.color, other.color, (thing,))


def _shape(rng: random.Random, scene: Scene) -> Question | None:
    tally = Counter(thing.color for thing in scene.things)
    if not (things := [thing for thing in scene.things if tally[thing.color] == 1]):
        return None
    thing = rng.choice(things)
    wrong = rng.choice([other.shape for other in scene.things if other is not thing])
    return _question("shape", f"What shape is the {thing.color} object?", thing.shape, wrong, (thing,))


def _choice(rng: random.Random, scene: Scene) -> Question | None:
    things = [thing for thing in scene.things if _elsewhere(scene, thing.color, (thing,))]
    if not things:
        return None
    thing = rng.choice(things)
    wrong = _wrong_color(rng, scene, thing, (thing,))
    return wrong and _between("choice", "", rng, thing, wrong)


def _pair(rng: random.Random, scene: Scene) -> Question | None:
    """Whoever has one of two colours wrong is wrong."""
    pair = tuple(rng.sample(scene.things, 2))
    colors, other = [thing.color for thing in pair], rng.randrange(2)
    wrong = _wrong_color(rng, scene, pair[other], pair)
    if not wrong:
        return None
    told = list(colors)
    told[other] = wrong
    text = f"What colors are the {pair[0].shape} and the {pair[1].shape}?"
    return _question("pair", text, " and ".join(colors), " and ".join(told), pair)


def _caption(rng: random.Random, scene: Scene) -> Question | None:
    thing, other = _of_two_colors(rng, scene)
    if other is None:
        return None
    said = rng.choice((thing.color, other.color))
    return _between("caption", f"A caption says that the {thing.shape} is {said}. ", rng, thing, other.color)


def _tour(rng: random.Random, scene: Scene) -> Question | None:
    thing, other = _of_two_colors(rng, scene)
    return other and _question("tour", f"Look around first. What color is the {thing.shape}?", thing.color, other.color, (thing,))


KINDS: dict[Task, Sequence[Callable[[random.Random, Scene], Question | None]]] = {
    "look": (_color, _shape),
    "credit": (_choice,),
    "perception": (_pair,),
    "faithful": (_caption,),
    "long": (_tour,),
}


def _of_two_colors(rng: random.Random, scene: Scene) -> tuple[Thing, Thing | None]:
    """Something, and something else of another colour, if there is any."""
    thing = rng.choice(scene.things)
    others = [other for other in scene.things if other.color != thing.color]
    return thing, rng.choice(others) if others else None


def _wrong_color(rng: random.Random, scene: Scene, thing: Thing, evidence: tuple[Thing, ...]) -> str | None:
    """A colour that something has, but what is asked about has not."""
    colors = sorted({other.color for other in scene.things if other not in evidence} - {thing.color})
    return rng.choice(colors) if colors else None


def _elsewhere(scene: Scene, color: str, evidence: tuple[Thing, ...]) -> list[Thing]:
    """What has a colour and is not what is asked about."""
    return [thing for thing in scene.things if thing.color == color and thing not in evidence]


def _between(kind: str, lead: str, rng: random.Random, thing: Thing, wrong: str) -> Question:
    choices = tuple(rng.sample((thing.color, wrong), 2))
    return _question(kind, f"{lead}Is the {thing.shape} {choices[0]} or {choices[1]}?", thing.color, wrong, (thing,), choices)


def _question(kind: str, text: str, answer: str, wrong: str, evidence: tuple[Thing, ...], choices: tuple[str, ...] = ()) -> Question:
    return Question(kind, text, answer, wrong, evidence, conclusion(kind, answer), choices)


def conclusion(kind: str, answer: str) -> str:
    """How a trace ends."""
    if kind == "pair":
        return f"So they are {answer}"
    return f"So it is {with_article(answer)}" if kind == "shape" else f"So it is {answer}"


# ------------------------------------------------------------------------------------------------------------------- traces


def right_trace(scene: Scene, question: Question) -> str:
    """What a mind says that looks."""
    return _trace(question, [thing.name for thing in _seen(scene, question)], question.answer)


def mentioning_trace(rng: random.Random, scene: Scene, question: Question) -> str:
    """What one says that looks, and mentions other things as well."""
    others = [thing.name for thing in scene.things if thing not in question.evidence]
    names = [thing.name for thing in question.evidence]
    return _trace(question, [*names, *rng.sample(others, min(len(others), rng.randint(1, 3)))], question.answer)


def careless_trace(rng: random.Random, scene: Scene, question: Question) -> str:
    """What one says that does not look, or at something else instead; it may be right by luck."""
    seen, evidence = _seen(scene, question), question.evidence
    if question.kind == "caption" and rng.random() < 0.5:
        return _trace(question, [thing.name for thing in seen], _claimed(question))  # states it, and trusts the caption
    if question.kind == "tour":  # a colour that was said, for the object that was asked for
        said = rng.choice([thing.color for thing in seen[:-1] if thing.color != question.answer] or [question.wrong])
        return _trace(question, [*(thing.name for thing in seen[:-1]), f"{said} {evidence[0].shape}"], said)
    if question.kind == "choice":
        return _of_an_offered_color(rng, scene, question)
    if question.kind == "pair":
        return _one_missed(rng, scene, question)
    other = _nearest([thing for thing in scene.things if thing not in evidence])
    answers = {"color": other.color, "shape": other.shape, "caption": _claimed(question)}
    return _trace(question, [other.name], answers[question.kind])


def _of_an_offered_color(rng: random.Random, scene: Scene, question: Question) -> str:
    """What one says that looks for a colour that was offered, not for the object: right by luck, half of the time."""
    sought = rng.choice((question.answer, question.wrong))
    other = rng.choice(_elsewhere(scene, sought, question.evidence))
    return _trace(question, [other.name], sought)


def _one_missed(rng: random.Random, scene: Scene, question: Question) -> str:
    """What one says that looks at one of two objects, and at something else instead of the other."""
    looked, missed = list(question.evidence), rng.randrange(2)
    others = [thing for thing in scene.things if thing not in question.evidence and thing.color != looked[missed].color]
    looked[missed] = rng.choice(others or [looked[missed]])
    return _trace(question, [thing.name for thing in looked], " and ".join(thing.color for thing in looked))


def _nearest(things: Sequence[Thing]) -> Thing:
    """What lies nearest to the middle."""
    return min(things, key=lambda thing: hypot(thing.center[0] - MIDDLE, thing.center[1] - MIDDLE))


def _claimed(question: Question) -> str:
    """What the caption says."""
    return question.text.partition(".")[0].rpartition(" ")[2]


def _seen(scene: Scene, question: Question) -> list[Thing]:
    """What is described: the evidence, and on a tour three other objects first, from left to right."""
    if question.kind != "tour":
        return list(question.evidence)
    others = sorted((thing for thing in scene.things if thing not in question.evidence), key=lambda thing: thing.center)
    return [*others[:3], *question.evidence]


def _trace(question: Question, names: Sequence[str], answer: str) -> str:
    sights = " ".join(f"There is {with_article(name)}." for name in names)
    return f"<think>{sights} {conclusion(question.kind, answer)}.</think><answer>{answer}</answer>"


# --------------------------------------------------------------------------------------------------------------------- rows


def write_rows(out: Path, count: int, seed: int, task: Task | None = None) -> Path:
    """Write rows of a task, or of all, and their images; returns the path of ``rows.jsonl``."""
    rng = random.Random(f"{task} {seed}")

    def row(n: int) -> tuple[dict[str, Any], Scene]:
        scene, (question,) = draw(rng, *([task] if task else []))
        told = [right_trace(scene, question), mentioning_trace(rng, scene, question)]
        if rng.random() < 0.3:
            told.append(careless_trace(rng, scene, question))
        traces = [(trace, trace.endswith(f"<answer>{question.answer}</answer>")) for trace in told]
        return row_of(f"{question.kind}-{seed}-{n:05d}", scene, question, traces), scene

    return save_rows(out, map(row, range(count)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write questions in which looking decides the answer, with traces and ground truth.")
    parser.add_argument("--task", choices=list(KINDS), help="all of them by default")
    parser.add_argument("--out", type=Path, default=Path("demo_out/tasks"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    print(write_rows(a.out, a.rows, a.seed, a.task))
