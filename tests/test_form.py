"""A JSON schema in words: every name, type and allowed value, and an example that fits it."""

from __future__ import annotations

import json
from typing import Any

from labeling.annotate import SCHEMA, SYSTEM, check_reply
from labeling.facts import KINDS
from rewardlib import perception
from rewardlib.form import in_words


def example(words: str) -> Any:
    return json.loads(words.rpartition("For example: ")[2])


def test_the_annotators_form() -> None:
    words = in_words(SCHEMA)
    assert all(f'"{name}"' in words for name in ("facts", "statement", "phrase", "quote", *KINDS))
    assert check_reply(example(words)) == example(words)["facts"]
    assert SYSTEM.endswith(words)


def test_the_perception_rewards_form_is_the_same_for_any_number_of_facts() -> None:
    requests = [perception.verdict_request("text", ["a fact"] * n) for n in (1, 40)]
    assert {request.prompt for request in requests} == {perception.system_prompt()}
    assert requests[0].check(example(perception.system_prompt())) == {"f1": True}


def test_every_kind_of_schema_has_words_and_an_example() -> None:
    schema = {
        "$defs": {"Node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}},
        "type": "object",
        "properties": {
            "count": {"type": "integer"},
            "share": {"type": ["number", "null"]},
            "names": {"type": "array", "items": {"type": "string"}},
            "always": {"const": "x"},
            "tree": {"$ref": "#/$defs/Node"},
            "lost": {"$ref": "#/$defs/Nowhere"},
            "any": {},
            "open": {"type": "object"},
            "size": {"type": "integer", "description": "millimetres"},
        },
        "required": ["count"],
    }
    words = in_words(schema)
    assert "JSON object" in words
    for line in (
        '- "count": a whole number\n',
        '- "share": a number or null, may be left out\n',
        '- "names": a list of values, each a string, may',
        '- "always": "x", may',
        '- "size": millimetres, may',
    ):
        assert line in words
    shown = example(words)
    assert (shown["count"], shown["share"], shown["names"], shown["always"], shown["open"]) == (1, 0.5, ["..."], "x", {})
    assert in_words({"type": "array", "items": {"type": "integer"}}).endswith("For example: [1]")
