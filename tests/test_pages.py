"""The manual cannot drift: its tables are those of the code, its links have targets, its commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from tools.pages import TABLES, pages, written

PAGES = [path for path in pages() if path.is_file() and "demo" not in path.parts]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tables_of_a_page_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert written(text) == text, "run python tests/tools/pages.py"


def test_every_table_stands_in_a_page() -> None:
    every = "".join(page.read_text() for page in PAGES)
    assert [name for name in TABLES if f"<!-- {name} -->" not in every] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text()))
    wrong = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert wrong == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a user's folder with a few files of their own."""
    shutil.copy(ROOT / "samples/messages.jsonl", tmp_path / "data.jsonl")
    shutil.copy(ROOT / "samples/messages.csv", tmp_path / "data.csv")
    shutil.copy(ROOT / "samples/golden/spam.jsonl", tmp_path / "golden.jsonl")
    shutil.copy(ROOT / "policies/spam.md", tmp_path / "my-policy.md")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run each block marked `sh`; those that need another machine, a network or minutes are marked `sh not-run`."""
    env = {**os.environ, "SAFEGUARD_MODEL": "demo", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env |= {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    for language, block in FENCE.findall(page.read_text()):
        assert language in ("", "sh", "sh not-run", "python", "json", "toml", "markdown", "text"), language
        if language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=120,
            )
            assert done.returncode in (0, 3, 5), f"{block}\n{done.stderr.decode()}"
            assert b"Traceback" not in done.stderr
