"""Rows of a dataset as records of other people's formats, as their loaders read them; ``rewardlib.rows`` is the way back.

    easyr1      hiyouga/EasyR1, verl/utils/dataset.py; PAPO's images_aug and Perception-R1's visual_key_info
    verl        volcengine/verl, verl/utils/dataset/rl_dataset.py
    vlm-r1      om-ai-lab/VLM-R1, src/open-r1-multimodal/src/open_r1/grpo_jsonl.py
    ms-swift    modelscope/ms-swift, swift/dataset/preprocessor/core.py, and its grounding format
    visual-cot  deepcs233/Visual-CoT, tools/convert_data_to_llava_format.py
    coco        cocodataset/cocoapi, PythonAPI/pycocotools/coco.py

Each is a function of a row, its number in its split, and the name under which its image is stored where the format wants paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.rows.coco import xywh
from rewardlib import rle
from rewardlib.rows.chat import PLACEHOLDER
from rewardlib.rows.choices import with_choices
from rewardlib.rows.regions import to_look_at

Row = dict[str, Any]

_REGION = ("phrase", "bbox", "mask")
_MEDIA = (PLACEHOLDER, "<video>", "<audio>")
_GROUNDING = ("<bbox>", "<ref-object>")


class Inexpressible(ValueError):
    """The format has no way to say what the row says; the message says what."""


def easyr1(row: Row, number: int, image: str) -> Row:
    """An evidence image takes the place of the image in ``images_aug``."""
    statements = _statements(row)
    if any(re.search(r"</?info\d+>", statement) for statement in statements):
        raise Inexpressible("an annotation holds an <info> tag, which visual_key_info puts around annotations")
    return {
        **_identity(row, "source", "split"),
        "images": [row["image"]],
        "problem": PLACEHOLDER + _asked(row),
        "answer": _answer(row),
        "images_aug": [c["image"] for c in row["counterfactuals"] if c["role"] == "evidence"][:1],
        "visual_key_info": key_info(statements),
        "choices": json.dumps(row["choices"], ensure_ascii=False),
        "alternatives": json.dumps(row["alternatives"] or [], ensure_ascii=False),
        "regions": json.dumps(_regions(row), ensure_ascii=False),
    }


def verl(row: Row, number: int, image: str) -> Row:
    """What rewards may read is in ``extra_info``, where ``rewardlib.adapters.verl`` looks for it."""
    return {
        **_identity(row),
        "data_source": row["source"],
        "prompt": [{"role": "user", "content": PLACEHOLDER + _asked(row)}],
        "images": [row["image"]],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": _answer(row)},
        "extra_info": {
            "split": row["split"],
            "index": number,
            "choices": row["choices"],
            "alternatives": row["alternatives"],
            "annotations": _statements(row),
            "regions": _regions(row),
        },
    }


def vlm_r1(row: Row, number: int, image: str) -> Row:
    """The reply is the bare gold answer: VLM-R1 compares with all of it."""
    talk = [{"from": "human", "value": PLACEHOLDER + _asked(row)}, {"from": "gpt", "value": _answer(row)}]
    return {
        **_identity(row, "source", "split"),
        "image": image,
        "conversations": talk,
        "choices": row["choices"],
        "alternatives": row["alternatives"],
        "regions": _regions(row),
    }


def ms_swift(row: Row, number: int, image: str) -> Row:
    """The reply, for supervised training, is a correct trace where there is one; GRPO takes it away and rewards read ``solution``."""
    gold = _answer(row)
    traces = (trace["text"] for trace in row["traces"] if trace["correct"])
    reply = next((text for text in traces if not any(tag in text for tag in (*_MEDIA, *_GROUNDING))), gold)
    question = PLACEHOLDER + _asked(row, *_GROUNDING)
    regions = _regions(row)
    return {
        **_identity(row, "source", "split"),
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}],
        "images": [image],
        "objects": {"ref": [r["phrase"] for r in regions], "bbox": [r["bbox"] for r in regions], "bbox_type": "real"},
        "solution": gold,
        "choices": row["choices"],
        "alternatives": row["alternatives"],
        "annotations": _statements(row),
    }


def visual_cot(row: Row, number: int, image: str) -> Row:
    """Choices are part of the question's text, for nothing else of Visual-CoT's shows them."""
    if not _regions(row):
        raise Inexpressible("it has no region of evidence, and Visual-CoT's converter needs a box")
    return {
        **_identity(row),
        "question": _asked(row),
        "answer": _answer(row),
        "image": image,
        "width": row["width"],
        "height": row["height"],
        "bboxs": [region["bbox"] for region in _regions(row)],
        "dataset": row["source"],
        "split": row["split"],
    }


def coco_image(row: Row, number: int, image: str) -> Row:
    """An entry of COCO's images; the question is in fields of its own. The licence is still a name."""
    return {
        "id": number + 1,
        "file_name": image,
        "width": row["width"],
        "height": row["height"],
        "license": row["license"],
        "row_id": row["id"],
        **{name: row[name] for name in ("source", "split", "question", "choices", "answer", "alternatives")},
    }


def coco_annotations(row: Row, image: int, regions: Sequence[Row] | None = None) -> list[Row]:
    """Entries of COCO's annotations, still without an id, and the category a phrase; of the evidence, unless regions are named."""
    return [
        {
            "image_id": image,
            "category": region["phrase"],
            "bbox": xywh(region["bbox"]),
            "area": int(rle.decode(region["mask"]).sum()),
            "segmentation": region["mask"],
            "iscrowd": 0,
        }
        for region in _plain(to_look_at(row["regions"]) if regions is None else regions)
    ]


# ---------------------------------------------------------------------------------------------------------------------------------------


def _identity(row: Row, *more: str) -> Row:
    """Who a row is and under which licence it may be used: columns that no loader minds."""
    return {name: row[name] for name in ("id", *more, "license")}


def _asked(row: Row, *tags: str) -> str:
    text = with_choices(row["question"], row["choices"])
    if tag := next((tag for tag in (*_MEDIA, *tags) if tag in text), None):
        raise Inexpressible(f"its question holds {tag}, which the format takes for the place of something")
    return text


def _answer(row: Row) -> str:
    if re.search(r"(?i)</?answer>", row["answer"]):
        raise Inexpressible("its answer holds an <answer> tag, which loaders take away")
    return str(row["answer"])


def key_info(statements: Sequence[str]) -> str:
    """Perception-R1's visual_key_info."""
    return "\n".join(f"<info{n}>{statement}</info{n}>" for n, statement in enumerate(statements, start=1))


def _statements(row: Row) -> list[str]:
    return list(dict.fromkeys(annotation["statement"] for annotation in row["annotations"]))


def _regions(row: Row) -> list[Row]:
    """Phrase, box and mask of what the answer rests on; the box's numbers as short as float32 allows."""
    return _plain(to_look_at(row["regions"]))


def _plain(regions: Sequence[Row]) -> list[Row]:
    return [{**{name: region[name] for name in _REGION}, "bbox": _short(region["bbox"])} for region in regions]


def _short(box: Sequence[float]) -> list[float]:
    return [float(str(np.float32(value))) for value in box]
