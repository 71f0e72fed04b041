"""Finds the model file that a name stands for, and checks that the program can use it."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path

from safeguard_cli.errors import SafeguardError, nearest, quoted, shortened
from safeguard_cli.files import files_beside
from safeguard_cli.model.gguf import BadModelFile, Header, Newer, not_newer, read_model
from safeguard_cli.model.names import DEFAULT, DEMO, KNOWN, hub_name

ARCHITECTURE = "gpt-oss"


class NoModel(SafeguardError):
    """The model that a name stands for is not on this machine."""


def find_model(name: str | None) -> Path:
    """Return the absolute path of the file that a name stands for, the first part of a split one.

    A name is `demo`, a path, or a model that was pulled. Without a name, it is the default model, if that was pulled.
    Never uses the network. Raises NoModel, which tells what to do, when there is none.
    """
    if name == DEMO:
        return Path(str(resources.files("safeguard_cli"))) / "demo" / "demo.gguf"
    if hub := hub_name(name or DEFAULT):
        from safeguard_cli.model.hub import cached_model

        if found := cached_model(hub):
            return found[0].absolute()
    if name is None:
        raise NoModel(
            f"no model: none was chosen, and {DEFAULT} is not here",
            f"to fetch it (about {KNOWN[DEFAULT].gigabytes:.0f} GB): safeguard pull {DEFAULT}",
            "to try without it: --model demo",
        )
    if hub:
        assert name is not None
        near = None if name in KNOWN else nearest(name, _pulled())
        hint = f"did you mean {quoted(near)}? To fetch it" if near else "to fetch it"
        shown = shortened(name)
        raise NoModel(f"the model {shown} is not here; {hint}: safeguard pull {shown}")
    path, there = Path(name), False
    with suppress(OSError, ValueError):  # a name that is too long or has a NUL
        there = path.is_file()
    if not there:
        if near := near_model(name):
            raise NoModel(f"no model {quoted(name)}: not a file; did you mean {quoted(near)}?")
        raise NoModel(
            f"no model {quoted(name)}: not a file, and not one of {', '.join((DEMO, *KNOWN))} or hf:OWNER/REPO;"
            f" to fetch the default one: safeguard pull {DEFAULT}"
        )
    return path.absolute()  # the engine starts in another folder; links, and `..` after one, stay as they are


def near_model(name: str) -> str | None:
    """Return what a model's name was perhaps meant to be: a known name, a pulled one, or a file beside it."""
    path = Path(name)
    known = {known: known for known in (*_pulled(), DEMO, *KNOWN)} | files_beside(path, ".gguf")
    near = nearest(path.stem if path.suffix.casefold() == ".gguf" else path.name, known)
    return None if near is None else known[near]


def _pulled() -> list[str]:
    """Return the names of the models that were pulled, as `safeguard models` lists them."""
    from safeguard_cli.model.hub import cached_repos

    with suppress(OSError):
        return [f"hf:{repo}:{file}" for repo, files in cached_repos().items() for file in files]
    return []


def open_model(path: Path, newer: Newer = not_newer) -> Header:
    """Read and check the header of all parts of a model before llama.cpp sees it. Raises BadModelFile with a reason.

    `newer` is asked about types of tensors that are newer than this program.
    """
    header = read_model(path, newer)
    if header.architecture != ARCHITECTURE:
        found = header.architecture or "none"
        raise BadModelFile(
            f"{path.name} holds a model of architecture {found!r}; only {ARCHITECTURE} models can be used"
        )
    if not header.tensors:
        raise BadModelFile(f"{path.name} holds no weights")
    return header
