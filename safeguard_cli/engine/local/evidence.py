"""What an engine computes of a few hundred tokens, looked at inside, for proof.py to judge.

Call it through probe.Probe: a process loads one library only, and the library may crash.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli.engine.local.library import load
from safeguard_cli.engine.local.model import Logits, Model
from safeguard_cli.engine.local.plan import ContextSize, Loading
from safeguard_cli.errors import EngineError

LOOKED_AT = 48  # tokens in a decode that is looked at: each has its logits, so that the last layer computes each
BEHIND = 16  # tokens of the prefix beyond the window
SEQUENCES, CONTENT, STEPS = 4, 36, 3  # behind the prefix: their tokens decoded together, those decoded one by one
ALONE, ALONE_AT = 192, -1  # sequences of one token; what stands for their positions
EVERY = 61  # of so many logits, one of all tokens is kept
GAP = 200  # tokens in the cache between the prefix and the sequences, dropped while these are decoded
CHUNKS = (CONTENT, 1, 13, 6)  # tokens that a sequence brings to a batch, in turn
_SEED = 0
# The nodes that are kept, of both libraries: tokens' embeddings, chosen experts, what a layer gives to the next.
_KINDS = {"embd": "embedding", "inp_embd": "embedding", "ffn_moe_topk": "experts", "l_out": "out"}


def prefix_length(window: int) -> int:
    """Return the length of a prefix that is longer than the window, as whole decodes that are looked at."""
    return -(-(window + BEHIND) // LOOKED_AT) * LOOKED_AT


def tokens(window: int) -> int:
    """Return how many tokens an engine decodes for its evidence."""
    return 2 * (prefix_length(window) + SEQUENCES * (CONTENT + STEPS)) + GAP + ALONE


class _Inside:
    """Keeps the experts that tokens chose at each layer and what each layer made of them, while it is `on`."""

    def __init__(self, used: int, width: int) -> None:
        self.on = False
        self._used, self._width = used, width
        self._found: dict[str, list[npt.NDArray[Any]]] = {}

    def of(self, functions: Any) -> None:
        """Take ggml's functions from this library."""

        def bound(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(functions, name)
            function.argtypes, function.restype = arguments, result
            return function

        node = ctypes.c_void_p
        self._name = bound("ggml_get_name", ctypes.c_char_p, node)
        self._values = bound("ggml_nelements", ctypes.c_int64, node)
        self._bytes = bound("ggml_nbytes", ctypes.c_size_t, node)
        self._copy = bound("ggml_backend_tensor_get", None, node, node, ctypes.c_size_t, ctypes.c_size_t)

    def look(self, node: int, asks: bool) -> bool:
        """Tell whether a node is wanted, and keep it when it is computed; see Model."""
        if not self.on:
            return False
        name = self._name(node).decode("utf-8", "replace")
        kind = _KINDS.get(name.partition("-")[0])
        if not kind:
            return False
        if not asks:
            data = np.empty(self._bytes(node) // 4, np.int32)
            self._copy(node, data.ctypes.data, 0, data.nbytes)
            if kind == "experts":
                count = self._values(node) // self._used
                # A view of all experts in order: its rows lie as far apart as there are experts.
                stride = (len(data) - self._used) // (count - 1) if count > 1 else self._used
                data = np.lib.stride_tricks.as_strided(data, (count, self._used), (4 * stride, 4)).copy()
                data.sort()
            else:
                data = data.view(np.float32).reshape(-1, self._width)
            self._found.setdefault(name.replace(name.partition("-")[0], kind), []).append(data)
        return True

    def arrays(self, layers: int) -> dict[str, npt.NDArray[Any]]:
        """Return all that was kept, a row for each token. Raises EngineError where something is missing."""
        found = {name: np.concatenate(rows) for name, rows in self._found.items()}
        names = [f"{kind}-{layer}" for layer in range(layers) for kind in ("experts", "out")]
        lengths = {len(found.get(name, ())) for name in ["embedding", *names]}
        if len(lengths) != 1 or lengths == {0}:
            raise EngineError("what the layers compute cannot be seen in this build")
        return found


def gather(
    path: Path, file: Path, *, window: int, used: int, width: int, layers: int, **loading: Any
) -> dict[str, Any]:
    """Have an engine decode tokens that are always the same; write what it computed to `file`, an .npz.

    The model has so many `layers`, experts `used` by a token, and values of a token (`width`). `loading` are Loading's
    fields, `window` is the length of the sliding window that the tokens must reach beyond.
    """
    inside = _Inside(used, width)
    prefix = prefix_length(window)
    cells = 1 << (prefix + SEQUENCES * (CONTENT + STEPS) + ALONE + GAP).bit_length()
    most = LOOKED_AT + 1  # sequences, and so outputs: llama.cpp wants one for each
    size = ContextSize(cells, most, max(prefix, SEQUENCES * CONTENT, GAP), most)
    begin = time.monotonic()
    with load(path, size, Loading(**loading), look=inside.look) as model:
        inside.of(model.functions)
        loaded = time.monotonic()
        decodes = _Decodes(model, inside, prefix)
        logits = {"one": decodes.one(), "other": decodes.other()}
        decodes.alone()
        logits["sample"] = np.concatenate(decodes.sample)
        places = {"position": np.array(decodes.positions), "row": np.array(decodes.rows)}
    found: dict[str, Any] = {**places, **logits, **inside.arrays(layers)}
    np.savez(file, finite=decodes.finite, **found)
    return {"load": loaded - begin, "decode": time.monotonic() - loaded}


class _Decodes:
    """The tokens, decoded in two groupings: sequences behind a shared prefix, and many of one token."""

    def __init__(self, model: Model, inside: _Inside, prefix: int) -> None:
        rng = np.random.default_rng(_SEED)

        def some(*shape: int) -> npt.NDArray[np.int32]:
            return rng.integers(0, model.vocabulary_size, shape).astype(np.int32)

        self._model, self._inside = model, inside
        self._prefix, self._texts, self._alone = some(prefix), some(SEQUENCES, CONTENT + STEPS), some(ALONE)
        self._gap = some(GAP)
        self.finite = True
        self.sample: list[Logits] = []
        self.positions: list[int] = []  # of the tokens that are looked at
        self.rows: list[int] = []  # which of them the logits of a grouping belong to

    def one(self) -> Logits:
        """Decode prefix and contents in even parts, then one token of each sequence at a time, looked at inside."""
        model, kept = self._model, []
        self._inside.on = True
        for begin in range(0, len(self._prefix), LOOKED_AT):
            model.batch.clear()
            self._add(0, begin, self._prefix[begin : begin + LOOKED_AT])
            self._decode()
        self._copies()
        part = LOOKED_AT // SEQUENCES
        spans = [(begin, begin + part) for begin in range(0, CONTENT, part)]
        spans += [(step, step + 1) for step in range(CONTENT, CONTENT + STEPS)]
        for begin, end in spans:
            model.batch.clear()
            for i, text in enumerate(self._texts):
                self._add(i + 1, len(self._prefix) + begin, text[begin:end])
            logits = self._decode()
            if end >= CONTENT:
                self.rows += range(len(self.positions) - model.batch.size, len(self.positions))[
                    end - begin - 1 :: end - begin
                ]
                kept += list(logits[end - begin - 1 :: end - begin].copy())
        self._inside.on = False
        return np.array(kept)

    def other(self) -> Logits:
        """Decode the same, the prefix at once, the sequences at different paces and with a gap in the cache.

        Return the same logits.
        """
        model, length = self._model, len(self._prefix)
        model.clear()
        model.batch.clear()
        model.batch.add(0, 0, self._prefix, (length - 1,))
        self._decode()
        self._copies()
        model.batch.clear()
        model.batch.add(SEQUENCES + 1, 0, self._gap)
        self._decode()
        kept: dict[tuple[int, int], Logits] = {}
        done, turn = [0] * SEQUENCES, 0
        while min(done) < CONTENT + STEPS:
            model.batch.clear()
            if min(done) >= CONTENT:
                model.drop(SEQUENCES + 1)
            rows: list[tuple[int, int]] = []
            for i, text in enumerate(self._texts):
                begin, goal = done[i], CONTENT if done[i] < CONTENT else CONTENT + STEPS
                chunk = CHUNKS[(turn + i) % len(CHUNKS)] if begin < CONTENT else 1
                end = done[i] = min(begin + chunk, goal)
                if end > begin:
                    wanted = end >= CONTENT
                    model.batch.add(i + 1, length + begin, text[begin:end], (end - begin - 1,) if wanted else ())
                    rows += [(end, i)] if wanted else []
            turn += 1
            for row, logits in zip(rows, self._decode(), strict=True):
                kept[row] = logits.copy()
        return np.array([kept[row] for row in sorted(kept)])

    def alone(self) -> None:
        """Decode tokens that see no other, looked at inside: whatever differs at one is of its own making."""
        self._model.clear()
        self._inside.on = True
        for begin in range(0, ALONE, LOOKED_AT):
            self._model.batch.clear()
            for i in range(LOOKED_AT):
                self._model.batch.add(i, 0, self._alone[begin + i : begin + i + 1], (0,))
                self.positions.append(ALONE_AT)
            self._decode()
            for i in range(LOOKED_AT):
                self._model.drop(i)
        self._inside.on = False

    def _add(self, sequence: int, position: int, ids: npt.NDArray[np.int32]) -> None:
        self._model.batch.add(sequence, position, ids, tuple(range(len(ids))))
        self.positions += range(position, position + len(ids))

    def _decode(self) -> Logits:
        logits = self._model.decode()
        self.finite = self.finite and bool(np.isfinite(logits).all())
        if self._inside.on:
            self.sample.append(logits[:, ::EVERY].copy())
        return logits

    def _copies(self) -> None:
        for i in range(SEQUENCES):
            self._model.copy(0, i + 1)
