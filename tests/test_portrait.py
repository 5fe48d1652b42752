"""The same rows before and after a run: both are of the policies that they say, training knows nothing of them, the report shows them."""

import io
import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import polars
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")

from safetensors.torch import load_file  # noqa: E402

from tests.test_grpo import dataset_folder, picture, policy_folder, settings, timeless  # noqa: E402, F401
from tests.test_report import ATTACK, write_run  # noqa: E402
from train.data import load_rows  # noqa: E402
from train.engines.local import greedy  # noqa: E402
from train.forward import forward  # noqa: E402
from train.loading import load_model  # noqa: E402
from train.loop import Run, start, train  # noqa: E402
from train.measures import RegionAttention  # noqa: E402
from train.portrait import first_rows, portrait  # noqa: E402
from train.record import Record  # noqa: E402
from train.reporting import write_report  # noqa: E402
from train.sampling import encode_row  # noqa: E402

TITLE = "The same rows before and after"


def kept(out, moment):
    return polars.read_parquet(out / "portrait" / f"{moment}.parquet").to_dicts()


def page_of(out):
    return (out / "report.html").read_text()


def test_a_run_is_seen_from_its_two_ends(settings):  # noqa: F811
    train(replace(settings, attention_contrast=1.0))
    rows = load_rows(settings.data, settings.template)
    for moment, step, folder in (("before", 0, settings.model), ("after", 2, settings.out / "checkpoint-2")):
        expected = portrait(load_model(str(folder), "cpu"), rows, [0, 1, 2], settings)
        assert kept(settings.out, moment) == [{"step": step, **row} for row in expected]
    before, after = kept(settings.out, "before"), kept(settings.out, "after")
    assert [row["id"] for row in before] == [row["id"] for row in after] == ["row0", "row1", "row2"]
    assert all(a["attention"] != b["attention"] for a, b in zip(before, after, strict=True))
    assert Image.open(io.BytesIO(before[0]["image"])).size == (112, 84)
    page = page_of(settings.out)
    assert TITLE in page
    assert page.index(TITLE) < page.index("<h2>Rewards</h2>")
    assert page.count("<figcaption><b>before</b>") == page.count("<figcaption><b>after</b>") == 3
    assert page.count('<use class="grey" href="#portrait-1"/>') == 2
    assert "on these 3 rows only" in page
    assert "right 0 of 3 → 0 of 3" in page  # a random policy


def test_what_is_told_of_a_row_is_what_other_measures_say(settings):  # noqa: F811
    policy, rows = load_model(settings.model, "cpu"), load_rows(settings.data, settings.template)
    (told,) = portrait(policy, rows, [1], settings)
    prompt = encode_row(policy, rows[1], settings)
    (tokens,) = greedy(policy, [prompt], settings.max_tokens)
    with torch.no_grad():
        region, image = forward(policy, prompt, [tokens], measures=[RegionAttention(settings.layers)]).measured["attention"].mean(dim=0)
    assert told["response"] == policy.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    assert told["share"] == pytest.approx(float(region / image), rel=1e-4)
    assert told["area"] == pytest.approx(30 * 50 / (84 * 112), rel=1e-3)
    assert sum(map(sum, told["attention"])) == pytest.approx(float(image), rel=1e-4)
    assert told["correct"] == 0


@pytest.mark.parametrize("changed", [{}, {"lora": 4}, {"checkpointing": True, "kl": 0.1}], ids=str)
def test_training_knows_nothing_of_it(changed, settings, monkeypatch):  # noqa: F811
    seen = replace(settings, attention_contrast=1.0, **changed)
    unseen = replace(seen, out=settings.out.with_name("unseen"))
    train(seen)
    monkeypatch.setattr("train.loop.portrait", lambda *_: [])
    train(unseen)
    assert len(kept(seen.out, "after")) == 3
    assert not (unseen.out / "portrait").exists()
    assert timeless(seen.out) == timeless(unseen.out)
    weights = [load_file(next(run.out.glob("checkpoint-2/*.safetensors"))) for run in (seen, unseen)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_killed_run_keeps_how_it_began(settings, monkeypatch):  # noqa: F811
    chosen, write = replace(settings, steps=3, save_every=1), Record.step

    def killed(record, step, metrics):
        if step == 1:
            raise KeyboardInterrupt
        write(record, step, metrics)

    with monkeypatch.context() as patched:
        patched.setattr(Record, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(chosen)
    file = settings.out / "portrait" / "before.parquet"
    began = file.read_bytes(), file.stat().st_mtime_ns
    assert [path.name for path in file.parent.iterdir()] == ["before.parquet"]
    assert TITLE not in page_of(settings.out)
    train(chosen)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == began
    assert {row["step"] for row in kept(settings.out, "after")} == {3}
    assert "before the first step and after 3 steps" in page_of(settings.out)
    shutil.rmtree(settings.out / "checkpoint-3")
    start(chosen)  # from the start: what was after is of another run
    assert not file.parent.exists()


def test_rows_that_cannot_be_asked_or_show_no_evidence_are_passed_over(settings, tmp_path):  # noqa: F811
    picture(60).save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "How many?", "answer": "4", "regions": [{"bbox": [10, 10, 60, 40]}]}
    rows = [
        {"question": "How many?", "answer": "4"},
        {**row, "question": "What is <|image_pad|>?"},
        {**row, "regions": []},
        {**row, "image": "none.png"},
        {**row, "id": "good"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_rows(str(tmp_path / "rows.jsonl"), settings.template)
    policy = load_model(settings.model, "cpu")
    assert first_rows(policy, found, settings) == [4]
    assert [told["id"] for told in portrait(policy, found, range(5), settings)] == ["good"]
    assert first_rows(policy, found, replace(settings, max_prompt=20)) == []
    assert found.left_out == {}  # that is the training's business
    train(replace(settings, data=str(tmp_path / "rows.jsonl"), prompts=4))
    assert "on this row only" in page_of(settings.out)


def test_a_run_without_such_rows_shows_none(settings, tmp_path):  # noqa: F811
    rows = [{"question": "How many?", "answer": "4"}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(replace(settings, data=str(tmp_path / "rows.jsonl"), steps=1))
    assert not (settings.out / "portrait").exists()
    assert TITLE not in page_of(settings.out)


@pytest.mark.parametrize(("main", "shard"), [(True, True), (False, False)])
def test_several_processes_leave_it_to_the_main_one_and_sharded_ones_out(main, shard, settings):  # noqa: F811
    run = SimpleNamespace(settings=replace(settings, shard=shard), world=SimpleNamespace(main=main, size=2))  # with no policy to ask
    Run.portray(run, "before", 0)
    assert not (settings.out / "portrait").exists()


# ----------------------------------------------------------------------------------------------------------------------- the page


def told(number=0, **changes):
    buffer = io.BytesIO()
    picture(60).save(buffer, "PNG")
    row = {"step": 0, "number": number, "id": f"row{number}", "question": "How many?", "answer": "4", "response": "4", "correct": 1.0}
    seen = {"share": 0.25, "area": 0.125, "image": buffer.getvalue(), "boxes": [[0.0, 0.0, 0.5, 0.5]], "attention": [[0.1, 0.3]]}
    return row | seen | changes


def shown(out, before, after):
    (write_run(out) / "portrait").mkdir(exist_ok=True)
    for moment, rows in (("before", before), ("after", after)):
        polars.DataFrame(rows, infer_schema_length=None).write_parquet(out / "portrait" / f"{moment}.parquet")
    return write_report(out).read_text()


def test_the_first_line_counts_these_rows(tmp_path):
    before = [told(0, correct=0.0, share=0.1), told(1, correct=1.0, share=0.3), told(2, correct=None, answer=None, share=0.2)]
    after = [told(0, step=9, share=0.75), told(1, step=9, share=0.75), told(2, step=9, correct=None, answer=None, share=None)]
    page = shown(tmp_path, before, after)
    assert "Attention on the evidence 20\u00a0% → 75\u00a0%, right 1 of 2 → 2 of 2</b>" in page
    assert page.count('<b class="bad">wrong</b>') == 1
    assert page.count('<b class="good">right</b>') == 3
    assert page.count("of its attention on the evidence") == 5
    assert page.count("no gold answer") == 1


def test_rows_without_gold_or_attention_have_no_figures(tmp_path):
    blind = {"correct": None, "answer": None, "share": None, "attention": [[0.0, math.nan]]}
    page = shown(tmp_path, [told(**blind)], [told(**blind, step=1)])
    assert "of its attention on the evidence" not in page
    assert "on this row only" not in page
    assert "after 1 step." in page
    assert "right 0 of" not in page


def test_only_rows_of_both_ends_are_shown(tmp_path):
    page = shown(tmp_path, [told(0), told(1)], [told(1, step=5), told(2, step=5)])
    assert page.count("<article") == 1
    assert "row1" in page
    assert TITLE not in shown(tmp_path, [told(0)], [told(1)])
    (tmp_path / "portrait" / "after.parquet").unlink()
    assert TITLE not in write_report(tmp_path).read_text()


def test_nothing_of_a_row_becomes_markup(tmp_path):
    hostile = told(id=ATTACK, question=ATTACK, answer=ATTACK, response=ATTACK)
    page = shown(tmp_path, [hostile], [hostile])
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") == 5


def test_a_portrait_that_cannot_be_read_is_named(tmp_path):
    shown(tmp_path, [told()], [told()])
    polars.DataFrame({"number": [0]}).write_parquet(tmp_path / "portrait" / "after.parquet")
    with pytest.raises(ValueError, match=r"after\.parquet has no column answer, area, attention"):
        write_report(tmp_path)
