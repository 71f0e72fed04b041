"""What this machine offers, and how a run is shaped to fit it: threads, memory, slots and cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil

from safeguard_cli.engine.plan import BATCH, Plan
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.gguf_file import BadModelFile, Header

DEFAULT_CONTEXT = 8192
DEFAULT_SLOTS = 16
REPACK_SHARE = 0.7  # of the free memory; repacking is worth it only where much is left
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


def has_amx() -> bool:
    """Whether the CPU has AMX, with which llama.cpp would repack weights for it; known on Linux only."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


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
    cells: int | None = None,
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
    largest = context - min(prefixes)
    typical = max(overheads) + TYPICAL_CONTENT
    # Best first: repacked weights, which are a second copy beside the mapped file (and crash with AMX, see
    # engine/llama.py), then plain ones; all slots, then fewer; all prefixes resident, then one beside the largest row.
    shapes = [
        (n, sum(prefixes) + max(largest, n * typical)) for n in ([slots] if slots else range(DEFAULT_SLOTS, 0, -1))
    ]
    if cells and slots:
        shapes = [(slots, cells)]  # an earlier session's
    shapes.append((slots or max(1, largest // typical), max(prefixes) + largest))
    for extra_buffers, (wanted, cells) in product([False] if amx else [True, False], shapes):
        plan = Plan(wanted, -(-cells // 256) * 256)  # llama.cpp rounds up itself
        memory = Memory(
            header.size * (2 if extra_buffers else 1), plan.cells * cell_bytes(header), compute_bytes(header, plan)
        )
        if memory.total <= (REPACK_SHARE * free if extra_buffers else free):
            return Shape(plan, context, threads or free_cores(), extra_buffers, memory)
    raise SafeguardError(
        f"not enough memory: about {memory.total / 1e6:,.0f} MB are needed ({memory.weights / 1e6:,.0f} weights,"
        f" {memory.cache / 1e6:,.0f} cache, {memory.compute / 1e6:,.0f} compute), {free / 1e6:,.0f} MB are free;"
        f" close programs, use a smaller --ctx (now {context}), fewer --slots or a smaller model"
    )


def cell_bytes(header: Header) -> int:
    """Bytes of cache for one token: keys and values of all layers at f16 (windowed layers are kept whole too)."""
    width = header.number("attention.key_length", 64) + header.number("attention.value_length", 64)
    cells = header.number("block_count") * header.number("attention.head_count_kv") * width * 2
    if cells <= 0:
        raise BadModelFile(f"{header.path.name} does not say how many layers and key/value heads it has")
    return cells


def compute_bytes(header: Header, plan: Plan) -> int:
    """Bytes of llama.cpp's working buffers: logits twice (graph and output), and the widest layer's activations."""
    tokens = header.metadata.get("tokenizer.ggml.tokens", ())
    logits = 2 * plan.context(1).outputs * len(tokens) * 4
    hidden = header.number("embedding_length", 1)
    experts = header.number("expert_used_count", 1) * header.number("expert_feed_forward_length", hidden)
    attention = plan.cells * 4  # the mask, twice at f16
    return logits + BATCH * (4 * (6 * hidden + 4 * experts) + attention)
