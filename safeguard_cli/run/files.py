"""Which files a command labels when its INPUTs are several, folders or patterns, and which output each of them gets."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safeguard_cli.errors import SafeguardError, UsageError, shortened
from safeguard_cli.output.manifest import Foreign, Refused, load, manifest_path, run_path
from safeguard_cli.output.set_record import load_record
from safeguard_cli.rows.formats import EXTENSIONS, FORMATS, extension
from safeguard_cli.rows.sink import output_format, written_name
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note

SET = "set.manifest.json"  # in the folder of the outputs: the record of the set
LIST = ".files.json"  # after the name of one output for all files: the record of what is in it
RECORDS = (".manifest.json", ".run.json", LIST)
_JOURNAL = re.compile(r"\.rows\.(jsonl|csv|tsv)$")
_SHOWN = 5  # names that a sentence lists


@dataclass(frozen=True, slots=True)
class Pair:
    """One input file, by its absolute path, and its output; `name` is the input as the command names it."""

    input: Path
    output: Path
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """A file that an INPUT means; `below` is its path below the folder that the INPUT names."""

    path: Path
    below: Path
    name: str


def means_several(inputs: Sequence[str], output: str | None) -> bool:
    """Return whether a command labels a set of files, not one input into one output."""
    if len(inputs) > 1 or any(map(_is_folder, inputs)) or any(map(_is_pattern, inputs)):
        return True
    return output is not None and inputs != ["-"] and names_folder(output)


def names_folder(output: str) -> bool:
    """Return whether `-o` names a folder: one that exists or ends with a slash, or a new name without an extension."""
    if output.endswith(("/", os.sep)) or _is_folder(output):
        return True
    return not Path(output).suffix and not os.path.lexists(output)


def find_pairs(settings: Settings) -> list[Pair]:
    """Return the files that the INPUTs mean, in order, each with its output in the folder `settings.output`.

    The output has its input's name, and the folders below its INPUT are kept. Raise UsageError if there is no file, or
    if two of them would be written to one output.
    """
    folder = Path(str(settings.output))
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; several files need one, with a file in it for each")
    files = find_files(settings.inputs or (settings.input,), _absolute(folder), _outputs_in(folder))
    inputs = {found.path for found in files}
    pairs: dict[Path, Found] = {}
    for found in files:
        output = folder / output_name(found.below, settings.format)
        if other := pairs.get(output):
            raise UsageError(
                f"{other.name} and {found.name} would both be written to {output}: label them into two folders, or name"
                " the folder above both, so that their own folders are kept"
            )
        if _absolute(output) in inputs:
            raise UsageError(f"{output} would be overwritten: with -o, name another folder than the input's")
        pairs[output] = found
    return [Pair(found.path, output, found.name) for output, found in pairs.items()]


def _outputs_in(folder: Path) -> set[Path]:
    """Return the absolute paths of the outputs in a folder that the record of its set names."""
    with suppress(SafeguardError):  # a file that is no record of ours is refused when the record is opened
        return {_absolute(folder / output) for output in load_record(folder / SET).files}
    return set()


def find_files(inputs: Sequence[str], output: Path, outputs: Collection[Path] = ()) -> list[Found]:
    """Return the files that the INPUTs mean, each once, in the order of the INPUTs and below one by name.

    A folder means all files in it whose extension is known; files of other extensions are told once. Left out, where
    they are not named themselves, are hidden files, our own records, and what is an output of the same command: the
    `outputs`, and `output` with what is below it.
    """
    found: dict[Path, Found] = {}
    unknown: list[str] = []
    for given in inputs:

        def is_input(path: Path, above: Path) -> bool:
            file = _absolute(path)
            below = output in file.parents and output != _absolute(above)
            return not (file in (output, *outputs) or below or _is_record(path))

        several = list(_meant(given, is_input, unknown))
        if not several and _is_pattern(given):
            raise UsageError(f"{given}: no file matches")
        if not several:
            raise UsageError(
                f"{given}: no file to label in this folder; known extensions are {', '.join(EXTENSIONS)}"
                f"{_others(unknown)}"
            )
        for file in several:
            found.setdefault(file.path, file)
    if unknown:
        note(f"left out, for their extensions: {_listed(unknown)}; a pattern in quotes and --format reads them")
    return list(found.values())


def output_name(below: Path, format: str | None) -> Path:
    """Return the name of an input's output: its own, without what says that it is compressed.

    After an extension that is never written comes one that is.
    """
    output = below.with_name(written_name(below))
    try:
        output_format(output, "jsonl")
    except UsageError:
        return output.with_name(f"{output.name}.{FORMATS[format].written if format else 'jsonl'}")
    return output


def _meant(given: str, is_input: Callable[[Path, Path], bool], unknown: list[str]) -> Iterator[Found]:
    """Yield the files that one INPUT means; add those of unknown extensions in a folder to `unknown`."""
    if given == "-":
        raise UsageError("standard input is one input of its own: name files, or only -")
    if _is_folder(given):
        for path in _below(Path(given)):
            if not is_input(path, Path(given)):
                continue
            if extension(path) in FORMATS:
                yield Found(_absolute(path), path.relative_to(given), str(path))
            else:
                unknown.append(str(path))
    elif _is_pattern(given):
        root = next(parent for parent in Path(given).parents if not glob.has_magic(str(parent)))
        for path in map(Path, sorted(glob.glob(given, recursive=True))):  # noqa: PTH207 Path's matches hidden files
            if path.is_file() and is_input(path, root):
                yield Found(_absolute(path), path.relative_to(root), str(path))
    else:
        path = Path(given)
        try:
            path.stat()
        except (OSError, ValueError) as problem:
            raise UsageError(f"{given}: {getattr(problem, 'strerror', None) or problem}") from problem
        if not path.is_file():
            raise UsageError(f"{given}: this is no regular file, and several inputs must be: name it alone")
        yield Found(_absolute(path), Path(path.name), given)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it, by name; none that is hidden, and none behind a linked folder.

    Raise UsageError if a folder cannot be read.
    """

    def refuse(problem: OSError) -> None:
        raise UsageError(f"{problem.filename}: {problem.strerror}")

    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(path) / name
            if not name.startswith(".") and file.is_file():
                yield file


def _is_record(path: Path) -> bool:
    """Return whether a file is a record of ours, or the journal that an output is made from at the end."""
    if path.name.endswith(RECORDS):
        return _is_ours(path)
    return bool(_JOURNAL.search(path.name)) and (run_path(path).exists() or manifest_path(path).exists())


def _is_ours(path: Path) -> bool:
    """Return whether a file with the name of a record is one, whole or damaged, and no data of the user's."""
    for read in (load, load_record):
        try:
            read(path)
        except Foreign:
            continue
        except Refused:
            pass
        return True
    return False


def _is_folder(name: str) -> bool:
    return os.path.isdir(name)  # noqa: PTH112 Path's raises where a part of the name is too long


def _is_pattern(name: str) -> bool:
    """Return whether an INPUT is a pattern: it has wildcards, and nothing has that very name."""
    return glob.has_magic(name) and not os.path.lexists(name)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 Path's would keep ..


def _others(names: Sequence[str]) -> str:
    return f"; there are: {_listed(names)}" if names else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(shortened, names[:_SHOWN])) + more
