"""Turns commands with dataclasses of options as parameters into Typer commands: the fields become the options.

    @command(app, epilog=EXAMPLES + "…")
    def label(context: typer.Context, input: …, *, asked: Annotated[Settings, Needed("policies")]) -> None:

A field that the command also has as a parameter of its own is left to the command. A field that an earlier part has is
left to that part. A field that is no option keeps the dataclass's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import OptionInfo

from safeguard_cli.rows.options import Written

_REPEATED = tuple[str, ...]


EXAMPLES = "[bold]Examples[/bold]\n\n"


class Needed(NamedTuple):
    """Marks a part in a command's signature: the option of this field must be given."""

    name: str


@dataclass(frozen=True)
class _Option:
    """One field as an option: what Typer is given, and how to read back its value."""

    name: str
    annotation: Any
    default: Any
    read: Callable[[Any], Any]


def command(
    app: typer.Typer, name: str | None = None, *, epilog: str, first: Iterable[str] = (), without: Iterable[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a command to an app; see `with_parts`.

    `--help` shows the options `first`, `--help-all` all of them. `without` are fields that the command has no use for.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        kind = type("_Command", (_Command,), {"first": frozenset(first)})
        flat = with_parts(function, without)
        app.command(name, cls=kind, no_args_is_help=True, epilog=epilog)(_with_help_all(flat) if first else flat)
        return function

    return add


class _Command(TyperCommand):
    """A command with the options that most people need in `--help`, and all of them in `--help-all`."""

    first: frozenset[str] = frozenset()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = self.first | {"help_all"}
        rare = [each for each in self.params if each.param_type_name == "option" and each.name not in shown]
        hidden: list[Any] = [] if not self.first or ctx.meta.get(_ALL) else [*rare]
        for parameter in hidden:
            parameter.hidden = True
        try:
            super().format_help(ctx, formatter)
        finally:
            for parameter in hidden:
                parameter.hidden = False


_ALL = "safeguard.help-all"


def _help_all(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        context.meta[_ALL] = True
        context.get_help()  # rich prints it itself
        raise typer.Exit


HelpAll = Annotated[
    bool, typer.Option("--help-all", is_eager=True, callback=_help_all, help="Show all options and exit.")
]


def _with_help_all(function: Callable[..., None]) -> Callable[..., None]:
    def call(help_all: bool = False, **values: Any) -> None:
        function(**values)

    more = inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll)
    return _flat(call, function, [*inspect.signature(function).parameters.values(), more])


def _flat(call: Any, function: Any, parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """Return a function that shows Typer these parameters, and the name and help of another."""
    call.__name__, call.__doc__, call.__module__ = function.__name__, function.__doc__, function.__module__
    call.__signature__ = inspect.Signature(parameters)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    flat: Callable[..., None] = call
    return flat


def with_parts(function: Callable[..., None], without: Iterable[str] = ()) -> Callable[..., None]:
    """Return a command with flat parameters that builds a function's parts and calls it."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    parts = {name: _part(hint) for name, hint in hints.items() if _part(hint)}
    own = hints.keys() - parts.keys()
    left = own | set(without)  # grows by each part's fields, which later parts leave to it
    made: dict[str, dict[str, _Option]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in own:
            flat.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        needed = {mark.name for mark in get_args(hints[name])[1:] if isinstance(mark, Needed)}
        made[name] = {o.name: o for o in _options(parts[name], needed) if o.name not in left}
        left |= made[name].keys()
        flat += [
            inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default, annotation=o.annotation)
            for o in made[name].values()
        ]

    def call(**values: Any) -> None:
        built = {
            name: parts[name](**{option: spec.read(values.pop(option)) for option, spec in options.items()})
            for name, options in made.items()
        }
        function(**values, **built)

    return _flat(call, function, flat)


def _part(hint: Any) -> Any:
    """Return the dataclass that a parameter's hint names, None if it is something else."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return kind if is_dataclass(kind) else None


def _options(part: Any, needed: Iterable[str]) -> Iterator[_Option]:
    hints = get_type_hints(part, include_extras=True)
    for field in fields(part):
        kind, *marks = get_args(hints[field.name]) or [None]
        options = [mark for mark in marks if isinstance(mark, OptionInfo)]
        if not options:
            continue
        info = copy(options[0])
        home = next(each for each in part.__mro__ if field.name in vars(each).get("__annotations__", ()))
        info.rich_help_panel = info.rich_help_panel or home.__doc__
        written = next((mark for mark in marks if isinstance(mark, Written)), None)
        yield _option(field, kind, info, written, field.name in needed)


def _option(field: Field[Any], kind: Any, info: OptionInfo, written: Written | None, needed: bool) -> _Option:
    default = field.default
    assert default is not MISSING, f"{field.name} has no default"
    if written:
        names = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
        option = max(names or [f"--{field.name.replace('_', '-')}"], key=len)
        return _Option(field.name, Annotated[str | None, info], None, _reader(written, option, default))
    if kind == _REPEATED:
        if needed:
            return _Option(field.name, Annotated[list[str], info], inspect.Parameter.empty, tuple)
        return _Option(field.name, Annotated[list[str] | None, info], None, lambda value: tuple(value or ()))
    return _Option(field.name, Annotated[kind, info], default, lambda value: value)


def _reader(written: Written, option: str, default: Any) -> Callable[[str | None], Any]:
    def read(value: str | None) -> Any:
        if value is None:
            return default
        try:
            return written.read(value)
        except ValueError as problem:
            raise typer.BadParameter(str(problem), param_hint=option) from None

    return read
