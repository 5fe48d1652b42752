"""The demo's policy: a Qwen2.5-VL in everything but size, whose vocabulary is that of the shapes world.

The architecture and the processor are Qwen2.5-VL's, with heads of 64, which every engine's kernels know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from demo.scenes import BOARD_CELL as CELL
from train.policy import Policy

VOCABULARY, SPARE = 600, 24  # tokens of the tokenizer, and rows of the embedding kept free for tokens that are added later
WIDTH, HEADS, LAYERS = 128, 2, 4

END, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_policy(seed: int, texts: Iterable[str]) -> Policy:
    """One that knows nothing yet, but has the words of ``texts``."""
    torch.manual_seed(seed)
    images = Qwen2VLImageProcessor(size={"shortest_edge": CELL * CELL * 4, "longest_edge": CELL * CELL * 100})
    tokenizer = build_tokenizer(texts)
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT)
    return Policy(build_model(tokenizer), processor)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as Qwen's: every text can be encoded, the words of this world are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    words = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, extra_special_tokens=words, padding_side="left", model_max_length=4096
    )


def build_model(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """About two million parameters."""
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": VOCABULARY + SPARE,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 10_000.0},
        "bos_token_id": None,
        "eos_token_id": special[END],
        "pad_token_id": special[PAD],
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "out_hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_heads": 2,
        "patch_size": CELL // 2,
        "window_size": 4 * CELL,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": 0.05,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = special[END], special[PAD]
    return model


def save(policy: Policy, out: Path) -> None:
    """In bfloat16, as such models come."""
    copy.deepcopy(policy.model).to(torch.bfloat16).save_pretrained(out)
    policy.processor.save_pretrained(out)
