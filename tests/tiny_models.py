"""Tiny random models of the real architectures, made from configs: nothing is downloaded."""

import string
from typing import Any

import torch
import transformers as tf

# Special tokens stand above the ordinary ones; image tokens are placed by the tests of the processors.
VOCABULARY = 120
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN_IDS = {"image_token_id": 110, "video_token_id": 111, "vision_start_token_id": 112, "vision_end_token_id": 113}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
QWEN_VISION = {"depth": 2, "num_heads": 2, "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2}
SIGLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def qwen2_vl(**text: Any) -> Any:
    vision = QWEN_VISION | {"embed_dim": 32, "hidden_size": 64, "patch_size": 14, "mlp_ratio": 2}
    return tf.Qwen2VLConfig(text_config=TEXT | {"rope_parameters": MROPE} | text, vision_config=vision, **QWEN_IDS)


def qwen2_5_vl(**text: Any) -> Any:
    vision = QWEN_VISION | {
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 48,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    return tf.Qwen2_5_VLConfig(text_config=TEXT | {"rope_parameters": MROPE} | text, vision_config=vision, **QWEN_IDS)


QWEN3_VISION = QWEN_VISION | {
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "patch_size": 16,
    "num_position_embeddings": 64,
}


def qwen3_vl(**text: Any) -> Any:
    vision = QWEN3_VISION | {"deepstack_visual_indexes": [0]}
    return tf.Qwen3VLConfig(text_config=TEXT | {"rope_parameters": MROPE} | text, vision_config=vision, **QWEN_IDS)


def qwen3_5(**text: Any) -> Any:
    """Three layers with linear attention, then one with softmax."""
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    layers = {"num_hidden_layers": 4, "layer_types": [*["linear_attention"] * 3, "full_attention"], "head_dim": 16}
    rope = {"rope_parameters": MROPE | {"mrope_interleaved": True, "partial_rotary_factor": 0.5}}
    return tf.Qwen3_5Config(text_config=TEXT | linear | layers | rope | text, vision_config=QWEN3_VISION, **QWEN_IDS)


def internvl(**text: Any) -> Any:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [56, 56],
        "patch_size": [14, 14],
    }
    return tf.InternVLConfig(text_config=tf.Qwen2Config(**(TEXT | text)), vision_config=vision, image_token_id=110)


def gemma3(**text: Any) -> Any:
    """Two sliding-window layers and a full one."""
    layers = {"sliding_window": 8, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
    vision = SIGLIP | {"image_size": 56, "patch_size": 14}
    return tf.Gemma3Config(
        text_config=TEXT | layers | text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=110,
        boi_token_index=112,
        eoi_token_index=113,
    )


def llava_onevision(**text: Any) -> Any:
    vision = SIGLIP | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14, "vision_use_head": False}
    return tf.LlavaOnevisionConfig(
        text_config=tf.Qwen2Config(**(TEXT | text)),
        vision_config=vision,
        image_token_index=110,
        video_token_index=111,
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112], [56, 168], [168, 56]],
        vision_feature_layer=-1,
    )


def smolvlm(**text: Any) -> Any:
    """With tokens for the places of five by five tiles."""
    vision = SIGLIP | {"image_size": 56, "patch_size": 14}
    return tf.SmolVLMConfig(
        text_config=tf.LlamaConfig(**(TEXT | {"vocab_size": 140} | text)), vision_config=vision, image_token_id=110, scale_factor=2
    )


FAMILIES = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
    "internvl": internvl,
    "gemma3": gemma3,
    "llava_onevision": llava_onevision,
    "smolvlm": smolvlm,
}


def model(config: Any, attention: str = "sdpa", seed: int = 0) -> Any:
    """A random model in float32, with weights large enough that attention is far from uniform."""
    torch.manual_seed(seed)
    made = tf.AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() > 1 and any(part in name for part in ("q_proj", "k_proj", "embed_tokens", "mm_input_projection")):
                weight.normal_(std=0.25)
    return made.eval()


# ---------------------------------------------------------------------------------------------------------------------------------------
# Processors: the real classes over a tokenizer of a few words


CHAT = (
    "{% for m in messages %}[{{ m['role'] }}] {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %} [end] {% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tokenizer(**special: str) -> Any:
    """Words seen in tests, letters, digits and punctuation, and the family's special tokens at the ids of ``QWEN_IDS``."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = ["<pad>", "<bos>", "<eos>", "<unk>", *string.ascii_letters, *string.digits, *" .,:;?!<>/\\{}[]()=+-*'\"\n_#"]
    # Without gaps, as real vocabularies are: a tokenizer counts its tokens to number a new one.
    vocabulary = {token: index for index, token in enumerate([*plain, *(f"<unused{n}>" for n in range(110 - len(plain)))])}
    vocabulary |= {token: 110 + index for index, token in enumerate(special.values())}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=special,
        padding_side="left",
    )


def qwen_processor(kind: str, **images: Any) -> Any:
    words = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
    }
    placed = "<|vision_start|><|image_pad|><|vision_end|>"
    if kind == "qwen3_vl":
        size = {"size": {"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 256}}
        images = tf.Qwen2VLImageProcessor(patch_size=16, **size, **images)
        return tf.Qwen3VLProcessor(images, tokenizer(**words), tf.Qwen3VLVideoProcessor(), chat_template=CHAT.replace("IMAGE", placed))
    size = {"size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 256}}
    images = tf.Qwen2VLImageProcessor(**size, **images)
    made = tf.Qwen2VLProcessor if kind == "qwen2_vl" else tf.Qwen2_5_VLProcessor
    return made(images, tokenizer(**words), tf.Qwen2VLVideoProcessor(), chat_template=CHAT.replace("IMAGE", placed))


def internvl_processor(**images: Any) -> Any:
    words = {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>", "start_image_token": "<img>", "end_image_token": "</img>"}
    images = tf.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, **images)
    return tf.InternVLProcessor(
        images, tokenizer(**words), tf.InternVLVideoProcessor(), image_seq_length=4, chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>")
    )


def gemma3_processor(**images: Any) -> Any:
    words = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    images = tf.Gemma3ImageProcessor(size={"height": 56, "width": 56}, **images)
    return tf.Gemma3Processor(images, tokenizer(**words), image_seq_length=4, chat_template=CHAT.replace("IMAGE", "<start_of_image>"))


def llava_onevision_processor(**images: Any) -> Any:
    words = {"image_token": "<image>", "video_token": "<video>"}
    pinpoints = llava_onevision().image_grid_pinpoints
    images = tf.LlavaOnevisionImageProcessor(size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints, **images)
    return tf.LlavaOnevisionProcessor(
        images,
        tokenizer(**words),
        tf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )


def smolvlm_processor(**images: Any) -> Any:
    words = {"image_token": "<image>", "video_token": "<video>"}
    signs = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    places = {f"place_{row}_{column}": f"<row_{row}_col_{column}>" for row in range(1, 6) for column in range(1, 6)}
    sizes = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    return tf.SmolVLMProcessor(
        tf.SmolVLMImageProcessor(**sizes | images),
        tokenizer(**words, **signs, **places),
        tf.SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )


PROCESSORS = {
    "qwen2_vl": lambda **k: qwen_processor("qwen2_vl", **k),
    "qwen2_5_vl": lambda **k: qwen_processor("qwen2_5_vl", **k),
    "qwen3_vl": lambda **k: qwen_processor("qwen3_vl", **k),
    "qwen3_5": lambda **k: qwen_processor("qwen3_vl", **k),
    "internvl": internvl_processor,
    "gemma3": gemma3_processor,
    "llava_onevision": llava_onevision_processor,
    "smolvlm": smolvlm_processor,
}
