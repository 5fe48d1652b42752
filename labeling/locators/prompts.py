"""What text encoders read: Grounding DINO prompts with token spans known by construction, and
phrases one by one.

Grounding DINO reads one text per image, ``phrase . phrase .``, and scores every text token. Peers
decode the phrase back out of the tokens that passed a threshold, which merges and shreds labels;
here the prompt is assembled token by token, so each phrase's span is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    out.
    """
    encoded = {}
    for phrase in phrases:
        words = tokenizer(phrase, add_special_tokens=False)["input_ids"]
        if set(words) <= set(tokenizer.all_special_ids):
            continue
        padded = tokenizer(
            phrase,
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        encoded[phrase] = (padded["input_ids"][0], padded["attention_mask"][0])
    return encoded
