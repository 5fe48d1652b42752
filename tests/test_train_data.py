"""Everything that `--data` may name: the formats of four trainers in files, folders and on the Hub, and what is said about each mistake."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

from pipelines.dataset.features import FEATURES  # noqa: E402
from pipelines.rows.parts import scan  # noqa: E402
from pipelines.rows.sources import open_source  # noqa: E402
from rewardlib import rle, templates  # noqa: E402
from rewardlib.rows import DatasetRow  # noqa: E402
from tests.conftest import encode  # noqa: E402
from train.data import DataError, load_rows, require, to_messages, to_row  # noqa: E402
from train.labels import Need  # noqa: E402

pytestmark = pytest.mark.usefixtures("datasets_cache")

SIZE = (112, 84)
BOX = [10.0, 12.0, 60.0, 40.0]
QUESTION = "How many squares?"
IMAGE = {"type": "image"}


def picture(seed=0, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def test_foreign_facts_are_of_another_image(tmp_path):
    rows = [
        {"image": "0.png", "question": "a?", "answer": "1", "annotations": ["a cup is red"]},
        {"image": "0.png", "question": "b?", "answer": "1", "annotations": ["a cup is blue"]},
        {"question": "c?", "answer": "1", "annotations": ["nothing to see"]},
        {"image": "1.png", "question": "d?", "answer": "1", "annotations": ["a dog", "a cup is red"]},
    ]
    for n in range(2):
        picture(n + 5).save(tmp_path / f"{n}.png")
    data = as_json(tmp_path / "rows.jsonl", rows)
    loaded = load_rows(str(data), "boxed")
    assert loaded[0].sample.foreign == ()
    loaded.with_foreign = True
    assert [row.sample.foreign for row in loaded] == [("a dog",), ("a dog", "a cup is red"), ("a dog", "a cup is red"), ("a cup is blue",)]


def needing(*labels):
    """Needs as the accuracy, attention, causal attention and perception rewards have them, and anchoring."""
    who = {
        "answer": ("the accuracy reward", "set --accuracy 0"),
        "regions": ("the attention contrast reward", "set --attention-contrast 0"),
        "evidence_image": ("the causal attention reward", "set --causal-attention 0"),
        "annotations": ("the perception reward", "set --perception 0"),
        "traces": ("anchoring", ""),
    }
    return [Need(label, *who[label]) for label in labels]


def text(words):
    return {"type": "text", "text": words}


def asked(question=QUESTION, images=1, template="boxed"):
    return [{"role": "user", "content": [IMAGE] * images + [text(f"{question}\n{templates.LAYOUTS[template].instruction}")]}]


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


def as_parquet(path, rows, **features):
    """Rows as `datasets` writes them, with the images in the file."""
    table = datasets.Dataset.from_list(rows)
    for name, feature in features.items():
        table = table.cast_column(name, feature)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)
    return path


def as_json(path, rows, pictures=()):
    """Rows a line each, or an array where the name says so, and numbered pictures 0.png, 1.png... beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for n, shown in enumerate(pictures):
        shown.save(path.parent / f"{n}.png")
    path.write_text(json.dumps(rows, indent=1) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------------------------------------------------------------
# One question in the layout of every trainer


def sightline(folder):
    """As flows.build_dataset leaves it: rows of two splits in data/, and a table of rejects beside them."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[12:40, 10:60] = True
    changed = [{"role": role, "image": {"bytes": encode(picture(9 + n)), "path": None}} for n, role in enumerate(("evidence", "control"))]
    row = dict.fromkeys(FEATURES) | {
        "id": "a",
        "image": {"bytes": encode(picture()), "path": None},
        "question": QUESTION,
        "choices": [],
        "answer": "4",
        "traces": [{"text": "four", "correct": True}, {"text": "five", "correct": False}],
        "annotations": [{"statement": "there are squares"}],
        "regions": [{"bbox": BOX, "mask": rle.encode(mask)}],
        "counterfactuals": changed,
    }
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table = datasets.Dataset.from_list([row | {"split": split}], features=FEATURES)
        table.to_parquet(folder / "data" / f"{split}-00000.parquet")
    datasets.Dataset.from_list([{"stage": "ingest"}]).to_parquet(folder / "rejects.parquet")
    return folder


def easyr1(folder):
    row = {"images": [{"bytes": encode(picture()), "path": None}], "problem": f"<image>{QUESTION}", "answer": "4", "bboxes": [BOX]}
    return as_parquet(folder / "train.parquet", [row], images=datasets.List(datasets.Image()))


def verl(folder):
    """As pandas would write it: the images are structs, not marked as images."""
    row = {
        "data_source": "squares",
        "prompt": [{"role": "user", "content": f"<image>\n{QUESTION}"}],
        "images": [{"bytes": encode(picture()), "path": None}],
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 7, "answer": "Four squares are seen."},
        "bbox": BOX,
    }
    return as_parquet(folder / "train.parquet", [row])


def vlm_r1(folder):
    talk = [{"from": "human", "value": f"<image>{QUESTION}"}, {"from": "gpt", "value": "<answer> 4 </answer>"}]
    return as_json(folder / "rows.jsonl", [{"id": 3, "image": "0.png", "conversations": talk, "bboxs": [BOX]}], [picture()])


def vlm_r1_problem(folder):
    row = {"image": ["0.png"], "problem": QUESTION, "solution": "<think>2 + 2</think><answer>4</answer>", "regions": [{"bbox": BOX}]}
    return as_json(folder / "rows.json", [row], [picture()])


LAYOUTS = {"sightline": sightline, "easyr1": easyr1, "verl": verl, "vlm_r1": vlm_r1, "vlm_r1_problem": vlm_r1_problem}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_asks_the_same(name, tmp_path):
    rows = load_rows(str(LAYOUTS[name](tmp_path / name)), "boxed")
    (row,) = rows
    assert row.messages == asked()
    assert row.question == QUESTION
    assert row.sample.prompt == row.messages
    assert (row.sample.answer, row.sample.group) == ("4", row.id)
    assert row.id == {"sightline": "a", "vlm_r1": "3"}.get(name, "0")
    (image,) = row.images
    assert same(image, picture())
    assert row.region.shape == SIZE[::-1]
    assert row.region.sum() == 50 * 28
    assert require(rows, needing("answer", "regions")) == {}


def test_sightlines_own_labels_are_read(tmp_path):
    rows = load_rows(str(sightline(tmp_path / "built")), "boxed")
    sample = rows[0].sample
    assert (sample.annotations, rows[0].traces) == (("there are squares",), ("four",))
    assert same(sample.evidence_image, picture(9))
    assert same(sample.control_image, picture(10))
    assert require(rows, needing("annotations", "evidence_image", "traces")) == {}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_encoded(name, tmp_path):
    pytest.importorskip("torch")
    from tests.tiny_models import FAMILIES, PROCESSORS, model
    from train.policy import Policy

    policy = Policy(model(FAMILIES["qwen2_5_vl"]()), PROCESSORS["qwen2_5_vl"]())
    row = load_rows(str(LAYOUTS[name](tmp_path / name)), "boxed")[0]
    prompt = policy.encode(row.messages, row.images, row.region)
    assert prompt.image.sum() == 12  # 112 x 84 pixels at 28 a token
    assert 0 < prompt.region.sum() < 12


# ---------------------------------------------------------------------------------------------------------------------------------------
# Where the rows are


@pytest.mark.parametrize("kind", ["folder", "file", "pattern", "saved", "saved_splits"])
def test_places_of_a_table(kind, tmp_path):
    table = datasets.Dataset.from_list([{"problem": f"{n}?", "answer": str(n)} for n in range(3)])
    for n in range(3):
        table.select([n]).to_parquet(tmp_path / f"part-{n}.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "saved_splits")
    names = {"folder": "", "file": "part-1.parquet", "pattern": "part-[02].parquet"}
    rows = load_rows(str(tmp_path / names.get(kind, kind)), "boxed")
    assert [row.sample.answer for row in rows] == {"file": ["1"], "pattern": ["0", "2"]}.get(kind, ["0", "1", "2"])
    assert rows[-1].id == str(len(rows) - 1)


def test_held_out_splits_are_left_alone(tmp_path):
    built = sightline(tmp_path / "built")
    assert len(load_rows(str(built), "boxed")) == 1
    assert len(load_rows(str(built / "data" / "*.parquet"), "boxed")) == 1  # by the column
    (built / "data" / "train-00000.parquet").unlink()
    with pytest.raises(DataError, match="it has no files of the split train, only of test; name the files"):
        load_rows(str(built), "boxed")
    assert len(load_rows(str(built), "boxed", None)) == 1  # nothing to train on: a dataset for evaluation


SPLITS = [
    (("geo_train.jsonl", "geo_test.jsonl"), "geo_train.jsonl"),
    (("Train.jsonl", "Test.jsonl"), "Train.jsonl"),
    (("training.jsonl", "test.jsonl"), "training.jsonl"),
    (("test.csv", "train.jsonl"), "train.jsonl"),
    (("data/test.jsonl", "train.jsonl"), "train.jsonl"),
    (("train-00000-of-00001.jsonl", "validation-00000-of-00001.jsonl", "._train.jsonl"), "train-00000-of-00001.jsonl"),
    (("part-0.jsonl", "test.jsonl"), "part-0.jsonl"),
    (("val.jsonl", "test.jsonl"), None),
    (("easy-00000.jsonl",), "easy-00000.jsonl"),
]


@pytest.mark.parametrize(("names", "wanted"), SPLITS)
def test_files_of_another_split_are_never_trained_on(names, wanted, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = f"question,answer\n{name}?,4\n" if name.endswith(".csv") else json.dumps({"question": f"{name}?", "answer": "4"})
        (tmp_path / name).write_text(text)
    if wanted is None:
        with pytest.raises(DataError, match="no files of the split train, only of test, validation"):
            load_rows(str(tmp_path), "boxed")
    else:
        assert [row.question for row in load_rows(str(tmp_path), "boxed")] == [f"{wanted}?"]


TABLES = {
    "commas": b"question,answer\nHow many?,4\n",
    "a mark before the first byte": b"\xef\xbb\xbfquestion,answer\nHow many?,4\n",
    "semicolons": b"question;answer\nHow many?;4\n",
    "tabs": b"question\tanswer\nHow many?\t4\n",
    "as Excel says": b"sep=;\nquestion;answer\nHow many?;4\n",
    "UTF-16": "question,answer\nHow many?,4\n".encode("utf-16"),
    "line ends of Windows": b"question,answer\r\nHow many?,4\r\n",
    "line ends of old Macs": b"question,answer\rHow many?,4\r",
    "spaces in the header": b" question , answer \nHow many?,4\n",
    "an index": b",question,answer\n0,How many?,4\n",
    "quotes": b'question,answer\n"How many?","4"\n',
}


SPLIT_ROWS = [
    {"id": f"r{n}", "question": "What?", "answer": "1", "split": split} for n, split in enumerate(("train", "test", "Train", None))
]


def with_splits(tmp_path, suffix, rows=SPLIT_ROWS):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        as_parquet(path, rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_tells_the_split(suffix, tmp_path, capsys):
    data = with_splits(tmp_path, suffix)
    rows = load_rows(data, "boxed")
    assert [row.id for row in rows] == ["r0", "r2", "r3"]
    assert "others are not read: test (1)" in capsys.readouterr().out.replace("\n", " ")
    assert [row.id for row in load_rows(data, "boxed", "test")] == ["r1", "r3"]
    assert len(load_rows(data, "boxed", "val")) == 4  # naming the file has named it
    require(rows, needing("answer"))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_of_other_splits_are_never_trained_on(suffix, tmp_path):
    data = with_splits(
        tmp_path, suffix, [row | {"split": split} for row, split in zip(SPLIT_ROWS, ("val", "test", "test", "dev"), strict=True)]
    )
    with pytest.raises(DataError, match=r"names no row train, only validation \(2\), test \(2\): give a file of one split"):
        load_rows(data, "boxed")


OTHER_SPLITS = {
    "no splits": (("easy", "hard", "easy", "hard"), 4),
    "nothing": ((None, "", "nan", None), 4),
    "numbers": ((0, 1, 0, 1), 4),
    "in lists": ((["train"], ["test"], ["train"], ["train"]), 3),
    "one": (("test", "test", "test", "test"), 4),
}


@pytest.mark.parametrize(("values", "count"), OTHER_SPLITS.values(), ids=OTHER_SPLITS)
def test_what_a_column_of_splits_may_hold(values, count, tmp_path):
    data = with_splits(tmp_path, ".jsonl", [row | {"split": split} for row, split in zip(SPLIT_ROWS, values, strict=True)])
    assert len(load_rows(data, "boxed")) == count


def test_rows_of_one_split_are_named_by_their_file(tmp_path):
    data = with_splits(tmp_path, ".jsonl", [row | {"split": "testmini"} for row in SPLIT_ROWS])
    assert len(load_rows(data, "boxed")) == len(load_rows(data, "boxed", None)) == 4


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("gone", [{}, {"id": None}])
def test_a_row_without_an_id_is_called_by_its_number_among_all(suffix, gone, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "id"} | gone for row in SPLIT_ROWS]
    assert [row.id for row in load_rows(with_splits(tmp_path, suffix, rows), "boxed")] == ["0", "2", "3"]


def test_a_question_that_is_all_in_the_image(tmp_path):
    picture().save(tmp_path / "0.png")
    rows = [
        {"image": "0.png", "question": "<image>", "choices": ["1", "2"], "answer": "B"},
        {"images": ["0.png"], "messages": [{"role": "user", "content": "<image>"}], "answer": "B"},
    ]
    for row in rows:
        assert load_rows(with_splits(tmp_path, ".jsonl", [row]), "boxed")[0].images


def test_missing_images_are_counted_among_the_rows_of_the_split(tmp_path, capsys):
    rows = [row | {"image": None if n == 1 else encode(picture())} for n, row in enumerate(SPLIT_ROWS)]
    require(load_rows(with_splits(tmp_path, ".parquet", rows), "boxed"), needing("answer"))
    assert "have no image" not in capsys.readouterr().out


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_in_text(table, tmp_path):
    (tmp_path / "rows.csv").write_bytes(table)
    (row,) = load_rows(str(tmp_path / "rows.csv"), "boxed")
    assert (row.question, row.sample.answer) == ("How many?", "4")


def test_a_bad_line_of_a_table_costs_itself(tmp_path):
    lines = [b"id,question,answer", b"a,How many?,4", b"b,Cups, or mugs?,4", b"c,caf\xe9?,4", b'd,"two\nlines?",4', b"e,How many?"]
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    rows = load_rows(str(tmp_path / "rows.csv"), "boxed")
    require(rows, needing("answer"))
    assert {left.reason for left in rows.left_out.values()} == {"not CSV", "not UTF-8"}
    assert [row.id for n in range(len(rows)) if (row := rows.take(n))] == ["a", "d", "e"]


def test_patterns_over_folders_and_packed_files(tmp_path):
    import gzip

    for n in range(3):
        (tmp_path / f"part{n}").mkdir()
        data = json.dumps({"question": f"{n}?", "answer": "4"}).encode()
        (tmp_path / f"part{n}" / "rows.JSONL.GZ").write_bytes(gzip.compress(data))
    assert [row.question for row in load_rows(str(tmp_path / "*" / "rows.JSONL.GZ"), "boxed")] == ["0?", "1?", "2?"]
    assert len(load_rows(str(tmp_path / "**" / "*.GZ"), "boxed")) == 3


def test_other_columns_of_images_are_named(tmp_path, capsys):
    rows = [
        {"image": "0.png", "picture": None, "question": "?", "answer": "4"},
        {"image": "0.png", "picture": "0.png", "question": "?", "answer": "4"},
    ]
    load_rows(str(as_json(tmp_path / "rows.jsonl", rows, [picture()])), "boxed")
    assert "the columns picture look like images, and are not read" in capsys.readouterr().out


def test_empty_lists_of_images_are_counted(tmp_path, capsys):
    rows = [{"images": images, "question": "?", "answer": "4"} for images in ([], [{"bytes": encode(picture()), "path": None}])]
    data = as_parquet(tmp_path / "rows.parquet", rows, images=datasets.List(datasets.Image()))
    require(load_rows(str(data), "boxed"))
    assert "1 of 2 rows have no image and are asked without one" in capsys.readouterr().out


ODD = [
    {"image": "file://[old]/a.png"},
    {"id": "\ud83d", "image": "9.png"},
    {"image": "http://x/\ud83d.png"},
    {"image": "data:image/png,\ud83d"},
    {"id": "a\x1b[31m", "image": "9.png"},
]
# Parquet holds no half characters.
HALF = [odd for odd in ODD if any("\ud83d" in value for value in odd.values())]


@pytest.mark.parametrize(
    ("suffix", "odd"), [(suffix, odd) for suffix in ("jsonl", "parquet") for odd in ODD if suffix == "jsonl" or odd not in HALF]
)
def test_no_row_is_so_odd_that_it_ends_a_run(odd, suffix, tmp_path, capsys):
    rows = [GOOD, GOOD | {"id": "odd"} | odd]
    if suffix == "parquet":
        data = as_parquet(tmp_path / "rows.parquet", rows)
        picture().save(tmp_path / "0.png")
    else:
        data = as_json(tmp_path / "rows.jsonl", rows, [picture()])
    loaded = load_rows(str(data), "boxed")
    require(loaded, needing("answer"))
    assert loaded.take(0) is not None
    assert loaded.take(1) is None
    assert "\x1b" not in capsys.readouterr().out


def hub(monkeypatch, **splits):
    """A Hub of one dataset, which is a folder."""
    real = datasets.load_dataset

    def load_dataset(name, split):
        assert name == "someone/squares"
        return real("parquet", data_files=splits, split=split)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return "someone/squares"


def test_a_dataset_on_the_hub(monkeypatch, tmp_path):
    path = str(easyr1(tmp_path))
    assert load_rows(hub(monkeypatch, train=path), "boxed")[0].messages == asked()


def test_a_dataset_on_the_hub_without_training_rows(monkeypatch, tmp_path):
    path = str(easyr1(tmp_path))
    with pytest.raises(DataError, match=r"cannot read someone/squares: Unknown split \"train\".*\['test'\].*, or a Hub id"):
        load_rows(hub(monkeypatch, test=path), "boxed")


@pytest.mark.parametrize("place", ["rows/0.png", "rows/images/0.png", "0.png", "images/0.png", "elsewhere/0.png"])
def test_places_of_an_image(place, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    picture().save(tmp_path / place)
    path = str(tmp_path / place) if place.startswith("elsewhere") else "0.png"
    data = as_json(tmp_path / "rows" / "train.jsonl", [{"image": path, "question": QUESTION, "answer": "4"}])
    assert same(load_rows(str(data), "boxed")[0].images[0], picture())


@pytest.mark.parametrize("stored", ["path", "struct", "bytes"])
def test_images_in_a_table_that_are_not_marked_as_such(stored, tmp_path):
    picture().save(tmp_path / "0.png")
    value = {"path": "0.png", "struct": {"bytes": None, "path": "0.png"}, "bytes": encode(picture())}[stored]
    data = as_parquet(tmp_path / "rows.parquet", [{"image": value, "question": QUESTION, "answer": "4"}])
    assert same(load_rows(str(data), "boxed")[0].images[0], picture())


def test_images_are_upright_and_opaque(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "0.jpg").write_bytes(encode(Image.new("RGB", SIZE), "JPEG", exif=turned))
    Image.new("RGBA", SIZE, (0, 0, 0, 0)).save(tmp_path / "1.png")
    data = as_json(tmp_path / "rows.jsonl", [{"images": ["0.jpg", "1.png"], "problem": QUESTION, "answer": "4"}])
    upright, opaque = load_rows(str(data), "boxed")[0].images
    assert upright.size == SIZE[::-1]
    assert (opaque.mode, opaque.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_columns_of_several_types(tmp_path):
    """JSON knows no types, and `datasets` stores such columns as JSON text."""
    rows = [{"image": "0.png", "problem": QUESTION, "answer": 4}, {"image": ["0.png", "1.png"], "problem": QUESTION, "answer": "four"}]
    data = as_json(tmp_path / "rows.jsonl", rows, [picture(), picture(1)])
    datasets.load_dataset("json", data_files=str(data), split="train").save_to_disk(tmp_path / "saved")
    for place in (data, tmp_path / "saved"):
        loaded = load_rows(str(place), "boxed")
        assert [row.sample.answer for row in loaded] == ["4", "four"]
        assert [len(row.images) for row in loaded] == [1, 2]


# ---------------------------------------------------------------------------------------------------------------------------------------
# Chats


def chat(columns, images):
    """The messages of a row with so many images."""
    return to_messages(DatasetRow({**columns, "images": [b"image"] * images}).turns, "DO")


def chatted(problem, images):
    (message,) = chat({"problem": problem}, images)
    return message["content"]


def test_placeholders_are_the_places_of_images():
    assert chatted("What differs?", 2) == [IMAGE, IMAGE, text("What differs?\nDO")]
    assert chatted("<image>\n <image>\nWhat differs?", 2) == [IMAGE, IMAGE, text("What differs?\nDO")]
    assert chatted("Is <image> like <image>?", 2) == [text("Is "), IMAGE, text(" like "), IMAGE, text("?\nDO")]
    assert chatted("Is it like <image>?", 2) == [IMAGE, text("Is it like "), IMAGE, text("?\nDO")]
    assert chatted("What is this?\n<image>", 1) == [text("What is this?\n"), IMAGE, text("DO")]
    assert chatted("How are you?", 0) == [text("How are you?\nDO")]


def test_images_keep_their_order(tmp_path):
    rows = [{"images": ["1.png", "0.png"], "problem": "<image> or <image>?", "answer": "4"}]
    row = load_rows(str(as_json(tmp_path / "rows.jsonl", rows, [picture(), picture(1)])), "boxed")[0]
    assert [part["type"] for part in row.messages[0]["content"]] == ["image", "text", "image", "text"]
    assert same(row.images[0], picture(1))
    assert same(row.images[1], picture())


def test_system_messages_and_earlier_turns_stay():
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "And this: <image>?"},
        {"role": "assistant", "content": "A circle."},
    ]
    expected = [
        ("system", [text("Be brief.")]),
        ("user", [IMAGE, text("What is it?")]),
        ("assistant", [text("A square.")]),
        ("user", [text("And this: "), IMAGE, text("?\nDO")]),
    ]
    for columns in ({"prompt": prompt}, {"messages": prompt, "question": "Something else?"}):
        found = chat(columns, 2)
        assert [(message["role"], message["content"]) for message in found] == expected
        assert DatasetRow(columns).answer == "A circle."


def test_choices_belong_to_a_question():
    options = {"choices": ["red", "blue"], "answer": "B"}
    (message,) = chat({"question": "Which?", **options}, 1)
    assert message["content"] == [IMAGE, text("Which?\n(A) red\n(B) blue\nDO")]
    (message,) = chat({"problem": "Which? (A) red (B) blue", **options}, 0)
    assert message["content"] == [text("Which? (A) red (B) blue\nDO")]
    assert to_row({"problem": "Which?", **options}, "boxed").sample.choices == ("red", "blue")


# ---------------------------------------------------------------------------------------------------------------------------------------
# Labels


@pytest.mark.parametrize(
    ("columns", "gold"),
    [
        ({"answer": " 4 "}, "4"),
        ({"answer": "", "solution": "<answer> 4 </answer>"}, "4"),
        ({"solution": '<answer>{"bbox": [1, 2, 3, 4]}</answer>'}, '{"bbox": [1, 2, 3, 4]}'),
        ({"solution": [1, 2, 3, 4]}, "[1, 2, 3, 4]"),
        ({"solution": 0}, "0"),
        ({"answer": "with its working", "reward_model": {"ground_truth": "4", "style": "rule"}}, "4"),
        ({"answer": None, "reward_model": {"ground_truth": None}}, None),
        ({"answer": json.dumps({"answer": "4", "choices": ["3", "4"]})}, "4"),
        ({"prompt": [{"role": "user", "content": "?"}]}, None),
    ],
)
def test_gold_answers(columns, gold):
    assert DatasetRow(columns).answer == gold


def test_what_an_answers_json_says_is_read():
    told = DatasetRow({"answer": json.dumps({"answer": "4", "choices": ["3", "4"], "regions": [{"bbox": BOX}]}), "choices": ["x"]})
    assert (told.choices.texts, told.regions) == (("3", "4"), [{"bbox": BOX}])


@pytest.mark.parametrize(
    "columns", [{"regions": [{"bbox": BOX}]}, {"bboxes": [BOX]}, {"bboxs": [BOX]}, {"bbox": BOX}, {"bbox": json.dumps(BOX)}]
)
def test_regions_under_other_names(columns):
    assert DatasetRow(columns).regions == [{"bbox": BOX}]


def test_visual_key_information():
    info = "<info1>there is a square</info1>\n<info2> it is red </info2>"
    assert to_row({"problem": "?", "visual_key_info": info}, "boxed").sample.annotations == ("there is a square", "it is red")


def labelled(tmp_path, labels):
    """Rows of a table with one image each, and these columns."""
    rows = [
        {"image": {"bytes": encode(picture(n)), "path": None}, "question": QUESTION, "answer": "4", **row} for n, row in enumerate(labels)
    ]
    return load_rows(str(as_parquet(tmp_path / "rows.parquet", rows, image=datasets.Image())), "boxed")


def test_rows_without_a_label_are_counted_and_no_image_is_opened(tmp_path, monkeypatch):
    changed = [{"role": "evidence", "image": {"bytes": b"no image", "path": None}}]
    first = {"regions": [{"bbox": BOX}], "counterfactuals": [], "annotations": []}
    others = [{"regions": [], "counterfactuals": changed, "annotations": [{"statement": "a"}]}] * 2
    rows = labelled(tmp_path, [first, *others])
    monkeypatch.setattr(datasets.Image, "decode_example", None)
    assert require(rows, needing("answer", "regions", "evidence_image", "annotations")) == {
        "regions": 2,
        "evidence_image": 1,
        "annotations": 1,
    }
    assert require(rows) == {}


NEEDED = {
    "answer": "accuracy reward needs a gold answer, and none of the 2 rows of {} has any: add a column answer, or set --accuracy 0",
    "regions": "contrast reward needs regions of evidence, and none of the 2 rows of {} has any: build labels with .*, "
    "or set --attention-contrast 0",
    "evidence_image": "needs images without their evidence, and none of the 2 rows of {} has any: .*, or set --causal-attention 0",
    "annotations": "needs annotations, and none of the 2 rows of {} has any: .*, or set --perception 0",
    "traces": "needs correct traces, and none of the 2 rows of {} has any: .* from rows that have traces",
}


@pytest.mark.parametrize("label", NEEDED)
@pytest.mark.parametrize("given", ["absent", "empty"])
def test_a_label_that_no_row_has(label, given, tmp_path):
    empty = {"answer": " "} | ({"regions": [], "counterfactuals": [], "annotations": [], "traces": []} if given == "empty" else {})
    rows = labelled(tmp_path, [empty] * 2)
    with pytest.raises(DataError, match=NEEDED[label].format(".*rows.parquet")):
        require(rows, needing(label))


# ---------------------------------------------------------------------------------------------------------------------------------------
# Mistakes


def test_what_cannot_be_read(tmp_path):
    remedy = "; expected JSON Lines, a JSON array, CSV, .*a folder made by `python -m flows.build_dataset`, or a Hub id"
    for name, content, problem in [
        ("nothing", None, "there is no such file or folder"),
        ("nothing.parquet", None, "there is no such file or folder"),
        ("nothing.jsonl", None, "there is no such file or folder"),
        ("nothing-*.jsonl", None, "no file is called like that"),
        ("rows.xlsx", "PK", "rows.xlsx is no file of rows"),
        ("broken.parquet", "PAR", "broken.parquet is damaged: .*Parquet"),
        ("broken.json", '[{"question": "?"},', "it is no JSON array: Expecting value"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=f"cannot read .*{re.escape(name)}: .*{problem}.*{remedy}"):
            load_rows(str(tmp_path / name), "boxed")


@pytest.mark.parametrize("content", ["[]", "\n", ""])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
def test_files_without_rows(name, content, tmp_path):
    (tmp_path / name).write_text("" if content == "[]" and name == "rows.csv" else content)
    with pytest.raises(DataError, match=f"{name} has no rows"):
        load_rows(str(tmp_path / name), "boxed")


def test_folders_without_rows(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*: there is no file of rows in it; expected"):
        load_rows(str(tmp_path), "boxed")
    table = datasets.Dataset.from_dict({"question": [], "answer": []})
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"test_folders_without_rows0 has no rows"):
        load_rows(str(tmp_path), "boxed")
    table.save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match=r"cannot read .*none: it has no rows, or one of its splits has none; expected"):
        load_rows(str(tmp_path / "none"), "boxed")
    table = datasets.Dataset.from_list([{"question": "?", "answer": "4"}])
    datasets.DatasetDict({"test": table, "dev": table}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"cannot read .*saved: it has no split train, only test, dev; expected"):
        load_rows(str(tmp_path / "saved"), "boxed")


GOOD = {"id": "good", "image": "0.png", "question": QUESTION, "answer": "4"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "4", "label": "x"}, "has no question column, only answer, label; questions are read from question, problem, .*rename"),
        (
            {"question": "?", "label": "x"},
            "has no answer column, only label, question; answers are read from answer, solution, .*reward_model",
        ),
        (
            {"question": "?", "answer": "4", "img": "0.png"},
            "has no image column, only .*img.*; images are read from images, image, image_path",
        ),
        ({"question": "?", "answer": "4", "pics": ["0.png"]}, "has no image column, only answer, pics, question"),
    ],
)
def test_columns_that_nobody_knows(row, message, tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/rows.jsonl {message}"):
        load_rows(str(as_json(tmp_path / "rows.jsonl", [row], [picture()])), "boxed")


def test_a_table_whose_images_nobody_knows(tmp_path):
    row = {"picture": {"bytes": encode(picture()), "path": None}, "question": "?", "answer": "4"}
    with pytest.raises(DataError, match="has no image column, only answer, picture, question"):
        load_rows(str(as_parquet(tmp_path / "rows.parquet", [row], picture=datasets.Image())), "boxed")


MISTAKES = [
    ({"image": "9.png"}, "missing image: the file '9.png' does not exist in rows/; put it there, or write its absolute path"),
    ({"image": "/nowhere/9.png"}, "missing image: the file '/nowhere/9.png' does not exist; put it there"),
    ({"image": "rows.jsonl"}, "unreadable image: not an image format that can be read"),
    ({"image": 7}, "bad image: the image is 7, expected a path, the bytes of a file, or base64"),
    ({"image": "https://example.org/9.png"}, "image on the web: https://example.org/9.png is an address, .*: download it"),
    ({"messages": [{"role": "user", "content": None}]}, "no question: the question has no words; write them, or drop the row"),
    ({"question": " "}, "no question: there is no question; fill one of question, problem, prompt, or drop the row"),
    (
        {"question": None, "problem": "Is it <image> or <image>?"},
        r"placeholders without images: the text has 2 <image> placeholders for 1 images: 'Is it <image> or <image>\?'; add images, or take",
    ),
    ({"image": []} | {"question": "<image>?"}, "the text has 1 <image> placeholders for 0 images"),
    ({"prompt": [{"role": "system", "content": "x"}]}, "the chat has no message of a user, only of system; add the question"),
    ({"prompt": [{"text": "x"}]}, r"prompt holds the message \{'text': 'x'\}; expected role and content, or from and value"),
    ({"prompt": ["x"]}, "prompt holds the message 'x'; expected role and content"),
    ({"bbox": [0.1, 0.2, 0.3, 0.4]}, r"regions\[0\].bbox \[0.1, 0.2, 0.3, 0.4\] lies on one pixel; shares of the image need a bbox_type"),
    (
        {"bbox": [10, 10, 900, 40]},
        r"regions\[0\].bbox \[10, 10, 900, 40\] does not lie on the image of 112x84: .* in pixels .*; convert",
    ),
    ({"bbox": [60, 10, 20, 40]}, r"regions\[0\].bbox \[60, 10, 20, 40\] does not lie"),
    ({"bboxes": [[1, 2, 3]]}, r"regions\[0\].bbox is \[1, 2, 3\], expected x0, y0, x1, y1"),
    ({"regions": [{"label": "square"}]}, r"regions\[0\].bbox is None, expected x0, y0, x1, y1"),
    ({"choices": "ABC"}, "bad choices: choices is 'ABC', expected a list of texts"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_a_mistake_in_a_row(change, message, tmp_path, capsys):
    """Asked for by its number the row is an error that names it; a run goes on without it."""
    data = as_json(tmp_path / "rows" / "rows.jsonl", [GOOD, GOOD | {"id": "bad"} | change], [picture()])
    rows = load_rows(str(data), "boxed")
    with pytest.raises(DataError, match=rf"{data}, row 1 \(id 'bad'\): .*{message}"):
        rows[1]
    assert rows.take(0) is not None
    assert rows.take(1) is rows.take(1) is None
    assert [left.id for left in rows.left_out.values()] == ["bad"]
    assert capsys.readouterr().out.count("left out row bad: ") == 1


def test_a_null_image_is_a_question_without_one(tmp_path, capsys):
    data = as_json(tmp_path / "rows.jsonl", [GOOD, GOOD | {"image": None}], [picture()])
    rows = load_rows(str(data), "boxed")
    assert rows[1].images == ()
    require(rows)
    assert "1 of 2 rows have no image and are asked without one" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_images_that_are_all_null_are_a_mistake(suffix, tmp_path):
    rows = [{"image": None, "question": QUESTION, "answer": "4"}] * 2
    write = as_json if suffix == "jsonl" else partial(as_parquet, image=datasets.Image())
    with pytest.raises(DataError, match=r"the column image of .* is empty in all 2 rows: give images, or remove the column"):
        require(load_rows(str(write(tmp_path / f"rows.{suffix}", rows)), "boxed"))


def test_a_file_of_text_is_looked_over_before_the_first_step(tmp_path, capsys):
    bad = [{**GOOD, "id": None, "image": "9.png"}, {**GOOD, "id": "b", "choices": 7}]
    data = as_json(tmp_path / "rows.jsonl", [GOOD, *bad], [picture()])
    rows = load_rows(str(data), "boxed")
    require(rows, needing("answer"))
    assert [(left.id, left.reason) for left in rows.left_out.values()] == [("1", "missing image"), ("b", "bad choices")]
    assert "left out row 1: missing image: the file '9.png' does not exist" in capsys.readouterr().out


def test_rows_that_cannot_be_parsed_are_left_out(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b'{"question": "?", "answer": "4"}\n{bad}\n[1]\n{"question": "caf\xe9"}\n')
    rows = load_rows(str(data), "boxed")
    require(rows, needing("answer"))
    assert [left.reason for left in rows.left_out.values()] == ["not JSON", "not an object", "not UTF-8"]


def test_a_file_of_bad_rows_alone_stops(tmp_path):
    data = as_json(tmp_path / "rows.jsonl", [GOOD | {"image": "9.png"}] * 5)
    with pytest.raises(DataError, match=r"none of the 5 rows of .* can be used; the first, good: the file '9.png' does not exist"):
        require(load_rows(str(data), "boxed"))


def test_many_rows_of_a_kind_are_said_once(tmp_path, capsys):
    data = as_json(tmp_path / "rows.jsonl", [GOOD, *({**GOOD, "id": n, "image": "9.png"} for n in range(9))], [picture()])
    require(load_rows(str(data), "boxed"))
    said = capsys.readouterr().out
    assert said.count("left out row") == 3
    assert "further rows of the kind 'missing image' are left out without a word, and counted" in said


def test_a_broken_image_in_a_table_is_found_when_it_is_asked_for(tmp_path):
    shown = [{"bytes": data, "path": "0.png"} for data in (encode(picture()), encode(picture())[:60])]
    rows = [{"image": image, "question": QUESTION, "answer": "4"} for image in shown]
    loaded = load_rows(str(as_parquet(tmp_path / "rows.parquet", rows, image=datasets.Image())), "boxed")
    assert loaded[0].images
    with pytest.raises(DataError, match=r"rows.parquet, row 1 \(id '1'\): unreadable image: .*truncated"):
        loaded[1]


def test_answers_may_be_missing_and_rows_may_have_no_image(tmp_path):
    data = as_json(
        tmp_path / "rows.jsonl", [{"question": "How are you?", "answer": None}, {"question": "Well?", "answer": "", "images": []}]
    )
    rows = load_rows(str(data), "boxed")
    assert [(row.images, row.region, row.sample.answer) for row in rows] == [((), None, None)] * 2
    assert rows[0].messages == asked("How are you?", images=0)


def test_rows_are_a_sequence(tmp_path):
    data = as_json(tmp_path / "rows.jsonl", [{"question": f"{n}?", "answer": str(n)} for n in range(3)])
    rows = load_rows(str(data), "boxed")
    assert [row.id for row in rows] == ["0", "1", "2"]
    assert rows[-1].id == "2"
    with pytest.raises(IndexError):
        rows[3]


def test_no_path_is_tied_to_the_working_folder(tmp_path, monkeypatch):
    vlm_r1(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert load_rows("rows.jsonl", "boxed")[0].messages == asked()
    monkeypatch.chdir(tmp_path)
    assert load_rows(str(Path("here") / "rows.jsonl"), "boxed")[0].messages == asked()


def test_roles_of_changed_images_are_told_without_reading_one(tmp_path):
    """Across batches, and for rows that have none."""
    image = {"bytes": encode(picture(0)), "path": None}
    rows = []
    for n in range(1003):
        changed = [{"role": "evidence", "image": image}] * (n % 3) + [{"role": "control", "image": image}] * (n % 2)
        rows.append({"question": "a?", "answer": "4", "counterfactuals": None if n % 7 == 0 else changed})
    feature = datasets.List({"role": datasets.Value("string"), "image": datasets.Image()})
    features = datasets.Features({"question": datasets.Value("string"), "answer": datasets.Value("string"), "counterfactuals": feature})
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    source = open_source(str(tmp_path / "rows.parquet"), "train")
    told = [DatasetRow(record).counterfactual_roles for record in scan(source, ["question", "counterfactuals"])]
    assert told == [{each["role"] for each in row["counterfactuals"] or ()} for row in rows]
