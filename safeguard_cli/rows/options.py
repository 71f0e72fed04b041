"""The options of reading rows, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import typer

Format: TypeAlias = Literal["jsonl", "ndjson", "csv", "tsv", "parquet"]


class Written(NamedTuple):
    """How a value is written on the command line: as a text that `read` parses, raising ValueError."""

    read: Callable[[str], Any]


def _shard(value: str) -> tuple[int, int]:
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"{value!r} is not K/N with K from 1 to N")
    return int(part), int(parts)


@dataclass(frozen=True)
class Reading:
    """Reading the input"""

    format: Annotated[
        Format | None,
        typer.Option(
            metavar="FORMAT",
            help="jsonl, ndjson, csv, tsv or parquet; default: the extension, or the first bytes of standard input.",
        ),
    ] = None
    encoding: Annotated[str, typer.Option(help="The input's character encoding.")] = "utf-8"
    max_row_bytes: Annotated[int, typer.Option(min=1, metavar="N", help="A larger row becomes an error row.")] = (
        64 << 20
    )
    id_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="The field with the row's id: never taken for the text, always kept; `compare` pairs rows by it.",
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Take only the first N rows; of a golden set, usable ones.")
    ] = None


@dataclass(frozen=True)
class Shard:
    """Reading the input"""

    shard: Annotated[
        tuple[int, int],
        Written(_shard),
        typer.Option(
            metavar="K/N",
            help="Label the K-th of every N rows, as one job of an array; `safeguard merge` joins the outputs.",
        ),
    ] = (1, 1)


@dataclass(frozen=True)
class Text:
    """What the model sees of a row"""

    text_fields: Annotated[
        tuple[str, ...],
        typer.Option(
            "--text-field",
            metavar="FIELD",
            help="The field that holds the text or a list of chat messages; its name or a dotted path. Repeatable."
            " Default: text, else the only field that reads like text.",
        ),
    ] = ()
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Build the text from fields, such as '{title}\\n{body}'.")
    ] = None


@dataclass(frozen=True)
class Windows:
    """What the model sees of a row"""

    long: Annotated[
        Literal["split", "truncate", "error"],
        typer.Option(
            help="Of a text longer than --ctx allows, label overlapping windows, only its beginning, or nothing.",
        ),
    ] = "split"
    max_windows: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="With --long split: a text that needs more windows is an error row."),
    ] = 16


@dataclass(frozen=True)
class Grouping:
    """What the model sees of a row"""

    group: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Rows are turns of a conversation, which this field names: each is labelled with the turns before it.",
        ),
    ] = None
    order: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="With --group: the field that orders the turns; default: the rows' order."),
    ] = None
    role_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="With --group: the field with who spoke; default: role, speaker, author or the like."
        ),
    ] = None
    verdict_per: Annotated[
        Literal["turn", "conversation"],
        typer.Option(help="With --group: label each turn, or every row with its whole conversation's label."),
    ] = "turn"
