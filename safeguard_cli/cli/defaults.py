"""Reads defaults of options from settings files into the command line's parser, which checks them like the line."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any

import typer

from safeguard_cli.errors import UsageError

_ORIGINS = "safeguard.defaults"


def load(ctx: typer.Context) -> None:
    """Give the called command its defaults. Raise UsageError naming the file, the table and the option."""
    from safeguard_cli.model import config

    name = ctx.invoked_subcommand
    command = ctx.command.get_command(ctx, name) if name in config.COMMANDS else None  # type: ignore[attr-defined]
    if command is None:
        return
    found: dict[str, Any] = {}
    origins: dict[str, str] = ctx.meta.setdefault(_ORIGINS, {})
    for path, own, table in config.defaults(str(name)):
        for key, value in table.items():
            where = f"{path}: [{name}] {key}"
            parameter = _parameter(command, key, where)
            if parameter.name in config.PATHS:
                value = config.inside(value, path, own)
            found[parameter.name] = _plain(parameter, value, where)
            origins[parameter.name] = where
    if os.environ.get(config.VARIABLE):
        found.pop("model", None)
    ctx.default_map = {str(name): found}


def spelled(parameter: Any) -> str:
    """Return the longest spelling of an option."""
    return str(max(parameter.opts, key=len))


def _parameter(command: Any, key: str, where: str) -> Any:
    """Return the option that a key names by its spelling without dashes."""
    from safeguard_cli.model.config import NEVER

    options = {spelled(each).removeprefix("--"): each for each in command.params if each.param_type_name == "option"}
    chosen = options.get(key.replace("_", "-"))
    if chosen is None:
        near = get_close_matches(key, options, n=1)
        raise UsageError(f"{where} is not an option of {command.name}" + (f"; did you mean {near[0]}?" if near else ""))
    if chosen.name in NEVER:
        raise UsageError(
            f"{where} cannot be set in a file, which may have come with somebody else's data: use the command line"
        )
    return chosen


def _plain(parameter: Any, value: Any, where: str) -> Any:
    """Return a value in the form that the parser takes; the parser checks the rest."""
    flag = bool(getattr(parameter, "is_flag", False))
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) != flag or not isinstance(each, (str, int, float)) for each in values):
        raise UsageError(
            f"{where} = {value!r}: " + ("it must be true or false" if flag else "it cannot have this value")
        )
    if parameter.multiple:
        return values
    return ",".join(map(str, value)) if isinstance(value, list) else value  # labels = ["ham", "spam"]


def files(ctx: Any) -> str:
    """Return the settings files that a call has defaults from."""
    return " and ".join(dict.fromkeys(where.partition(": [")[0] for where in ctx.meta.get(_ORIGINS, {}).values()))


def origin(ctx: Any, wrong: Any) -> str:
    """Return where a value that the parser refused comes from, if that is a settings file."""
    name = getattr(getattr(wrong, "param", None), "name", None)
    where = ctx.meta.get(_ORIGINS, {}).get(name)
    return f" (in {where})" if where else ""
