"""Loads a model with ik_llama.cpp, a fork with faster kernels for CPUs; only this file touches ik-llama-cpp-python.

Its C API is llama.cpp's of 2024. The package's own classes of parameters are used, because their layout differs from
version to version; what it does not bind is bound here, by the headers that it brings (include/llama.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ik_llama_cpp import _ctypes_api as C  # noqa: N812 - the C API, named as such

from safeguard_cli.engine.local.choose import check_installed
from safeguard_cli.engine.local.model import LOG, Batch, Model, cannot_make_context
from safeguard_cli.engine.local.plan import IK, Loading
from safeguard_cli.errors import EngineError

_BLOCK = {True: 256, False: 32}  # cells that are seen together, with flash attention and without
_BIAS = 1  # the place of the bias among the parameters of ggml_flash_attn_ext's result
_TINY = 0x0DA24260  # 1e-30 as the bits of an f32


def _bind(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(C._lib, name)
    function.argtypes, function.restype = arguments, result
    return function


_CONTEXT, _SEQUENCE, _POSITION = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_get_logits = _bind("llama_get_logits", ctypes.POINTER(ctypes.c_float), _CONTEXT)
_sequence_copy = _bind("llama_kv_cache_seq_cp", None, _CONTEXT, _SEQUENCE, _SEQUENCE, _POSITION, _POSITION)
_sequence_remove = _bind("llama_kv_cache_seq_rm", ctypes.c_bool, _CONTEXT, _SEQUENCE, _POSITION, _POSITION)
_sequence_end = _bind("llama_kv_cache_seq_pos_max", _POSITION, _CONTEXT, _SEQUENCE)
_state_size = _bind("llama_state_seq_get_size", ctypes.c_size_t, _CONTEXT, _SEQUENCE, ctypes.c_uint32)
_STATE = (_CONTEXT, ctypes.c_void_p, ctypes.c_size_t, _SEQUENCE, ctypes.c_uint32)
_state_get = _bind("llama_state_seq_get_data", ctypes.c_size_t, *_STATE)
_state_set = _bind("llama_state_seq_set_data", ctypes.c_size_t, *_STATE)
_set_abort = _bind("llama_set_abort_callback", None, _CONTEXT, C.ggml_abort_callback, ctypes.c_void_p)
_set_threads = _bind("llama_set_n_threads", None, _CONTEXT, ctypes.c_uint32, ctypes.c_uint32)
_set_log = _bind("llama_log_set", None, _LOG_CALLBACK, ctypes.c_void_p)
_cells = _bind("llama_n_ctx", ctypes.c_uint32, _CONTEXT)
_system_info = _bind("llama_print_system_info", ctypes.c_char_p)
_operation_name = _bind("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
_RECEIVE = _LOG_CALLBACK(LOG.receive)  # kept alive: the library holds only a pointer
_set_log(_RECEIVE, None)


class _View(ctypes.Structure):
    """llama_kv_cache_view: the position and one sequence of every cell, -1 where it is free."""

    _fields_ = (
        ("cells", ctypes.c_int32),
        ("most_sequences", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
        ("used", ctypes.c_int32),
        ("most_free", ctypes.c_int32),
        ("free_from", ctypes.c_int32),
        ("positions", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.POINTER(ctypes.c_int32)),
    )


_view_make = _bind("llama_kv_cache_view_init", _View, _CONTEXT, ctypes.c_int32)
_view_update = _bind("llama_kv_cache_view_update", None, _CONTEXT, ctypes.POINTER(_View))
_view_free = _bind("llama_kv_cache_view_free", None, ctypes.POINTER(_View))


class _Tensor(ctypes.Structure):
    """The beginning of ggml_tensor, see include/ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("backend", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
    )


def _flash_attention() -> int:
    """Return the number of flash attention among ggml's operations."""
    return next(number for number in range(256) if _operation_name(number) == b"FLASH_ATTN_EXT")


def build_identity() -> tuple[str, str]:
    """Return what scores depend on beside model and settings: the package's version, the build's CPU features."""
    return version("ik-llama-cpp-python"), _system_info().decode("utf-8", "replace")


class IkModel(Model):
    """A Model in ik_llama.cpp."""

    library, functions = "ik_llama.cpp", C._lib
    side_by_side = True

    def _load(self, path: Path, loading: Loading, loaded: Callable[[float], None] | None) -> None:
        check_installed(IK)
        C.llama_backend_init()
        wanted = C.llama_model_default_params()
        wanted.n_gpu_layers = 0
        wanted.repack_tensors = loading.extra_buffers
        if loaded is not None:
            self._loaded = C.llama_progress_callback(lambda share, _: [loaded(share)] != [])  # True: go on
            wanted.progress_callback = self._loaded
        self._model = C.llama_model_load_from_file(str(path).encode(), wanted)
        if not self._model:
            raise EngineError(f"ik_llama.cpp cannot load {path.name}: {LOG.complaint}")
        self.vocabulary_size = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model))
        params = C.llama_context_default_params()
        self._fill(params, loading)
        self._block = _BLOCK[loading.flash]
        params.n_ctx += params.n_ctx // (self._block - 1) + 1  # for those that _keep_ends keeps
        params.worst_case_tokens = self.size.outputs
        params.flash_attn = loading.flash
        params.graph_reuse = False  # it compares sequences that our batches do not name where it looks
        if loading.flash or self._look:
            self._at_nodes = C.ggml_backend_sched_eval_callback(self._at_node)  # kept alive, as the log's is
            params.cb_eval = self._at_nodes
        self._context = C.llama_init_from_model(self._model, params)
        if not self._context:
            raise cannot_make_context(self.library, self.size)
        self._flash_attention = _flash_attention()
        self._view = _view_make(self._context, 1)
        self._kept = 0

    def _at_node(self, tensor: int, asks: bool, _: Any) -> bool:
        if asks:
            self._keep_out(tensor)
        return self._look(tensor, asks) if self._look else False  # the graph is computed at once

    def _keep_out(self, tensor: int) -> None:
        """Keep the fork's own flash attention from computing a node; ggml's, which is right, does it in its place.

        The fork's kernels read as much of the cache as the last of each group of rows sees, and in layers with a window
        the last cells alone (iqk_flash_attn_noalibi and compute_helper in ggml/src/iqk): right for one sequence, wrong
        for several that share a cache. They leave a node to ggml that has a bias by distance (ALiBi). This one is so
        small that ggml multiplies by 1.
        """
        node = _Tensor.from_address(tensor)
        if node.op == self._flash_attention:
            node.op_params[_BIAS] = _TINY

    def _decode(self, batch: Batch) -> int:
        code = int(C.llama_decode(self._context, batch.as_struct(C.llama_batch)))
        self._keep_ends()
        return code

    def _keep_ends(self) -> None:
        """Keep the last cell of each block that was ever used, for a sequence of its own.

        The fork finds the last cell in use by the ends of blocks alone (llama_kv_cache_cell_max in src/llama.cpp): if
        they are free again, what lies between them is not attended to. No cell is taken before all in front of it were
        at some time, so that the end of a block is in use when the next block is begun.
        """
        if (self._kept + 1) * self._block >= _cells(self._context):
            return
        _view_update(self._context, self._view)
        while (end := (self._kept + 1) * self._block - 1) < self._view.cells and self._view.positions[end] >= 0:
            position = self._view.positions[end]
            _sequence_copy(self._context, self._view.sequences[end], self.size.sequences, position, position + 1)
            self._kept += 1

    def _logits(self) -> Any:
        return _get_logits(self._context)

    def _ask_at_nodes(self, answer: Callable[[Any], bool] | None) -> None:
        self._answer = C.ggml_abort_callback(answer or 0)  # kept alive: the library holds only a pointer
        _set_abort(self._context, self._answer, None)

    def _set_threads(self, count: int) -> None:
        _set_threads(self._context, count, count)

    def copy(self, source: int, target: int) -> None:
        _sequence_copy(self._context, source, target, -1, -1)

    def drop(self, sequence: int) -> None:
        _sequence_remove(self._context, sequence, -1, -1)

    def save(self, sequence: int) -> bytes:
        size = _state_size(self._context, sequence, 0)
        state: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        if _state_get(self._context, state, size, sequence, 0) != size:
            raise EngineError("ik_llama.cpp cannot save the policy's state")
        return bytes(state)

    def restore(self, sequence: int, state: bytes) -> None:
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if _state_set(self._context, data, len(data), sequence, 0) != len(data):
            raise EngineError("ik_llama.cpp cannot restore the policy's state")
        self._keep_ends()

    def length(self, sequence: int) -> int:
        return int(_sequence_end(self._context, sequence)) + 1

    def clear(self) -> None:
        C.llama_kv_cache_clear(self._context)
        self._kept = 0

    def close(self) -> None:
        super().close()
        if self._context:
            if hasattr(self, "_view"):
                _view_free(self._view)
            C.llama_free(self._context)
            self._context = None
        if self._model:
            C.llama_free_model(self._model)
            self._model = None
