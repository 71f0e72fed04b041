"""`safeguard policy list` and `show`: the built-in policies, and a policy's file word for word."""

from __future__ import annotations

import re
import sys

from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.policy.check import tokens
from safeguard_cli.policy.packs import PACKS, PREFIX, expand, is_pack
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy, make_policy, read_policy
from safeguard_cli.terminal import Hanging, note, safe, show_hanging

_HEAD = re.compile(r"\s{0,12}(?:(?:[-*]|\d{1,3}[.)]|[a-z]{1,12}:)\s{1,4})?")  # what comes before a line's text


def list_command() -> int:
    """Run `safeguard policy list`: print the built-in policies."""
    policies = [load_policy(name) for name in builtin_policies()]
    names = max((len(policy.name) for policy in policies), default=0)
    labels = max((len(", ".join(policy.labels)) for policy in policies), default=0)
    packs = [Hanging(Text(f"{PREFIX}{name}  "), ", ".join(members)) for name, members in PACKS.items()]
    show_hanging(*(_listed(policy, names, labels) for policy in policies), *packs)
    note("token counts are estimates; labels that violate are red at a terminal")
    return errors.OK


def show_command(name: str) -> int:
    """Run `safeguard policy show`: print the file as it is; at a terminal, made harmless."""
    if is_pack(name):
        raise UsageError(f"{name} stands for several policies; show one of them: {', '.join(expand([name]))}")
    file = read_policy(name)
    make_policy(file)
    if sys.stdout.isatty():
        show_hanging(*map(_shown, file.lines[: -1 if file.lines[-1] == "" else None]))
    else:
        sys.stdout.buffer.write(file.data)
    return errors.OK


def _listed(policy: Policy, names: int, labels: int) -> Hanging:
    """Return a policy's line in the list, with columns of these widths."""
    shown = Text(", ").join(Text(label, "red" if label in policy.violates else "") for label in policy.labels)
    pad = " " * (labels - shown.cell_len)
    head = Text.assemble(f"{policy.name:{names}}  ", shown, f"{pad}{tokens(policy.text):>6,} tokens  ")
    return Hanging(head, policy.description)


def _shown(line: str) -> Hanging:
    """Return a line of a policy, to be wrapped under the start of its text: after a bullet or a key's name."""
    head = _HEAD.match(line)
    assert head is not None
    return Hanging(safe(head[0]), line[head.end() :])
