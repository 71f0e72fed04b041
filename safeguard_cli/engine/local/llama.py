"""Loads a model, decodes batches of many sequences, frees everything; only this file and build.py touch llama.cpp."""

from __future__ import annotations

import ctypes
import math
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as C  # noqa: N812 - the C API, named as such

from safeguard_cli.engine.local.build import amx_build, ggml, repacking_buffer
from safeguard_cli.engine.local.pace import Pace
from safeguard_cli.engine.local.plan import ContextSize, Loading, repacked
from safeguard_cli.errors import EngineError
from safeguard_cli.model.gguf import BadModelFile, read_model

SLOW_DECODE = 0.5  # seconds; a decode that takes longer reports its progress
MAX_SEQUENCES: int = C.llama_max_parallel_sequences()
_LOG_WARN, _LOG_ERROR, _LOG_CONTINUED = 3, 4, 5
_FLASH = {True: C.LLAMA_FLASH_ATTN_TYPE_ENABLED, False: C.LLAMA_FLASH_ATTN_TYPE_DISABLED}
_CACHE_TYPES = {"f16": C.GGML_TYPE_F16, "q8_0": C.GGML_TYPE_Q8_0}

Logits = npt.NDArray[np.float32]


class _Log:
    """llama.cpp's log: the last complaints are kept for error messages; every line goes to `sink` if it is set."""

    def __init__(self) -> None:
        self.complaints: deque[str] = deque(maxlen=3)
        self.sink: Callable[[str], None] | None = None
        self._level = 0
        self._callback = C.llama_log_callback(self._receive)  # kept alive: llama.cpp holds only a pointer
        C.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: Any) -> None:
        self._level = level if level != _LOG_CONTINUED else self._level
        line = text.decode("utf-8", "replace").rstrip("\n")
        if self._level in (_LOG_WARN, _LOG_ERROR) and line:
            self.complaints.append(line)
        if self.sink and line:
            self.sink(line)


LOG = _Log()


def vocabulary_size(path: Path) -> int:
    """Have llama.cpp read a file's settings and vocabulary, but no weights. Raises EngineError with its reason."""
    LOG.complaints.clear()
    wanted = C.llama_model_default_params()
    wanted.vocab_only = True
    model = C.llama_model_load_from_file(str(path).encode(), wanted)
    if not model:
        raise EngineError(f"llama.cpp cannot load it: {_complaint()}")
    try:
        return int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(model)))
    finally:
        C.llama_model_free(model)


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override: tensors whose names match `pattern` go into buffers of type `buffer`."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer", ctypes.c_void_p))


def _experts_on_cpu(layers: int) -> list[_Override]:
    """Return overrides that keep the experts of the first `layers` layers in the machine's memory."""
    buffer = ggml("ggml_backend_cpu_buffer_type")()
    # The pattern of llama.cpp's own --n-cpu-moe.
    return [_Override(rf"blk\.{i}\.ffn_(up|down|gate|gate_up)_exps".encode(), buffer) for i in range(layers)]


def _repacked(path: Path) -> list[_Override]:
    """Return overrides that repack weights as llama.cpp does without AMX; those without a kernel stay plain."""
    try:
        tensors = read_model(path).tensors
    except BadModelFile:
        return []  # llama.cpp will report what is wrong
    # The kernels take eight rows at a time.
    names = [re.escape(t.name) for t in repacked(tensors) if len(t.shape) > 1 and t.shape[1] % 8 == 0]
    buffer = repacking_buffer()
    return [_Override(f"^({'|'.join(names)})$".encode(), buffer)] if names and buffer else []


class Batch:
    """Tokens for one decode, as numpy arrays that llama.cpp reads in place; `capacity` tokens at most."""

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

    def as_struct(self) -> C.llama_batch:
        def pointer(array: npt.NDArray[Any], kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

        return C.llama_batch(
            n_tokens=self.size,
            token=pointer(self._tokens, C.llama_token),
            embd=None,
            pos=pointer(self._positions, C.llama_pos),
            n_seq_id=pointer(self._counts, ctypes.c_int32),
            seq_id=pointer(self._pointers, ctypes.POINTER(C.llama_seq_id)),
            logits=pointer(self._logits, ctypes.c_int8),
        )


class _Watch:
    """Counts the nodes of a decode's graph as they are computed, if the decode is expected to be slow.

    It does so only then because llama.cpp asks at every node whether to continue, and answering in Python costs a small
    model a tenth of its speed.
    """

    def __init__(self, context: Any, tell: Callable[[float], None]) -> None:
        self._context, self._tell = context, tell
        self._callback = C.ggml_abort_callback(self._node)  # kept alive: llama.cpp holds only a pointer
        self._nodes = self._done = 0  # nodes of the last graph; those of this one that are computed
        self._seconds_a_token = math.inf
        self._on = False

    def decode(self, batch: Batch) -> int:
        """Have llama.cpp decode; return its code."""
        self._switch(batch.size * self._seconds_a_token > SLOW_DECODE)
        self._done, began = 0, time.monotonic()
        code = int(C.llama_decode(self._context, batch.as_struct()))
        self._seconds_a_token = (time.monotonic() - began) / max(batch.size, 1)
        if self._on and not code:
            self._nodes = self._done
        return code

    def _switch(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            C.llama_set_abort_callback(self._context, self._callback if on else C.ggml_abort_callback(0), None)

    def _node(self, _: Any) -> bool:
        self._done += 1
        if self._nodes:
            self._tell(min(self._done / self._nodes, 1.0))
        return False


class Model:
    """A loaded model with one context of many sequences that share a unified cache. Use as a context manager.

    The sliding-window layers keep a full-size cache (`swa_full`): in a window-sized one, cells that copies of a prefix
    share are never freed, and `llama_decode` then finds no slot. `loaded` is called many times with the share of the
    weights that is loaded.
    """

    def __init__(
        self, path: Path, size: ContextSize, loading: Loading, loaded: Callable[[float], None] | None = None
    ) -> None:
        self._model: Any = None
        self._context: Any = None
        self._watch: _Watch | None = None
        self.batch = Batch(size.batch)
        self.size = size
        LOG.complaints.clear()
        C.llama_backend_init()
        self.pace = Pace(C._lib, loading.threads, loading.follow)
        self._threads = loading.threads
        try:
            self._load(path, loading, loaded)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, loading: Loading, loaded: Callable[[float], None] | None) -> None:
        wanted = C.llama_model_default_params()
        wanted.n_gpu_layers = loading.gpu_layers
        amx = loading.extra_buffers and amx_build()
        wanted.use_extra_bufts = loading.extra_buffers and not amx
        on_gpu = C.llama_supports_gpu_offload() and loading.gpu_layers
        overrides = _repacked(path) if amx and not on_gpu else _experts_on_cpu(loading.cpu_moe)
        if overrides:
            self._overrides = (_Override * (len(overrides) + 1))(*overrides)  # an empty one ends the list
            wanted.tensor_buft_overrides = ctypes.addressof(self._overrides)  # llama.cpp holds only a pointer
        if loaded is not None:
            wanted.progress_callback = C.llama_progress_callback(lambda share, _: [loaded(share)] != [])  # True: go on
        self._model = C.llama_model_load_from_file(str(path).encode(), wanted)
        if not self._model:
            raise EngineError(f"llama.cpp cannot load {path.name}: {_complaint()}")
        self.vocabulary_size: int = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model))
        params = C.llama_context_default_params()
        params.n_ctx = self.size.cells
        params.n_batch = params.n_ubatch = self.size.batch
        params.n_seq_max = self.size.sequences
        params.n_outputs_max = self.size.outputs
        params.n_threads = params.n_threads_batch = loading.threads
        params.type_k = params.type_v = _CACHE_TYPES[loading.cache_type]
        params.flash_attn_type = _FLASH[loading.flash]
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        self._context = C.llama_init_from_model(self._model, params)
        if not self._context:
            raise EngineError(
                f"llama.cpp cannot make a context of {self.size.cells:,} tokens: {_complaint()};"
                " try a smaller --ctx or fewer --slots"
            )
        self._memory = C.llama_get_memory(self._context)

    def decode(self) -> Logits:
        """Decode the batch. Return a view of (outputs, vocabulary) logits, valid until the next decode."""
        self.use_threads(self.pace.threads())
        code = self._watch.decode(self.batch) if self._watch else C.llama_decode(self._context, self.batch.as_struct())
        if code:
            raise EngineError(f"llama.cpp failed to decode a batch (code {code}): {_complaint()}")
        count = self.batch.outputs
        if not count:
            return np.empty((0, self.vocabulary_size), np.float32)
        pointer = C.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (count, self.vocabulary_size))

    def use_threads(self, count: int) -> None:
        """Have decodes use so many threads from now on; their number does not change a result."""
        if count != self._threads:
            self._threads = count
            C.llama_set_n_threads(self._context, count, count)

    def watch(self, tell: Callable[[float], None]) -> None:
        """From now on, call `tell` many times during slow decodes with the share of the batch that is computed.

        Call this before anything else is decoded: it decodes one token to count the graph's nodes, and forgets it.
        """
        self._watch = _Watch(self._context, tell)
        self.batch.clear()
        self.batch.add(0, 0, np.zeros(1, np.int32))
        self.decode()
        C.llama_memory_clear(self._memory, False)

    def copy(self, source: int, target: int) -> None:
        """Let sequence `target` share all cells of `source`; no data is moved."""
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int) -> None:
        """Forget a whole sequence."""
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def save(self, sequence: int) -> bytes:
        """Return the state of a sequence as bytes, for `restore`."""
        size = C.llama_state_seq_get_size(self._context, sequence)
        state: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        if C.llama_state_seq_get_data(self._context, state, size, sequence) != size:
            raise EngineError("llama.cpp cannot save the policy's state")
        return bytes(state)

    def restore(self, sequence: int, state: bytes) -> None:
        """Restore a saved state. Raises EngineError when llama.cpp does not accept it."""
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if C.llama_state_seq_set_data(self._context, data, len(data), sequence) != len(data):
            raise EngineError("llama.cpp cannot restore the policy's state")

    def length(self, sequence: int) -> int:
        """Return the number of tokens that a sequence holds."""
        return int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def clear(self) -> None:
        """Forget all sequences."""
        C.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the context and the model; safe to call twice."""
        self.pace.close()
        if self._context:
            C.llama_free(self._context)
            self._context = None
        if self._model:
            C.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _complaint() -> str:
    return "; ".join(LOG.complaints) or "it gave no reason"
