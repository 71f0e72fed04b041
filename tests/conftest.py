"""Fixtures that many tests share: a tiny model, the demo model, and the real vocabulary where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_vocabulary
import tiny_model
from hypothesis import settings

from safeguard_cli.gguf_file import read_header
from safeguard_cli.models import find_model
from safeguard_cli.prompt import Harmony
from safeguard_cli.tokenizer import Tokenizer

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")

DATA = Path(__file__).parents[2] / "shared" / "data"


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
