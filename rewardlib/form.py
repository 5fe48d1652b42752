"""The form of a reply in words, for servers that are not sent its JSON schema or do not heed it.

    in_words(SCHEMA)
    # Reply with one JSON object of this form, and nothing before or after it:
    # - "verdicts": a list of objects, each with
    #   - "id": a string
    #   - "present": true or false
    # For example: {"verdicts": [{"id": "...", "present": true}]}

A ``description`` in the schema takes the place of what its type would be called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_TYPES = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
    "object": "an object",
    "array": "a list",
}
_EXAMPLES: dict[str, Any] = {"boolean": True, "integer": 1, "number": 0.5, "null": None}
_DEEPEST = 8  # levels that are written out; a schema that refers to itself has no end


def in_words(schema: Schema) -> str:
    """What to reply, as a model is told: names, types, allowed values, and an example."""
    whole = _resolved(schema, schema)
    example = _json(_example(whole, schema, 0))
    if "properties" not in whole:
        kind = _kind(whole, schema)
        return f"Reply with JSON, and nothing before or after it: {kind}. For example: {example}"
    lines = [
        "Reply with one JSON object of this form, and nothing before or after it:",
        *_members(whole, schema, 0),
    ]
    return "\n".join([*lines, f"For example: {example}"])


def _members(schema: Schema, root: Schema, depth: int) -> Iterator[str]:
    """A line for every member of an object, those of its own members indented below it."""
    required = schema.get("required", list(schema["properties"]))
    for name, member in schema["properties"].items():
        member = _resolved(member, root)
        optional = "" if name in required else ", may be left out"
        yield f"{'  ' * depth}- {_json(name)}: {_kind(member, root)}{optional}"
        inner = _resolved(member.get("items", member), root)
        if "properties" in inner and depth < _DEEPEST:
            yield from _members(inner, root, depth + 1)


def _kind(schema: Schema, root: Schema) -> str:
    """What a value is called."""
    if "description" in schema:
        return str(schema["description"])
    if "const" in schema:
        return _json(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_json, schema["enum"]))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(_resolved(choice, root), root) for choice in choices)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(_TYPES.get(name, str(name)) for name in kind)
    if "properties" in schema:
        return "an object with"
    if kind == "array" and "items" in schema:
        item = _resolved(schema["items"], root)
        each = "objects, each with" if "properties" in item else f"values, each {_kind(item, root)}"
        return f"a list of {each}"
    return _TYPES.get(str(kind), "any value")


def _example(schema: Schema, root: Schema, depth: int) -> Any:
    """The smallest value that shows the form."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _example(_resolved(choices[0], root), root, depth + 1)
    if depth > _DEEPEST:
        return None
    if "properties" in schema:
        members = {name: _resolved(member, root) for name, member in schema["properties"].items()}
        return {name: _example(member, root, depth + 1) for name, member in members.items()}
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return [_example(_resolved(schema.get("items", {}), root), root, depth + 1)]
    return {} if kind == "object" else _EXAMPLES.get(str(kind), "...")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _resolved(schema: Any, root: Schema) -> Schema:
    """A schema, or the one that it refers to; anything at all where there is none."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping):
            return {}
        if not isinstance(reference := schema.get("$ref"), str):
            return schema
        schema = root
        for name in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
            schema = schema.get(name) if isinstance(schema, Mapping) else None
    return {}
