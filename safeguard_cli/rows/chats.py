"""Turns chat messages into text: a list of messages, in either of the two usual shapes, into one conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names


def chat_text(value: Any) -> str | None:
    """Return a list of chat messages as `role: text` with blank lines between; None for anything else."""
    return _each(value, _message, "\n\n")


def is_chat(value: Any) -> bool:
    """Return whether a value is a list of chat messages."""
    return isinstance(value, list) and chat_text(value) is not None


def text_parts(value: Any) -> str | None:
    """Return the parts {type: text, text} of a message's content as one text; None for anything else."""
    return _each(value, _text_part, "\n")


def _message(value: Any) -> str | None:
    """Return a message as `role: text`; None for anything else.

    A message is {role, content} or {from, value}; its content is a string, null or a list of {type: text, text}.
    """
    if not isinstance(value, dict):
        return None
    for role, content in (("role", "content"), ("from", "value")):
        if isinstance(value.get(role), str) and content in value:
            said = value[content]
            if not isinstance(said, str):
                said = "" if said is None or said == [] else text_parts(said)
            return None if said is None else f"{_ROLES.get(value[role], value[role])}: {said}"
    return None


def _text_part(value: Any) -> str | None:
    if isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str):
        return str(value["text"])
    return None


def _each(values: Any, convert: Callable[[Any], str | None], between: str) -> str | None:
    """Return a list's items converted and joined; None if it is not a list, is empty, or has an item not converted."""
    if not isinstance(values, list) or not values:
        return None
    texts = [convert(value) for value in values]
    return None if None in texts else between.join(text for text in texts if text is not None)
