"""Finds a value in a row by a field's name, or by a dotted path into nested fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = object()  # found where there is no value, not even null


def find(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value of the field `name`, else that at a dotted path such as `body.items.0.text`, else NOTHING."""
    if name in fields:
        return fields[name]
    value: Any = fields
    for step in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(step, NOTHING)
        elif isinstance(value, list) and step.isascii() and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else NOTHING
        else:
            return NOTHING
    return value


def field_value(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value that `find` finds, None if there is none."""
    value = find(fields, name)
    return None if value is NOTHING else value


def has_field(fields: Mapping[str, Any], name: str) -> bool:
    """Return whether there is a value at a name or a dotted path, even null."""
    return find(fields, name) is not NOTHING
