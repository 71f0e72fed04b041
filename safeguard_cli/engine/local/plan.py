"""The shape of a run on the engine, chosen before llama.cpp is loaded."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass

from safeguard_cli.engine.decoding import MOST_OUTPUTS
from safeguard_cli.model.gguf import Tensor

MOST_SEQUENCES = 256  # that llama.cpp tells apart, LLAMA_MAX_SEQ in its src/llama-cparams.h
BATCH = 512  # tokens a decode by default; larger batches are no faster on a CPU
# Types for which llama.cpp has repacking kernels, see ggml/src/ggml-cpu/repack.cpp.
_REPACKED = {2, 10, 12, 20, 39}  # Q4_0, Q2_K, Q4_K, IQ4_NL, MXFP4, for x86 with AVX2
_REPACKED_ELSEWHERE = {8, 13, 14}  # Q8_0, Q5_K, Q6_K, with ARM's instructions
X86 = platform.machine() in ("x86_64", "AMD64")
LLAMA, IK = "llama.cpp", "ik"  # the engines, as --engine names them
IK_VERSION = "0.1.5"  # of ik-llama-cpp-python: its structures change from version to version
PROGRAM = 60 << 20  # the engine's process before it loads anything: Python, numpy, llama.cpp's code


@dataclass(frozen=True, slots=True)
class ContextSize:
    """A context's size: `cells` tokens over all sequences; `batch` tokens and `outputs` rows of logits a decode."""

    cells: int
    sequences: int
    batch: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Loading:
    """How llama.cpp loads a model and lays out its cache.

    `gpu_layers` is as llama.cpp takes it, -1 for all; the experts of the first `cpu_moe` layers stay off the GPU.
    `extra_buffers` repacks weights for the CPU; `flash` turns flash attention on. With `follow`, fewer than `threads`
    are used while other programs need the cores.
    """

    threads: int
    gpu_layers: int = -1
    extra_buffers: bool = True
    cpu_moe: int = 0
    cache_type: str = "f16"
    flash: bool = True
    engine: str = LLAMA
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's `slots` (rows decoded together), `cells` (tokens of cache for prefixes and rows), `batch` (a decode).

    With `votes`, a slot has a vote on a row, and the row's text has a sequence of its own.
    """

    slots: int
    cells: int
    batch: int = BATCH
    votes: bool = False

    def context(self, prefixes: int) -> ContextSize:
        """Return the context's size: a sequence for each prefix, each slot and each slot's branches.

        No more rows than slots are under way, votes or not: a row starts only if no vote waits, so that each row under
        way has a slot.
        """
        sequences = prefixes + (3 if self.votes else 2) * self.slots
        return ContextSize(self.cells, sequences, self.batch, 2 * self.slots + MOST_OUTPUTS)


def repacked(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the weights that llama.cpp repacks for this CPU, by type; in the embedding, rows are only looked up."""
    kinds = _REPACKED if X86 else _REPACKED | _REPACKED_ELSEWHERE
    return [tensor for tensor in tensors if tensor.type in kinds and not tensor.name.startswith("token_embd")]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a run takes beyond those before loading, estimated from the header; `video` is on GPUs."""

    weights: int
    cache: int
    compute: int
    program: int = PROGRAM
    video: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute + self.program


@dataclass(frozen=True, slots=True)
class Shape:
    """A run's shape: `plan` is for the scheduler, `context` the most tokens of one row, policy included."""

    plan: Plan
    context: int
    loading: Loading
    memory: Memory


@dataclass(frozen=True, slots=True)
class Device:
    """A device that llama.cpp can compute on; memory is in bytes, and on `unified` devices is the machine's own."""

    name: str
    description: str
    free: int
    total: int
    gpu: bool
    unified: bool
