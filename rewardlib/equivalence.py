"""Decide whether an answer means the same as the gold: as a choice, text, number with unit, tuple or expression.

It must accept the many ways a right answer is written (letter or choice text, LaTeX, fractions, units, percent) and refuse an answer that
hedges or names several. Comparisons of strings and rational numbers come first; mathematical equivalence is the last step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat

from rewardlib.expressions import same_expression
from rewardlib.quantities import DEFAULT_TOLERANCE, parse_quantity, same_quantity
from rewardlib.spans import HEDGE, MAX_SPAN, clean

_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ARTICLE = re.compile(r"(?i)^(?:a|an|the)\s+(?=\w)")
_LOOSE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_SYNONYMS = {"true": "yes", "false": "no"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}

_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:,]?")
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.):])\s*[:.,]?\s*(.+)", re.DOTALL)
# A second letter after a label; "A" before a lower-case word is the article.
_OTHER_LETTER = re.compile(r"(?<![A-Za-z\\])(A(?![A-Za-z]|\s+[a-z])|[B-Z](?![A-Za-z])|(?<=\()[a-z](?=\))|^[a-z]\b(?!\s+[a-z]{2}))")

# The name before "=" in "x = 5" or "\angle ABC_1 = 40", as opposed to a side of an equation such as "2x = 10".
_NAME = re.compile(r"(?:_\{?\w\}?|[^\d,()<>≤≥+*_])*")


def answers_match(answer: str, gold: str, choices: Sequence[str] = (), *, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Whether an extracted answer span means the same as `gold`, a value or a choice given by its letter or its text.

    Numbers may differ by `tolerance` times the larger of the two, 1e-4 by default. Two integers must be equal unless the tolerance is wider
    than that. Text, variables and units never have a tolerance, and choices none that is wider: 21.0 must not pass for 20 beside 21.
    """
    if max(len(answer), len(gold)) > MAX_SPAN:
        return answer.split() == gold.split()
    span, target, choices = clean(answer), clean(gold), _unlabelled(tuple(choices))
    if not span or not target:
        return False
    # A gold letter without its choices is compared as a letter of the whole alphabet.
    named = choices or ("ABCDEFGHIJKLMNOPQRSTUVWXYZ" if _LETTER.fullmatch(target) else ())
    gold_index = _choice_index(target, named)
    if gold_index is None:
        return _same_value(span, target, tolerance)
    answer_index = _choice_index(span, named)
    if answer_index is not None:
        return answer_index == gold_index
    return _same_value(span, clean(named[gold_index]), min(tolerance, DEFAULT_TOLERANCE))


@lru_cache(maxsize=4096)
def _unlabelled(choices: tuple[str, ...]) -> tuple[str, ...]:
    """Choices without labels of their own ("A. 10 cm", "B. 20 cm"), where all have them in order."""
    labelled = [_LABELLED.fullmatch(choice.strip()) for choice in choices]
    texts = [found[3] for i, found in enumerate(labelled) if found and (found[1] or found[2]).upper() == chr(ord("A") + i)]
    return tuple(texts) if len(texts) == len(choices) else choices


def _choice_index(span: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a cleaned span names; a lone letter is always the letter, even where it is also a text."""
    letter = _LETTER.fullmatch(span)
    if letter and (index := ord(letter[1].upper()) - ord("A")) < len(choices):
        return index
    keys = [_key(clean(choice)) for choice in choices]
    return keys.index(_key(span)) if _key(span) in keys else _labelled_index(span, keys)


def _labelled_index(span: str, keys: Sequence[str]) -> int | None:
    """Index of "(B) text" or "B: text"; None when the text hedges, names a second letter or is another choice's text."""
    labelled = _LABELLED.fullmatch(span)
    if labelled is None:
        return None
    letter, text = (labelled[1] or labelled[2]).upper(), labelled[3]
    index, key = ord(letter) - ord("A"), _key(clean(text))
    if index >= len(keys) or key in keys:
        return index if index < len(keys) and keys[index] == key else None
    others = {other.upper() for other in _OTHER_LETTER.findall(text)} - {letter}
    named = any(ord(other) - ord("A") < len(keys) for other in others)
    return None if named or HEDGE.search(text) else index


@lru_cache(maxsize=8192)
def _key(span: str) -> str:
    """Form for plain-text equality: words lose their case, single letters keep it (m/M is not M/m)."""
    key = _LOOSE_SPACE.sub("", _ARTICLE.sub("", _LONG_WORD.sub(lambda word: word[0].lower(), span)))
    return _SYNONYMS.get(key, key)


def _same_value(span: str, target: str, tolerance: float) -> bool:
    """Equality of two cleaned spans as text, number with unit, tuple or mathematical expression."""
    if _key(span) == _key(target):
        return True
    if "=" not in span or "=" not in target:
        span, target = _assigned(span), _assigned(target)
    quantity, gold_quantity = parse_quantity(span), parse_quantity(target)
    if quantity and gold_quantity:
        return same_quantity(quantity, gold_quantity, tolerance)
    if span.count("=") != target.count("=") or span.count(",") != target.count(","):
        return False
    return _same_tuple(span, target, tolerance) if "," in span else same_expression(span, target, tolerance)


def _assigned(span: str) -> str:
    """The value in "x = 5" or "\\angle ABC = 40°"; an equation such as "2x = 10" or "5 = 7" is returned whole."""
    name, _, value = span.rpartition("=")
    return value.strip() if _NAME.fullmatch(name) and not HEDGE.search(name) else span


def _same_tuple(span: str, target: str, tolerance: float) -> bool:
    """Element-wise equality of "(1, 2)" and the like; a list without brackets has no order."""
    bracketed = span[0] in "(["
    if (bracketed or target[0] in "([") and (span[0], span[-1]) != (target[0], target[-1]):
        return False
    sides = [(text[1:-1] if bracketed else text).split(",") for text in (span, target)]
    parts, golds = [[part.strip() for part in (side if bracketed else sorted(side, key=str.strip))] for side in sides]
    return all(map(_same_value, parts, golds, repeat(tolerance)))
