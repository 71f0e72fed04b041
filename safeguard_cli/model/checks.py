"""Checks of JSON from a file before it is trusted, put together from small ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

MOST_COUNTED = 1 << 53  # rows, bytes, tokens: more than there can be, yet a double holds it exactly
LONG = 60  # characters of a name that are shown
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Misshapen(ValueError):
    """The value is wrong; the message tells where it is and what it should be."""


Check = Callable[[Any, str], None]  # takes a value and where it is; raises Misshapen


def _is(what: str, right: Callable[[Any], bool]) -> Check:
    def check(value: Any, where: str) -> None:
        if not right(value):
            raise Misshapen(f"{where or 'it'} should be {what}")

    return check


def integer(least: int = 0, most: int = MOST_COUNTED) -> Check:
    """Accept a whole number, but not true or false."""
    return _is(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def number(least: float = 0.0, most: float = MOST_COUNTED) -> Check:
    """Accept a number within bounds."""
    return _is(
        f"a number from {least} to {most}",
        lambda value: type(value) in (int, float) and math.isfinite(value) and least <= value <= most,
    )


def one_of(*values: Any) -> Check:
    """Accept one of these values, of the same type."""
    listed = ", ".join(map(repr, values))
    return _is(f"one of {listed}", lambda value: any(type(value) is type(one) and value == one for one in values))


text = _is("a text", lambda value: isinstance(value, str))
filled = _is("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
flag = _is("true or false", lambda value: isinstance(value, bool))
sha256 = _is("a SHA-256", lambda value: isinstance(value, str) and bool(_HASH.fullmatch(value)))


def maybe(check: Check) -> Check:
    """Accept null, or what `check` accepts."""

    def either(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return either


def either(*checks: Check) -> Check:
    """Accept what one of the checks accepts; the last one reports what is wrong."""

    def any_of(value: Any, where: str) -> None:
        *others, last = checks
        for check in others:
            with suppress(Misshapen):
                check(value, where)
                return
        last(value, where)

    return any_of


def each(check: Check, least: int = 0) -> Check:
    """Accept a list of at least `least` values, each of which `check` accepts."""

    def all_of(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise Misshapen(f"{where or 'it'} should be a list" + (f" of at least {least}" if least else ""))
        for number, one in enumerate(value):
            check(one, f"{where}[{number}]")

    return all_of


def by_name(check: Check, least: int = 0) -> Check:
    """Accept an object of at least `least` members with any names, if `check` accepts each value."""

    def all_of(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            raise Misshapen(f"{where or 'it'} should be an object" + (f" of at least {least}" if least else ""))
        for name, one in value.items():
            check(one, _inside(where, name))

    return all_of


def table(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Accept an object with all required members; of any others it has, only the `optional` ones are checked."""

    def members(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise Misshapen(f"{where or 'it'} should be an object")
        for name, check in {**required, **(optional or {})}.items():
            inner = _inside(where, name)
            if name in value:
                check(value[name], inner)
            elif name in required:
                raise Misshapen(f"{inner} is missing")

    return members


def _inside(where: str, name: str) -> str:
    shown = name if len(name) <= LONG else name[:LONG] + "…"
    return f"{where}.{shown}" if where else shown
