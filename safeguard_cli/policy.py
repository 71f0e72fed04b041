"""Policy files: Markdown with optional front matter that names the policy, its labels and which of them violate."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from safeguard_cli.errors import UsageError

DEFAULT_LABELS = ("0", "1")
DEFAULT_VIOLATES = ("1",)
MAX_LABEL_BYTES = 200
_NAME = re.compile(r"[a-z0-9_-]+")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_KEYS = {"name", "description", "labels", "violates"}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as the model reads it (`text`, word for word) with its answer contract.

    `labels` are in the policy's order, `violates` is a subset of them.
    """

    name: str
    text: str
    labels: tuple[str, ...] = DEFAULT_LABELS
    violates: tuple[str, ...] = DEFAULT_VIOLATES
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"policy name {self.name!r}: use lower-case letters, digits, - and _ only (or pass --as)")
        if not self.text.strip():
            raise UsageError(f"policy {self.name} holds no text for the model to read")
        if len(self.labels) < 2:
            raise UsageError(
                f"policy {self.name} has {len(self.labels)} label; give at least two (labels: or --labels)"
            )
        if len(set(self.labels)) < len(self.labels):
            raise UsageError(f"policy {self.name} names a label twice: {', '.join(self.labels)}")
        for label in self.labels:
            if not label or len(label.encode("utf-8", "surrogatepass")) > MAX_LABEL_BYTES or not label.isprintable():
                raise UsageError(f"policy {self.name}: label {label[:40]!r} is empty, too long or not printable")
        if unknown := [v for v in self.violates if v not in self.labels]:
            raise UsageError(f"policy {self.name}: violates names {unknown[0]!r}, not one of {', '.join(self.labels)}")
        if not self.violates:
            raise UsageError(f"policy {self.name}: no label violates; name at least one (violates: or --violates)")

    @property
    def sha256(self) -> str:
        """Hash of everything that the model reads or that shapes the answer."""
        return hashlib.sha256("\0".join((self.text, *self.labels)).encode()).hexdigest()

    def warnings(self) -> list[str]:
        """What looks like a mistake but does not stop a run."""
        silent = [label for label in self.labels if not mentions(self.text, label)]
        return [f"policy {self.name} never mentions its label {label!r}" for label in silent]


def mentions(text: str, label: str) -> bool:
    """Whether the label stands in the text by itself, since VALID stands in INVALID; not every script has spaces."""
    bounds = (r"(?<![0-9A-Za-z_])", r"(?![0-9A-Za-z_])") if label.isascii() else ("", "")
    return re.search(re.escape(label).join(bounds), text) is not None


def builtin_policies() -> dict[str, Path]:
    """The policies that come with the program, by name; from the wheel, or from the checkout of an editable install."""
    here = Path(str(resources.files("safeguard_cli")))
    folder = next((f for f in (here / "policies", here.parent / "policies") if f.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.md"))} if folder else {}


def load_policy(
    name_or_path: str,
    *,
    labels: Sequence[str] | None = None,
    violates: Sequence[str] | None = None,
    rename: str | None = None,
) -> Policy:
    """Read a policy by its built-in name or its path; what is given here wins over the file's front matter.

    Raises UsageError naming the file and what is wrong in it.
    """
    builtin = builtin_policies()
    path = builtin.get(name_or_path, Path(name_or_path))
    try:
        source = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        known = ", ".join(builtin) or "none"
        raise UsageError(f"no policy {name_or_path!r}: not a file, and not built in ({known})") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the policy {path}: {reason}") from None
    front, text = _split(source, path)
    name = rename or front.get("name") or re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-")
    chosen = tuple(labels) if labels else _strings(front, "labels", path) or DEFAULT_LABELS
    bad = tuple(violates) if violates else _strings(front, "violates", path)
    if not bad:
        if not set(DEFAULT_VIOLATES) <= set(chosen):
            raise UsageError(
                f"policy {name}: say which of its labels violate ({', '.join(chosen)}):"
                " `violates: [...]` in its front matter, or --violates"
            )
        bad = DEFAULT_VIOLATES
    description = front.get("description") or ""
    if not isinstance(name, str) or not isinstance(description, str):
        raise UsageError(f"{path}: `name` and `description` in the front matter must be text")
    return Policy(name, text, chosen, bad, description)


def _split(source: str, path: Path) -> tuple[dict[str, Any], str]:
    """Front matter and body. Scalars stay strings (BaseLoader), so that a label `no` or `1` is what it looks like."""
    found = _FRONT_MATTER.match(source)
    if not found:
        return {}, source.strip("\r\n")
    try:
        front = yaml.load(found[1], Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 2
        raise UsageError(
            f"{path}, line {line}: the front matter is not YAML: {getattr(error, 'problem', error)}"
        ) from None
    if not isinstance(front, dict):
        raise UsageError(f"{path}, line 2: the front matter must be `key: value` lines")
    if unknown := sorted(set(front) - _KEYS):
        raise UsageError(f"{path}: unknown key {unknown[0]!r} in the front matter (known: {', '.join(sorted(_KEYS))})")
    return front, source[found.end() :].strip("\r\n")


def _strings(front: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = front.get(key, [])
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UsageError(f"{path}: `{key}` must be a list of labels, such as [ham, spam]")
    return tuple(items)
