"""Kept states of policies save time and change no result, whatever happens to their files."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.prompts import prefix_of
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.prefix_store import MAGIC, PrefixStore, _digest
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.prompt.contract import Completion, Prompt
from safeguard_cli.prompt.harmony import Harmony

pytestmark = pytest.mark.promise(
    "The kept state of a policy is made anew where it is damaged, or of another model or build."
)

IDS = (1, 2, 3)


@pytest.fixture
def spec(tiny: Path, harmony: Harmony, tmp_path: Path) -> EngineSpec:
    prefix = prefix_of(harmony, 600)  # more than one batch
    return EngineSpec(tiny, (prefix,), Options(6), Plan(2, 2048), Loading(1), "tiny", tmp_path / "states")


def label(spec: EngineSpec, harmony: Harmony) -> tuple[list[Completion], int]:
    """Return completions of a few texts, by row, and the number of policy tokens that were decoded for them."""
    texts = ("buy now", "see you at noon")
    prompts = [Prompt(i, 0, 0, harmony.content_ids(harmony.text_ids(text))) for i, text in enumerate(texts)]
    with LocalEngine(spec) as engine:
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
    assert path.read_bytes() == whole  # written anew each time


def forge(path: Path, state: bytes) -> None:
    """Put another state under the name of a kept one, with the right hash."""
    key = bytes.fromhex(path.stem)
    path.write_bytes(MAGIC + _digest(key, state) + state)


def test_a_state_that_llama_cpp_does_not_take_is_made_anew(spec, harmony) -> None:
    first, _ = label(spec, harmony)
    (path,) = spec.states.iterdir()
    for state in (b"", b"no state at all" * 50):
        forge(path, state)
        again, decoded = label(spec, harmony)
        assert decoded == len(spec.prefixes[0].ids)
        assert [c.scores for c in again] == [c.scores for c in first]


def test_a_state_of_another_length_is_not_used(spec, harmony) -> None:
    first, _ = label(spec, harmony)
    (path,) = spec.states.iterdir()
    path.unlink()
    label(replace(spec, prefixes=(prefix_of(harmony, 500),)), harmony)
    (shorter,) = spec.states.iterdir()
    forge(path, shorter.read_bytes()[len(MAGIC) + 32 :])
    again, decoded = label(spec, harmony)
    assert decoded == len(spec.prefixes[0].ids)
    assert [c.scores for c in again] == [c.scores for c in first]


def test_a_state_under_the_name_of_another_is_not_used(tmp_path) -> None:
    store = PrefixStore(tmp_path, "model")
    store.save(IDS, b"state")
    (path,) = tmp_path.iterdir()
    path.rename(store._path(store._key((1, 2))))
    assert store.load((1, 2)) is None


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_could_have_written_is_not_used(tmp_path, what) -> None:
    store = PrefixStore(tmp_path / "states", "model")
    store.save(IDS, b"state")
    (path,) = store.folder.iterdir()
    assert store.load(IDS) == b"state"
    (store.folder if what == "folder" else path).chmod(0o777)
    assert store.load(IDS) is None


def test_what_another_user_owns_is_not_used(tmp_path, monkeypatch) -> None:
    store = PrefixStore(tmp_path / "states", "model")
    store.save(IDS, b"state")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert store.load(IDS) is None
    before = list(store.folder.iterdir())
    store.save((9,), b"state")
    assert list(store.folder.iterdir()) == before


def test_files_of_others_in_its_folder_stay(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    store = PrefixStore(tmp_path, "model", most_bytes=200)
    for number in range(9):
        store.save((number,), bytes(90))
    assert store.load((8,)) == bytes(90)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "folder").is_dir()


def test_a_pipe_in_place_of_a_state_keeps_nobody_waiting(tmp_path) -> None:
    store = PrefixStore(tmp_path, "model")
    os.mkfifo(store._path(store._key(IDS)), 0o600)
    assert store.load(IDS) is None
    store.save(IDS, b"state")
    assert store.load(IDS) == b"state"


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


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=30))
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
