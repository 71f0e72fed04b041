"""Fixtures that many tests share: models, the real vocabulary where it is at hand, and a bench for whole runs."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT, real_vocabulary, tiny_model
from helpers.runs import Bench
from hypothesis import settings

from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import read_header
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.prompt.harmony import Harmony
from safeguard_cli.run import prepare

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")

DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny gpt-oss GGUF with random weights."""
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def harmony(tiny: Path) -> Harmony:
    return Harmony(Tokenizer.from_header(read_header(tiny)))


@pytest.fixture(scope="session")
def demo_harmony() -> Harmony:
    return Harmony(Tokenizer.from_header(read_header(find_model("demo"))))


@pytest.fixture(scope="session")
def o200k() -> Harmony:
    """The real vocabulary of gpt-oss, built from its published ranks; skips where the file is not at hand."""
    ranks = DATA / "o200k_base.tiktoken"
    if not ranks.is_file():
        pytest.skip(f"needs {ranks}")
    return Harmony(real_vocabulary.tokenizer(ranks))


@pytest.fixture(scope="session")
def data() -> Path:
    """Where reference data lies that is not part of the project."""
    return DATA


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def at_once(no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs: what each would load anew from the model's header is kept."""
    monkeypatch.setattr("safeguard_cli.run.prepare.open_model", cache(prepare.open_model))
    from_header = Tokenizer.from_header
    kept = cache(lambda path: from_header(prepare.open_model(path)))
    monkeypatch.setattr("safeguard_cli.run.prepare.Tokenizer.from_header", lambda header: kept(header.path))
    monkeypatch.setattr("safeguard_cli.run.prepare.load_policy", cache(prepare.load_policy))


@pytest.fixture
def bench(tmp_path: Path, tiny: Path) -> Bench:
    return Bench(tmp_path, tiny)
