"""Loads policies: Markdown with optional front matter that names the policy, its labels and which of them violate."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safeguard_cli.errors import UsageError, nearest, quoted
from safeguard_cli.files import files_beside
from safeguard_cli.policy.front_matter import PolicyFile, UnreadableError, read_policy_file

DEFAULT_LABELS = ("0", "1")
DEFAULT_VIOLATES = ("1",)
MAX_LABEL_BYTES = 200
_CURLY = "“”„‟«»‘’‚‹›「」"  # quotes that word processors write
_NAME = re.compile(r"[a-z0-9_-]+")
_COMPARED = re.compile(r"\s*(>=|≥|=>|>|<=|≤|=<|<)\s*(.+?)\s*")


class PolicyFault(UsageError):
    """What is wrong in a policy, and in which key."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as the model reads it (`text`, word for word) with its labels.

    `labels` are in the policy's order; `violates` is a subset of them.
    """

    name: str
    text: str
    labels: tuple[str, ...] = DEFAULT_LABELS
    violates: tuple[str, ...] = DEFAULT_VIOLATES
    description: str = ""

    def __post_init__(self) -> None:
        """Raise PolicyFault for what nobody can mean."""
        if not _NAME.fullmatch(self.name):
            raise PolicyFault(
                "name", f"policy name {self.name!r}: use lower-case letters, digits, - and _ only (or pass --as)"
            )
        if not self.text.strip():
            raise PolicyFault("text", f"policy {self.name} holds no text for the model to read")
        if len(self.labels) < 2:
            raise PolicyFault(
                "labels", f"policy {self.name} needs at least two labels, not {len(self.labels)} (labels: or --labels)"
            )
        if len(set(self.labels)) < len(self.labels):
            raise PolicyFault("labels", f"policy {self.name} names a label twice: {', '.join(self.labels)}")
        for label in self.labels:
            if not label or len(label.encode("utf-8", "surrogatepass")) > MAX_LABEL_BYTES or not label.isprintable():
                raise PolicyFault(
                    "labels", f"policy {self.name}: label {label[:40]!r} is empty, too long or not printable"
                )
            if len(label) > 1 and label[0] in _CURLY and label[-1] in _CURLY:
                raise PolicyFault(
                    "labels", f"policy {self.name}: write the label {label} in straight quotes, or in none"
                )
        if unknown := [v for v in self.violates if v not in self.labels]:
            raise PolicyFault(
                "violates",
                f"policy {self.name}: violates names {unknown[0]!r}, not one of {', '.join(self.labels)}"
                " (violates: or --violates)",
            )
        if not self.violates:
            raise PolicyFault(
                "violates", f"policy {self.name}: no label violates; name at least one (violates: or --violates)"
            )

    @property
    def sha256(self) -> str:
        """Hash of everything that the model reads or that shapes the answer."""
        return hashlib.sha256("\0".join((self.text, *self.labels)).encode()).hexdigest()

    def warnings(self) -> list[str]:
        """Return what looks like a mistake but does not stop a run."""
        silent = [label for label in self.labels if not mentions(self.text, label)]
        return [f"policy {self.name} never mentions its label {label!r}, spelled like this" for label in silent]


def mentions(text: str, label: str) -> bool:
    """Return whether the label stands in the text by itself (not VALID in INVALID); not every script has spaces."""
    bounds = (r"(?<![0-9A-Za-z_])", r"(?![0-9A-Za-z_])") if label.isascii() else ("", "")
    return re.search(re.escape(label).join(bounds), text) is not None


def builtin_policies() -> dict[str, Path]:
    """Return the built-in policies by name, from the wheel or from an editable install's checkout."""
    here = Path(str(resources.files("safeguard_cli")))
    folder = next((f for f in (here / "policies", here.parent / "policies") if f.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.md"))} if folder else {}


def find_policy(name_or_path: str) -> Path:
    """Return the file of a built-in policy's name, or of a path; it may not exist."""
    return builtin_policies().get(name_or_path, Path(name_or_path))


def read_policy(name_or_path: str) -> PolicyFile:
    """Read the file of a policy; raise UnreadableError if there is none, PolicyError for what is wrong in it."""
    path = find_policy(name_or_path)
    try:
        return read_policy_file(path)
    except FileNotFoundError:
        near = _near(name_or_path)
        hint = f"; did you mean {quoted(near)}?" if near else f" ({', '.join(builtin_policies()) or 'none'})"
        raise UnreadableError(f"no policy {quoted(name_or_path)}: not a file, and not built in{hint}") from None


def _near(name_or_path: str) -> str | None:
    """Return the built-in name, or the path of a file beside, that a mistyped name may mean."""
    path = Path(name_or_path)
    known = {name: name for name in builtin_policies()} | files_beside(path, ".txt") | files_beside(path, ".md")
    near = nearest(path.stem if path.suffix.casefold() in (".md", ".txt") else path.name, known)
    return None if near is None else known[near]


def load_policy(
    name_or_path: str,
    *,
    labels: Sequence[str] | None = None,
    violates: Sequence[str] | None = None,
    rename: str | None = None,
) -> Policy:
    """Read a policy by its built-in name or its path; the arguments win over the file's front matter.

    Raise UsageError that names the file and what is wrong in it.
    """
    return make_policy(read_policy(name_or_path), labels=labels, violates=violates, rename=rename)


def make_policy(
    file: PolicyFile,
    *,
    labels: Sequence[str] | None = None,
    violates: Sequence[str] | None = None,
    rename: str | None = None,
) -> Policy:
    """Return the policy in a file that was read; the arguments win. Raise UsageError as load_policy does."""
    name = rename or str(file.front.get("name", "")) or name_of(file)
    chosen = tuple(labels or file.front.get("labels", DEFAULT_LABELS))
    asked = tuple(violates or file.front.get("violates", ()))
    bad = violating(chosen, asked)
    if not asked:
        if not set(DEFAULT_VIOLATES) <= set(chosen):
            raise file.error(
                f"policy {name}: say which of its labels violate ({', '.join(chosen)}):"
                " `violates: [...]` in its front matter, or --violates",
                "labels",
            )
        bad = DEFAULT_VIOLATES
    try:
        return Policy(name, file.text, chosen, bad, str(file.front.get("description", "")))
    except PolicyFault as fault:
        if {"name": rename, "labels": labels, "violates": violates}.get(fault.key):
            raise  # the command line is wrong, not the file
        raise file.error(str(fault), fault.key) from None


def violating(labels: Sequence[str], violates: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that violate; `>= SP2` stands for SP2 and the labels after it, and so do `>`, `<=` and `<`.

    Labels and comparisons that name none of `labels` are returned as they are.
    """
    found: list[str] = []
    for item in violates:
        compared = _COMPARED.fullmatch(item)
        if item in labels or compared is None or compared[2] not in labels:
            found.append(item)
            continue
        sign, at = compared[1], labels.index(compared[2])
        if sign in (">=", "≥", "=>", ">"):
            found += labels[at + (sign == ">") :]
        else:
            found += labels[: at + (sign != "<")]
    return tuple(dict.fromkeys(found))


def name_of(file: PolicyFile) -> str:
    """Return the policy's name made from its file's; raise UsageError if nothing in that can stand in a name."""
    plain = unicodedata.normalize("NFKD", file.path.stem.lower())
    name = re.sub(r"[^a-z0-9_-]+", "-", "".join(c for c in plain if not unicodedata.combining(c))).strip("-")
    if not name:
        raise file.error("the file's name gives no policy name: write `name: …` in its front matter, or use --as")
    return name
