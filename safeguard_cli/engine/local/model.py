"""A loaded model, whatever library computes it: batches of many sequences are decoded; llama.py and ik.py load it."""

from __future__ import annotations

import ctypes
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from safeguard_cli.engine.local.pace import Pace
from safeguard_cli.engine.local.plan import ContextSize, Loading
from safeguard_cli.errors import EngineError

SLOW_DECODE = 0.5  # seconds; a decode that takes longer reports its progress
_NO_ROOM = 1  # what llama_decode returns where the cache has no room for a batch
_CACHE_TYPES = {"f16": 1, "q8_0": 8}  # ggml_type
_LOG_WARN, _LOG_ERROR, _LOG_CONTINUED = 3, 4, 5

Logits = npt.NDArray[np.float32]
Look = Callable[[int, bool], bool]  # see Model


class Log:
    """A library's log: its last complaints are kept for error messages; every line goes to `sink` if it is set."""

    def __init__(self) -> None:
        self.complaints: deque[str] = deque(maxlen=3)
        self.sink: Callable[[str], None] | None = None
        self._level = 0

    def receive(self, level: int, text: bytes, _: Any) -> None:
        self._level = level if level != _LOG_CONTINUED else self._level
        line = text.decode("utf-8", "replace").rstrip("\n")
        if self._level in (_LOG_WARN, _LOG_ERROR) and line:
            self.complaints.append(line)
        if self.sink and line:
            self.sink(line)

    @property
    def complaint(self) -> str:
        return "; ".join(self.complaints) or "it gave no reason"


LOG = Log()  # a process loads one library only


class Batch:
    """Tokens for one decode, as numpy arrays that the library reads in place; `capacity` tokens at most."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self.outputs = 0
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        first = self._sequences.ctypes.data
        self._pointers = np.arange(first, first + 4 * capacity, 4, dtype=np.uintp)

    @property
    def room(self) -> int:
        return self.capacity - self.size

    def clear(self) -> None:
        self.size = self.outputs = 0

    def add(self, sequence: int, position: int, tokens: npt.NDArray[np.int32], outputs: tuple[int, ...] = ()) -> int:
        """Append tokens of one sequence from `position` on; logits are kept at the indices `outputs` of `tokens`.

        Returns the row of the first of these outputs in the next decode's logits.
        """
        begin, end = self.size, self.size + len(tokens)
        self._tokens[begin:end] = tokens
        self._positions[begin:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._sequences[begin:end] = sequence
        self._logits[begin:end] = 0
        for index in outputs:
            self._logits[begin + index] = 1
        self.size, first = end, self.outputs
        self.outputs += len(outputs)
        return first

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first half of the tokens and the second, as batches of the same memory."""
        middle = self.size // 2
        return self._part(0, middle), self._part(middle, self.size)

    def _part(self, begin: int, end: int) -> Batch:
        part = copy(self)
        part.capacity = part.size = end - begin
        for name in ("_tokens", "_positions", "_counts", "_sequences", "_logits", "_pointers"):
            setattr(part, name, getattr(self, name)[begin:end])
        part.outputs = int(np.count_nonzero(part._logits))
        return part

    def as_struct(self, kind: Any) -> Any:
        """Return the library's llama_batch, a structure of type `kind`; both libraries name its fields alike."""

        def pointer(array: npt.NDArray[Any], of: Any) -> Any:
            return ctypes.cast(array.ctypes.data, ctypes.POINTER(of))

        return kind(
            n_tokens=self.size,
            token=pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=pointer(self._positions, ctypes.c_int32),
            n_seq_id=pointer(self._counts, ctypes.c_int32),
            seq_id=pointer(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=pointer(self._logits, ctypes.c_int8),
        )


class Watch:
    """Counts the nodes of a decode's graph as they are computed, if the decode is expected to be slow.

    It does so only then because the library asks at every node whether to continue, and answering in Python costs a
    small model a tenth of its speed. `tell` gets the share that is computed, `switch` turns the questions on and off.
    """

    def __init__(self, tell: Callable[[float], None], switch: Callable[[bool], None]) -> None:
        self._tell, self._switch = tell, switch
        self._nodes = self._done = 0  # nodes of the last graph; those of this one that are computed
        self._seconds_a_token = math.inf
        self._on = False

    def decode(self, size: int, decode: Callable[[], int]) -> int:
        """Have the library decode `size` tokens; return its code."""
        on = size * self._seconds_a_token > SLOW_DECODE
        if on != self._on:
            self._on = on
            self._switch(on)
        self._done, began = 0, time.monotonic()
        code = decode()
        if not code:
            self._seconds_a_token = (time.monotonic() - began) / max(size, 1)
            self._nodes = self._done if self._on else self._nodes
        return code

    def node(self, _: Any) -> bool:
        """Count a node; return whether to abort."""
        self._done += 1
        if self._nodes:
            self._tell(min(self._done / self._nodes, 1.0))
        return False


class Model(ABC):
    """A loaded model with one context of many sequences that share a unified cache. Use as a context manager.

    `loaded` is called many times with the share of the weights that is loaded. Raises EngineError where the library
    gives up. `side_by_side` tells that the library wants cells for all tokens of a decode side by side.

    `look` is called with the address of each node of a decode's graph before it is computed, and returns whether it is
    wanted; then it is called again, with False, when the node is computed, and returns True for the decode to go on.
    """

    library: ClassVar[str]
    functions: ClassVar[ctypes.CDLL]  # of the library and of its ggml
    side_by_side: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        size: ContextSize,
        loading: Loading,
        loaded: Callable[[float], None] | None = None,
        look: Look | None = None,
    ) -> None:
        self._model: Any = None
        self._context: Any = None
        self._watch: Watch | None = None
        self._look = look
        self.batch = Batch(size.batch)
        self.size = size
        self.vocabulary_size = 0
        self.pace = Pace(self.functions, loading.threads, loading.follow)
        self._threads = loading.threads
        LOG.complaints.clear()
        try:
            self._load(path, loading, loaded)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _load(self, path: Path, loading: Loading, loaded: Callable[[float], None] | None) -> None:
        """Load the weights and make the context."""

    def _fill(self, params: Any, loading: Loading) -> None:
        """Set the fields of a context's parameters that both libraries name alike."""
        params.n_ctx = self.size.cells
        params.n_batch = params.n_ubatch = self.size.batch
        params.n_seq_max = self.size.sequences
        params.n_threads = params.n_threads_batch = loading.threads
        params.type_k = params.type_v = _CACHE_TYPES[loading.cache_type]

    @abstractmethod
    def _decode(self, batch: Batch) -> int:
        """Decode a batch; return the library's code, 0 if all is well."""

    @abstractmethod
    def _logits(self) -> Any:
        """Return a pointer to the last decode's logits."""

    @abstractmethod
    def _ask_at_nodes(self, answer: Callable[[Any], bool] | None) -> None:
        """Have `answer` called at each node of the graph; it tells whether to abort."""

    @abstractmethod
    def _set_threads(self, count: int) -> None:
        """Have the library use so many threads."""

    @abstractmethod
    def copy(self, source: int, target: int) -> None:
        """Let sequence `target` share all cells of `source`; no data is moved."""

    @abstractmethod
    def drop(self, sequence: int) -> None:
        """Forget a whole sequence."""

    @abstractmethod
    def save(self, sequence: int) -> bytes:
        """Return the state of a sequence as bytes, for `restore`."""

    @abstractmethod
    def restore(self, sequence: int, state: bytes) -> None:
        """Restore a saved state. Raises EngineError when the library does not accept it."""

    @abstractmethod
    def length(self, sequence: int) -> int:
        """Return the number of tokens that a sequence holds."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all sequences, and what their cells held."""

    def close(self) -> None:
        """Free the context and the model; safe to call twice."""
        self.pace.close()

    def decode(self) -> Logits:
        """Decode the batch. Return a view of (outputs, vocabulary) logits, valid until the next decode."""
        self.use_threads(self.pace.threads())
        return self._decoded(self.batch)

    def _decoded(self, batch: Batch) -> Logits:
        code = self._watch.decode(batch.size, lambda: self._decode(batch)) if self._watch else self._decode(batch)
        if code == _NO_ROOM and self.side_by_side and batch.size > 1:
            return np.concatenate([self._decoded(half).copy() for half in batch.halves()])
        if code:
            raise EngineError(f"{self.library} failed to decode a batch (code {code}): {LOG.complaint}")
        if not batch.outputs:
            return np.empty((0, self.vocabulary_size), np.float32)
        return np.ctypeslib.as_array(self._logits(), (batch.outputs, self.vocabulary_size))

    def use_threads(self, count: int) -> None:
        """Have decodes use so many threads from now on; their number does not change a result."""
        if count != self._threads:
            self._threads = count
            self._set_threads(count)

    def watch(self, tell: Callable[[float], None]) -> None:
        """From now on, call `tell` many times during slow decodes with the share of the batch that is computed.

        Call this before anything else is decoded: it decodes one token to count the graph's nodes, and forgets it.
        """
        watch = Watch(tell, lambda on: self._ask_at_nodes(watch.node if on else None))
        self._watch = watch
        self.batch.clear()
        self.batch.add(0, 0, np.zeros(1, np.int32))
        self.decode()
        self.drop(0)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cannot_make_context(library: str, size: ContextSize) -> EngineError:
    return EngineError(
        f"{library} cannot make a context of {size.cells:,} tokens: {LOG.complaint};"
        " try a smaller --ctx or fewer --slots"
    )
