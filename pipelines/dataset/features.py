"""The columns of the dataset's table, and of the tables that other tools read, as ``datasets`` has them: names, types, images.

By itself, since loading ``datasets`` takes longer than a command's ``--help`` should. The names alone are
``pipelines.dataset.schema.COLUMNS``.
"""

from __future__ import annotations

from datasets import Features, Image, List, Value

_MASK = {"size": List(Value("int32"), length=2), "counts": Value("string")}

FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "split": Value("string"),
        "license": Value("string"),
        "image": Image(),
        "width": Value("int32"),
        "height": Value("int32"),
        "image_sha256": Value("string"),
        "question": Value("string"),
        "choices": List(Value("string")),
        "answer": Value("string"),
        "alternatives": List(Value("string")),  # further answers, each as good as the first
        "traces": List(
            {
                "trace_id": Value("string"),
                "model": Value("string"),
                "text": Value("string"),
                "answer": Value("string"),
                "correct": Value("bool"),
            }
        ),
        "annotations": List(
            {
                "annotation_id": Value("string"),
                "trace_id": Value("string"),
                "kind": Value("string"),
                "statement": Value("string"),
                "phrase": Value("string"),
                "quote": Value("string"),
                "start": Value("int32"),
                "end": Value("int32"),
                "role": Value("string"),  # evidence, context or unknown, as labeling.facts says
                "role_by": Value("string"),  # who decided it: labeling.roles.DECIDERS
                "role_reason": Value("string"),  # in the decider's words; null where it gives none
                "also": List(  # the other traces that state the same
                    {
                        "trace_id": Value("string"),
                        "quote": Value("string"),
                        "start": Value("int32"),
                        "end": Value("int32"),
                    }
                ),
                "flags": List(Value("string")),
            }
        ),
        "regions": List(
            {
                "region_id": Value("string"),
                "annotation_ids": List(Value("string")),  # every annotation whose phrase this region grounds
                "phrase": Value("string"),
                "bbox": List(Value("float32"), length=4),
                "locator": Value("string"),  # who found it: "grounding-dino", "ocr", ...; "given"
                "confirmed_by": Value("string"),  # the locator that found a given region, too
                "score": Value("float32"),  # null: the region was given and no locator found it
                "text": Value("string"),  # what is written there, where the locator reads
                "role": Value("string"),  # as an annotation's
                "role_by": Value("string"),
                # The fall of the gold answer's log-probability (nats) when the region is erased, beyond
                # that of its control, with a 95 % interval; null where no answerer looked.
                "effect": Value("float32"),
                "effect_low": Value("float32"),
                "effect_high": Value("float32"),
                "mask": _MASK,
                "mask_score": Value("float32"),
                "mask_source": Value("string"),  # sam, box (fallback), locator or given
                "flags": List(Value("string")),
            }
        ),
        "counterfactuals": List(
            {
                "role": Value("string"),  # what is erased: evidence, control or context
                "fill": Value("string"),
                "shape": Value("string"),
                "region_ids": List(Value("string")),
                "image": Image(),
                "mask": _MASK,
                "area_fraction": Value("float32"),
                "seed": Value("int64"),
                "verified": Value("bool"),  # null: the detector did not see the evidence on the original either
                "score_before": Value("float32"),
                "score_after": Value("float32"),
            }
        ),
        "provenance": {
            "judge": Value("string"),
            "prompt_sha256": Value("string"),
            "detector": Value("string"),
            "detector_revision": Value("string"),
            "detector_threshold": Value("float32"),
            "locators": List({"locator": Value("string"), "name": Value("string"), "revision": Value("string")}),
            "answerer": Value("string"),
            "answerer_revision": Value("string"),
            "segmenter": Value("string"),
            "segmenter_revision": Value("string"),
            "config_sha256": Value("string"),
            "code_version": Value("string"),
        },
    }
)

_TEXT, _NUMBER = Value("string"), Value("int64")
_REGION = {name: FEATURES["regions"].feature[name] for name in ("phrase", "bbox", "mask")}

EASYR1 = Features(
    {
        **dict.fromkeys(("id", "source", "split", "license"), _TEXT),
        "images": List(Image()),
        "problem": _TEXT,
        "answer": _TEXT,
        "images_aug": List(Image()),
        "visual_key_info": _TEXT,
        # As JSON: EasyR1 stacks columns into arrays, and lists that are as long as each other in one batch but not in the next do not fit.
        "choices": _TEXT,
        "alternatives": _TEXT,
        "regions": _TEXT,
    }
)
VERL = Features(
    {
        "id": _TEXT,
        "license": _TEXT,
        "data_source": _TEXT,
        "prompt": List({"role": _TEXT, "content": _TEXT}),
        "images": List(Image()),
        "ability": _TEXT,
        "reward_model": {"style": _TEXT, "ground_truth": _TEXT},
        "extra_info": {
            "split": _TEXT,
            "index": _NUMBER,
            "choices": List(_TEXT),
            "alternatives": List(_TEXT),
            "annotations": List(_TEXT),
            "regions": List(_REGION),
        },
    }
)
