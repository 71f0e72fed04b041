"""Kept states of policies save time and change nothing, whatever has become of their files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_engine import prefix_of

from safeguard_cli.engine.decoding import Completion, Options
from safeguard_cli.engine.plan import Loading, Plan
from safeguard_cli.engine.prefix_store import MAGIC, PrefixStore
from safeguard_cli.engine.process import Engine, EngineSpec
from safeguard_cli.prompt import Harmony, Prompt

IDS = (1, 2, 3)


@pytest.fixture
def spec(tiny: Path, harmony: Harmony, tmp_path: Path) -> EngineSpec:
    prefix = prefix_of(harmony, 600)  # more than one batch
    return EngineSpec(tiny, (prefix,), Options(6), Plan(2, 2048), Loading(1), "tiny", tmp_path / "states")


def label(spec: EngineSpec, harmony: Harmony) -> tuple[list[Completion], int]:
    """Completions of a few contents, by row, and the policy tokens that were decoded for them."""
    texts = ("buy now", "see you at noon")
    prompts = [Prompt(i, 0, 0, harmony.content_ids(harmony.text_ids(text))) for i, text in enumerate(texts)]
    with Engine(spec) as engine:
        found = sorted(engine.complete(prompts), key=lambda completion: completion.prompt.row)
        return found, engine.policy_tokens


def test_a_second_run_decodes_no_policy_token_and_says_the_same(spec, harmony) -> None:
    first, decoded = label(spec, harmony)
    assert decoded == len(spec.prefixes[0].ids)
    second, decoded = label(spec, harmony)
    assert decoded == 0
    assert [(c.scores, c.analysis) for c in first] == [(c.scores, c.analysis) for c in second]


def test_a_state_that_is_not_as_it_was_written_is_not_used(spec, harmony) -> None:
    first, _ = label(spec, harmony)
    (path,) = spec.states.iterdir()
    whole = path.read_bytes()
    bodies = (b"", whole[:20], whole[:-1], whole + b"x", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    for broken in bodies:
        path.write_bytes(broken)
        again, decoded = label(spec, harmony)
        assert decoded == len(spec.prefixes[0].ids)
        assert [c.scores for c in again] == [c.scores for c in first]
    assert path.read_bytes() == whole  # made anew each time


def test_a_state_that_llama_cpp_does_not_take_is_made_anew(spec, harmony) -> None:
    first, _ = label(spec, harmony)
    (path,) = spec.states.iterdir()
    folder = PrefixStore(spec.states, "")
    folder._path = lambda _: path  # type: ignore[method-assign]
    folder.save(IDS, b"no state at all" * 50)  # its hash is right
    again, decoded = label(spec, harmony)
    assert decoded == len(spec.prefixes[0].ids)
    assert [c.scores for c in again] == [c.scores for c in first]


def test_only_the_user_can_read_it(tmp_path) -> None:
    store = PrefixStore(tmp_path / "states", "model")
    store.save(IDS, b"state")
    (path,) = store.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert path.read_bytes().startswith(MAGIC)


def test_another_model_or_prefix_has_another_state(tmp_path) -> None:
    store = PrefixStore(tmp_path, "model")
    store.save(IDS, b"state")
    assert store.load(IDS) == b"state"
    assert store.load((1, 2)) is None
    assert PrefixStore(tmp_path, "other").load(IDS) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=30))
def test_it_never_takes_more_room_than_it_may(tmp_path_factory, saves) -> None:
    store = PrefixStore(tmp_path_factory.mktemp("states"), "model", most_bytes=200)
    overhead = len(MAGIC) + 32
    for name, size in saves:
        store.save((name,), bytes(size))
        assert sum(path.stat().st_size for path in store.folder.iterdir()) <= 200 + overhead
        if size <= 100:
            assert store.load((name,)) == bytes(size)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    store = PrefixStore(tmp_path / "file", "model")
    store.save(IDS, b"state")
    assert store.load(IDS) is None
