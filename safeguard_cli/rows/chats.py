"""Turns chat messages into text: a list of messages, in any of the usual shapes, into one conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names
# A message: OpenAI's, ShareGPT's, and that of Label Studio's dialogues. The first is who spoke, the second what.
_SHAPES = (("role", "content"), ("from", "value"), ("author", "text"))
_TEXT_PARTS = ("text", "input_text", "output_text")  # of chat completions, and of responses, in and out
_KIND = re.compile(r"[\w.-]{1,40}")


def chat_text(value: Any) -> str | None:
    """Return a list of chat messages as `role: text` with blank lines between; None for anything else.

    Images, calls of tools and the like are named in it, and left out; messages that hold nothing else are no chat.
    """
    text = _each(value, _message, "\n\n")
    return None if text is None or _holds_no_text(value) else text


def is_chat(value: Any) -> bool:
    """Return whether a value is a list of chat messages."""
    return isinstance(value, list) and chat_text(value) is not None


def chat_messages(chat: list[Any]) -> list[tuple[str, str]]:
    """Return who spoke and what, for each message of a chat."""
    said = ((_message(message) or "").partition(": ") for message in chat)
    return [(role, text) for role, _, text in said]


def text_parts(value: Any) -> str | None:
    """Return the parts of a message's content as one text, such as {type: text, text}; None for anything else.

    Images and the like are named in it, and left out; one part at least is a text.
    """
    return _each(value, _part, "\n") if any(map(_is_text, value if isinstance(value, list) else ())) else None


def left_out(value: Any) -> Iterator[str]:
    """Yield the kinds of the parts that a chat's text leaves out: images, calls of tools and the like."""
    if isinstance(value, list) and (is_chat(value) or text_parts(value) is not None):
        for message in value:
            content = next((message[content] for _, content in _SHAPES if content in message), None)
            parts = content if isinstance(content, list) else [message]
            yield from (_kind(part["type"]) for part in parts if _is_part(part) and not _is_text(part))
            if message.get("tool_calls"):
                yield "tool_calls"


def _message(value: Any) -> str | None:
    """Return a message as `role: text`; None for anything else.

    Its content is a string, null or a list of parts.
    """
    if not isinstance(value, dict):
        return None
    for role, content in _SHAPES:
        if isinstance(value.get(role), str) and content in value:
            said = value[content]
            if not isinstance(said, str):
                said = "" if said is None or said == [] else _each(said, _part, "\n")
            if said is not None and value.get("tool_calls"):
                said = f"{said}\n[tool_calls left out]".lstrip("\n")
            return None if said is None else f"{_ROLES.get(value[role], value[role])}: {said}"
    return None


def _holds_no_text(messages: list[Any]) -> bool:
    """Return whether messages have parts, and none of them, and no message beside them, is a text."""
    contents = [next(message[content] for _, content in _SHAPES if content in message) for message in messages]
    lists = [content for content in contents if isinstance(content, list) and content]
    return bool(lists) and not any(
        any(map(_is_text, content)) if isinstance(content, list) else content for content in contents
    )


def _part(value: Any) -> str | None:
    if _is_text(value):
        return str(value["text"])
    return f"[{_kind(value['type'])} left out]" if _is_part(value) else None


def _is_text(part: Any) -> bool:
    return _is_part(part) and part["type"] in _TEXT_PARTS and isinstance(part.get("text"), str)


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _kind(kind: str) -> str:
    return kind if _KIND.fullmatch(kind) else "part"


def _each(values: Any, convert: Callable[[Any], str | None], between: str) -> str | None:
    """Return a list's items converted and joined; None if it is not a list, is empty, or has an item not converted."""
    if not isinstance(values, list) or not values:
        return None
    texts = [convert(value) for value in values]
    return None if None in texts else between.join(text for text in texts if text is not None)
