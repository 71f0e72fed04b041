"""The record of a run beside its output: enough to resume it, and to tell in a year how its labels came about.

`OUT.run.json` stands beside an unfinished output, `OUT.manifest.json` beside a finished one. The output itself is the
checkpoint: the count of rows in the file beside it is only as new as the last sync.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import orjson
import psutil

from safeguard_cli import errors, files
from safeguard_cli.errors import SafeguardError
from safeguard_cli.files import sha256
from safeguard_cli.model.checks import Misshapen
from safeguard_cli.output.manifest_shape import Done, Footing, Identity, Result, check_manifest
from safeguard_cli.terminal import json_bytes

VERSION = 1
MOST_BYTES = 16 << 20  # of a manifest
PACKAGES = ("safeguard-cli", "llama-cpp-python", "tokenizers", "numpy", "orjson")

START_OVER = "--overwrite starts over"


class Refused(SafeguardError):
    """The output cannot be continued with this command; it is left as it is."""

    exit_code = errors.RESUME_REFUSED


class Foreign(Refused):
    """A file that is not ours has the name of a record of ours: it is never touched, not even with --overwrite."""

    def __init__(self, path: Path, why: str = "") -> None:
        said = f" ({why})" if why else ""
        super().__init__(f"{path} is not a record of safeguard's{said}: move it away, or write to another output")


class Locked(Refused):
    """Another run holds the output's lock."""


@dataclass(slots=True)
class Manifest:
    """The manifest of a run.

    `identity` is all that can change a label, `machine` what can only move a score's last digits, `progress` how far
    the run is. `result` is None until it is finished, `process` is the last one that held the output.
    """

    identity: Identity
    machine: Footing
    started: str
    process: int
    progress: Done = field(default_factory=Done)
    result: Result | None = None

    @property
    def finished(self) -> bool:
        return self.result is not None

    def record(self) -> dict[str, Any]:
        """Return the manifest as it stands in its file."""
        return {
            "decides": self.identity.record,
            "machine": self.machine.record,
            "started": self.started,
            "process": self.process,
            **self.progress.record,
            "result": self.result.record if self.result else None,
            "version": VERSION,
        }

    def save(self, path: Path) -> None:
        """Write the manifest atomically: a reader finds the old one or this one, whole."""
        try:
            files.write(path, json_bytes(self.record(), indent=True) + b"\n")
        except OSError as error:
            raise SafeguardError(f"{path}: cannot be written: {error.strerror}") from None


_MEMBERS = ("decides", "machine", "started", "process", *Done.members(), "result", "version")


def load(path: Path) -> Manifest | None:
    """Return the manifest at `path`, None if there is none.

    Raise Foreign if it is not ours, Refused if it is damaged or of another version.
    """
    try:
        fields = orjson.loads(files.read_small(path, MOST_BYTES))
    except FileNotFoundError:
        if path.is_symlink():
            raise Foreign(path) from None
        return None
    except OSError as error:
        raise Foreign(path, error.strerror or str(error)) from None
    except ValueError:
        raise Foreign(path) from None
    if not isinstance(fields, dict) or not {"version", "decides", "machine"} <= fields.keys():
        raise Foreign(path)
    if fields["version"] != VERSION:
        raise Refused(f"{path} was written by another version of safeguard; --overwrite starts over")
    try:
        check_manifest(fields, _MEMBERS)
    except Misshapen as error:
        raise Refused(f"{path} is damaged: {error}; --overwrite starts over") from None
    return Manifest(
        Identity(fields["decides"]),
        Footing(fields["machine"]),
        fields["started"],
        fields["process"],
        Done({name: fields[name] for name in Done.members() if name in fields}),
        None if fields["result"] is None else Result(fields["result"]),
    )


def load_finished(output: Path) -> tuple[Manifest, Result]:
    """Return the manifest of a finished output and its result; raise Refused if there is none."""
    found = load(manifest_path(output))
    if found is None or found.result is None:
        raise Refused(not_ours(output))
    return found, found.result


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can affect labels."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences between two records, for people, as `name: old → new`."""
    found: list[str] = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += changes(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {_short(before)} → {_short(after)}")
    return found


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json_bytes(value).decode()
    return text if len(text) <= 60 else text[:20] + "…"


@contextmanager
def locked(path: Path, holder: Path, output: Path | None = None) -> Iterator[IO[bytes]]:
    """Lock `path`, created if need be, against other runs; raise Locked, naming the process, if another one holds it.

    `output` is the file to be written, if it is not `path` itself.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise SafeguardError(f"{output or path}: cannot be written: {error.strerror}") from None
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except ImportError:  # Windows, where an open file is protected well enough
            ours = True
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise SafeguardError(f"{path}: cannot be locked against other runs: {error.strerror}") from None
        if not ours:  # locked by another run, or replaced by one that has just ended
            other = load(holder)
            who = f"process {other.process}" if other and psutil.pid_exists(other.process) else "another process"
            raise Locked(f"{output or path} is being written by {who} just now") from None
        yield file


@contextmanager
def locked_beside(output: Path, holder: Path) -> Iterator[None]:
    """Lock an output that does not exist until it is whole, by a file beside it that is removed at the end."""
    path = files.lock_path(output)
    if path.is_symlink():
        raise Refused(f"{path} is a link where the lock of {output} belongs; move it away")
    with locked(path, holder, output):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def run_path(output: Path) -> Path:
    """Return the path of an unfinished output's manifest."""
    return output.with_name(output.name + ".run.json")


def manifest_path(output: Path) -> Path:
    """Return the path of a finished output's manifest."""
    return output.with_name(output.name + ".manifest.json")


def journal_path(output: Path) -> Path:
    """Return the path of the JSONL output that a Parquet output is made from."""
    return output.with_name(output.name + ".rows.jsonl")


def rows_path(output: Path) -> Path:
    """Return the file with an output's rows: while the output is not there, the journal that it is to be made of."""
    if not output.exists() and output.name:
        for journal in (journal_path(output), output.with_name(f"{output.name}.rows{output.suffix}")):
            if journal.is_file() and run_path(journal).exists():
                return journal
    return output


def beside(output: Path, format: str) -> tuple[Path, ...]:
    """Return the files that stand beside an output of this format, while a run writes it or afterwards."""
    if not output.name:
        return ()
    ours = (output, journal_path(output)) if format == "parquet" else (output,)
    return (*ours[1:], *(path(each) for each in ours for path in (run_path, manifest_path)))


def not_ours(output: Path) -> str:
    """Return the message about a file that no run of ours wrote."""
    return (
        f"{output} exists and is not an output of safeguard: name another file with -o"
        " (--overwrite would delete its contents)"
    )


def find_manifest(output: Path) -> Manifest | None:
    """Return the manifest that belongs to an output, None if there is none; that of a finished run comes first.

    If --retry-errors was killed, both files can be manifests of finished runs: the one that fits the output counts.
    """
    finished, begun = load(manifest_path(output)), load(run_path(output))
    if finished and begun and begun.result and is_what_was_written(output, begun, begun.result):
        return begun
    return finished or begun


def is_what_was_written(output: Path, manifest: Manifest, result: Result) -> bool:
    """Return whether an output exists and is still what its finished run wrote."""
    if not output.is_file():
        return False
    return output.stat().st_size == manifest.progress.output_bytes and sha256(output) == result.output_sha256


def check_beside(output: Path) -> None:
    """Raise Foreign if a file that is not ours has the name of a record of this output.

    `--overwrite` applies only to the output and to our own files beside it.
    """
    for path in (run_path(output), manifest_path(output)):
        try:
            load(path)
        except Foreign:
            raise
        except Refused:
            pass  # ours, but damaged or of another version
