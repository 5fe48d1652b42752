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
    model = columns.get("reward_model")
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
    elif isinstance(value, str) and _is_list_of_texts(decoded(value)):
        yield from _alternatives(decoded(value))
    else:
        yield _final(text(value, "answer"))


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


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
    """A gold as the options have it: one that counts or labels an option becomes its letter."""
    if not choices:
        return gold
    if (index := choices.index(gold)) is not None:
        return letter(index)
    options = ", ".join(choices.texts)
    if re.fullmatch(r"[A-Za-z]", gold) and ord(gold.upper()) - ord("A") >= len(choices):
        if gold.lower() in (choice.strip().lower() for choice in choices.texts):
            return gold
        raise RowError("bad answer", f"the answer is {gold}, and there are {len(choices)} options: {options:.80}")
    if not re.fullmatch(r"\d+", gold) or any(answers_match(choice, gold) for choice in choices.texts):
        return gold
    if any(parse_quantity(clean(choice)) for choice in choices.texts):
        raise RowError(
            "bad answer",
            f"the answer {gold} is none of the options {options:.80}; if it counts them, write the option's letter instead",
        )
    if int(gold) >= len(choices):
        raise RowError(
            "bad answer",
            f"the answer {gold} counts the {len(choices)} options {options:.80} from 0, and there is none of that number; "
            "write the option's letter instead",
        )
    return letter(int(gold))
