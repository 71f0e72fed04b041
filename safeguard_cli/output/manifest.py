"""The record of a run beside its output: enough to go on with it, and in a year to say how its labels came about.

`OUT.run.json` stands beside an unfinished output, `OUT.manifest.json` beside a finished one. The output itself is the
checkpoint: what the file beside it says of rows is only as new as the last sync.
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
    """A file that is none of ours has the name of a record of ours: it is never touched, whatever was asked for."""

    def __init__(self, path: Path, why: str = "") -> None:
        said = f" ({why})" if why else ""
        super().__init__(f"{path} is no record of safeguard's{said}: move it away, or write to another output")


class Locked(Refused):
    """Another run has the output just now."""


@dataclass(slots=True)
class Manifest:
    """`identity` is all that can change a label, `machine` what can only move its last digits, `progress` how far the
    run is. `result` is there when it is finished, and `process` the one that had the output last."""

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
        """Write atomically: whoever reads finds the old one or this one, whole."""
        try:
            files.write(path, json_bytes(self.record(), indent=True) + b"\n")
        except OSError as error:
            raise SafeguardError(f"{path}: cannot be written: {error.strerror}") from None


_MEMBERS = ("decides", "machine", "started", "process", *Done.members(), "result", "version")


def load(path: Path) -> Manifest | None:
    """The manifest at `path`, None when there is none.

    Raises Foreign when it is none of ours, Refused when it is damaged or of another version.
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
    """Return the manifest of a finished output, and what its run came to. Raises Refused where there is none."""
    found = load(manifest_path(output))
    if found is None or found.result is None:
        raise Refused(not_ours(output))
    return found, found.result


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that labels pass through."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two records, as `name: old → new` for people."""
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
    """Hold `path`, made if need be, against other runs. Raises Locked naming the process that has it.

    `output` is what is to be written, where it is not `path` itself.
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
        except ImportError:  # Windows: an open file is protected well enough there
            ours = True
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise SafeguardError(f"{path}: cannot be locked against other runs: {error.strerror}") from None
        if not ours:  # or it was replaced by one that has just ended
            other = load(holder)
            who = f"process {other.process}" if other and psutil.pid_exists(other.process) else "another process"
            raise Locked(f"{output or path} is being written by {who} just now") from None
        yield file


@contextmanager
def locked_beside(output: Path, holder: Path) -> Iterator[None]:
    """Hold an output that is not there before it is whole, as `locked` does; nothing stays beside it."""
    path = files.lock_path(output)
    if path.is_symlink():
        raise Refused(f"{path} is a link, and the lock of {output} should be there; move it away")
    with locked(path, holder, output):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def run_path(output: Path) -> Path:
    """The manifest of an unfinished output."""
    return output.with_name(output.name + ".run.json")


def manifest_path(output: Path) -> Path:
    """The manifest of a finished output."""
    return output.with_name(output.name + ".manifest.json")


def journal_path(output: Path) -> Path:
    """The JSONL output that a Parquet output is made from."""
    return output.with_name(output.name + ".rows.jsonl")


def beside(output: Path, format: str) -> tuple[Path, ...]:
    """The files that stand beside an output of this format, while a run writes it or afterwards."""
    if not output.name:
        return ()
    ours = (output, journal_path(output)) if format == "parquet" else (output,)
    return (*ours[1:], *(path(each) for each in ours for path in (run_path, manifest_path)))


def not_ours(output: Path) -> str:
    """What is said of a file that no run of ours wrote."""
    return (
        f"{output} exists and is not an output of safeguard: name another file with -o"
        " (--overwrite would delete what is in it)"
    )


def find_manifest(output: Path) -> Manifest | None:
    """The manifest that belongs to an output; that of a finished run first.

    Where --retry-errors was killed both can be of a finished one: that counts which fits the output.
    """
    finished, begun = load(manifest_path(output)), load(run_path(output))
    if finished and begun and begun.result and is_what_was_written(output, begun, begun.result):
        return begun
    return finished or begun


def is_what_was_written(output: Path, manifest: Manifest, result: Result) -> bool:
    """Whether an output is there, and still what its finished run wrote."""
    if not output.is_file():
        return False
    return output.stat().st_size == manifest.progress.output_bytes and sha256(output) == result.output_sha256


def check_beside(output: Path) -> None:
    """Raise Foreign where a file that is none of ours has the name of a record of this output.

    `--overwrite` is for the output and what is ours beside it.
    """
    for path in (run_path(output), manifest_path(output)):
        try:
            load(path)
        except Foreign:
            raise
        except Refused:
            pass  # ours, and damaged
