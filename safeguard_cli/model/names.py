"""The names of models: the known short names, and those of the Hugging Face hub, where data is too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from safeguard_cli.errors import SafeguardError, UsageError, quoted
from safeguard_cli.model.gguf import SPLIT_NAME

DEMO = "demo"
DEFAULT = "gpt-oss-safeguard-20b"
DEMO_NOTICE = (
    "demo is a small demonstration model for the shipped policies spam, hate, privacy and prompt-injection;"
    f" for real use: safeguard pull {DEFAULT}"
)
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_+-]|\.(?!\.))*"
_HUB_NAME = re.compile(rf"hf:({_WORD}/{_WORD})(?::((?:{_WORD}/)*{_WORD}))?", re.ASCII)
_DATA_NAME = re.compile(rf"hf://datasets/({_WORD}/{_WORD})/((?:{_WORD}/)*{_WORD})", re.ASCII)
_FILE_NAME = re.compile(rf"(?:{_WORD}/)*{_WORD}\.gguf", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Known:
    """A model with a short name: where it is, its approximate size, and its licence."""

    repo: str
    file: str
    gigabytes: float
    licence: str


# The hub could not be reached when this was written. The file of the default model is known to exist; the names of the
# others are from secondary sources, and sizes are those of the base models' files. None of it is checked: where a file
# is not in its repository, `safeguard pull` lists those that are.
KNOWN = {
    DEFAULT: Known(
        "unsloth/gpt-oss-safeguard-20b-GGUF",
        "gpt-oss-safeguard-20b-Q4_K_M.gguf",
        12.1,
        "Apache-2.0",
    ),
    "gpt-oss-safeguard-120b": Known(
        "lmstudio-community/gpt-oss-safeguard-120b-GGUF",
        "gpt-oss-safeguard-120b-MXFP4-00001-of-00002.gguf",
        63.4,
        "Apache-2.0",
    ),
    "gpt-oss-20b": Known(
        "ggml-org/gpt-oss-20b-GGUF",
        "gpt-oss-20b-mxfp4.gguf",
        12.1,
        "Apache-2.0",
    ),
    "gpt-oss-120b": Known(
        "ggml-org/gpt-oss-120b-GGUF",
        "gpt-oss-120b-mxfp4-00001-of-00003.gguf",
        63.4,
        "Apache-2.0",
    ),
}


@dataclass(frozen=True, slots=True)
class HubName:
    """A model on the hub: `wanted` is a file, a quantization such as Q4_K_M, or empty for a repository's only model."""

    repo: str
    wanted: str


def size_text(size: float) -> str:
    """Return a number of bytes in MB or GB, for people."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def hub_name(name: str) -> HubName | None:
    """Return what a short name or `hf:OWNER/REPO[:FILE or quantization]` stands for; None for a path and for `demo`.

    Raises UsageError when an `hf:` name could lead anywhere but to a file of that repository.
    """
    if known := KNOWN.get(name):
        return HubName(known.repo, known.file)
    if not name.startswith("hf:"):
        return None
    found = _HUB_NAME.fullmatch(name)
    if not found or "--" in found[1]:
        raise UsageError(
            f"{quoted(name)} is not of the form hf:OWNER/REPO, hf:OWNER/REPO:FILE.gguf or hf:OWNER/REPO:Q4_K_M"
        )
    return HubName(found[1], found[2] or "")


def data_name(name: str) -> tuple[str, str] | None:
    """Return the repository and the file that `hf://datasets/OWNER/NAME/FILE` stands for; None for another name.

    Raises UsageError when it could lead anywhere but to a file of that repository.
    """
    if not name.startswith("hf://"):
        return None
    found = _DATA_NAME.fullmatch(name)
    if not found or "--" in found[1]:
        raise UsageError(f"{quoted(name)} is not of the form hf://datasets/OWNER/NAME/FILE")
    return found[1], found[2]


def choose_files(names: Iterable[str], wanted: str, where: str) -> tuple[str, ...]:
    """Return the file, or all parts in order, that `wanted` means among a repository's file names.

    Names that could lead out of a folder do not count. Raises SafeguardError, which lists the choices, unless exactly
    one model fits.
    """
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        if _FILE_NAME.fullmatch(name) and not name.rsplit("/", 1)[-1].startswith("mmproj"):
            models.setdefault(SPLIT_NAME.sub(".gguf", name), []).append(name)
    if wanted.lower().endswith(".gguf"):
        found = [parts for whole, parts in models.items() if wanted in (whole, *parts)]
    else:
        quantization = re.compile(rf"(?:^|[-._/]){re.escape(wanted)}(?:/[^/]*)?\.gguf$", re.IGNORECASE)
        found = [parts for whole, parts in models.items() if quantization.search(whole) or not wanted]
    if len(found) != 1:
        listed = "".join(f"\n  {whole}" for whole in list(models)[:20]) or "\n  (no GGUF files)"
        reason = f"has no {wanted}" if wanted and not found else "has no model" if not models else "has several models"
        raise SafeguardError(f"{where} {reason}; name one of its files after a colon:{listed}")
    parts = found[0]
    if (split := SPLIT_NAME.search(parts[0])) and len(parts) != int(split[2]):
        raise SafeguardError(f"{where} has only {len(parts)} of the {int(split[2])} parts of {parts[0]}")
    return tuple(parts)
