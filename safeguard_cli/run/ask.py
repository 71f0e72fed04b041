"""`safeguard ask`: label texts as they come, and again whenever a policy is saved; the model stays loaded."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import Policy, find_policy
from safeguard_cli.rows import frames
from safeguard_cli.rows.records import row_error
from safeguard_cli.rows.verdict import RowError, Verdict
from safeguard_cli.run.calibration import calibrated
from safeguard_cli.run.calls import Machine
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.pipeline import REMEMBERED
from safeguard_cli.run.prepare import load_policies, prepare
from safeguard_cli.run.remarks import untrained_warning
from safeguard_cli.run.settings import Answers, Settings
from safeguard_cli.terminal import (
    ClosedStream,
    Hanging,
    data_output,
    fail,
    json_bytes,
    line_of,
    note,
    per_cent,
    safe,
    show,
    show_hanging,
    warn,
)

if TYPE_CHECKING:
    from safeguard_cli.run.progress import Progress

POLL_SECONDS = 0.25  # between two looks at the policies' files
MOST_BYTES = 1 << 20  # of a line of standard input
PROMPT = "> "
_CHUNK = 1 << 16

Verdicts = Mapping[str, Verdict]
Line = tuple[int, "str | bytes"]  # a text with its number, from 1 on


def ask(settings: Settings, texts: Sequence[str], answers: Answers) -> int:
    """Answer the texts, else the lines of standard input; return the exit code.

    Raise SafeguardError with a sentence for the user.
    """
    with sentences():
        alone = not answers.watch and sys.stdin is not None and sys.stdin.isatty()
        labeler = _Asked(settings, len(texts) or 1 if alone else None)
        try:
            code = _answer(labeler, texts, answers)
        finally:
            labeler.close()
    return code


def _answer(labeler: _Asked, texts: Sequence[str], answers: Answers) -> int:
    seen: list[Line] = []
    found: list[Verdicts] = []
    in_error = False
    given = bool(texts) and [*texts] != ["-"]
    lines = iter([[*enumerate(texts, 1)]]) if given else _lines()
    typed = given or (sys.stdin.isatty() and sys.stdout.isatty())  # whoever reads the answer sees the text
    for batch in lines:
        for line, verdicts in zip(batch, labeler.label(batch), strict=True):
            in_error = in_error or any(verdict.error for verdict in verdicts.values())
            _show(line, verdicts, answers.json, shown=typed and len(batch) == 1)
            if answers.watch:
                seen.append(line)
                found.append(verdicts)
    if answers.watch and seen:
        _watch(labeler, seen, found, answers.json)
    return errors.ROWS_IN_ERROR if in_error else errors.OK


class _Asked:
    """The policies as they are now, and the engine under them, which is started for the first text.

    `most` texts come at once, as far as that is known.
    """

    def __init__(self, settings: Settings, most: int | None) -> None:
        self.settings, self._most = settings, most
        self._machine: Machine | None = None
        self._progress: Progress | None = None
        self.policies: tuple[Policy, ...] = ()
        self._untrained: tuple[str, ...] = ()
        self.take(load_policies(settings))

    def take(self, policies: tuple[Policy, ...]) -> None:
        """Label under these policies from now on; raise SafeguardError if that cannot be done."""
        if any(policy.name == "text" for policy in policies):
            raise UsageError("a policy named 'text' would take the place of the text: --as NAME gives it another name")
        prepared = calibrated(self.settings, prepare(self.settings, policies, {}, self._most))
        if prepared.untrained and prepared.untrained != self._untrained:
            warn(untrained_warning(prepared.untrained, prepared.header))
        self._untrained = prepared.untrained
        self.close()
        self.policies = policies
        self._machine = Machine(self.settings, policies, prepared, self._listen)

    def label(self, texts: Sequence[Line]) -> list[Verdicts]:
        """Return the verdicts of each text, by policy; where that takes long, a terminal shows how far it is."""
        assert self._machine
        quiet = self.settings.quiet or not sys.stderr.isatty()
        progress = self._progress = make_progress("auto", self.policies, len(texts), quiet=quiet)
        progress.prepare()
        try:
            call = self._machine.call(iter(texts), _read, REMEMBERED)
            return [answer.verdicts for ready in iter(call.step, []) for answer in ready]
        finally:
            self._progress = None
            progress.close()

    def close(self) -> None:
        """End the engine."""
        if self._machine:
            self._machine.end()
            self._machine = None

    def _listen(self, report: Report) -> None:
        if self._progress:
            self._progress.report(report)


def _read(line: object, _: int) -> str | RowError:
    """Return the text of a line, or its error."""
    assert isinstance(line, tuple)
    number, value = line
    if isinstance(value, bytes):
        if len(value) > MOST_BYTES:
            return row_error(
                "row_too_big", number, f"more than {MOST_BYTES:,} bytes: safeguard label takes larger texts"
            )
        try:
            value = value.decode()
        except UnicodeDecodeError as problem:
            return row_error("bad_encoding", number, f"the byte at column {problem.start + 1} is not valid UTF-8")
    return frames.text_of(value, number)


def _lines() -> Iterator[list[Line]]:
    """Yield the lines of standard input that are not blank, as many at once as have come."""
    if isinstance(getattr(sys.stdin.buffer, "raw", None), ClosedStream):
        sys.stdin.buffer.read(1)  # raises its error
    if not sys.stdin.isatty():
        yield from _lines_of_pipe(sys.stdin.fileno())
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - so that a line can be edited, be long, and be had again with the arrow keys
    for number in count(1):
        try:
            line = input(PROMPT) if sys.stdout.isatty() else _input()
        except EOFError:
            print(file=sys.stderr)
            return
        except UnicodeDecodeError:
            warn("this line is not valid in the terminal's encoding")
            continue
        if line.strip():
            yield [(number, line)]


def _input() -> str:
    """Read a line at a terminal whose answers go elsewhere."""
    sys.stderr.write(PROMPT)
    sys.stderr.flush()
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.rstrip("\r\n")


def _lines_of_pipe(descriptor: int) -> Iterator[list[Line]]:
    rest, number = b"", 0
    while data := os.read(descriptor, _CHUNK):
        *whole, rest = (rest + data).split(b"\n")
        if batch := [*_numbered(whole, number)]:
            yield batch
        number += len(whole)
        rest = rest[: MOST_BYTES + 1]  # one that is longer is too big already
    if batch := [*_numbered([rest], number)]:
        yield batch


def _numbered(lines: Iterable[bytes], before: int) -> Iterator[Line]:
    """Yield lines that are not blank with their numbers, without byte order marks, as `label` reads them."""
    for number, line in enumerate(lines, before + 1):
        text = line.removeprefix(codecs.BOM_UTF8)
        if text.strip():
            yield number, text.rstrip(b"\r")


def _watch(labeler: _Asked, texts: Sequence[Line], found: list[Verdicts], as_json: bool) -> None:
    """Label the texts again whenever a policy's file is saved, until Ctrl-C."""
    paths = [find_policy(name) for name in expand(labeler.settings.policies)]
    if not labeler.settings.quiet:
        note(f"watching {', '.join(map(str, paths))}; Ctrl-C ends")
    states: list[object] = []  # so that a policy saved since it was read is noticed too
    while True:
        states = _changed(paths, states)
        try:
            policies = load_policies(labeler.settings)
            if [*map(_meant, policies)] == [*map(_meant, labeler.policies)]:
                continue
            labeler.take(policies)
        except SafeguardError as problem:
            for line in problem.args:
                fail(line)
            continue
        now = labeler.label(texts)
        changed = 0
        for line, old, new in zip(texts, found, now, strict=True):
            if differing := {name: verdict for name, verdict in new.items() if _differs(old.get(name), verdict)}:
                changed += 1
                _show(line, new if as_json else differing, as_json, shown=False, before=old)
        if not labeler.settings.quiet:
            note(f"{time.strftime('%H:%M:%S')} {_moved(found, now)}, {changed:,} of {len(texts):,} texts changed")
        found = now


def _changed(paths: Sequence[Path], before: list[object]) -> list[object]:
    """Wait until a file has changed and stays as it is for a moment; return the files' states.

    An editor may empty a file before it writes it, or put another one in its place.
    """
    while True:
        time.sleep(POLL_SECONDS)
        now = _states(paths)
        if now == before or None in now:
            continue
        time.sleep(POLL_SECONDS / 2)
        if _states(paths) == now:
            return now


def _states(paths: Sequence[Path]) -> list[object]:
    found: list[object] = []
    for path in paths:
        try:
            state = path.stat()
            found.append((state.st_ino, state.st_size, state.st_mtime_ns))
        except OSError:
            found.append(None)  # for the moment
    return found


def _meant(policy: Policy) -> object:
    return policy.name, policy.text, policy.labels, policy.violates


def _differs(old: Verdict | None, new: Verdict) -> bool:
    """Return whether a text is judged differently; a score that has only moved does not count."""
    return old is None or (old.label, old.violates, old.error) != (new.label, new.violates, new.error)


def _moved(before: Sequence[Verdicts], now: Sequence[Verdicts]) -> str:
    """Return by how much p_violates has moved at most."""
    pairs = ((old.get(name), verdict) for old, new in zip(before, now, strict=True) for name, verdict in new.items())
    moves = [
        abs(new.p_violates - old.p_violates)
        for old, new in pairs
        if old and old.p_violates is not None and new.p_violates is not None
    ]
    return f"p_violates moved by at most {max(moves, default=0.0):.3f}"


def _show(line: Line, verdicts: Verdicts, as_json: bool, *, shown: bool, before: Verdicts | None = None) -> None:
    """Print the answer to a text, after the text itself unless that was `shown`."""
    text = line[1]
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if as_json:
        row = {"text": plain, **{name: verdict.as_dict() for name, verdict in verdicts.items()}}
        output = data_output()
        sys.stdout.flush()
        output.write(_harmless(json_bytes(row)) + b"\n")
        output.flush()
        return
    if not shown:
        show(line_of(plain, "bold"))
    for name, verdict in verdicts.items():
        _show_verdict(name, verdict, before.get(name) if before else None)
    sys.stdout.flush()


def _show_verdict(name: str, verdict: Verdict, before: Verdict | None) -> None:
    if verdict.error:
        show_hanging(Hanging(f"{name}  error  ", f"{verdict.error.code}: {verdict.error.message}"))
        return
    old = f"{before.label} → " if before and before.label is not None else ""
    head = Text(f"{name}  {old}")
    head.append(str(verdict.label), "bold red" if verdict.violates else "bold green")
    score = verdict.scores.get(str(verdict.label))
    head.append(f"  {per_cent(score)}" + "  violates" * bool(verdict.violates) + "  ")
    if verdict.p_calibrated is not None:
        head.append(f"calibrated: violates with {per_cent(verdict.p_calibrated)}  ")
    show_hanging(Hanging(head, verdict.rationale or "", below=bool(verdict.rationale)))
    if verdict.reasoning:
        show_hanging(Hanging("    reasoning: ", verdict.reasoning))


def _harmless(row: bytes) -> bytes:
    """Return a line of JSON; at a terminal, characters that could do something there are escaped as JSON has them."""
    if not sys.stdout.isatty():
        return row
    return "".join(char if safe(char) == char else json.dumps(char)[1:-1] for char in row.decode()).encode()
