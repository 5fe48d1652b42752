"""What the models that people use weigh and compute: parameters, bytes, and floating-point operations, without downloading any of them.

    python -m bench.real_sizes

The architectures are built from their published configurations, without weights where they allow it (torch's meta device), and run once
under torch's operation counter. The figures stand in docs/real-checkpoints.md; time is operations over what a
device sustains, so nothing is timed here.
Writes bench/results/real_sizes.json, and ends with it as one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch.utils.flop_counter import FlopCounterMode

RESULTS = Path(__file__).parent / "results" / "real_sizes.json"

VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2}
TEXT: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip
PROMPT, IMAGE, COMPLETIONS, NEW = 1200, 1024, 16, 110  # tokens of SAYO's shape


def detector() -> tf.PreTrainedModel:
    """IDEA-Research/grounding-dino-base: Swin-B, BERT, six layers each way."""
    swin = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384}
    backbone = tf.SwinConfig(**swin, out_indices=[2, 3, 4])
    return tf.GroundingDinoForObjectDetection(tf.GroundingDinoConfig(backbone_config=backbone, text_config=tf.BertConfig()))


def segmenter() -> tf.PreTrainedModel:
    """facebook/sam-vit-huge."""
    vision = {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
        "mlp_dim": 5120,
    }
    return tf.SamModel(tf.SamConfig(vision_config=vision))


def policy(name: str) -> tf.PreTrainedModel:
    text = TEXT[name]
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    vision = VISION | {"out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112}
    tied = {"tie_word_embeddings": text["tie_word_embeddings"]}
    return tf.Qwen2_5_VLForConditionalGeneration(
        tf.Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision, **tied)
    )


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of a forward; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())


def labeller_sizes() -> dict[str, Any]:
    """An image of 800 x 1066 with a prompt of 20 tokens through the detector; one of 1024 x 1024 with ten boxes through the segmenter."""
    found = detector().eval().requires_grad_(False)  # looks at its values on the way, so it needs some
    pixels, ids, mask = torch.zeros(1, 3, 800, 1066), torch.full((1, 20), 5), torch.ones(1, 800, 1066, dtype=torch.long)
    with torch.device("meta"):
        drawn = segmenter().eval().requires_grad_(False)
        square, boxes = torch.empty(1, 3, 1024, 1024), torch.empty(1, 10, 4)
    encoder, whole = operations(lambda: drawn.vision_encoder(square)), operations(lambda: drawn(pixel_values=square, input_boxes=boxes))
    return {
        "IDEA-Research/grounding-dino-base": {
            "parameters": parameters(found),
            "forward": operations(lambda: found(pixel_values=pixels, input_ids=ids, pixel_mask=mask)),
        },
        "facebook/sam-vit-huge": {"parameters": parameters(drawn), "forward": encoder, "ten_boxes": whole - encoder},
    }


def policy_sizes(name: str) -> dict[str, Any]:
    """A policy at SAYO's shape: 16 completions of 110 tokens behind a prompt of 1,200, 1,024 of them an image's."""
    with torch.device("meta"):
        model = policy(name).eval().requires_grad_(False)
        tower = model.model.visual
        patches = IMAGE * VISION["spatial_merge_size"] ** 2
        text = torch.ones(1, PROMPT + COMPLETIONS * NEW, dtype=torch.long)
    language = operations(lambda: model(input_ids=text, use_cache=False, logits_to_keep=COMPLETIONS * NEW))
    total, vision, config = parameters(model), parameters(tower), TEXT[name]
    head = config["hidden_size"] // config["num_attention_heads"]
    kept = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * 2  # bytes of a token's keys and values in bfloat16
    return {
        "parameters": total,
        "tower_parameters": vision,
        "tower_forward": 2 * vision * patches,  # its windows keep attention small beside the matrices
        "packed_forward": language,
        "unpacked_forward": COMPLETIONS * operations(lambda: model(input_ids=text[:, : PROMPT + NEW], use_cache=False, logits_to_keep=NEW)),
        "cache_bytes_per_token": kept,
        "cache_bytes_shared": kept * (PROMPT + COMPLETIONS * NEW),
        "cache_bytes_unshared": kept * COMPLETIONS * (PROMPT + NEW),
    }


def main() -> None:
    result = labeller_sizes() | {name: policy_sizes(name) for name in TEXT}
    for name, sizes in result.items():
        weights = sizes["parameters"]
        print(f"{name}: {weights / 1e6:,.0f} M parameters, {weights * 4 / 2**30:.1f} GiB in float32, {weights * 2 / 2**30:.1f} in bfloat16")
        for key, value in sizes.items():
            if "parameters" not in key:
                shown = f"{value / 2**20:,.2f} MiB" if "bytes" in key else f"{value / 1e12:,.2f} T operations"
                print(f"  {key.replace('_', ' ')}: {shown}")
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
