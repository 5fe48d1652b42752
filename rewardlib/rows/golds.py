"""The gold answers of a row, however a table writes them.

    "4"   4   4.0                                text or a number
    "<answer> 4 </answer>"   "so \\boxed{4}"      in a response's form: what it answers
    ["red", "crimson"]                           alternatives, each as good as the other
    [{"answer": "red"}, ...]                     the same, as VQA's annotators gave them
    [10, 20, 50, 60]                             one answer of several numbers, such as a box
    1 beside the options "blue" and "red"        an option by its number, from 0 as `datasets` counts: B

What cannot be understood is a ``RowError``: a gold that no answer can match teaches a policy that it is always wrong.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rewardlib.answers import answers_match, final_answer
from rewardlib.quantities import parse_quantity
from rewardlib.rows.choices import Choices, letter
from rewardlib.rows.values import RowError, decoded, is_missing, listed, plain, text
from rewardlib.spans import MAX_SPAN, clean, find_boxes

GOLDS = ("answer", "solution", "ground_truth", "gt", "multiple_choice_answer", "answers")
ALTERNATIVES = "alternatives"  # golds beside the answer, in Sightline's own datasets
_NESTED = (*GOLDS, "text", "value")  # where an object holds the answer

ANSWER_TAG = re.compile(r"(?is)<answer>(.*?)</answer>")
_STRAY_TAG = re.compile(r"(?i)</?answer>")
_AFTER_WORKING = re.compile(r"####\s*(\S.*?)\s*$")  # GSM8K
_STATED_ANSWER = re.compile(r"(?i)\banswer\s*(?:is\b|:)")


def read_golds(columns: Mapping[str, Any], choices: Choices = Choices(), reply: str | None = None) -> tuple[str, ...]:
    """A row's gold answers of equal standing, the first for showing; none where it has none.

    Looked for in reward_model.ground_truth, then in the columns ``GOLDS``; ``reply`` is the chat's, for rows without these.
    """
    model = decoded(columns.get("reward_model"))
    told = model.get("ground_truth") if isinstance(model, Mapping) else None
    for value in (told, *(columns.get(name) for name in GOLDS), reply):
        if golds := list(_alternatives(value)):
            votes = Counter(golds)  # of several annotators; sorting keeps the order among equals
            ranked = sorted(votes, key=lambda gold: -votes[gold])
            others = [gold for value in listed(decoded(columns.get(ALTERNATIVES))) for gold in _alternatives(value)]
            return tuple(dict.fromkeys(_among(gold, choices) for gold in (*ranked, *others)))
    return ()


def _alternatives(value: Any) -> Iterator[str]:
    """The golds of a column's value, as often as it has them."""
    value = plain(value)
    if is_missing(value):
        return
    if isinstance(value, Mapping):
        name = next((name for name in _NESTED if not is_missing(value.get(name))), None)
        if name is None:
            raise RowError("bad answer", f"answer is {value!r:.80}, expected text, a number or a list of texts")
        yield from _alternatives(value[name])
    elif isinstance(value, list | tuple):
        items = listed(value)
        if len(items) > 1 and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
            yield json.dumps(items)
            return
        for item in items:
            yield from _alternatives(item)
    elif isinstance(value, str) and _holds_golds(decoded(value)):
        yield from _alternatives(decoded(value))
    elif not is_missing(final := _final(text(value, "answer"))):
        yield final


def _holds_golds(value: Any) -> bool:
    """Whether a text is a list or an object of answers, and not itself the answer, as a box or a mapping may be."""
    if isinstance(value, Mapping):
        return any(name in value for name in _NESTED)
    is_list = isinstance(value, list) and bool(value)
    return is_list and any(isinstance(item, str) or (isinstance(item, Mapping) and _holds_golds(item)) for item in value)


def _final(written: str) -> str:
    """What a gold in the form of a response answers; a bare one is what it is."""
    if tagged := ANSWER_TAG.findall(written):
        written = tagged[-1]
    written = _STRAY_TAG.sub("", written).strip()
    if after := _AFTER_WORKING.search(written):
        return after[1]
    if not _is_response(written):
        return written
    return final_answer(written) or written


def _is_response(written: str) -> bool:
    boxes = find_boxes(written)
    boxed_alone = len(boxes) == 1 and (boxes[0][0], boxes[0][2]) == (0, len(written) - 1)
    if boxes and not boxed_alone:
        return True
    return len(written) > MAX_SPAN or "</think>" in written or _STATED_ANSWER.search(written) is not None


def _among(gold: str, choices: Choices) -> str:
    """A gold as the options have it: one that counts, labels or equals an option becomes its letter.

    ``RowError`` for one that no answer to the question can match.
    """
    if not choices:
        if not answers_match(gold, gold):
            raise RowError("bad answer", f"the answer is {gold!r:.80}, which no response can match; write the answer alone")
        return gold
    if (index := choices.index(gold)) is not None:
        return letter(index)
    letters = [letter(n) for n in range(len(choices))]
    if any(answers_match(name, gold, choices.texts) for name in letters) or _names_several(gold, letters):
        return gold
    equal = [n for n, choice in enumerate(choices.texts) if answers_match(choice, gold)]
    if equal:
        return letter(equal[0]) if len(equal) == 1 else gold
    return letter(_counted(gold, choices))


def _names_several(gold: str, letters: list[str]) -> bool:
    """Whether a gold is a list of options: "A, C", where several are right together."""
    named = re.split(r"\s*[,;&]\s*|\s+and\s+", gold.strip())
    return len(named) > 1 and all(name.strip("()").upper() in letters for name in named)


def _counted(gold: str, choices: Choices) -> int:
    """The option that a number counts, from 0; ``RowError`` where it is none."""
    options = ", ".join(choices.texts)
    number = re.fullmatch(r"(\d+)(?:\.0+)?", gold)
    if number is None or any(parse_quantity(clean(choice)) for choice in choices.texts):
        raise RowError("bad answer", f"the answer {gold!r:.60} is none of the options {options:.80}; write the option's letter or its text")
    if int(number[1]) >= len(choices):
        raise RowError(
            "bad answer",
            f"the answer {gold} counts the {len(choices)} options {options:.80} from 0, and there is none of that number; "
            "write the option's letter instead",
        )
    return int(number[1])
