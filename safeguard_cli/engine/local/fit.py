"""Shapes a run to fit this machine: threads, memory, slots, cells and GPU layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from safeguard_cli.engine.local.hardware import free_memory, usable_cores
from safeguard_cli.engine.local.plan import (
    BATCH,
    IK,
    LLAMA,
    MOST_SEQUENCES,
    Device,
    Loading,
    Memory,
    Plan,
    Shape,
    repacked,
)
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.gguf import BadModelFile, Header

DEFAULT_CONTEXT = 8192
DEFAULT_SLOTS = 16
GPU_SLOTS = 64  # where all of the model is on a GPU, which computes many rows in the time of one; not measured yet
REMOTE_SLOTS = 64  # with servers: an eighth of the rows that may be under way or waiting for an earlier one
REPACK_SHARE = 0.7  # of the free memory; repacking is worth it only where much is left
REPACK_ROWS = 12  # at 20b repacking takes as long as it saves in some 12 rows
# Plain attention decodes a token faster than flash attention on a CPU: it saves up to a third of a small model's run.
# It takes a matrix of scores for each batch, and reads prompts more slowly.
PLAIN_ATTENTION_BYTES = 96 << 20
TYPICAL_CONTENT = 384  # tokens; only shapes the cache: a longer row takes more cells, and fewer rows run beside it
GPU_RESERVE = 512 << 20  # of each GPU's free memory, for the driver and what the estimate leaves out
CACHE_TYPES = {"f16": 2.0, "q8_0": 34 / 32}  # bytes of a value


def shape_run(
    header: Header,
    prefixes: Sequence[int],
    overheads: Sequence[int],
    *,
    context: int | None,
    slots: int | None,
    threads: int | None,
    cells: int | None = None,
    batch: int | None = None,
    gpu_layers: int = -1,
    cpu_moe: int | None = None,
    cache_type: str = "f16",
    devices: Sequence[Device] = (),
    repack: bool | None = None,
    rows: int | None = None,
    reasoning: bool = False,
    votes: bool = False,
    engine: str = LLAMA,
    follow: bool = False,
) -> Shape:
    """Choose slots, cells and GPU layers that fit the free memory. `prefixes` and `overheads` are tokens by policy.

    `rows` is the number of rows where it is known: repacking the weights does not pay for a few. `repack` forces or
    forbids it. `reasoning` tells that most tokens are decoded one by one, `votes` that several answers are about one
    text, `follow` that fewer threads may be used for a time.

    Raises UsageError when --ctx cannot hold a policy and its answer, SafeguardError when memory cannot hold one row.
    """
    context = min(context or DEFAULT_CONTEXT, header.number("context_length", DEFAULT_CONTEXT))
    least = _least(prefixes, overheads, context)
    free = free_memory()
    typical = max(overheads) + TYPICAL_CONTENT
    threads = threads or usable_cores()

    worth = repack if repack is not None else rows is None or rows >= REPACK_ROWS
    in_place = engine == IK  # llama.cpp's repacked weights are a second copy beside the mapped file
    repackings = [False] if not worth else [True] if repack or in_place else [True, False]
    plain_attention = engine == LLAMA and reasoning and not devices and cache_type == "f16"

    def candidates(context: int, cache_type: str, most: int = DEFAULT_SLOTS) -> Iterator[tuple[Plan, Loading, Memory]]:
        largest = context - min(prefixes)
        # Best first: repacked weights, then plain ones; all slots,
        # then fewer; all prefixes resident, then only one, beside the largest row.
        numbers = [slots] if slots else range(most, 0, -1)
        shapes = [(n, sum(prefixes) + max(largest, n * typical)) for n in numbers]
        if cells and slots and cells >= max(prefixes) + largest:
            shapes = [(slots, cells)]  # an earlier session's
        shapes.append((slots or max(1, largest // typical), max(prefixes) + largest))
        for extra_buffers, (wanted, size) in product(repackings, shapes):
            plan = Plan(wanted, -(-size // 256) * 256, batch or BATCH, votes)  # llama.cpp rounds up itself
            flash = not plain_attention or score_bytes(header, plan) > PLAIN_ATTENTION_BYTES
            placed, moe, memory = place(header, plan, len(prefixes), devices, gpu_layers, cpu_moe, cache_type)
            if not flash:
                # Only the used part of the cache is scored; it is seldom full, so a third is counted.
                memory = replace(memory, compute=memory.compute + score_bytes(header, plan) // 3)
            if extra_buffers and not in_place:
                again = repacked_bytes(header) * memory.weights // max(1, header.size)
                memory = replace(memory, weights=memory.weights + again)
            yield plan, Loading(threads, placed, extra_buffers, moe, cache_type, flash, engine, follow), memory

    unified = any(device.unified for device in devices)

    def fits(memory: Memory, share: float = 1.0) -> bool:
        return memory.total + (memory.video if unified else 0) <= share * free and memory.video <= video_room(devices)

    if devices and not slots:
        whole = min(header.number("block_count"), len(header.tensors)) + 1
        for plan, loading, memory in candidates(context, cache_type, GPU_SLOTS):
            sequences = plan.context(len(prefixes)).sequences
            if (loading.gpu_layers, loading.cpu_moe) == (whole, 0) and sequences <= MOST_SEQUENCES and fits(memory):
                return Shape(plan, context, loading, memory)
    for plan, loading, memory in candidates(context, cache_type):
        if fits(memory, REPACK_SHARE if loading.extra_buffers and not repack and not in_place else 1.0):
            return Shape(plan, context, loading, memory)
    smaller = (c for c in (4096, 2048, least + 256) if least + 16 <= c < context)
    advice = next(
        (
            f"it would fit with --ctx {c}" + (f" --kv-type {kind}" if kind != cache_type else "")
            for c, kind in product((context, *smaller), CACHE_TYPES)
            if any(fits(found) for *_, found in candidates(c, kind))
        ),
        "close programs or use a smaller model",
    )
    on_gpu = ""
    if memory.video:
        on_gpu = f" {memory.video / 1e6:,.0f} MB on the GPU (room: {video_room(devices) / 1e6:,.0f});"
    raise SafeguardError(
        f"not enough memory: about {memory.total / 1e6:,.0f} MB are needed ({memory.weights / 1e6:,.0f} weights,"
        f" {memory.cache / 1e6:,.0f} cache, {memory.compute / 1e6:,.0f} compute);{on_gpu}"
        f" {free / 1e6:,.0f} MB are free;"
        f" --ctx is {context}, --slots {plan.slots}: {advice}"
    )


def shape_remote(prefixes: Sequence[int], overheads: Sequence[int], context: int | None, most: int | None) -> Shape:
    """Return the shape of a run on servers that allow `most` tokens a row: only rows under way are bounded here."""
    context = min(context or DEFAULT_CONTEXT, most or DEFAULT_CONTEXT)
    _least(prefixes, overheads, context)
    return Shape(Plan(REMOTE_SLOTS, sum(prefixes) + context), context, Loading(threads=0), Memory(0, 0, 0))


def _least(prefixes: Sequence[int], overheads: Sequence[int], context: int) -> int:
    """Return the tokens that a row takes beside its text. Raises UsageError when the context cannot hold them."""
    least = max(p + o for p, o in zip(prefixes, overheads, strict=True))
    if context < least + 16:
        raise UsageError(
            f"--ctx {context:,} is too small: policy, reasoning budget and answer take {least:,} tokens;"
            f" use at least --ctx {least + 256} or a lower --max-reasoning"
        )
    return least


def video_room(devices: Sequence[Device]) -> int:
    """Return the bytes of GPU memory that a run may take."""
    return sum(max(0, device.free - GPU_RESERVE) for device in devices)


def place(
    header: Header,
    plan: Plan,
    prefixes: int,
    devices: Sequence[Device],
    gpu_layers: int = -1,
    cpu_moe: int | None = None,
    cache_type: str = "f16",
) -> tuple[int, int, Memory]:
    """Return the number of layers on the GPUs, of layers with their experts off them, and the memory that this takes.

    Best first: everything on the GPUs; the experts of ever more layers in the machine's memory; fewer layers. As in
    llama.cpp the last layers go first, and the output counts as one more. Numbers that were asked for are kept, even if
    they do not fit.
    """
    cache, compute = plan.cells * cell_bytes(header, cache_type), compute_bytes(header, plan, prefixes)
    layers = min(header.number("block_count"), len(header.tensors))
    if not devices or not gpu_layers:
        return gpu_layers, cpu_moe or 0, Memory(header.size, cache, compute)
    dense, experts, output = _weights_by_layer(header, layers)
    room = video_room(devices)
    most = layers + 1 if gpu_layers < 0 else min(gpu_layers, layers + 1)
    placements = [(most, n) for n in (range(layers + 1) if cpu_moe is None else [cpu_moe])]
    if gpu_layers < 0:
        placements += [(n, layers if cpu_moe is None else cpu_moe) for n in range(layers, 0, -1)]
    for placed, moe in placements:
        first = layers + 1 - placed
        weights = output + sum(dense[first:]) + sum(experts[max(first, moe) :])
        share = cache * (layers - first) // layers if layers > first else 0
        if weights + share + compute <= room or (gpu_layers >= 0 and (placed, moe) == placements[-1]):
            # llama.cpp keeps a second set of working buffers for what it computes on the CPU.
            return placed, moe, Memory(header.size - weights, cache - share, compute, video=weights + share + compute)
    return 0, 0, Memory(header.size, cache, compute)


def _weights_by_layer(header: Header, layers: int) -> tuple[list[int], list[int], int]:
    """Return the bytes of each layer without experts, of its experts, and of the output; embeddings stay off GPUs."""
    dense, experts, output = [0] * layers, [0] * layers, 0
    for tensor in header.tensors:
        found = re.match(r"blk\.(\d+)\.", tensor.name)
        if found and int(found[1]) < layers:
            (experts if "_exps" in tensor.name else dense)[int(found[1])] += tensor.nbytes
        elif tensor.name.startswith("output"):
            output += tensor.nbytes
    return dense, experts, output


def repacked_bytes(header: Header) -> int:
    """Return the bytes of the weights that llama.cpp keeps a second, repacked copy of."""
    return sum(tensor.nbytes for tensor in repacked(header.tensors))


def cell_bytes(header: Header, cache_type: str = "f16") -> int:
    """Return the bytes of cache for one token: keys and values of all layers (windowed layers are kept whole too)."""
    width = header.number("attention.key_length", 64) + header.number("attention.value_length", 64)
    cells = int(
        header.number("block_count") * header.number("attention.head_count_kv") * width * CACHE_TYPES[cache_type]
    )
    if cells <= 0:
        raise BadModelFile(f"{header.path.name} does not say how many layers and key/value heads it has")
    return cells


def score_bytes(header: Header, plan: Plan) -> int:
    """Return the bytes of one layer's attention scores for a full batch, which plain attention writes out as f32."""
    return plan.batch * plan.cells * header.number("attention.head_count") * 4


def compute_bytes(header: Header, plan: Plan, prefixes: int = 1) -> int:
    """Return the bytes of llama.cpp's working buffers: its logits, and the greater of these and a batch in one layer.

    In the graph llama.cpp reuses the memory of the layers for the logits. Checked against its own figures, see
    tests/tools/memory_plan.py.
    """
    size = plan.context(prefixes)
    logits = size.outputs * len(header.metadata.get("tokenizer.ggml.tokens", ())) * 4
    hidden = header.number("embedding_length", 1)
    width = header.number("expert_feed_forward_length", hidden)
    experts = header.number("expert_used_count", 1) * (3 * width + hidden)
    tokens = size.batch + size.sequences  # llama.cpp makes room for a multiple of the sequences
    masks = 2 * 2 * plan.cells  # of full and of windowed layers, f16
    return max(tokens * (4 * experts + masks), logits) + logits
