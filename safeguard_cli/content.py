"""Chooses the text of a row that the model sees: a field, several fields, or a template filled from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from safeguard_cli.errors import UsageError
from safeguard_cli.records import Record, Source
from safeguard_cli.verdict import ErrorCode, RowError

DEFAULT_FIELD = "text"

_TEMPLATE_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]|\\[nt\\]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Selector:
    """What of a row is labelled. Made by `make_selector`.

    Without a template the texts of `fields` are joined by blank lines, leaving out those that are missing or null. A
    template is `parts`, each a literal or (as a 1-tuple) a field to fill in; there every field must be present.
    """

    fields: tuple[str, ...]
    parts: tuple[str | tuple[str], ...] = ()

    def select(self, record: Record) -> str | RowError:
        """The row's text, or why it has none: the record's own error, no_text or not_text."""
        if record.error is not None:
            return record.error
        assert record.fields is not None
        texts: dict[str, str] = {}
        for name in self.fields:
            value = record.fields.get(name)
            if value is None:
                if self.parts:
                    return _error("no_text", record, f"the template's field {name!r} is missing or null")
                continue
            text = _text(value)
            if text is None and self.parts:
                text = orjson.dumps(value).decode()
            if text is None:
                kind = {bool: "true or false", int: "a number", float: "a number"}.get(type(value), "nested JSON")
                return _error("not_text", record, f"the field {name!r} holds {kind}")
            texts[name] = text
        if self.parts:
            return "".join(part if isinstance(part, str) else texts[part[0]] for part in self.parts)
        if not texts:
            missing = " and ".join(repr(name) for name in self.fields)
            return _error("no_text", record, f"the field {missing} is missing or null")
        return "\n\n".join(texts.values())


def make_selector(source: Source, *, text_fields: Sequence[str] = (), template: str | None = None) -> Selector:
    """The Selector that the options ask for, checked against the source's header or first readable row.

    By default it is the field `text`, else the only field with a string. UsageError, with the fields that there are,
    when that does not settle it or when a field asked for is not there.
    """
    if text_fields and template is not None:
        raise UsageError("--text-field and --template exclude each other")
    parts = () if template is None else _parse(template)
    fields = tuple(dict.fromkeys(text_fields or (part[0] for part in parts if isinstance(part, tuple))))
    first = source.first()
    values = dict.fromkeys(source.names, "") if source.format == "csv" else (first and first.fields) or {}
    present = tuple(values)
    if not present:  # no row that can be read, or one without fields: nothing to check against
        return Selector(fields or (DEFAULT_FIELD,), parts)
    listed = ", ".join(repr(name) for name in present)
    if unknown := [name for name in fields if name not in present]:
        raise UsageError(f"{source.name}: no field {unknown[0]!r} in the first row; its fields are {listed}")
    if not fields:
        strings = tuple(name for name in present if isinstance(values[name], str))
        fields = (DEFAULT_FIELD,) if DEFAULT_FIELD in present else strings
    if len(fields) != 1 and not (text_fields or parts):
        raise UsageError(f"{source.name}: which field holds the text? Name it with --text-field; there are {listed}")
    return Selector(fields, parts)


def _parse(template: str) -> tuple[str | tuple[str], ...]:
    """Literals and fields of `{title}\\n{body}`; `{{` and `}}` are braces, `\\n`, `\\t` and `\\\\` are escapes."""
    if any("\ud800" <= character <= "\udfff" for character in template):
        raise UsageError("--template is not valid text in this terminal's encoding")
    parts: list[str | tuple[str]] = []
    at = 0
    for match in _TEMPLATE_PART.finditer(template):
        parts.append(template[at : match.start()])
        if match[1] is None and match[0] not in _ESCAPES:
            raise UsageError(f"--template has a single {match[0]!r}: write {{field}}, or {{{{ and }}}} for braces")
        parts.append(_ESCAPES[match[0]] if match[1] is None else (match[1],))
        at = match.end()
    parts.append(template[at:])
    if not any(isinstance(part, tuple) for part in parts):
        raise UsageError("--template names no field: write one as {field}")
    return tuple(part for part in parts if part)


def _text(value: Any) -> str | None:
    """A string, or a list of chat messages as a conversation; None for anything else."""
    if isinstance(value, str):
        return value
    return _each(value, _message, "\n\n")


def _message(value: Any) -> str | None:
    """`role: text` of a message {role, content}, whose content is a string, null or a list of {type: text, text}."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or "content" not in value:
        return None
    content = value["content"]
    if not isinstance(content, str):
        content = "" if content is None or content == [] else _each(content, _text_part, "\n")
    return None if content is None else f"{value['role']}: {content}"


def _text_part(value: Any) -> str | None:
    if isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str):
        return str(value["text"])
    return None


def _each(values: Any, convert: Callable[[Any], str | None], between: str) -> str | None:
    """The items of a list converted and joined; None when it is no list, is empty, or one of them will not convert."""
    if not isinstance(values, list) or not values:
        return None
    texts = [convert(value) for value in values]
    return None if None in texts else between.join(text for text in texts if text is not None)


def _error(code: ErrorCode, record: Record, message: str) -> RowError:
    return RowError(code, f"line {record.line}: {message}")
