"""How llama.cpp was built and what it can compute on; only this file and llama.py touch it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as C  # noqa: N812 - the C API, named as such

from safeguard_cli.engine.local.plan import X86
from safeguard_cli.model.gguf import BLOCKS

_GPU, _INTEGRATED_GPU = 1, 2  # ggml_backend_dev_type


def build_identity() -> tuple[str, str]:
    """Return what scores depend on beside model and settings: llama-cpp-python's version, the build's CPU features."""
    return llama_cpp.__version__, C.llama_print_system_info().decode("utf-8", "replace")


def amx_build() -> bool:
    """Whether llama.cpp would repack dense weights for AMX, which crashes at the first decode.

    See https://github.com/ggml-org/llama.cpp/issues/20824.
    """
    return b"AMX_INT8 = 1" in C.llama_print_system_info()


class _Arena(ctypes.Structure):
    """ggml_init_params: the memory in which tensors are made."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def half_precision_build() -> bool:
    """Whether the build adds up f16 values with AVX512-FP16, with which gpt-oss's attention is slow.

    llama.cpp's loops then take 128 values at a time, and the rest one by one; gpt-oss's heads have 64 (GGML_F16_STEP in
    ggml/src/ggml-cpu/simd-mappings.h, ggml_vec_mad_f16 in vec.h). The build does not report it, but its numbers show
    it: attention over two cells with values -750.5 and 2040 and weights 1 and 1/e sums to -750.5 + 750.474, or, where
    the weight is rounded to f16 first, to -750.5 + 750.557.
    """
    if not X86:
        return False
    try:
        compute = ggml("ggml_graph_compute_with_ctx", ctypes.c_int)
    except AttributeError:  # a build with code for each kind of CPU, chosen at loading: llama.cpp tells which
        return False
    context = ggml("ggml_init")(_Arena(1 << 20, None, False))

    def tensor(kind: int, *cells: float) -> int:
        made: int = ggml("ggml_new_tensor_3d")(context, kind, 128, len(cells), 1)
        data = np.repeat(np.array(cells, np.float32 if kind == C.GGML_TYPE_F32 else np.float16), 128)
        ctypes.memmove(ggml("ggml_get_data")(made), data.ctypes.data, data.nbytes)
        return made

    query, keys = tensor(C.GGML_TYPE_F32, 1), tensor(C.GGML_TYPE_F16, 0, -1)
    values = tensor(C.GGML_TYPE_F16, -750.5, 2040)
    scale, unused = ctypes.c_float(1 / 128), ctypes.c_float(0)
    attention = ggml("ggml_flash_attn_ext")(context, query, keys, values, None, scale, unused, unused)
    graph = ggml("ggml_new_graph")(context)
    ggml("ggml_build_forward_expand", None)(graph, attention)
    compute(context, graph, 1)
    total = ctypes.c_float.from_address(ggml("ggml_get_data")(attention)).value
    ggml("ggml_free", None)(context)
    return bool(total > 0)


def newer_types() -> dict[int, tuple[int, int, bool]]:
    """Return the ggml types that model.gguf.BLOCKS lacks: a block's values and bytes, and if the CPU multiplies them.

    ggml has no function that tells where its table ends, and reads beyond it: the package's own constant tells.
    """
    return {kind: tensor_type(kind) for kind in range(max(BLOCKS) + 1, C.GGML_TYPE_COUNT)}


def tensor_type(kind: int) -> tuple[int, int, bool]:
    """Return a type's block, its bytes, and whether the CPU has a dot product for it; a block of 0 is no type."""
    try:
        traits = ggml("ggml_get_type_traits_cpu")(kind)
        computes = bool(ctypes.cast(traits, ctypes.POINTER(_CpuTraits)).contents.vec_dot)
    except AttributeError:  # a build with code for each kind of CPU, chosen at loading
        computes = True
    size = ggml("ggml_blck_size", ctypes.c_int64)(kind), ggml("ggml_type_size", ctypes.c_size_t)(kind)
    return *size, computes


class _CpuTraits(ctypes.Structure):
    """The beginning of ggml_type_traits_cpu."""

    _fields_ = (("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p))


def describe() -> dict[str, Any]:
    """Return llama.cpp's account of itself: `version`, `system` (CPU features), `backends`, `devices` (plan.Device)."""
    C.llama_backend_init()
    version, system = build_identity()
    return {
        "version": version,
        "system": system,
        "gpu": bool(C.llama_supports_gpu_offload()),
        "amx": amx_build(),
        "half_precision": half_precision_build(),
        "backends": [
            ggml("ggml_backend_reg_name", ctypes.c_char_p)(ggml("ggml_backend_reg_get")(i)).decode()
            for i in range(ggml("ggml_backend_reg_count", ctypes.c_size_t)())
        ],
        "devices": [_describe(device) for device in _devices()],
    }


def _describe(device: int) -> dict[str, Any]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml("ggml_backend_dev_memory", None)(device, ctypes.byref(free), ctypes.byref(total))
    kind = ggml("ggml_backend_dev_type", ctypes.c_int)(device)
    name = ggml("ggml_backend_dev_name", ctypes.c_char_p)(device).decode("utf-8", "replace")
    return {
        "name": name,
        "description": ggml("ggml_backend_dev_description", ctypes.c_char_p)(device).decode("utf-8", "replace"),
        "free": free.value,
        "total": total.value,
        "gpu": kind in (_GPU, _INTEGRATED_GPU),
        "unified": kind == _INTEGRATED_GPU or name.startswith(("Metal", "MTL")),
    }


def repacking_buffer() -> int | None:
    """Return the type of buffer that repacks weights for the CPU without AMX; None where llama.cpp lacks it."""
    buffers = (buffer for device in _devices() for buffer in _extra_buffer_types(device))
    return next((b for b in buffers if ggml("ggml_backend_buft_name", ctypes.c_char_p)(b) == b"CPU_REPACK"), None)


def _devices() -> list[int]:
    """Return handles of all devices that llama.cpp can compute on."""
    return [ggml("ggml_backend_dev_get")(index) for index in range(ggml("ggml_backend_dev_count", ctypes.c_size_t)())]


def _extra_buffer_types(device: int) -> Iterator[int]:
    """Yield the types of buffers that a device has besides its plain one."""
    registry = ggml("ggml_backend_dev_backend_reg")(device)
    address = ggml("ggml_backend_reg_get_proc_address")(registry, b"ggml_backend_dev_get_extra_bufts")
    if address:
        listed = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
        yield from takewhile(bool, listed)  # a null ends them


def ggml(name: str, result: Any = ctypes.c_void_p) -> Any:
    """Return a ggml function that llama-cpp-python does not bind; integers are passed to it as 64 bits."""
    function = getattr(C._lib, name)
    function.restype = result

    def call(*arguments: Any) -> Any:
        return function(*(ctypes.c_size_t(a) if isinstance(a, int) else a for a in arguments))

    return call
