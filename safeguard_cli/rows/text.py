"""Selects the text of a row that the model sees: a field, several fields, or a template filled from them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.chats import chat_text, left_out, text_parts
from safeguard_cli.rows.choice import DEFAULT_FIELD, choose_field
from safeguard_cli.rows.paths import NOTHING, find, has_field
from safeguard_cli.rows.records import Record, json_text
from safeguard_cli.rows.source import Source, no_field
from safeguard_cli.rows.turns import Turns
from safeguard_cli.rows.verdict import ErrorCode, RowError
from safeguard_cli.terminal import note

_TEMPLATE_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]|\\[nt\\]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
_DOUBLED = re.compile(r"(?<!\{)\{\{([^{}]+)\}\}(?!\})")
BLANK_ROW = "the row is blank"  # how the message about such a row ends


class Selects(Protocol):
    """What selects a row's text; `turns` is on record if rows are turns of conversations."""

    @property
    def chosen(self) -> tuple[str, ...]: ...

    @property
    def described(self) -> str: ...

    @property
    def turns(self) -> Mapping[str, Any] | None: ...

    def select(self, record: Record) -> str | Turns | RowError: ...


@dataclass(frozen=True, slots=True)
class Selector:
    """What of a row is labelled, made by `make_selector`.

    Without a template, blank lines join the texts of `fields`; those that are missing, null or blank are left out.
    A template is `parts`, each a literal or (as a 1-tuple) a field to fill in. There every field must be present, and
    at least one not blank. A field is found by its exact name, else by its dotted path.
    """

    fields: tuple[str, ...]
    parts: tuple[str | tuple[str], ...] = ()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The fields that are joined; none if there is a template."""
        return () if self.parts else self.fields

    @property
    def described(self) -> str:
        """What of a row is labelled, for people."""
        names = ", ".join(self.fields)
        return f"--template of {names}" if self.parts else names

    @property
    def turns(self) -> None:
        """Rows are no turns."""

    def select(self, record: Record) -> str | RowError:
        """Return the row's text, or the error that it has instead: the record's own, no_text or not_text."""
        if record.error is not None:
            return record.error
        assert record.fields is not None
        if record.blank:
            return RowError("no_text", f"line {record.line}: {BLANK_ROW}", blank=True)
        texts: dict[str, str] = {}
        for name in self.fields:
            value = find(record.fields, name)
            if value is NOTHING:
                value = "" if record.cells else None  # a cell that a short CSV row lacks counts as empty
            if value is None:
                if self.parts:
                    return _error("no_text", record, f"the template's field {name!r} is missing or null")
                continue
            text = _text(value)
            if text is None and self.parts:
                try:
                    text = json_text(value)
                except ValueError as problem:
                    return _error("not_text", record, f"the template's field {name!r} is {problem}")
            if text is None:
                kind = {bool: "true or false", int: "a number", float: "a number"}.get(type(value), "nested JSON")
                return _error("not_text", record, f"the field {name!r} holds {kind}")
            if self.parts or text.strip():
                texts[name] = text
        if not any(text.strip() for text in texts.values()):
            missing = " and ".join(repr(name) for name in self.fields)
            return _error("no_text", record, f"the field {missing} is missing, null or blank")
        if self.parts:
            return "".join(part if isinstance(part, str) else texts[part[0]] for part in self.parts)
        return "\n\n".join(texts.values())


def make_selector(
    source: Source,
    *,
    text_fields: Sequence[str] = (),
    template: str | None = None,
    gold: Collection[str] = (),
    others: Collection[str] = (),
    before: Sequence[str] = (),
) -> Selector:
    """Return the Selector that the options ask for, checked against the source's header or first rows.

    By default it takes the field that `choose_field` finds, never one of `gold` (fields with the right labels, which
    no option may name either) or of `others` (fields named for another purpose). `before` are the fields of an earlier
    session of the same run, which are kept. Raise UsageError, with the fields that there are, if the field is not
    clear or a named field is missing.
    """
    if text_fields and template is not None:
        raise UsageError("--text-field and --template exclude each other")
    parts = () if template is None else _parse(template)
    fields = tuple(dict.fromkeys(text_fields or (part[0] for part in parts if isinstance(part, tuple))))
    option = "--template" if parts else "--text-field"
    if shown := [name for name in fields if not {name, name.partition(".")[0]}.isdisjoint(gold)]:
        raise UsageError(f"{option} names {shown[0]!r}, the field with the right label, which the model must not see")
    if missing := source.lacks(fields, has_field):
        raise no_field(source.name, option, missing[0], source.fields())
    if template is not None:
        _check_doubled_braces(template, source)
    kept = before and not source.lacks(before, has_field) and not {*gold, *others}.intersection(before)
    return Selector(fields or (tuple(before) if kept else (choose_field(source, {*gold, *others}),)), parts)


def first_choice(source: Source) -> tuple[str, ...]:
    """Return the fields that version 0.1.0 chose, because its manifests do not name them; none if it chose none.

    It chose the field `text`, else the only one that held a string in the first row.
    """
    first = source.first()
    found = dict.fromkeys(source.names, "") if source.format == "csv" else first and first.fields
    fields: Mapping[str, Any] = found or {}
    strings = tuple(name for name, value in fields.items() if isinstance(value, str))
    return (DEFAULT_FIELD,) if DEFAULT_FIELD in fields else strings if len(strings) == 1 else ()


def say_text(selector: Selects, source: Source) -> None:
    """Report on standard error what of the rows is labelled, if there are any, and what of chats is left out."""
    rows = [record.fields for record in source.sample() if record.fields]
    if rows:
        kinds = dict.fromkeys(kind for row in rows for name in selector.chosen for kind in left_out(find(row, name)))
        without = f" (without {', '.join(kinds)})" if kinds else ""
        note(f"text: {selector.described}{without}")


def text_key(text: str) -> bytes:
    """Return the hash by which a text is recognized when it comes again."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check_doubled_braces(template: str, source: Source) -> None:
    """Raise UsageError for `{{title}}` if `title` is a field: other tools fill it in, here it is the text {title}."""
    for found in _DOUBLED.finditer(template):
        name = found[1].strip()
        if name in source.fields():
            raise UsageError(f"--template has {found[0]}, where doubled braces mean literal braces: write {{{name}}}")


def _parse(template: str) -> tuple[str | tuple[str], ...]:
    """Return a template's literals and fields, such as `{title}\\n{body}`.

    `{{` and `}}` are braces; `\\n`, `\\t` and `\\\\` are escapes.
    """
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
        hint = ", with single braces" if "{{" in template else ""
        raise UsageError(f"--template names no field: write one as {{field}}{hint}")
    return tuple(part for part in parts if part)


def _text(value: Any) -> str | None:
    """Return the text of a string, of a list of chat messages, or of the parts of one message; else None."""
    if isinstance(value, str):
        return value
    text = chat_text(value)
    return text_parts(value) if text is None else text


def _error(code: ErrorCode, record: Record, message: str) -> RowError:
    return RowError(code, f"line {record.line}: {message}")
