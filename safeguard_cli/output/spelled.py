"""Read values that another program has saved again: booleans and numbers by closed lists, or not at all.

pandas writes True, NaN and 1.0; a spreadsheet writes TRUE in its user's language, decimal commas and 1E-05; databases
write t, f and \\N. A text that is on no list here is not a value: nothing is guessed from "truthy" text.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

# How true and false are spelled by JSON, Python, SQL, and spreadsheets in English, German, French, Spanish, Portuguese,
# Italian, Dutch, Danish, Norwegian, Swedish, Finnish, Polish, Czech, Hungarian, Romanian, Turkish, Russian, Ukrainian.
_TRUE = (
    "true t 1 1.0 1,0 wahr vrai verdadero verdadeiro vero waar sand sann sant tosi prawda pravda igaz adevărat doğru"
    " истина істина"
)
_FALSE = (
    "false f 0 0.0 0,0 falsch faux falso onwaar falsk usann falskt epätosi fałsz nepravda hamis fals yanlış yanliş"
    " ложь хибність"
)
_BOOLEANS = dict.fromkeys(_TRUE.split(), True) | dict.fromkeys(_FALSE.split(), False)

# Spellings of a missing value, matched exactly: `none` is an effort and may be a label.
_MISSING = frozenset(
    ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NV", "NULL", "null", "None", "<NA>", "NaT", "\\N")
)
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


def is_missing(value: Any) -> bool:
    """Return whether a value is a missing one: null, NaN, an empty cell, or a program's word for it."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def boolean(value: Any) -> bool | None:
    """Return the boolean that a value spells, None if it spells none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    return _BOOLEANS.get(value.strip().casefold()) if isinstance(value, str) else None


def number(value: Any) -> float | None:
    """Return the finite number that a value spells, with a decimal point or comma; None if it spells none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        value = float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None
    if not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def one_of(value: Any, choices: Collection[str]) -> str | None:
    """Return the one of `choices` that a value spells: exactly, else as the same number or the same boolean.

    pandas turns the label 1 into 1.0 if a row has no label, a spreadsheet turns the label true into TRUE. None if no
    choice fits, or more than one.
    """
    text = plain(value).strip()
    if text in choices:
        return text
    for read in (number, _word):
        meant = read(value)
        same = [] if meant is None else [choice for choice in choices if read(choice) == meant]
        if same:
            return same[0] if len(same) == 1 else None
    return None


def _word(value: Any) -> bool | None:
    """Return the boolean that a word spells; a number spells none, so that 1 is the label 1, not the label true."""
    return boolean(value) if number(value) is None else None


def mapping(value: Any) -> Mapping[str, Any] | None:
    """Return a value as an object, also if it is a cell with JSON or with what pandas prints, else None."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    for read in (orjson.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, Mapping) else None
    return None


def plain(value: Any) -> str:
    """Return a value as a CSV cell has it: text unchanged, nothing for null, all else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value, default=str).decode()


def normal(value: Any) -> str:
    """Return a value in one spelling for all its spellings: missing, a number or a boolean, else the text."""
    if is_missing(value):
        return ""
    found = number(value)
    if found is not None:
        return repr(found)
    truth = boolean(value)
    return plain(value).strip() if truth is None else str(truth)
