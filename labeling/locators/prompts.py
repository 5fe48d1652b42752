"""What text encoders read: Grounding DINO prompts with token spans known by construction, and
phrases one by one.

Grounding DINO reads one text per image, ``phrase . phrase .``, and scores every text token. Peers
decode the phrase back out of the tokens that passed a threshold, which merges and shreds labels;
here the prompt is assembled token by token, so each phrase's span is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

# [CLS] [SEP] . ?, hard-coded in transformers' Grounding DINO and MM-Grounding-DINO.
SEPARATOR_IDS = (101, 102, 1012, 1029)


@dataclass(frozen=True)
class Prompt:
    """One forward's text: ``input_ids`` and, for each phrase, its half-open token span."""

    phrases: tuple[str, ...]
    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def build_prompts(
    tokenizer: PreTrainedTokenizerBase,
    phrases: list[str],
    max_tokens: int,
) -> list[Prompt]:
    """Split distinct phrases into prompts of at most ``max_tokens`` tokens, keeping their order.

    A phrase that alone does not fit is cut at the limit; one without a token that the model could
    ground is left out.
    """
    chunks: list[tuple[list[str], list[list[int]]]] = []
    length = max_tokens + 1  # forces a first chunk
    for phrase in phrases:
        tokens = tokenizer(phrase, add_special_tokens=False)["input_ids"][: max_tokens - 3]
        tokens = [t for t in tokens if t not in SEPARATOR_IDS]
        if not tokens:
            continue
        if length + len(tokens) + 1 > max_tokens:
            chunks.append(([], []))
            length = 2  # [CLS] and [SEP]
        chunks[-1][0].append(phrase)
        chunks[-1][1].append(tokens)
        length += len(tokens) + 1
    return [_assemble(names, tokens) for names, tokens in chunks]


def _assemble(phrases: list[str], tokens: list[list[int]]) -> Prompt:
    cls, sep, dot, _ = SEPARATOR_IDS
    ids, spans = [cls], []
    for phrase_tokens in tokens:
        spans.append((len(ids), len(ids) + len(phrase_tokens)))
        ids += [*phrase_tokens, dot]
    return Prompt(tuple(phrases), (*ids, sep), tuple(spans))


def encode_phrases(
    tokenizer: PreTrainedTokenizerBase,
    phrases: Sequence[str],
    length: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """The token ids and the attention mask (``length``,) of every phrase that the tokenizer knows.

    A phrase that is too long loses its last words; one of which the tokenizer knows nothing is left
    out. Cut and padded here, since a tokenizer that does it keeps how in a state that all threads
    share.
    """
    encoded = {}
    for phrase in phrases:
        ids: list[int] = tokenizer(phrase)["input_ids"]
        if set(ids) <= set(tokenizer.all_special_ids):
            continue
        if len(ids) > length:
            ids = [*ids[: length - 1], ids[-1]]
        missing = length - len(ids)
        padded = [*ids, *[tokenizer.pad_token_id] * missing]
        mask = [1] * len(ids) + [0] * missing
        encoded[phrase] = (torch.tensor(padded), torch.tensor(mask))
    return encoded
