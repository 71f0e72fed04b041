"""Files of settings: the model that is used when none is named, and defaults of options.

The model comes from the environment, the project file or the user file, in this order. Options come from `[label]`,
`[eval]` and so on in the same files; the command line goes before them.

A project file lies in the working directory and may have come with somebody else's data. It can only name a model or a
policy inside its own folder and choose how rows are labelled: no input or output, no server, no credential, no path
that leads out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safeguard_cli.errors import UsageError
from safeguard_cli.files import config_folder, read_small

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "SAFEGUARD_MODEL"
PROJECT_FILES = ("safeguard.toml", "pyproject.toml")
KEYS = {"model"}
COMMANDS = ("label", "ask", "audit", "eval", "compare", "stress", "bench", "report", "review")  # with defaults
# Parameters that no file sets: what is read and written, what starts over, and what leaves the machine.
NEVER = {
    *("input", "inputs", "texts", "golden", "a", "b", "out", "outs", "other", "output", "reviewed", "export"),
    *("junit", "wrong_file"),
    *("overwrite", "append_input", "retry_errors", "reuse"),
    *("servers", "server_api", "server_model", "tokenizer", "ray", "ray_address", "keep", "only", "help_all", "debug"),
}
PATHS = {"model", "policies", "policy"}
MAX_BYTES = 1 << 20


def user_file() -> Path | None:
    """Return the file of the user's own settings; None for a user without a home."""
    folder = config_folder()
    return folder / "safeguard.toml" if folder else None


def configured_model(folder: Path | None = None) -> str | None:
    """Return the model's name as set outside the command line. Raises UsageError that names the faulty file."""
    if name := os.environ.get(VARIABLE):
        return name
    folder = folder or Path()
    own = user_file()
    for path in (*(folder / name for name in PROJECT_FILES), *([own] if own else [])):
        name = _settings(path).get("model")
        if name is None:
            continue
        if not isinstance(name, str) or not name or "\0" in name:
            raise UsageError(f"{path}: model must be a name or a path in quotes")
        if path == own:
            return os.path.expanduser(name)  # noqa: PTH111 Path's raises if there is no such user
        return _inside(name, path)
    return None


def defaults(command: str, folder: Path | None = None) -> Iterator[tuple[Path, bool, dict[str, Any]]]:
    """Yield the table of a command from each file of settings that has one, the user's first, then the project's.

    With it come the file and whether it is the user's own. Raises UsageError that names the faulty file.
    """
    folder, own = folder or Path(), user_file()
    for path in (*([own] if own else []), *(folder / name for name in reversed(PROJECT_FILES))):
        table = _settings(path).get(command, {})
        if not isinstance(table, dict):
            raise UsageError(f"{path}: [{command}] must be a table of options")
        if table:
            yield path, path == own, table


def inside(value: Any, path: Path, own: bool) -> Any:
    """Return the model or policies that a file of settings names, if they are allowed; see the top of this module."""
    if isinstance(value, list):
        return [inside(each, path, own) for each in value]
    if not isinstance(value, str) or own:
        return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 as in configured_model
    found = _inside(value, path)
    return found if Path(found).exists() else value


def _settings(path: Path) -> dict[str, Any]:
    """Return the settings in a file; none if there is no file."""
    try:
        content: dict[str, Any] = tomllib.loads(read_small(path, MAX_BYTES).decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if path.name == "pyproject.toml":
            return {}  # not our file: the tools that read it will report it
        why = "its values are nested too deep" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path} is not valid TOML: {why}") from None
    if path.name == "pyproject.toml":
        tool = content.get("tool")
        content = tool.get("safeguard", {}) if isinstance(tool, dict) else {}
        if not isinstance(content, dict):
            raise UsageError(f"{path}: tool.safeguard must be a table")
    if unknown := sorted(set(content) - KEYS - set(COMMANDS)):
        raise UsageError(
            f"{path}: {unknown[0]!r} cannot be set there; only {', '.join(sorted(KEYS))} and tables such as [label] can"
            " (never servers and credentials: such a file may have come with somebody else's data)"
        )
    return content


def _inside(name: str, file: Path) -> str:
    """Return the model that a project file names: a name as it is, a path only if it stays in the file's folder."""
    from safeguard_cli.model.names import DEMO, hub_name  # not at the top: --help does without what that imports

    if name == DEMO or hub_name(name):
        return name
    folder = file.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise UsageError(f"{file}: {name!r} lies outside {folder}; a project file may only name files inside it")
    return str(path)
