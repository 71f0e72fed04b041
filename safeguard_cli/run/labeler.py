"""Label texts from Python with `Labeler`, which keeps the model loaded between calls and prints nothing."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.labeling import Answer
from safeguard_cli.rows import frames
from safeguard_cli.rows.sink import verdict_columns
from safeguard_cli.run.calls import Machine, Reader
from safeguard_cli.run.keywords import read_policies, read_settings, told_as_keywords
from safeguard_cli.run.pipeline import REMEMBERED
from safeguard_cli.terminal import silence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from safeguard_cli.run.keywords import Keywords


class Labeler:
    """Labels texts under one policy or several, with a model that stays loaded.

    Name policies as on the command line, by built-in names or by their files' paths, or give Policy objects. The
    settings are the options of `safeguard label` that mean something without files, such as `model`, `effort` or
    `threshold`. The model is loaded at the start of `with`, or else at the first call. It is freed by `close()`, at the
    end of `with`, or when the Labeler is collected.

    >>> with Labeler("spam", model="demo") as labeler:
    ...     verdicts = labeler.label(["Buy cheap pills now! http://pills.example", "see you at noon"])
    >>> [verdict.label for verdict in verdicts]
    ['spam', 'ham']

    A wrong setting raises UsageError, any other failure SafeguardError with a sentence. A text that cannot be labelled
    raises nothing: its Verdict has an `error`.

    One call works at a time. Calls from other threads wait for it, but while a stream is open any other call is
    refused. After an exception that ends the engine, such as KeyboardInterrupt, the next call loads the model again. A
    Labeler that was closed, or that belongs to another process, refuses every call.
    """

    def __init__(self, *policies: str | Path | Policy, **settings: Unpack[Keywords]) -> None:
        with told_as_keywords():
            self.settings = read_settings(settings, len(policies))
            self.policies = read_policies(policies, self.settings)
        self._machine = Machine(self.settings, self.policies)
        self._turn = _Turn()
        self._closed = False
        self._ending = weakref.finalize(self, self._machine.end)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the policies and, once it is loaded, about the model."""
        return tuple(self._machine.warnings)

    def __enter__(self) -> Labeler:
        with self._working():
            self._machine.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and free the model, after any call of another thread; an open stream ends."""
        with self._turn.taken(closing=True):
            self._closed = True
            self._ending()

    def label(self, texts: Iterable[object]) -> list[Any]:
        """Return a Verdict for each text, in order, or with several policies a dict of Verdicts by policy name.

        Equal texts are decoded once. A value that is not a text gets a Verdict with an error, as a row would.

        >>> with Labeler("spam", "hate", model="demo") as labeler:
        ...     found = labeler.label(["see you at noon", None])
        >>> sorted(found[0]), found[0]["hate"].violates, found[1]["spam"].error.code
        (['hate', 'spam'], False, 'no_text')
        """
        values = list(_texts(texts))
        return [self._shown(answer) for answer in self._labeled(values, frames.text_of)]

    def stream(self, texts: Iterable[object]) -> Iterator[Any]:
        """Label texts as they come, in order, taking no more of them than the engine needs; they may be endless.

        If the iterator is closed early, the next call first waits for the texts that are under way.

        >>> from itertools import count
        >>> with Labeler("spam", model="demo", effort="none") as labeler:
        ...     next(labeler.stream(f"message {number}" for number in count())).label
        'ham'
        """
        return self._stream(_texts(texts))

    def frame(self, table: Any, text: str = "text") -> Any:
        """Label the column `text` of a table, and return a table of the same kind with a CSV output's columns appended.

        A table is a pandas or polars DataFrame, a pyarrow.Table, or any object with Arrow's stream, which comes back as
        a pyarrow.Table.

        >>> import pyarrow
        >>> table = pyarrow.table({"id": [1, 2], "body": ["see you at noon", "Buy cheap pills now! http://pills.example"]})
        >>> with Labeler("spam", model="demo") as labeler:
        ...     labeler.frame(table, text="body").column("spam_violates").to_pylist()
        [False, True]
        """
        table = frames.table_of(table)
        values, names = frames.values_of(table, text), [policy.name for policy in self.policies]
        asked = self.settings
        columns = verdict_columns(
            calibrated=asked.calibration is not None,
            windows=asked.long == "split",
            truncated=asked.long == "truncate",
            votes=asked.votes is not None,
            p_votes=asked.votes is not None and not asked.until_decided,
            rationale=asked.rationale,
            reasoning=asked.reasoning,
        )
        frames.check_free(table, [f"{name}_{column}" for name in names for column in columns])
        alone = len(frames.names_of(table)) == 1
        answers = self._labeled(values, lambda value, line: frames.text_of(value, line, text, alone))
        return frames.with_columns(table, frames.columns_of([each.verdicts for each in answers], names, columns))

    def _labeled(self, values: list[object], read: Reader) -> list[Answer]:
        with self._working():
            call = self._machine.call(iter(values), read, max(REMEMBERED, len(values)))
            return [answer for ready in iter(call.step, []) for answer in ready]

    def _stream(self, texts: Iterator[object]) -> Iterator[Any]:
        stream, call = object(), None
        try:
            while True:
                with self._working(stream):
                    call = call or self._machine.call(texts, frames.text_of, REMEMBERED)
                    ready = call.step()
                if not ready:
                    return
                yield from map(self._shown, ready)
        finally:
            self._turn.leave(stream)

    def _shown(self, answer: Answer) -> Any:
        return dict(answer.verdicts) if len(self.policies) > 1 else answer.verdicts[self.policies[0].name]

    @contextmanager
    def _working(self, stream: object = None) -> Iterator[None]:
        """Hold the turn, and end the engine on an exception that may have interrupted it.

        Its next completions would otherwise belong to no call.
        """
        with self._turn.taken(stream):
            if self._closed:
                raise UsageError("this Labeler is closed: make another one")
            try:
                with silence(not self.settings.verbose):
                    yield
            except BaseException as stop:
                if self._machine.asked or not isinstance(stop, Exception):
                    self._machine.end()
                raise


class _Turn:
    """The turn, held by one thread at a time, and by one stream until it is left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: int | None = None
        self._stream: object = None

    @contextmanager
    def taken(self, stream: object = None, *, closing: bool = False) -> Iterator[None]:
        """Hold the turn after waiting for other threads; raise UsageError if the wait would never end."""
        me = threading.get_ident()
        with self._changed:
            while self._thread not in (None, me):
                self._changed.wait()
            if self._thread == me or (self._stream not in (None, stream) and not closing):
                raise UsageError("this Labeler is busy with another call: close its stream, or make another Labeler")
            self._thread, self._stream = me, stream
        try:
            yield
        finally:
            with self._changed:
                self._thread = None
                self._changed.notify_all()

    def leave(self, stream: object) -> None:
        """End a stream's turn, if it has begun."""
        with self._changed:
            if self._stream is stream:
                self._stream = None


def _texts(texts: Any) -> Iterator[object]:
    """Return an iterator over texts; raise UsageError for a table, a mapping or a single text."""
    if hasattr(texts, "columns"):
        raise UsageError("to label a table, use frame(table, text=COLUMN)")
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        raise UsageError(f"give texts in a list, not as one {type(texts).__name__}: label([text])")
    return iter(texts)
