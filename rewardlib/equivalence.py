"""Decide whether an answer means the same as the gold: as a choice, text, number with unit, tuple or expression.

It must accept the many ways a right answer is written (letter or choice text, LaTeX, fractions, units, percent, a short sentence) and
refuse an answer that hedges or names several. Each kind is decided in a module of its own, in this order: times, scores and the like
(`literals`), numbers with a unit (`quantities`), words (`wording`), lists and tuples, and mathematical equivalence last (`expressions`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import repeat

from rewardlib.expressions import same_expression
from rewardlib.literals import same_literal
from rewardlib.quantities import DEFAULT_TOLERANCE, parse_quantity, same_quantity
from rewardlib.spans import HEDGE, MAX_SPAN, clean
from rewardlib.wording import items, key, same_wording

_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:,]?")
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.):])\s*[:.,]?\s*(.+)", re.DOTALL)
# A second letter after a label; "A" before a lower-case word is the article.
_OTHER_LETTER = re.compile(r"(?<![A-Za-z\\])(A(?![A-Za-z]|\s+[a-z])|[B-Z](?![A-Za-z])|(?<=\()[a-z](?=\))|^[a-z]\b(?!\s+[a-z]{2}))")

# The name before "=" in "x = 5" or "\angle ABC_1 = 40", as opposed to a side of an equation such as "2x = 10".
_NAME = re.compile(r"(?:_\{?\w\}?|[^\d,()<>≤≥+*_])*")

# The preposition of a year, a time or a date.
_BEFORE_NUMBER = re.compile(r"(?i)(?:in|at|on)\s+(?=\d)")


def answers_match(
    answer: str,
    gold: str | Sequence[str],
    choices: Sequence[str] = (),
    *,
    tolerance: float = DEFAULT_TOLERANCE,
) -> bool:
    """Whether an extracted answer span means the same as `gold`, a value or a choice given by its letter or its text.

    Of several golds, which are of equal standing, it has to mean one.

    Numbers may differ by `tolerance` times the larger of the two, 1e-4 by default. Two integers must be equal unless the tolerance is wider
    than that. Text, variables and units never have a tolerance, and choices none that is wider: 21.0 must not pass for 20 beside 21.
    """
    if not isinstance(gold, str):
        return any(answers_match(answer, one, choices, tolerance=tolerance) for one in gold)
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
    values = [clean(choice) for choice in named]
    return _is_only(span, values, gold_index, min(tolerance, DEFAULT_TOLERANCE))


def _is_only(span: str, values: Sequence[str], index: int, tolerance: float) -> bool:
    """Whether a span has the value of one choice and of no other: "10" names neither 10 cm nor 10 m."""
    if not _same_value(span, values[index], tolerance):
        return False
    return not any(_same_value(span, value, tolerance) for i, value in enumerate(values) if i != index)


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
    keys = [key(clean(choice)) for choice in choices]
    return keys.index(key(span)) if key(span) in keys else _labelled_index(span, keys)


def _labelled_index(span: str, keys: Sequence[str]) -> int | None:
    """Index of "(B) text" or "B: text"; None when the text hedges, names a second letter or is another choice's text."""
    labelled = _LABELLED.fullmatch(span)
    if labelled is None:
        return None
    letter, text = (labelled[1] or labelled[2]).upper(), labelled[3]
    index, spelled = ord(letter) - ord("A"), key(clean(text))
    if index >= len(keys) or spelled in keys:
        return index if index < len(keys) and keys[index] == spelled else None
    others = {other.upper() for other in _OTHER_LETTER.findall(text)} - {letter}
    named = any(ord(other) - ord("A") < len(keys) for other in others)
    return None if named or HEDGE.search(text) else index


def _same_value(span: str, target: str, tolerance: float) -> bool:
    """Equality of two cleaned spans as text, number with unit, list, tuple or mathematical expression."""
    if "=" not in span or "=" not in target:
        span, target = _assigned(span), _assigned(target)
    span, target = _BEFORE_NUMBER.sub("", span, count=1), _BEFORE_NUMBER.sub("", target, count=1)
    if (verdict := same_literal(span, target)) is not None:
        return verdict or same_wording(span, target)
    quantity, gold_quantity = parse_quantity(span), parse_quantity(target)
    if quantity and gold_quantity:
        return same_quantity(quantity, gold_quantity, tolerance)
    if same_wording(span, target):
        return True
    if span.count("=") != target.count("="):
        return False
    if span[:1] in ("(", "[") or target[:1] in ("(", "["):
        if (span[:1], span[-1:]) == (target[:1], target[-1:]) and "," in span:
            return _same_parts(_parts(span[1:-1]), _parts(target[1:-1]), tolerance)
        return span.count(",") == target.count(",") == 0 and same_expression(span, target, tolerance)
    parts, golds = (sorted(items(side), key=_rank) for side in (span, target))
    if len(parts) > 1 or len(golds) > 1:
        return _same_parts(parts, golds, tolerance)
    return same_expression(span, target, tolerance)


def _assigned(span: str) -> str:
    """The value in "x = 5" or "\\angle ABC = 40°"; an equation such as "2x = 10" or "5 = 7", or one without a value, is returned whole."""
    name, _, value = span.rpartition("=")
    return value.strip() if value.strip() and _NAME.fullmatch(name) and not HEDGE.search(name) else span


def _parts(inside: str) -> list[str]:
    return [part.strip() for part in inside.split(",")]


def _rank(item: str) -> tuple[bool, Fraction, str]:
    """Order of a list's items, which has no meaning: numbers by value, then words."""
    quantity = parse_quantity(item)
    return quantity is None, quantity[0] if quantity else Fraction(0), "" if quantity else key(item)


def _same_parts(parts: Sequence[str], golds: Sequence[str], tolerance: float) -> bool:
    """Item-wise equality of two lists or tuples."""
    return len(parts) == len(golds) and all(map(_same_value, parts, golds, repeat(tolerance)))
