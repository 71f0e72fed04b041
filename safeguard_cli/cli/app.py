"""The `safeguard` command: all commands put together. A command's code is imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from safeguard_cli import __version__, errors, signals
from safeguard_cli.cli import (
    agree,
    ask,
    audit,
    bench,
    defaults,
    guard,
    label,
    measure,
    models,
    outputs,
    policy,
    review,
    streams,
    stress,
)
from safeguard_cli.cli.label import NO_VALUE
from safeguard_cli.cli.parts import EXAMPLES

_CalledWrongly: Any = typer.BadParameter.__base__  # UsageError, which typer does not export


class _Commands(TyperGroup):
    """All commands. A message about a wrong argument does not quote it where it may be a URL with a password."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _CalledWrongly as wrong:
            from safeguard_cli.address import without_arguments

            wrong.message = (
                without_arguments(wrong.message, sys.argv[1:]) + _renamed(sys.argv[1:]) + defaults.origin(ctx, wrong)
            )
            raise


# Options that had another name or meaning, by command and option, and what to write now.
_RENAMED = {
    ("label", "--ray"): NO_VALUE,
    ("eval", "--sure"): "--sure takes a number, as in label; what it used to do here is now --find-sure",
}


def _renamed(arguments: list[str]) -> str:
    """Return what to write instead of the options in a call that used to mean something else."""
    found = {(arguments[0], each.partition("=")[0]) for each in arguments[1:]} if arguments else set()
    return "".join(f" ({told})" for call, told in _RENAMED.items() if call in found)


app = typer.Typer(
    name="safeguard",
    cls=_Commands,
    help="Label the rows of files against a written policy with gpt-oss-safeguard, on your own machine.",
    epilog="Try it: safeguard label sample:messages --policy spam --model demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (label, ask, audit, outputs, models, bench, measure, stress, review, agree):
    app.add_typer(module.app)
app.add_typer(policy.app, name="policy")
app.add_typer(
    models.models_app,
    name="models",
    invoke_without_command=True,
    epilog=EXAMPLES + "safeguard models\n\nsafeguard models rm gpt-oss-safeguard-20b",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"safeguard {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    defaults.load(ctx)


def main() -> None:
    """Entry point of the `safeguard` command."""
    streams.prepare()
    signals.install()
    sys.exit(guard.guarded(_called, "--debug" in sys.argv))


def _called() -> int:
    """Parse the command line, run its command and return the exit code."""
    arguments = sys.argv[1:]
    if not arguments or not {"-h", "--help", "--help-all"}.isdisjoint(arguments):
        _import_help()
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else errors.FATAL
    return errors.OK


def _import_help() -> None:
    """Import what shows help, without what it imports for modes that are off here: a quarter of the time."""
    unused = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}
    if not unused.keys().isdisjoint(sys.modules):
        return
    for name, member in unused.items():
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], member, object)
    with suppress(ImportError):  # another typer: the import then happens as usual
        importlib.import_module("typer.rich_utils")
    for name in unused:  # whoever wants them now gets them
        del sys.modules[name]
