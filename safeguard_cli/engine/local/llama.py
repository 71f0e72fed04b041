"""Loads a model with llama.cpp; only this file and build.py touch llama-cpp-python."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as C  # noqa: N812 - the C API, named as such

from safeguard_cli.engine.local.build import amx_build, ggml, newer_types, repacking_buffer
from safeguard_cli.engine.local.model import LOG, Batch, Model, cannot_make_context
from safeguard_cli.engine.local.plan import Loading, repacked
from safeguard_cli.errors import EngineError
from safeguard_cli.model.gguf import BadModelFile, read_model

_FLASH = {True: C.LLAMA_FLASH_ATTN_TYPE_ENABLED, False: C.LLAMA_FLASH_ATTN_TYPE_DISABLED}
_RECEIVE = C.llama_log_callback(LOG.receive)  # kept alive: llama.cpp holds only a pointer
C.llama_log_set(_RECEIVE, ctypes.c_void_p(0))


def vocabulary_size(path: Path) -> int:
    """Have llama.cpp read a file's settings and vocabulary, but no weights. Raises EngineError with its reason."""
    LOG.complaints.clear()
    wanted = C.llama_model_default_params()
    wanted.vocab_only = True
    model = C.llama_model_load_from_file(str(path).encode(), wanted)
    if not model:
        raise EngineError(f"llama.cpp cannot load it: {LOG.complaint}")
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
        tensors = read_model(path, _newer_type).tensors
    except BadModelFile:
        return []  # llama.cpp will report what is wrong
    # The kernels take eight rows at a time.
    names = [re.escape(t.name) for t in repacked(tensors) if len(t.shape) > 1 and t.shape[1] % 8 == 0]
    buffer = repacking_buffer()
    return [_Override(f"^({'|'.join(names)})$".encode(), buffer)] if names and buffer else []


def _newer_type(kind: int) -> tuple[int, int]:
    if kind not in (types := newer_types()):
        raise EngineError("which llama.cpp does not know")
    return types[kind][:2]


class LlamaModel(Model):
    """A Model in llama.cpp.

    The sliding-window layers keep a full-size cache (`swa_full`): in a window-sized one, cells that copies of a prefix
    share are never freed, and `llama_decode` then finds no slot.
    """

    library, functions = "llama.cpp", C._lib

    def _load(self, path: Path, loading: Loading, loaded: Callable[[float], None] | None) -> None:
        C.llama_backend_init()
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
            raise EngineError(f"llama.cpp cannot load {path.name}: {LOG.complaint}")
        self.vocabulary_size = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model))
        params = C.llama_context_default_params()
        self._fill(params, loading)
        params.n_outputs_max = self.size.outputs
        params.flash_attn_type = _FLASH[loading.flash]
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        if look := self._look:
            self._at_nodes = C.ggml_backend_sched_eval_callback(lambda node, asks, _: look(node, asks))
            params.cb_eval = self._at_nodes  # llama.cpp holds only a pointer
        self._context = C.llama_init_from_model(self._model, params)
        if not self._context:
            raise cannot_make_context(self.library, self.size)
        self._memory = C.llama_get_memory(self._context)

    def _decode(self, batch: Batch) -> int:
        return int(C.llama_decode(self._context, batch.as_struct(C.llama_batch)))

    def _logits(self) -> Any:
        return C.llama_get_logits(self._context)

    def _ask_at_nodes(self, answer: Callable[[Any], bool] | None) -> None:
        self._answer = C.ggml_abort_callback(answer or 0)  # kept alive: llama.cpp holds only a pointer
        C.llama_set_abort_callback(self._context, self._answer, None)

    def _set_threads(self, count: int) -> None:
        C.llama_set_n_threads(self._context, count, count)

    def copy(self, source: int, target: int) -> None:
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int) -> None:
        C.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def save(self, sequence: int) -> bytes:
        size = C.llama_state_seq_get_size(self._context, sequence)
        state: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        if C.llama_state_seq_get_data(self._context, state, size, sequence) != size:
            raise EngineError("llama.cpp cannot save the policy's state")
        return bytes(state)

    def restore(self, sequence: int, state: bytes) -> None:
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if C.llama_state_seq_set_data(self._context, data, len(data), sequence) != len(data):
            raise EngineError("llama.cpp cannot restore the policy's state")

    def length(self, sequence: int) -> int:
        return int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def clear(self) -> None:
        C.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        super().close()
        if self._context:
            C.llama_free(self._context)
            self._context = None
        if self._model:
            C.llama_model_free(self._model)
            self._model = None
