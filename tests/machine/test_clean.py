"""`safeguard clean` removes what is ours, says what, and touches nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from safeguard_cli import errors, files
from safeguard_cli.engine.local.prefix_store import STATES, PrefixStore
from safeguard_cli.engine.local.probe import LOADABLE
from safeguard_cli.errors import SafeguardError
from safeguard_cli.machine.clean import clean
from safeguard_cli.model import kept
from safeguard_cli.model.fingerprint import HASHES


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    folder = kept.private_folder(STATES, make=True)
    assert folder
    kept.save(HASHES, {"a": "0" * 64})
    kept.save(LOADABLE, ["a"])
    PrefixStore(folder, "model").save((1,), bytes(1000))
    (folder / f"{'0' * 64}.4711").write_bytes(bytes(500))  # as an older version left it
    return folder.parent


def killed(start) -> None:
    """Call `start` in a child process that then ends as if it was killed."""
    child = os.fork()
    if not child:
        start()
        os._exit(9)
    os.waitpid(child, 0)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_all_that_is_ours_goes_and_is_said(cache, tmp_path, capsys) -> None:
    killed(lambda: files.Draft(cache / STATES / f"{'1' * 64}.prefix").write(bytes(300)))
    held = []
    killed(lambda: ((held.append(files.temporary_folder()), (held[0].__enter__() / "rows").write_bytes(bytes(7)))))
    before = everything(tmp_path)
    assert clean(dry_run=True) == errors.OK
    said = capsys.readouterr().out
    assert everything(tmp_path) == before
    assert "states of policies: 2\n" in said
    assert "300 bytes  files that were not completely written: 1\n" in said
    assert "7 bytes  folders with rows that a killed command left behind: 1\n" in said
    assert "would be removed" in said
    assert clean(dry_run=False) == errors.OK
    assert capsys.readouterr().out == said.replace("would be", "were")
    assert everything(tmp_path) == {"cache", "tmp"}
    assert clean(dry_run=False) == errors.OK
    assert " 0 bytes  were removed" in capsys.readouterr().out


def test_what_is_not_ours_or_in_use_stays(cache, tmp_path, capsys) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (cache / "notes.txt").write_text("mine")
    (cache / f"{HASHES}.bak").write_text("mine")
    (cache / STATES / f"{'2' * 64}.prefix").symlink_to(victim)
    (cache / STATES / f"{'3' * 64}.prefix").mkdir()
    (tmp_path / "tmp" / "safeguard-abcdefgh").mkdir(mode=0o700)
    (tmp_path / "tmp" / "safeguard-abcdefgh" / "rows").write_text("of something else")
    with files.temporary_folder() as folder, files.draft(cache / STATES / f"{'4' * 64}.prefix") as draft:
        (folder / "rows").write_text("being labelled")
        assert clean(dry_run=False) == errors.OK
        assert everything(tmp_path / "tmp") == {
            *("safeguard-abcdefgh", "safeguard-abcdefgh/rows"),
            *(folder.name, f"{folder.name}/rows", f"{folder.name}/.held"),
        }
        assert everything(cache) == {
            *("notes.txt", f"{HASHES}.bak", STATES, f"{STATES}/{'2' * 64}.prefix", f"{STATES}/{'3' * 64}.prefix"),
            f"{STATES}/{draft.path.name}",
        }
    assert victim.read_text() == "precious"


def test_what_another_user_owns_stays(cache, monkeypatch) -> None:
    before = everything(cache)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert clean(dry_run=False) == errors.OK
    assert everything(cache) == before


def test_what_cannot_be_removed_is_said(cache, monkeypatch, capsys) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SafeguardError, match=f"(?s)not everything could be removed:\n.*{HASHES}: Permission denied"):
        clean(dry_run=False)
    assert capsys.readouterr().out.split()[:2] == ["0", "bytes"]


def test_a_temporary_folder_is_for_the_users_eyes_only_and_gone_at_the_end(cache) -> None:
    with files.temporary_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert files.abandoned_folders() == []
    assert not folder.exists()
