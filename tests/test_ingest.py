"""Every bad input is a counted reject or a clear ``SourceError``, never a crash; good input arrives whole."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydantic import ValidationError

from labeling import masks
from pipelines.building.ingest import MAX_TRACE, ingest, plan, source_of
from pipelines.config import BuildConfig
from pipelines.dataset import store
from pipelines.dataset.schema import Item, Ledger
from pipelines.rows.base import SourceError
from rewardlib.rows.images import normalize
from tests.conftest import SIZE, encode, record, scene, write_rows

WIDTH, HEIGHT = SIZE
REGION = {"phrase": "red square", "bbox": [8, 8, 20, 20]}
MASK = masks.encode(masks.from_box(REGION["bbox"], HEIGHT, WIDTH))


def take(source: Path, **settings: Any) -> tuple[list[Item], Ledger]:
    """Everything that a source gives; rows in are rows out plus rejects, whatever is in it."""
    config = BuildConfig(source=str(source), out=source.parent / "out", **settings)
    opened, ledger = source_of(config), Ledger()
    items = [item for shard in plan(opened, config) for item in ingest(shard, opened, config, ledger)]
    assert ledger.counts["rows_in"] == len(items) + len(ledger.rejects) == len(opened)
    return items, ledger


def take_one(folder: Path, row: dict[str, Any], images: dict[str, Any] | None = None) -> tuple[Item | None, str]:
    """A row that follows a good one: its item, or the reason why there is none."""
    items, ledger = take(write_rows(folder, [record("good"), row], images))
    assert items[0].row["id"] == "good", "a bad row must not cost the good one"
    assert all(r.detail.startswith("row 2: ") and r.stage == "ingest" for r in ledger.rejects)
    return (items[1] if len(items) > 1 else None), ledger.rejects[0].reason if ledger.rejects else ""


def decoded(item: Item) -> np.ndarray[Any, Any]:
    """The pixels of the bytes that would be stored."""
    return np.asarray(Image.open(io.BytesIO(item.row["image"]["bytes"])))


def giant_png() -> bytes:
    """A small PNG whose header claims 20000x20000."""
    data = encode(scene())
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def gif() -> bytes:
    return encode(scene(), "GIF", save_all=True, append_images=[scene("blue")])


UNUSABLE_IMAGES = {
    "zero bytes": (b"", "empty image"),
    "truncated PNG": (encode(scene())[:-40], "unreadable image"),
    "truncated JPEG": (encode(scene(), "JPEG")[:-60], "unreadable image"),
    "text": (b"This is not a picture.", "unreadable image"),
    "animation": (gif(), "animated image"),
    "one pixel": (encode(Image.new("RGB", (1, 1))), "image too small"),
    "thin line": (encode(Image.new("RGB", (400, 7))), "image too small"),
    "giant header": (giant_png(), "image too large"),
}


@pytest.mark.parametrize(("data", "reason"), UNUSABLE_IMAGES.values(), ids=UNUSABLE_IMAGES)
def test_unusable_image_is_rejected(tmp_path: Path, data: bytes, reason: str) -> None:
    assert take_one(tmp_path, record(), {"a.png": data}) == (None, reason)


def test_reject_of_an_image_holds_no_address(tmp_path: Path) -> None:
    _, ledger = take(write_rows(tmp_path, [record()], {"a.png": b"This is not a picture."}))
    assert " at 0x" not in ledger.rejects[0].detail  # it would differ from run to run, and with it the dataset's bytes


def test_reject_of_an_image_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    _, ledger = take(write_rows(tmp_path, [record(image=".")]))
    assert str(tmp_path) not in ledger.rejects[0].detail


def grey16() -> Image.Image:
    """A ramp over the whole 16-bit range; Pillow's own conversion would clip it to white."""
    ramp = np.linspace(0, 65535, WIDTH).round().astype(np.uint16)
    return Image.fromarray(np.broadcast_to(ramp, (HEIGHT, WIDTH)).copy())


def palette() -> bytes:
    """Left half red, right half transparent."""
    image = Image.new("P", SIZE, 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return encode(image, transparency=1)


GOOD_IMAGES = {
    "JPEG named .png": (encode(scene(), "JPEG", quality=100, subsampling=0), (254, 0, 0), (200, 200, 200)),
    "CMYK JPEG": (encode(Image.new("CMYK", SIZE, (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0), (255, 0, 0)),
    "16-bit grey": (encode(grey16()), (52, 52, 52), (255, 255, 255)),
    "palette with transparency": (palette(), (255, 0, 0), (255, 255, 255)),
    "RGBA": (encode(Image.new("RGBA", SIZE, (0, 0, 255, 0))), (255, 255, 255), (255, 255, 255)),
    "grey": (encode(Image.new("L", SIZE, 77)), (77, 77, 77), (77, 77, 77)),
    "one-frame GIF": (encode(scene(), "GIF"), (255, 0, 0), (200, 200, 200)),
}


@pytest.mark.parametrize(("data", "at_square", "at_corner"), GOOD_IMAGES.values(), ids=GOOD_IMAGES)
def test_usable_image_becomes_rgb(tmp_path: Path, data: bytes, at_square: tuple[int, ...], at_corner: tuple[int, ...]) -> None:
    item, _ = take_one(tmp_path, record(), {"a.png": data})
    assert item is not None
    assert item.image.mode == "RGB"
    assert (item.row["width"], item.row["height"]) == item.image.size == SIZE
    assert np.abs(np.subtract(item.image.getpixel((13, 12)), at_square)).max() <= 2
    assert np.abs(np.subtract(item.image.getpixel((WIDTH - 1, HEIGHT - 1)), at_corner)).max() <= 2
    assert (decoded(item) == np.asarray(item.image)).all()


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    item, _ = take_one(tmp_path, record(), {"a.png": grey16()})
    assert item is not None
    assert len(np.unique(np.asarray(item.image))) == WIDTH


def test_rotated_photo_is_stored_upright(tmp_path: Path) -> None:
    lying = scene().transpose(Image.Transpose.ROTATE_90)  # as the sensor saw it; orientation 6 turns it back
    exif = Image.Exif()
    exif[0x0112] = 6
    item, _ = take_one(tmp_path, record(), {"a.png": encode(lying, "JPEG", exif=exif, quality=100, subsampling=0)})
    assert item is not None
    assert (item.row["width"], item.row["height"]) == item.image.size == SIZE
    assert np.abs(np.asarray(item.image, int) - np.asarray(scene(), int)).max() <= 8
    assert (decoded(item) == np.asarray(item.image)).all()
    assert Image.open(io.BytesIO(item.row["image"]["bytes"])).getexif().get(0x0112) in (None, 1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_plain_bytes_are_stored_untouched(tmp_path: Path, format: str) -> None:
    data = encode(scene(), format)
    item, _ = take_one(tmp_path, record(), {"a.png": data})
    assert item is not None
    assert item.row["image"] == {"bytes": data, "path": None}


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_picture(format: str) -> None:
    image, _ = normalize(encode(scene(), format, exif=b"no EXIF at all"))
    assert image.size == SIZE


def test_missing_file(tmp_path: Path) -> None:
    assert take_one(tmp_path, record(image="elsewhere/a.png")) == (None, "missing image")


@pytest.mark.parametrize("way", ["dots", "absolute", "address"])
def test_path_outside_the_root(tmp_path: Path, way: str) -> None:
    secret, root = tmp_path / "secret.png", tmp_path / "root"
    secret.write_bytes(encode(scene()))
    value = {"dots": "../secret.png", "absolute": str(secret), "address": secret.as_uri()}[way]
    assert take_one(root, record(image=value)) == (None, "path outside the image folder")


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.png").write_bytes(encode(scene()))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "disk")
    item, _ = take_one(tmp_path / "root", record(image="linked/a.png"))
    assert item is not None


def test_image_root_widens_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encode(scene()))
    items, _ = take(write_rows(tmp_path / "root", [record(image="secret.png")], {"secret.png": b""}), image_root=tmp_path)
    assert items[0].image.size == SIZE


BAD_ROWS = {
    "no image": ({"image": None}, "no image"),
    "no question": ({"question": None}, "no question"),
    "no answer": ({"answer": None}, "no answer"),
    "empty question": ({"question": ""}, "no question"),
    "question is a list": ({"question": ["what", "where"]}, "bad question"),
    "image is a number": ({"image": 5}, "bad image"),
    "image is a folder": ({"image": "."}, "unreadable image"),
    "image has a null byte": ({"image": "a\0.png"}, "missing image"),
    "image name is endless": ({"image": "x" * 5000}, "unreadable image"),
    "no license": ({"license": None}, "no license"),
    "no traces": ({"traces": None}, "no usable trace"),
    "empty trace": ({"traces": [{"text": ""}, {"text": " \n"}, {}]}, "no usable trace"),
    "one-megabyte trace": ({"traces": ["The answer is red. " * 55_000]}, "no usable trace"),
    "surrogate in the trace": ({"traces": ["a \ud800 square"]}, "no usable trace"),
    "surrogate in the question": ({"question": "a \ud800 square?"}, "not UTF-8"),
    "surrogate in the image's name": ({"image": "\ud800.png"}, "missing image"),
    "surrogate in a choice": ({"choices": ["\ud800"]}, "not UTF-8"),
    "choice is an object": ({"choices": [{"a": 1}]}, "bad choices"),
    "NaN box": ({"regions": [{**REGION, "bbox": [float("nan"), 8, 20, 20]}]}, "bad region"),
    "infinite box": ({"regions": [{**REGION, "bbox": [8, 8, float("inf"), 20]}]}, "bad region"),
    "box outside the image": ({"regions": [{**REGION, "bbox": [64, 8, 80, 20]}]}, "bad region"),
    "box of a larger image": ({"regions": [{**REGION, "bbox": [8, 8, 200, 20]}]}, "bad region"),
    "box turned inside out": ({"regions": [{**REGION, "bbox": [20, 20, 8, 8]}]}, "bad region"),
    "box of three numbers": ({"regions": [{**REGION, "bbox": [8, 8, 20]}]}, "bad region"),
    "box of words": ({"regions": [{**REGION, "bbox": ["left", "top", "right", "bottom"]}]}, "bad region"),
    "region without a box": ({"regions": [{"phrase": "red square"}]}, "bad region"),
    "region is a word": ({"regions": ["left", [8, 8, 20, 20]]}, "bad region"),
    "mask of another size": ({"regions": [{**REGION, "mask": {"size": [WIDTH, HEIGHT], "counts": MASK["counts"]}}]}, "bad region"),
    "mask is no encoding": ({"regions": [{**REGION, "mask": {"size": [HEIGHT, WIDTH], "counts": "no runs"}}]}, "bad region"),
    "mask is a line": ({"regions": [{**REGION, "mask": [[8, 8]]}]}, "bad region"),
    "mask without runs": ({"regions": [{**REGION, "mask": {"size": [48, 64], "counts": ""}}]}, "bad region"),
    "mask with too few runs": ({"regions": [{**REGION, "mask": {"size": [48, 64], "counts": "`1"}}]}, "bad region"),
    "mask reaches far away": ({"regions": [{**REGION, "mask": [[8, 8, 1e9, 8, 20, 20]]}]}, "bad region"),
    "mask ends nowhere": ({"regions": [{**REGION, "mask": [[8, 8, float("nan"), 8, 20, 20]]}]}, "bad region"),
    "boxes of no known mode": ({"regions": [{**REGION, "bbox_mode": "yxyx"}]}, "bad region"),
}


@pytest.mark.parametrize(("changes", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_rejected(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    assert take_one(tmp_path, record(**changes)) == (None, reason)


ODD_ROWS = {
    "choices is a number": {"choices": 5},
    "choices is a word": {"choices": "ABC"},
    "regions is a number": {"regions": 5},
    "box of a number beyond float": {"regions": [{**REGION, "bbox": [0, 0, 10**400, 5]}]},
    "mask of negative size": {"regions": [{**REGION, "mask": {"size": [-1, WIDTH], "counts": "0"}}]},
    "mask of infinite size": {"regions": [{**REGION, "mask": {"size": [float("inf"), WIDTH], "counts": "0"}}]},
    "mask of monstrous size": {"regions": [{**REGION, "mask": {"size": [2**31, 2**31], "counts": ""}}]},
    "box thinner than its stored precision": {"regions": [{**REGION, "bbox": [0, 0, 0.001, 5]}]},
    "empty mask": {"regions": [{**REGION, "mask": masks.encode(np.zeros((HEIGHT, WIDTH), bool))}]},
    "mask away from its box": {"regions": [{**REGION, "bbox": [40, 30, 60, 40], "mask": MASK}]},
}


@pytest.mark.parametrize("changes", ODD_ROWS.values(), ids=ODD_ROWS)
def test_odd_row_is_rejected(tmp_path: Path, changes: dict[str, Any]) -> None:
    item, reason = take_one(tmp_path, record(**changes))
    assert item is None
    assert reason.startswith("bad ")


@pytest.mark.parametrize("answer", ["red", ""], ids=["kept", "rejected"])
def test_surrogate_in_an_id_does_not_stop_the_build(tmp_path: Path, answer: str) -> None:
    items, ledger = take(write_rows(tmp_path, [record(id="\ud800", image="a.png", answer=answer)]))
    shard = store.write_shard(tmp_path / "out", "train-00000", "key", [i.row for i in items], ledger)
    assert store.finish(tmp_path / "out", [shard], {})["rejected"] == 1


def test_the_id_0_is_an_id(tmp_path: Path) -> None:
    items, _ = take(write_rows(tmp_path, [record(id=0)]))
    assert items[0].row["id"] == "0"


def test_the_answer_0_is_an_answer(tmp_path: Path) -> None:
    items, _ = take(write_rows(tmp_path, [record(answer=0)]))
    assert items[0].row["answer"] == "0"


BAD_LINES = {
    "broken UTF-8": (b'{"id": "b", "question": "caf\xe9"}', "not UTF-8"),
    "no JSON": (b"id: b", "not JSON"),
    "half an object": (b'{"id": "b", ', "not JSON"),
    "a list": (b'["b"]', "not an object"),
    "a number": (b"5", "not an object"),
    "too deep": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line_is_rejected_in_its_place(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write_rows(tmp_path, [record("a"), record("c")])
    first, last = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + line + b"\n\n" + last)  # an empty line is no row, and the last one need not end
    items, ledger = take(path)
    assert [i.row["id"] for i in items] == ["a", "c"]
    assert [(r.id, r.reason) for r in ledger.rejects] == [("row 2", reason)]


def test_duplicate_id_is_rejected_even_from_another_split(tmp_path: Path) -> None:
    rows = [record("a"), record("b"), record("a", question="Another?"), record("a", split="test")]
    items, ledger = take(write_rows(tmp_path, rows))
    assert [i.row["id"] for i in items] == ["a", "b"]
    assert [(r.id, r.reason) for r in ledger.rejects] == [("a", "duplicate id")] * 2
    assert "row 1" in ledger.rejects[0].detail
    assert json.loads(ledger.rejects[0].row)["question"] == "Another?"


def test_row_without_an_id_gets_one_from_its_place(tmp_path: Path) -> None:
    items, _ = take(write_rows(tmp_path / "geometry", [record("a"), record("b", id=None)]))
    assert [i.row["id"] for i in items] == ["a", "geometry-0000001"]


def test_source_in_the_working_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_rows(tmp_path / "geometry", [record()]).parent)
    items, _ = take(Path("rows.jsonl"))
    assert items[0].row["source"] == "geometry"


def test_reject_keeps_the_text_of_its_row(tmp_path: Path) -> None:
    row = record(choices=["red", "\ud800"])
    _, ledger = take(write_rows(tmp_path, [row]))
    assert json.loads(ledger.rejects[0].row) == {k: row[k] for k in ("question", "choices", "answer", "traces")}


def test_only_bad_traces_are_dropped_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    traces = ["", "x" * (MAX_TRACE + 1), "The answer is red.", {"text": "Red.", "model": ["odd"]}, "y" * MAX_TRACE]
    items, ledger = take(write_rows(tmp_path, [record(traces=traces)]))
    assert [(t["trace_id"], t["model"]) for t in items[0].row["traces"]] == [("t2", "unknown"), ("t4", "unknown")]
    dropped = {name: n for name, n in ledger.counts.items() if name.startswith("traces_")}
    assert dropped == {"traces_in": 5, "traces_dropped: empty": 1, "traces_dropped: too long": 1, "traces_dropped: bad model": 1}


@pytest.mark.parametrize(
    ("box", "stored", "flags"),
    [
        ([8, 8, 20, 20], [8, 8, 20, 20], []),
        ([-5, 8, 20, 20], [0, 8, 20, 20], ["clipped"]),
        ([8, 8, 66, 48.5], [8, 8, 64, 48], ["clipped"]),
    ],
)
def test_given_box_is_clipped_to_the_image(tmp_path: Path, box: list[float], stored: list[float], flags: list[str]) -> None:
    item, _ = take_one(tmp_path, record(traces=None, regions=[{**REGION, "bbox": box}]))
    assert item is not None
    region = item.row["regions"][0]
    assert (region["bbox"], region["flags"], region["mask_source"]) == (stored, flags, None)


def test_given_mask_is_kept(tmp_path: Path) -> None:
    item, _ = take_one(tmp_path, record(regions=[{**REGION, "mask": MASK}]))
    assert item is not None
    assert item.row["regions"][0]["mask"] == MASK


@pytest.mark.parametrize("name", ["image", "question", "answer"])
def test_column_that_no_row_has(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path, [record("a", **{name: None}), record("b", **{name: None})])
    with pytest.raises(SourceError, match=rf"no column {name};.*--columns"):
        take(path)


def test_license_that_nobody_states(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [record(license=None)])
    with pytest.raises(SourceError, match=r"no column license.*--license"):
        take(path)
    assert take(path, license="cc-by-4.0")[0][0].row["license"] == "cc-by-4.0"


def test_columns_under_other_names(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{**record(question=None, answer=None), "problem": "Which?", "question": "red"}])
    items, _ = take(path, columns={"question": "problem", "answer": "question"})
    assert (items[0].row["question"], items[0].row["answer"]) == ("Which?", "red")


def test_columns_that_do_not_exist(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [record()])
    with pytest.raises(SourceError, match=r"no column problem; it has .*question.*--columns"):
        take(path, columns={"question": "problem"})
    with pytest.raises(ValidationError, match=r"'questoin'.*not Sightline's"):
        take(path, columns={"questoin": "question"})


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BAD_SOURCES = {
    "no such file": (lambda folder: folder / "rows.jsonl", "there is no such file or folder; expected JSON Lines"),
    "empty file": (lambda folder: write(folder / "rows.jsonl", b"\n\n"), "has no rows"),
    "empty table": (lambda folder: write(folder / "rows.csv", b"\n"), "has no rows"),
    "empty Parquet": (lambda folder: write(folder / "rows.parquet", b""), "is damaged"),
    "Parquet in name only": (lambda folder: write(folder / "rows.parquet", b"PAR1 it is not" * 9), "is damaged"),
    "half an array": (lambda folder: write(folder / "rows.json", b'[{"id": 1},'), "it is no JSON array"),
    "UTF-16": (
        lambda folder: write(folder / "rows.jsonl", json.dumps(record()).encode("utf-16")),
        "no row of .* can be read; the first: not UTF-8",
    ),
    "a folder of other things": (lambda folder: write(folder / "notes.txt", b"x").parent, "there is no file of rows in it"),
    "another file": (lambda folder: write(folder / "rows.xlsx", b"PK"), "rows.xlsx is no file of rows"),
    "not packed": (lambda folder: write(folder / "rows.jsonl.gz", b"{}"), "rows.jsonl.gz cannot be unpacked"),
    "a pattern of nothing": (lambda folder: folder / "part-*.jsonl", "no file is called like that"),
}


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(("make", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_source_that_cannot_be_used(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        take(make(tmp_path))


@pytest.mark.usefixtures("datasets_cache")
def test_table_without_rows(tmp_path: Path) -> None:
    pl.DataFrame([record()]).clear().write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(SourceError, match="has no rows"):
        take(tmp_path / "rows.parquet")


ROWS = [
    record("a", regions=[{**REGION, "mask": MASK}], choices=["red", "blue"], split="train"),
    record("b", regions=[{**REGION, "mask": None}], choices=[], split="test"),
    record("c", regions=[], choices=[], answer="", split="train"),
]


def as_parquet(folder: Path) -> Path:
    """The rows with their images inside, as a table that knows nothing of ``datasets``."""
    rows = [{**r, "image": {"bytes": (folder / r["image"]).read_bytes(), "path": r["image"]}} for r in ROWS]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "scenes.parquet")
    return folder / "scenes.parquet"


def as_saved_folder(folder: Path) -> Path:
    rows = [{**r, "image": str(folder / r["image"])} for r in ROWS]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).save_to_disk(folder / "saved" / "scenes")
    return folder / "saved" / "scenes"


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("convert", [as_parquet, as_saved_folder])
def test_other_formats_give_the_same_items(tmp_path: Path, convert: Any) -> None:
    wanted, wanted_ledger = take(write_rows(tmp_path / "scenes", ROWS))
    items, ledger = take(convert(tmp_path / "scenes"))
    assert [i.row for i in items] == [i.row for i in wanted]
    assert [(r.id, r.reason) for r in ledger.rejects] == [(r.id, r.reason) for r in wanted_ledger.rejects] == [("c", "no answer")]


@pytest.mark.usefixtures("datasets_cache")
def test_saved_folder_with_several_splits(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS[:2])
    tables = {r["split"]: datasets.Dataset.from_list([{**r, "image": (tmp_path / r["image"]).read_bytes()}]) for r in ROWS[:2]}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    assert [i.row["id"] for i in take(tmp_path / "saved", split="test")[0]] == ["b"]
    with pytest.raises(SourceError, match="has no split validation, only train, test"):
        take(tmp_path / "saved", split="validation")


def test_saved_folder_that_remembers_a_numpy_format(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS[:1])
    datasets.Dataset.from_list([ROWS[0]]).with_format("numpy").save_to_disk(tmp_path / "saved")
    assert len(take(tmp_path / "saved", image_root=tmp_path)[0]) == 1


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("convert", [as_saved_folder, as_parquet])
def test_peek_reads_no_images(tmp_path: Path, convert: Any) -> None:
    write_rows(tmp_path, ROWS)
    source = source_of(BuildConfig(source=str(convert(tmp_path)), out=tmp_path / "out"))
    assert "image" not in source.peek(0)
    assert source.read(0)["image"]["bytes"] == (tmp_path / "a.png").read_bytes()


def test_plan_needs_no_image_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [record("a"), record("b")])
    (tmp_path / "a.png").unlink()
    config = BuildConfig(source=str(path), out=tmp_path / "out")
    assert [s.indices for s in plan(source_of(config), config)] == [(0, 1)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"train-00000": (0, 2, 3, 5), "test-00000": (1, 4)}),
        ({"shard_size": 3}, {"train-00000": (0, 2, 3), "train-00001": (5,), "test-00000": (1, 4)}),
        ({"shard_size": 3, "limit": 4}, {"train-00000": (0, 2, 3), "test-00000": (1,)}),
        ({"split": "eval"}, {"train-00000": (0, 2), "test-00000": (1, 4), "eval-00000": (3, 5)}),
    ],
)
def test_plan_cuts_shards_per_split(tmp_path: Path, settings: dict[str, Any], expected: dict[str, tuple[int, ...]]) -> None:
    splits = ["train", "test", "train", None, "test", "../up"]  # a split that is no name would be a path
    path = write_rows(tmp_path, [record(f"r{n}", split=split) for n, split in enumerate(splits)])
    config = BuildConfig(source=str(path), out=tmp_path / "out", **settings)
    shards = plan(source_of(config), config)
    assert {s.name: s.indices for s in shards} == expected
    assert all(s.name.startswith(s.split) for s in shards)


@pytest.mark.parametrize("changes", [{"mask": [[8, 8, 20, 8, 20, 20]]}, {"segmentation": [[8, 8, 20, 8, 20, 20, 8, 20]]}])
def test_a_polygon_is_a_mask(tmp_path: Path, changes: dict[str, Any]) -> None:
    item, _ = take_one(tmp_path, record(regions=[{**REGION, **changes}]))
    assert item is not None
    assert masks.decode(item.row["regions"][0]["mask"]).sum() > 60


@pytest.mark.parametrize("mode", ["xywh", "BoxMode.XYWH_ABS", 1, 1.0])
def test_a_box_may_say_its_width_and_height(tmp_path: Path, mode: Any) -> None:
    item, _ = take_one(tmp_path, record(traces=None, regions=[{"phrase": "red square", "bbox": [8, 8, 10, 6], "bbox_mode": mode}]))
    assert item is not None
    assert item.row["regions"][0]["bbox"] == [8, 8, 18, 14]


def test_a_box_without_a_name_keeps_its_place_among_others(tmp_path: Path) -> None:
    objects = {"ref": ["", "red square", ""], "bbox": [[1, 1, 5, 5], [8, 8, 20, 20], [30, 30, 40, 40]]}
    item, _ = take_one(tmp_path, record(objects=objects))
    assert item is not None
    assert [region["phrase"] for region in item.row["regions"]] == ["", "red square", ""]


def test_a_dataset_is_not_built_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match="overwrite it; choose another --out"):
        source_of(BuildConfig(source=str(tmp_path / "out"), out=tmp_path / "out"))


def test_names_of_sides_say_what_they_are(tmp_path: Path) -> None:
    box = {"x": 8, "y": 8, "width": 10, "height": 6}
    item, _ = take_one(
        tmp_path, record(traces=None, bbox_mode="xywh", regions=[{"phrase": "red square", "bbox": box, "segmentation": "m.png"}])
    )
    assert item is not None
    assert (item.row["regions"][0]["bbox"], item.row["regions"][0]["mask"]) == ([8, 8, 18, 14], None)
