"""Several locators side by side, and what a build makes of what they find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

import pipelines.build
from labeling.boxes import Detection
from labeling.counterfactual import UNSEEN, Case, intervene, verify_removal
from labeling.info import ModelInfo
from labeling.locators.base import Answered, Sought
from labeling.locators.chain import LocatorChain
from labeling.masks import from_box
from labeling.verify import Verdict
from pipelines.building.label import steps_of
from pipelines.building.models import Models
from pipelines.building.steps import Ground
from pipelines.building.steps.ground import sought_in, stated_number
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.regions import new_region
from pipelines.dataset.schema import STAGES, Item, Ledger
from pipelines.validate import validate
from rewardlib.judge import JudgeError
from tests.conftest import FakeAnnotator, FakeSegmenter, fake_models, record, scene, write_rows
from tests.judge_server import Answer, Server, completion

IMAGE = Image.new("RGB", (64, 48))
BOX = (4.0, 4.0, 20.0, 20.0)


@dataclass
class Knows:
    """Finds the phrases that it knows, in one place, and remembers what it was asked for."""

    name: str
    phrases: tuple[str, ...] = ()
    kinds: frozenset[Any] = frozenset({"object", "text"})
    threshold: float = 0.3
    error: JudgeError | None = None
    asked: list[str] = field(default_factory=list)

    def locate(self, images: Sequence[Image.Image], sought: Sequence[Sequence[Sought]], threshold: float | None = None) -> list[Any]:
        self.asked += [s.phrase for wanted in sought for s in wanted]
        if self.error:
            return [self.error for _ in images]
        return [[Detection(s.phrase, BOX, 0.8) for s in wanted if s.phrase in self.phrases] for wanted in sought]

    def info(self) -> ModelInfo:
        return ModelInfo(self.name)


@dataclass(frozen=True)
class Dark:
    """A domain of dark images and of words that it lists."""

    words: frozenset[str]
    about: str = "the dark"
    cure: str = "a/brighter-one"

    def why(self, image: Image.Image) -> str:
        return "" if image.getpixel((0, 0)) == (0, 0, 0) else "it is bright"

    def knows_phrase(self, phrase: str) -> bool:
        return set(phrase.split()) <= self.words


def seek(*phrases: str, kind: Any = "object") -> list[Sought]:
    return [Sought(phrase, kind) for phrase in phrases]


def test_a_fact_goes_to_the_first_that_serves_it_and_on_where_that_finds_nothing() -> None:
    reader, detector = Knows("ocr", ("48°",), frozenset({"text"})), Knows("dino", ("cat",))
    chain = LocatorChain([reader, detector])
    (located,) = chain.locate([IMAGE], [[*seek("cat"), *seek("48°", "letter a", kind="text")]])
    assert (reader.asked, detector.asked) == (["48°", "letter a"], ["cat", "letter a"])
    assert {(d.phrase, d.locator) for d in located.detections} == {("48°", "ocr"), ("cat", "dino")}


def test_what_a_checkpoint_was_never_taught_is_not_looked_for() -> None:
    detector = Knows("dino", ("red cat", "mug"))
    chain = LocatorChain([detector], {"dino": Dark(frozenset({"red", "cat"}))})
    white = Image.new("RGB", (64, 48), "white")
    known, foreign = chain.locate([IMAGE, white], [seek("red cat", "mug"), seek("red cat")])
    assert ([d.phrase for d in known.detections], known.foreign, known.out_of_domain) == (["red cat"], {"mug"}, {})
    assert (foreign.detections, foreign.out_of_domain) == ([], {"dino": "it is bright"})


def test_a_locator_that_fails_has_not_said_that_nothing_is_there() -> None:
    failing = Knows("vlm-boxes", error=JudgeError("timeout", "it never answered"))
    (located,) = LocatorChain([Knows("dino"), failing]).locate([IMAGE], [seek("cat")])
    assert (located.detections, list(located.failures)) == ([], ["vlm-boxes"])
    made = intervene(IMAGE, [(from_box(BOX, 48, 64), BOX)], fill="mean", shape="mask", seed=0)
    seen = [Detection("cat", BOX, 0.8, locator="vlm-boxes")]
    assert verify_removal(LocatorChain([failing]), [Case(made, seek("cat"), seen)]) == [[UNSEEN] * len(made)]


def test_each_locator_looks_again_for_what_it_found_itself() -> None:
    reader, detector = Knows("ocr", ("48°",)), Knows("dino", ("cat",))
    before = [Detection("48°", BOX, 0.9, locator="ocr"), Detection("cat", BOX, 0.9, locator="dino")]
    LocatorChain([reader, detector]).look_again([IMAGE], [seek("cat", "48°", "dog")], [before])
    assert (reader.asked, detector.asked) == (["48°"], ["cat"])


# ------------------------------------------------------------------------------------- the step


def ground(row: dict[str, Any], *locators: Any, domains: Any = None) -> tuple[list[Item], Ledger]:
    blank = {"id": "a", "question": "", "answer": "", "traces": [], "annotations": [], "regions": []}
    ledger = Ledger()
    items = Ground(LocatorChain(locators, domains)).run([Item(blank | row, IMAGE)], ledger)
    return items, ledger


def annotation(phrase: str, **changes: Any) -> dict[str, Any]:
    told = {"annotation_id": "a0", "kind": "object", "statement": phrase, "phrase": phrase, "quote": phrase, "flags": []}
    return told | {"role": "evidence", "role_by": "question"} | changes


def test_a_region_is_what_the_strongest_of_its_facts_is() -> None:
    facts = [
        annotation("cat", role="context"),
        annotation("cat", annotation_id="a1"),
        annotation("dog", annotation_id="a2", role="unknown", role_by="nobody"),
    ]
    ((item,), _) = ground({"annotations": facts}, Knows("dino", ("cat", "dog")))
    assert [(r["phrase"], r["role"], r["role_by"], r["locator"]) for r in item.row["regions"]] == [
        ("cat", "evidence", "question", "dino"),
        ("dog", "unknown", "nobody", "dino"),
    ]
    assert item.row["regions"][0]["annotation_ids"] == ["a0", "a1"]


def test_where_traces_tell_of_nothing_that_is_found_the_question_is_asked() -> None:
    """The answer is B: a right trace need not say more."""
    detector, reader = Knows("dino", ("cat",)), Knows("ocr", ("point a",), frozenset({"text"}))
    row = {"question": "How far is the cat from point A?", "annotations": [annotation("dog")]}
    ((item,), ledger) = ground(row, reader, detector)
    found = [(r["phrase"], r["role"], r["role_by"], r["locator"], r["annotation_ids"]) for r in item.row["regions"]]
    assert found == [("point a", "evidence", "question", "ocr", []), ("cat", "evidence", "question", "dino", [])]
    assert (ledger.counts["rows_by_question"], ledger.counts["phrases"], ledger.counts["phrases_not_found"]) == (1, 3, 1)
    assert [(s.phrase, s.kind) for s in sought_in(item.row)] == [("dog", "object"), ("point a", "text"), ("cat", "object")]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"annotations": [annotation("cat")]}, id="found"),
        pytest.param({"regions": [new_region("r0", "", BOX, "given")]}, id="given"),
    ],
)
def test_the_question_is_not_asked_where_something_is_known(changes: dict[str, Any]) -> None:
    detector = Knows("dino", ("cat", "dog"))
    ((item,), ledger) = ground({"question": "How tall is the dog?"} | changes, detector)
    assert (len(item.row["regions"]), ledger.counts["rows_by_question"]) == (1, 0)
    assert "dog" not in detector.asked


def test_facts_that_name_nothing_are_no_reason_to_ask_the_question() -> None:
    detector = Knows("dino", ("dog",))
    (items, ledger) = ground({"question": "How tall is the dog?", "annotations": [annotation("\u200b")]}, detector)
    assert (items, detector.asked) == ([], [])
    assert "looked for nothing" in ledger.rejects[0].detail


def test_a_locator_that_failed_is_not_asked_about_the_question() -> None:
    failing = Knows("vlm-boxes", error=JudgeError("timeout", "it never answered"))
    row = {"question": "How tall is the dog?", "annotations": [annotation("cat")]}
    (items, _) = ground(row, failing)
    assert (items, failing.asked) == ([], ["cat"])


def test_a_given_region_is_evidence_and_confirmed_but_never_extended() -> None:
    given = new_region("r0", "Cat", (5, 5, 20, 20), "given", role="evidence", role_by="given", mask_source="given")
    ((item,), _) = ground({"annotations": [annotation("cat", role="context")], "regions": [given]}, Knows("dino", ("cat",)))
    (region,) = item.row["regions"]
    assert (region["locator"], region["confirmed_by"], region["score"]) == ("given", "dino", 0.8)
    assert (region["role"], region["role_by"], region["annotation_ids"]) == ("evidence", "given", ["a0"])


def test_a_count_that_differs_is_flagged() -> None:
    facts = [annotation("cat", kind="count", quote="two cats"), annotation("cat", kind="count", quote="1 cat", annotation_id="a1")]
    ((item,), ledger) = ground({"annotations": facts}, Knows("dino", ("cat",), frozenset({"count"})))
    assert [a["flags"] for a in item.row["annotations"]] == [["count_differs"], []]
    assert ledger.counts["counts_that_differ"] == 1


def test_numbers_that_counts_begin_with() -> None:
    quotes = ["two cats", "Twelve cats", "3 cats", "several cats", "", "a cat", "⅓ cats", "99999 cats"]
    assert [stated_number(quote) for quote in quotes] == [2, 12, 3, None, None, None, None, None]


@pytest.mark.parametrize(
    ("row", "locators", "domains", "reason", "remedy"),
    [
        ({"annotations": [annotation("cat")]}, [Knows("dino")], None, "no phrase found in the image", "--detector.threshold"),
        ({"annotations": [annotation("mug")]}, [Knows("dino")], {"dino": Dark(frozenset())}, "out of domain", "--detector.name"),
        ({"annotations": [annotation("mug")]}, [Knows("boxes", error=JudgeError("timeout", "gone"))], None, "the locator failed", "gone"),
    ],
)
def test_a_row_without_a_region_says_what_to_do(row: Any, locators: Any, domains: Any, reason: str, remedy: str) -> None:
    items, ledger = ground(row, *locators, domains=domains)
    (reject,) = ledger.rejects
    assert (items, reject.reason) == ([], reason)
    assert remedy in reject.detail


def test_what_answers_took_is_paid_and_what_was_no_box_is_counted() -> None:
    class Asks(Knows):
        def locate(self, images: Any, sought: Any, threshold: float | None = None) -> list[Any]:
            return [Answered((Detection("cat", BOX, 1.0),), ("outside the image",), 2, 30, 4) for _ in images]

    _, ledger = ground({"annotations": [annotation("cat")]}, Asks("vlm-boxes"))
    assert (ledger.counts["vlm-boxes_requests"], ledger.counts["vlm-boxes_prompt_tokens"]) == (2, 30)
    assert ledger.counts["boxes_dropped: outside the image"] == 1


def test_a_second_opinion_drops_what_is_not_there_and_keeps_what_it_cannot_judge() -> None:
    class Sees:
        def verify(self, claims: Sequence[Any]) -> list[Any]:
            told = {"cat": Verdict(True, "a cat"), "dog": Verdict(False, "a cat"), "cow": JudgeError("timeout", "gone")}
            return [told[claim.phrase] for claim in claims]

    facts = [annotation(name, annotation_id=f"a{n}") for n, name in enumerate(("cat", "dog", "cow"))]
    ledger, blank = Ledger(), {"id": "a", "question": "", "answer": "", "traces": [], "regions": []}
    step = Ground(LocatorChain([Knows("dino", ("cat", "dog", "cow"))]), verifier=cast(Any, Sees()))
    (item,) = step.run([Item(blank | {"annotations": facts}, IMAGE)], ledger)
    assert [r["phrase"] for r in item.row["regions"]] == ["cat", "cow"]
    assert (ledger.counts["findings_refuted"], ledger.counts["verifier_failed: timeout"]) == (1, 1)


# ------------------------------------------------------------------------------------ the build


def test_stages_are_the_steps_in_order() -> None:
    steps = steps_of(BuildConfig(source="rows.jsonl", out=Path("out")), fake_models())
    assert ("ingest", *(step.stage for step in steps)) == STAGES


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One row that mentions two things and asks about one."""
    monkeypatch.setattr(pipelines.build, "load_models", lambda config: fake_models())
    picture = scene("red", (8, 8, 20, 20))
    picture.paste((0, 0, 255), (40, 8, 52, 20))
    text = "There is a red square and a blue square. The answer is red."
    row = record("a", "red", question="Where is the red square?", traces=[text])
    pipelines.build.build(BuildConfig(source=str(write_rows(tmp_path, [row], {"a.png": picture})), out=tmp_path / "out"))
    return tmp_path / "out"


def test_counterfactuals_erase_the_evidence_and_nothing_else(built: Path) -> None:
    assert validate(built)["valid"]
    (row,) = store.read_rows(built)
    assert {r["phrase"]: r["role"] for r in row["regions"]} == {"red square": "evidence", "blue square": "context"}
    by_role = {c["role"]: c for c in row["counterfactuals"]}
    ids = {r["phrase"]: [r["region_id"]] for r in row["regions"]}
    red, blue = ids["red square"], ids["blue square"]
    assert {role: c["region_ids"] for role, c in by_role.items()} == {"evidence": red, "control": red, "context": blue}
    assert {role: c["verified"] for role, c in by_role.items()} == {"evidence": True, "control": True, "context": True}


def test_an_answerer_weighs_every_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SeesRed:
        name = "sees red"

        def log_probabilities(self, images: Any, question: str, choices: Any, answer: str) -> list[float]:
            return [sum(pixel == (255, 0, 0) for pixel in image.getdata()) / 144 for image in images]

        def info(self) -> ModelInfo:
            return ModelInfo(self.name, "1")

    chain = fake_models().locators
    models = Models(FakeAnnotator(), chain, FakeSegmenter(), answerer=SeesRed())
    monkeypatch.setattr(pipelines.build, "load_models", lambda config: models)
    picture = scene("red", (8, 8, 20, 20))
    picture.paste((0, 0, 255), (40, 30, 52, 42))
    text = "There is a red square and a blue square. The answer is red."
    rows = [record("a", "red", question="Why?", traces=[text])]  # a question that tells nothing
    out = tmp_path / "out"
    manifest = pipelines.build.build(BuildConfig(source=str(write_rows(tmp_path, rows, {"a.png": picture})), out=out, answerer="x"))
    (row,) = store.read_rows(out)
    blue, red = sorted(row["regions"], key=lambda r: str(r["phrase"]))
    assert (red["effect"], red["role"], red["role_by"]) == (pytest.approx(1), "evidence", "effect")
    assert (blue["effect"], blue["role"], blue["role_by"]) == (0, "context", "effect")
    assert (row["provenance"]["answerer"], manifest["counts"]["regions_weighed"]) == ("sees red", 2)
    assert validate(out)["valid"]


FACTS = [{"kind": "object", "statement": f"There is a {name}.", "phrase": name, "quote": name} for name in ("mug", "cat")]


def see(n: int, body: dict[str, Any]) -> Answer:
    """A judge that sees: facts for a trace, boxes for phrases, and a word on a crop."""
    content = body["messages"][1]["content"]
    asked = json.loads(content if isinstance(content, str) else content[1]["text"])
    if "trace" in asked:
        return completion(json.dumps({"facts": [{**fact, "needed": "yes", "why": "seen"} for fact in FACTS]}))
    if "phrases" in asked:
        return completion(json.dumps({"boxes": [{"bbox_2d": [100, 100, 400, 500], "label": p} for p in asked["phrases"]]}))
    return completion(json.dumps({"shows": asked["phrase"] == "mug", "reason": "that is what it is"}))


def test_boxes_are_asked_for_and_verified_and_paid(tmp_path: Path) -> None:
    """From flags to the dataset: a word that the embedded detector was never taught is asked for, and looked at again."""
    row = record("a", "red", traces=["A mug and a cat. The answer is red."], license="cc0-1.0")
    with Server(see).running() as server:
        seer = {"model": "seer", "base_url": server.url, "price_in": 1.0, "price_out": 1.0}
        config = BuildConfig(source=str(write_rows(tmp_path, [row])), out=tmp_path / "out", annotator=seer, boxes=seer, verify=True)
        manifest = pipelines.build.build(config)
    (made,) = store.read_rows(tmp_path / "out")
    (region,) = made["regions"]
    assert (region["phrase"], region["locator"], region["role"], region["role_by"]) == ("mug", "vlm-boxes", "evidence", "judge")
    assert [locator["locator"] for locator in made["provenance"]["locators"]] == ["ocr", "grounding-dino", "vlm-boxes"]
    assert {m["stage"]: m["requests"] for m in manifest["cost"]["models"]} == {"judge": 1, "verifier": 2, "vlm-boxes": 3}
    assert {m["prompt_tokens"] for m in manifest["cost"]["models"]} == {100, 200, 300}  # of the image, the evidence and the control
    assert manifest["counts"]["findings_refuted"] == 1
    assert validate(tmp_path / "out")["valid"]
