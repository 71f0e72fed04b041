"""Rows are drawn at random, the same ones everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from safeguard_cli.audit import draw as drawing
from safeguard_cli.audit.draw import Spool, draw, hashes
from safeguard_cli.rows.records import Record


def records(rows: int, part: int = 1, parts: int = 1) -> list[Record]:
    return [Record(index, index + 1, b"%d" % index, {"id": index}) for index in range(part - 1, rows, parts)]


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path)
    yield made
    made.close()


@pytest.mark.promise("The rows of an audit are the same on every machine.")
def test_hashes_are_these_on_every_machine() -> None:
    assert hashes(0, 0, 3).tolist() == [6567143957341318782, 11796962033202453286, 15570393920349265081]
    assert hashes(7, 10**9, 1).tolist() == [14725233533156490464]
    assert hashes(0, 1, 2).tolist() == hashes(0, 0, 3).tolist()[1:]


def test_no_two_rows_share_a_hash() -> None:
    for seed in (0, 1, 2**62):
        assert len(np.unique(hashes(seed, 0, 300_000))) == 300_000


def test_every_row_is_drawn_as_often_as_any_other() -> None:
    """Chi-square over 4,000 seeds: which of 50 rows comes first, and which pairs come second after it."""
    first, second = np.zeros(50), np.zeros((50, 50))
    for seed in range(4000):
        order = np.argsort(hashes(seed, 0, 50))
        first[order[0]] += 1
        second[order[0], order[1]] += 1
    assert chisquare(first).pvalue > 0.001
    after = second[~np.eye(50, dtype=bool)]
    assert chisquare(after).pvalue > 0.001


def test_the_drawn_rows_lie_everywhere_in_the_file() -> None:
    for seed in range(20):
        order = np.argsort(hashes(seed, 0, 200_000))[:2000]
        assert kstest(order / 200_000, "uniform").pvalue > 0.0005, seed
        assert chisquare(np.bincount(order % 16, minlength=16)).pvalue > 0.0005, seed  # no period


def test_draws_of_two_seeds_have_nothing_to_do_with_each_other() -> None:
    shared = [
        len(np.intersect1d(*(np.argsort(hashes(seed, 0, 10_000))[:1000] for seed in (pair, pair + 1))))
        for pair in range(60)
    ]
    assert abs(np.mean(shared) - 100) < 4 * np.sqrt(100 * 0.81 / 60)  # hypergeometric: 1,000 × 1,000 / 10,000


@given(rows=st.integers(0, 9000), most=st.one_of(st.none(), st.integers(0, 300)), seed=st.integers(0, 2**62))
def test_the_rows_of_the_smallest_hashes_are_drawn_in_their_order(tmp_path_factory, rows, most, seed) -> None:
    spool = Spool(tmp_path_factory.getbasetemp())
    found = draw(iter(records(rows)), seed, most, spool)
    assert found.total == rows
    assert found.indices.tolist() == np.argsort(hashes(seed, 0, rows))[:most].tolist()
    assert [spool.read(int(place)).index for place in found.places] == found.indices.tolist()
    spool.close()


@pytest.mark.promise("The rows of a small audit are among those of a larger one.")
@given(rows=st.integers(1, 5000), few=st.integers(0, 100), more=st.integers(0, 400), seed=st.integers(0, 2**62))
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(tmp_path_factory, rows, few, more, seed) -> None:
    spool = Spool(tmp_path_factory.getbasetemp())
    small, large = (draw(iter(records(rows)), seed, most, spool).indices.tolist() for most in (few, few + more))
    assert large[: len(small)] == small
    spool.close()


@given(rows=st.integers(0, 3000), parts=st.integers(1, 5), seed=st.integers(0, 2**62))
def test_the_draws_of_shards_joined_hold_the_draw_of_the_file(tmp_path_factory, rows, parts, seed) -> None:
    spool = Spool(tmp_path_factory.getbasetemp())
    whole = draw(iter(records(rows)), seed, 50, spool)
    shards = [draw(iter(records(rows, part, parts)), seed, 50, spool) for part in range(1, parts + 1)]
    assert sum(shard.total for shard in shards) == rows
    joined = np.concatenate([shard.indices for shard in shards])
    keys = hashes(seed, 0, rows)
    assert joined[np.argsort(keys[joined])][:50].tolist() == whole.indices.tolist()
    spool.close()


def test_few_rows_more_than_are_drawn_go_to_disk(spool) -> None:
    kept = []
    spool.keep = lambda record: kept.append(record.index) or len(kept)  # type: ignore[method-assign]
    draw(iter(records(300_000)), 0, 100, spool)
    assert len(kept) < 100 * (1 + 2 * np.log(300_000 / 100)) + drawing._LEAST


def test_a_spool_leaves_no_file(tmp_path, spool) -> None:
    place = spool.keep(Record(3, 4, b"x", {"n": 1 << 70}))
    assert spool.read(place) == Record(3, 4, b"x", {"n": 1 << 70})
    assert list(tmp_path.iterdir()) == []
