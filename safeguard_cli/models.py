"""Which model file a name stands for, and whether the program can use it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from safeguard_cli.errors import SafeguardError
from safeguard_cli.gguf_file import BadModelFile, Header, read_header

DEMO = "demo"
DEFAULT = "gpt-oss-safeguard-20b"
ARCHITECTURE = "gpt-oss"
DOWNLOAD = "hf download unsloth/gpt-oss-safeguard-20b-GGUF gpt-oss-safeguard-20b-Q4_K_M.gguf --local-dir ."
DEMO_NOTICE = (
    "demo is a small demonstration model for the shipped policies spam, hate, privacy and prompt-injection;"
    f" for real use: {DOWNLOAD}"
)


def find_model(name: str | None) -> Path:
    """The file that `--model` names: `demo`, or a path. Raises SafeguardError saying what to do when there is none."""
    if name == DEMO:
        return Path(str(resources.files("safeguard_cli"))) / "demo" / "demo.gguf"
    if name is None:
        raise SafeguardError(
            f"no model chosen: pass --model with the path of a GGUF of {DEFAULT}\n"
            f"to fetch it (about 12 GB): {DOWNLOAD}\n"
            "to try without it: --model demo"
        )
    path = Path(name)
    if not path.is_file():
        raise SafeguardError(f"no model {name!r}: not a file, and not `demo`; to fetch the real one: {DOWNLOAD}")
    return path


def open_model(path: Path) -> Header:
    """Read and check a model file's header before llama.cpp sees it. Raises BadModelFile saying what is wrong."""
    header = read_header(path)
    if header.architecture != ARCHITECTURE:
        found = header.architecture or "none"
        raise BadModelFile(
            f"{path.name} holds a model of architecture {found!r}; only {ARCHITECTURE} models can be used"
        )
    if not header.tensors:
        raise BadModelFile(f"{path.name} holds no weights (a part of a split file must be given as its first part)")
    return header
