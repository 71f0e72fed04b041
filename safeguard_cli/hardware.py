"""What this machine offers, and how a run is shaped to fit it: threads, memory, slots and cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from safeguard_cli.engine.scheduler import BATCH, Plan
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.gguf_file import Header

DEFAULT_CONTEXT = 8192
DEFAULT_SLOTS = 16
MOST_SLOTS = 64
TYPICAL_CONTENT = 384  # tokens; only shapes the cache, a longer row takes more cells and fewer rows run beside it
_CGROUP = Path("/sys/fs/cgroup")


def free_cores() -> int:
    """Physical cores that this process may use and that are idle now, at least 1; affinity and cgroup quota count.

    ggml's threads spin while they wait for each other: with both of two cores taken by others, two threads gave a
    twentieth of one thread's speed.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) // int(period))
    busy = psutil.cpu_percent(interval=0.1) / 100 * (psutil.cpu_count() or 1)
    return max(1, cores - round(busy))


def free_memory() -> int:
    """Bytes of memory that can still be taken: what the system calls available, within the cgroup's limit."""
    free = int(psutil.virtual_memory().available)
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    return max(0, free)


def _cgroup(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a run takes, estimated before anything is loaded."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute


@dataclass(frozen=True, slots=True)
class Shape:
    """A run's shape: `plan` for the scheduler, `context` the most tokens that one row may take, policy included."""

    plan: Plan
    context: int
    threads: int
    extra_buffers: bool
    memory: Memory


def shape_run(
    header: Header,
    prefixes: Sequence[int],
    overheads: Sequence[int],
    *,
    context: int | None,
    slots: int | None,
    threads: int | None,
    amx: bool,
) -> Shape:
    """Choose slots and cells that fit the free memory. `prefixes` and `overheads` are token counts by policy.

    Raises UsageError when --ctx cannot hold a policy and its answer, SafeguardError when memory cannot hold one row.
    """
    trained = header.number("context_length", DEFAULT_CONTEXT)
    context = min(context or DEFAULT_CONTEXT, trained)
    least = max(p + o for p, o in zip(prefixes, overheads, strict=True))
    if context < least + 16:
        raise UsageError(
            f"--ctx {context:,} is too small: policy, reasoning budget and answer take {least:,} tokens;"
            f" use at least --ctx {least + 256} or a lower --max-reasoning"
        )
    free = free_memory()
    cell = cell_bytes(header)
    # Repacked weights are a second copy beside the mapped file; with AMX they crash (see engine/llama.py).
    extra_buffers = not amx and 2 * header.size < 0.7 * free
    weights = header.size * (2 if extra_buffers else 1)
    largest = context - min(prefixes)
    typical = max(overheads) + TYPICAL_CONTENT
    most_cells = int((free - weights) * 0.8) // cell
    wanted = slots or DEFAULT_SLOTS
    cells = sum(prefixes) + max(largest, wanted * typical)
    if cells > most_cells:
        cells = max(most_cells, max(prefixes) + largest)
        if slots is None:
            wanted = max(1, min(wanted, (cells - max(prefixes)) // typical))
    cells = -(-cells // 256) * 256  # llama.cpp rounds up itself
    plan = Plan(wanted, cells)
    memory = Memory(weights, cells * cell, compute_bytes(header, plan))
    if memory.total > free:
        raise SafeguardError(
            f"not enough memory: about {memory.total / 1e9:.1f} GB are needed"
            f" ({weights / 1e9:.1f} weights, {memory.cache / 1e9:.1f} cache, {memory.compute / 1e9:.1f} compute),"
            f" {free / 1e9:.1f} GB are free; close programs, use a smaller --ctx (now {context}) or a smaller model"
        )
    return Shape(plan, context, threads or free_cores(), extra_buffers, memory)


def cell_bytes(header: Header) -> int:
    """Bytes of cache for one token: keys and values of all layers at f16 (windowed layers are kept whole too)."""
    width = header.number("attention.key_length", 64) + header.number("attention.value_length", 64)
    return header.number("block_count", 1) * header.number("attention.head_count_kv", 1) * width * 2


def compute_bytes(header: Header, plan: Plan) -> int:
    """Bytes of llama.cpp's working buffers: logits twice (graph and output), and the widest layer's activations."""
    tokens = header.metadata.get("tokenizer.ggml.tokens", ())
    logits = 2 * plan.context(1).outputs * len(tokens) * 4
    hidden = header.number("embedding_length", 1)
    experts = header.number("expert_used_count", 1) * header.number("expert_feed_forward_length", hidden)
    attention = plan.cells * 4  # the mask, twice at f16
    return logits + BATCH * (4 * (6 * hidden + 4 * experts) + attention)
