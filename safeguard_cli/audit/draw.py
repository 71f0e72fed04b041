"""Draw rows at random: those whose numbers have the smallest keyed hashes.

The hash of a row depends on the seed and the row's number in the file alone, so every machine draws the same rows from
the same rows, whatever the format, and in the same order. The first 400 are among the first 1,000, and the first rows
of a file are the first ones of its shards, joined and sorted by their hashes.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from safeguard_cli.rows.records import Record

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 by the golden ratio, odd
_MASK = (1 << 64) - 1
_LEAST, _MOST = 1 << 10, 1 << 16  # rows whose hashes are made at once

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def hashes(seed: int, first: int, count: int) -> Hashes:
    """Return the keyed hashes of the rows `first` to `first + count - 1`, counted from 0.

    Each is the row's number times an odd constant plus a key, mixed twice by the finalizer of SplitMix64 (Steele, Lea
    and Flood 2014): wrapping integer arithmetic, a bijection for each seed, so that no two rows share a hash.
    """
    numbers = np.arange(first, first + count, dtype=np.uint64)
    keys = [_key(2 * seed), _key(2 * seed + 1)]
    with np.errstate(over="ignore"):
        found = numbers * np.uint64(_GOLDEN) + np.uint64(keys[0])
    return _mixed(_mixed(found) ^ np.uint64(keys[1]))


def in_order(seed: int, rows: int, shard: tuple[int, int]) -> Ints:
    """Return the `rows` rows of a shard in the order in which they are drawn, counted from 0 within the shard."""
    part, parts = shard
    return np.argsort(hashes(seed, 0, rows * parts)[part - 1 :: parts])


def _key(number: int) -> int:
    return int(_mixed(np.array([(number + 1) * _GOLDEN & _MASK], np.uint64))[0])


def _mixed(found: Hashes) -> Hashes:
    with np.errstate(over="ignore"):
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = found ^ (found >> np.uint64(31))
    return mixed


class Spool:
    """Records on disk, in a file without a name, which is gone when the command ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by `close`
        self._end = 0

    def keep(self, record: Record) -> int:
        """Write a Record, and return its place."""
        place = self._file.seek(self._end)
        pickle.dump(record, self._file, pickle.HIGHEST_PROTOCOL)
        self._end = self._file.tell()
        return place

    def read(self, place: int) -> Record:
        """Return the Record at a place."""
        self._file.seek(place)
        record: Record = pickle.load(self._file)  # our own file, which nobody else can open
        return record

    def clear(self) -> None:
        """Forget all Records."""
        self._end = self._file.truncate(0)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Rows drawn at random: their indices in the file, in the order of their ranks, and their places in a Spool.

    `total` is the number of rows that they were drawn from.
    """

    total: int
    indices: Ints
    places: Ints

    def __len__(self) -> int:
        return len(self.indices)


def draw(
    records: Iterable[Record],
    seed: int,
    most: int | None,
    spool: Spool,
    tell: Callable[[], None] = lambda: None,
) -> Drawn:
    """Draw at most `most` of the records (None: all), in one pass; `tell` is called now and then.

    Only rows that can still be among the drawn ones are kept in the spool: about `most` times the logarithm of how
    often they fit into the file.
    """
    lowest = _Lowest(most)
    total = start = end = 0
    waiting: Iterator[int] = iter(())
    block: Hashes = hashes(seed, 0, 0)
    following = -1
    for record in records:
        while record.index >= end:
            lowest.settle()
            tell()
            start, end = end, end + min(max(end, _LEAST), _MOST)
            block = hashes(seed, start, end - start)
            waiting = iter((np.flatnonzero(block <= lowest.bar) + start).tolist())
            following = next(waiting, -1)
        total += 1
        while 0 <= following < record.index:
            following = next(waiting, -1)
        if following == record.index:
            lowest.add(int(block[record.index - start]), record.index, spool.keep(record))
    lowest.settle()
    return Drawn(total, lowest.indices, lowest.places)


class _Lowest:
    """The rows of the smallest hashes so far, sorted by these; no row with a hash above `bar` can be one of them."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._hashes: Hashes = np.empty(0, np.uint64)
        self.indices: Ints = np.empty(0, np.int64)
        self.places: Ints = np.empty(0, np.int64)
        self._added: list[tuple[int, int, int]] = []
        self.bar = np.uint64(_MASK)

    def add(self, hash: int, index: int, place: int) -> None:
        self._added.append((hash, index, place))

    def settle(self) -> None:
        """Take the rows that were added, and drop those that are too many."""
        if self._most == 0:
            self._added.clear()
        if not self._added:
            return
        new, indices, places = zip(*self._added, strict=True)
        self._added.clear()
        every = np.concatenate([self._hashes, np.array(new, np.uint64)])
        order = np.argsort(every)[: self._most]
        self._hashes = every[order]
        self.indices = np.concatenate([self.indices, np.array(indices, np.int64)])[order]
        self.places = np.concatenate([self.places, np.array(places, np.int64)])[order]
        if self._most is not None and len(order) == self._most:
            self.bar = self._hashes[-1]
