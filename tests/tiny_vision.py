"""Tiny random locators and segmenters of the real architectures, as checkpoints on disk: nothing
is downloaded, and what loads them is the real loading code."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from safetensors.torch import save_file

WORDS = ["red", "blue", "black", "square", "circle", "the", "a", "dog", "cat", "pink", "brown"]
SIDE = 64  # of the square that OWL's and SAM's processors make


def bert_tokenizer() -> Any:
    """With BERT's ids where Grounding DINO hard-codes them."""
    fixed = {
        "[PAD]": 0,
        "[UNK]": 100,
        "[CLS]": 101,
        "[SEP]": 102,
        "[MASK]": 103,
        ".": 1012,
        "?": 1029,
    }
    characters = [*string.ascii_lowercase, *string.digits]
    pieces = dict.fromkeys([*WORDS, *characters, *(f"##{c}" for c in characters)])
    free = (i for i in range(1, 1100) if i not in fixed.values())
    vocabulary = fixed | {piece: next(free) for piece in pieces}
    return tf.BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=128)


def clip_tokenizer(length: int = 32) -> Any:
    """Byte-level pairs without a merge: every character is a token."""
    letters = [*(chr(c) for c in range(33, 127)), *(chr(c) for c in range(161, 256) if c != 173)]
    vocabulary = {t: i for i, t in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    start, end = len(vocabulary), len(vocabulary) + 1
    vocabulary |= {"<|startoftext|>": start, "<|endoftext|>": end}
    return tf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def _save(folder: Path, model: Any, processor: Any) -> str:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _lively(model: Any, seed: int = 0) -> Any:
    """Random weights large enough that scores and masks differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                fan = weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=generator) * (1.5 / fan) ** 0.5)
    return model.eval()


SWIN = {
    "model_type": "swin",
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 5,
    "drop_path_rate": 0.0,
    "out_features": ["stage2", "stage3", "stage4"],
}
BERT = {
    "model_type": "bert",
    "vocab_size": 1100,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
DINO = {
    "d_model": 32,
    "num_feature_levels": 3,
    "num_queries": 20,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_n_points": 2,
    "decoder_n_points": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_text_len": 128,
}


def _dino(folder: Path, config: Any, model: Any) -> str:
    images = tf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 160})
    made = _lively(model(config(backbone_config=SWIN, text_config=BERT, **DINO)))
    return _save(folder, made, tf.GroundingDinoProcessor(images, bert_tokenizer()))


def grounding_dino(folder: Path) -> str:
    return _dino(folder, tf.GroundingDinoConfig, tf.GroundingDinoForObjectDetection)


def mm_grounding_dino(folder: Path) -> str:
    return _dino(folder, tf.MMGroundingDinoConfig, tf.MMGroundingDinoForObjectDetection)


def _owl(folder: Path, config: Any, model: Any, processor: Any) -> str:
    tokenizer = clip_tokenizer(16)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    made = _lively(model(config(text_config=text, vision_config=vision, projection_dim=32)))
    return _save(folder, made, processor(tokenizer))


def owlv2(folder: Path) -> str:
    def processor(tokenizer: Any) -> Any:
        images = tf.Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
        return tf.Owlv2Processor(images, tokenizer)

    return _owl(folder, tf.Owlv2Config, tf.Owlv2ForObjectDetection, processor)


def owlvit(folder: Path) -> str:
    def processor(tokenizer: Any) -> Any:
        size = {"height": SIDE, "width": SIDE}
        return tf.OwlViTProcessor(tf.OwlViTImageProcessor(size=size, crop_size=size), tokenizer)

    return _owl(folder, tf.OwlViTConfig, tf.OwlViTForObjectDetection, processor)


SAM3_VISION = {
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 32,
    },
    "fpn_hidden_size": 32,
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
}


def sam3_config() -> Any:
    small = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(clip_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    return tf.Sam3Config(
        vision_config=SAM3_VISION,
        text_config=text,
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config=small | {"num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )


def sam3(folder: Path) -> str:
    images = tf.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE})
    made = _lively(tf.Sam3Model(sam3_config()))
    return _save(folder, made, tf.Sam3Processor(images, clip_tokenizer()))


SMALL_DECODER = {
    "hidden_size": 32,
    "mlp_dim": 48,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
    "attention_downsample_rate": 2,
}
SMALL_PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}


def sam3_tracker_config(kind: Any, **more: Any) -> Any:
    return kind(
        vision_config={"model_type": "sam3_vision_model", **SAM3_VISION},
        prompt_encoder_config=SMALL_PROMPTS,
        mask_decoder_config=SMALL_DECODER,
        **more,
    )


def sam3_video(folder: Path) -> str:
    """A checkpoint as Meta publishes SAM 3: the locator and the tracker in one.

    The weights are written by their plain names, as they are published; ``save_pretrained`` of
    transformers 5.23 puts the tracker's prefix before them twice.
    """
    tracker = sam3_tracker_config(tf.Sam3TrackerVideoConfig, image_size=SIDE)
    config = tf.Sam3VideoConfig(detector_config=sam3_config(), tracker_config=tracker)
    made = tf.Sam3VideoModel(config)
    made.detector_model.load_state_dict(_lively(tf.Sam3Model(sam3_config())).state_dict())
    images = tf.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE})
    video = tf.Sam2VideoVideoProcessor(size={"height": SIDE, "width": SIDE})
    tf.Sam3VideoProcessor(images, video, clip_tokenizer()).save_pretrained(folder)
    made.config.save_pretrained(folder)
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


LOCATORS = {
    "grounding-dino": grounding_dino,
    "mm-grounding-dino": mm_grounding_dino,
    "owlv2": owlv2,
    "owlvit": owlvit,
    "sam3": sam3,
}


SAM_VISION = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "mlp_dim": 48,
    "window_size": 4,
    "global_attn_indexes": [1],
    "num_pos_feats": 16,
}


def _sam_images(kind: Any) -> Any:
    quarter = SIDE // 4
    return kind(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": quarter},
        mask_pad_size={"height": quarter, "width": quarter},
    )


def sam(folder: Path) -> str:
    config = tf.SamConfig(
        vision_config=SAM_VISION,
        prompt_encoder_config=SMALL_PROMPTS,
        mask_decoder_config=SMALL_DECODER,
    )
    images = _sam_images(tf.SamImageProcessor)
    return _save(folder, _lively(tf.SamModel(config)), tf.SamProcessor(images))


def sam_hq(folder: Path) -> str:
    config = tf.SamHQConfig(
        vision_config=SAM_VISION,
        prompt_encoder_config=SMALL_PROMPTS,
        mask_decoder_config=SMALL_DECODER | {"vit_dim": 32},
    )
    images = _sam_images(tf.SamImageProcessor)
    return _save(folder, _lively(tf.SamHQModel(config)), tf.SamHQProcessor(images))


def _sam2_processor() -> Any:
    images = tf.Sam2ImageProcessor(
        size={"height": SIDE, "width": SIDE},
        mask_size={"height": 16, "width": 16},
    )
    return tf.Sam2Processor(images)


MAPS = {
    "backbone_channel_list": [64, 48, 32, 16],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 32,
}


def sam2(folder: Path) -> str:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "window_positional_embedding_background_size": [4, 4],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 48, 64],
        "num_attention_heads_per_stage": [1, 2, 2, 2],
        "window_size_per_stage": [4, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    config = tf.Sam2Config(
        vision_config={"model_type": "sam2_vision_model", "backbone_config": backbone, **MAPS},
        prompt_encoder_config=SMALL_PROMPTS | {"patch_size": 16},
        mask_decoder_config=SMALL_DECODER,
    )
    return _save(folder, _lively(tf.Sam2Model(config), 1), _sam2_processor())


def edgetam(folder: Path) -> str:
    """Its backbone is timm's."""
    arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m0_9",
        "model_args": arguments,
        "num_classes": 2,
    }
    maps = MAPS | {"backbone_channel_list": [384, 192, 96, 48]}
    config = tf.EdgeTamConfig(
        vision_config={"model_type": "edgetam_vision_model", "backbone_config": backbone, **maps},
        prompt_encoder_config=SMALL_PROMPTS | {"patch_size": 16},
        mask_decoder_config=SMALL_DECODER,
    )
    return _save(folder, _lively(tf.EdgeTamModel(config)), _sam2_processor())


def sam3_tracker(folder: Path) -> str:
    images = tf.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE})
    made = _lively(tf.Sam3TrackerModel(sam3_tracker_config(tf.Sam3TrackerConfig)))
    return _save(folder, made, tf.Sam3TrackerProcessor(images))


SEGMENTERS = {
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "edgetam": edgetam,
    "sam3_tracker": sam3_tracker,
}


def make(name: str, folder: Path) -> str:
    """The folder with the checkpoint of an architecture, the same at every call."""
    torch.manual_seed(0)
    return (LOCATORS | SEGMENTERS)[name](folder)
