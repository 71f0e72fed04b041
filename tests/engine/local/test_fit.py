"""A run is shaped to fit the free memory, and refused with figures if no shape fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.tiny_model import GB, header
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.engine.local import fit, hardware
from safeguard_cli.engine.local.fit import DEFAULT_SLOTS, cell_bytes, shape_run
from safeguard_cli.engine.local.hardware import free_cores, free_memory
from safeguard_cli.engine.local.plan import Shape
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.gguf import Header

PREFIX, OVERHEAD = 700, 320


LARGE = header()
SMALL = header(layers=4, hidden=256, kv=2, vocabulary=8_000, size=10**7)


@pytest.fixture
def shape(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shape]:
    """Return a function that shapes a run on a machine with so many bytes free."""

    def shape(
        free: float,
        model: Header = LARGE,
        prefixes: tuple[int, ...] = (PREFIX,),
        context: int | None = None,
        slots: int | None = None,
        repack: bool | None = None,
        cells: int | None = None,
    ) -> Shape:
        monkeypatch.setattr(fit, "free_memory", lambda: int(free))
        overheads = (OVERHEAD,) * len(prefixes)
        return shape_run(
            model, prefixes, overheads, context=context, slots=slots, threads=1, cells=cells, repack=repack
        )

    return shape


def test_with_enough_memory_the_defaults_are_taken(shape) -> None:
    found = shape(64 * GB)
    assert (found.plan.slots, found.context, found.loading.extra_buffers) == (DEFAULT_SLOTS, 8192, True)


def test_a_cell_of_the_20b_takes_48_kib() -> None:
    assert cell_bytes(LARGE) == 48 * 1024


def test_a_row_of_the_largest_size_fits_beside_all_prefixes(shape) -> None:
    found = shape(64 * GB, prefixes=(300, 700, 5_000), slots=1)
    assert found.plan.cells >= 300 + 700 + 5_000 + found.context - 300


@given(st.floats(0, 100), st.sampled_from([None, 2_000, 30_000]), st.sampled_from([None, 1, 40]))
def test_a_shape_never_takes_more_than_is_free(gigabytes: float, context, slots) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "free_memory", lambda: int(gigabytes * GB))
        try:
            found = shape_run(LARGE, [PREFIX], [OVERHEAD], context=context, slots=slots, threads=1)
        except SafeguardError:
            return
    assert found.memory.total <= gigabytes * GB
    assert found.plan.cells >= found.context
    assert found.plan.slots >= 1


def test_slots_are_fewer_where_memory_is_short(shape) -> None:
    assert 1 <= shape(12.8 * GB).plan.slots < DEFAULT_SLOTS


def test_an_earlier_sessions_cells_are_kept_where_the_largest_row_fits_into_them(shape) -> None:
    kept = shape(64 * GB, slots=4)
    assert shape(64 * GB, slots=4, cells=kept.plan.cells).plan == kept.plan
    assert shape(64 * GB, slots=4, cells=2 * kept.plan.cells).plan.cells == 2 * kept.plan.cells
    assert shape(64 * GB, slots=4, cells=1).plan == kept.plan


def test_slots_that_were_asked_for_are_kept(shape) -> None:
    assert shape(64 * GB, slots=40).plan.slots == 40


@pytest.mark.parametrize("model", [LARGE, SMALL], ids=["large", "small"])
def test_what_fits_with_one_slot_is_not_refused_with_the_default(shape, model: Header) -> None:
    least = shape(64 * GB, model, slots=1, repack=False).memory.total
    for spare in (1.0, 1.02, 1.1):
        assert shape(least * spare, model, repack=False).plan.slots >= 1


def test_a_run_is_not_refused_for_the_sake_of_repacked_weights(shape) -> None:
    least = shape(64 * GB, SMALL, slots=1, repack=False).memory.total
    assert not shape(least, SMALL, slots=1).loading.extra_buffers


def test_repacked_weights_are_left_out_where_memory_is_short(shape) -> None:
    found = shape(16 * GB)
    assert not found.loading.extra_buffers
    assert found.memory.weights == LARGE.size


def test_too_little_memory_is_refused_with_figures(shape) -> None:
    with pytest.raises(SafeguardError, match=r"12,000 weights, .* cache, .* 4,000 MB are free; --ctx is 8192"):
        shape(4 * GB)


def test_no_memory_at_all_is_refused(shape) -> None:
    with pytest.raises(SafeguardError, match=r" 0 MB are free"):
        shape(0)


def test_a_context_too_small_for_policy_and_answer_is_a_usage_error(shape) -> None:
    with pytest.raises(UsageError, match=r"--ctx 1,000 is too small: .* take 1,020 tokens; use at least --ctx 1276"):
        shape(64 * GB, context=1_000)
    assert shape(64 * GB, context=1_276).context == 1_276


def test_the_context_is_at_most_what_the_model_was_trained_on(shape) -> None:
    assert shape(64 * GB, SMALL, context=10**6).context == 131_072


@pytest.mark.parametrize("key", ["block_count", "attention.head_count_kv", "context_length", "attention.key_length"])
@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_absurd_numbers_in_a_header_are_refused_or_survived(shape, key: str, value: int) -> None:
    broken = Header(LARGE.path, LARGE.size, {**LARGE.metadata, f"gpt-oss.{key}": value}, ())
    try:
        found = shape(64 * GB, broken)
    except SafeguardError:
        return
    assert found.plan.cells >= 256


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts the process into a made-up control group."""
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    monkeypatch.setattr(hardware, "_OWN_CGROUPS", tmp_path / "own")

    def cgroup(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".", 1)).write_text(text + "\n")

    return cgroup


def test_free_memory_is_at_most_what_the_control_group_leaves(cgroup) -> None:
    cgroup(memory_max="3000000", memory_current="1000000")
    assert free_memory() == 2_000_000


def test_a_control_group_over_its_limit_leaves_nothing(cgroup) -> None:
    cgroup(memory_max="1000", memory_current="2000")
    assert free_memory() == 0


def test_a_control_group_without_a_limit_changes_nothing(cgroup) -> None:
    cgroup(memory_max="max", memory_current="1000", cpu_max="max 100000")
    assert free_memory() > 1_000_000
    assert free_cores() >= 1


def test_files_that_the_system_keeps_in_memory_give_way(cgroup) -> None:
    cgroup(memory_max="3000000", memory_current="2900000", memory_stat="anon 100\ninactive_file 1500000\nslab 5")
    assert free_memory() == 1_600_000


def test_the_tightest_of_nested_groups_counts(tmp_path: Path, cgroup) -> None:
    cgroup(memory_max="max", memory_current="1")
    for path, limit in (("a", "5000000"), ("a/b", "9000000")):
        (tmp_path / path).mkdir()
        (tmp_path / path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / path / "memory.current").write_text("1000000\n")
    (tmp_path / "own").write_text("0::/a/b\n")
    assert free_memory() == 4_000_000
    (tmp_path / "own").write_text("0::/elsewhere\n")  # a path outside the container: the root is the process's own
    assert free_memory() > 9_000_000


def test_groups_of_version_1_count(tmp_path: Path, cgroup) -> None:
    for path, text in (
        ("memory/x/memory.limit_in_bytes", "3000000"),
        ("memory/x/memory.usage_in_bytes", "2500000"),
        ("memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 500000"),
        ("cpu/x/cpu.cfs_quota_us", "150000"),
        ("cpu/x/cpu.cfs_period_us", "100000"),
        ("own", "4:memory:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/x"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    assert free_memory() == 1_000_000
    assert free_cores() == 1


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000", "150000 100000"])
def test_less_than_two_cores_of_quota_are_one(cgroup, quota: str) -> None:
    cgroup(cpu_max=quota)
    assert free_cores() == 1
