"""Finds the sample rows that come with the program: the input `sample:messages` is one of its files."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path

from safeguard_cli.errors import UsageError, nearest, quoted

PREFIX = "sample:"


@cache
def samples() -> dict[str, Path]:
    """Return the sample files by name, from the wheel or from an editable install's checkout.

    A checkout's folder may hold other files, such as the labels of an earlier try, which are not samples.
    """
    here = Path(str(resources.files("safeguard_cli")))
    folder = next((f for f in (here / "samples", here.parent / "samples") if (f / "golden").is_dir()), None)
    if folder is None:
        return {}
    golden = sorted(file for file in (folder / "golden").glob("*.jsonl") if "." not in file.stem)
    return {"messages": folder / "messages.jsonl"} | {f"golden/{file.stem}": file for file in golden}


def input_path(text: str) -> str:
    """Return the path that an INPUT means: a sample's for `sample:NAME`, and anything else as it is.

    A file of that very name comes before a sample. Raise UsageError if there is no such sample.
    """
    if not text.startswith(PREFIX):
        return text
    with suppress(OSError, ValueError):  # the name is too long, or has a NUL
        if Path(text).exists():
            return text
    name = text.removeprefix(PREFIX)
    known = samples()
    if found := known.get(name.removesuffix(".jsonl")):
        return str(found)
    near = f"golden/{name}" if f"golden/{name}" in known else nearest(name, known)
    hint = f"did you mean {PREFIX}{near}? " if near else ""
    listed = ", ".join(f"{PREFIX}{name}" for name in known) or "none"
    raise UsageError(f"no sample {quoted(text)}; {hint}there are: {listed}")


def is_sample(path: Path) -> bool:
    """Return whether a path is a sample's, as from `input_path`: nothing is written beside samples."""
    return path in samples().values()
