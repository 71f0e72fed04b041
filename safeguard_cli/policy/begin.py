"""`safeguard policy new` and `check --fix`: write a policy's front matter, around a template or a text that is there.

The text that the model reads stays what it was, byte for byte. Labels that the text leaves open are asked for at a
terminal; elsewhere the question is the refusal, with the option that answers it.
"""

from __future__ import annotations

import codecs
import json
import re
import stat
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from safeguard_cli import errors, files
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.policy.front_matter import PolicyError, PolicyFile, UnreadableError, parse_policy, split_lines
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import Policy, builtin_policies, make_policy, name_of, read_policy, violating
from safeguard_cli.policy.published import FoundLabels, find_labels
from safeguard_cli.policy.sections import read_lines
from safeguard_cli.terminal import ask, fail, note, shell_line

_PLAIN = re.compile(r"[A-Za-z0-9_](?:[\w +./-]*[\w+.])?", re.ASCII)  # a text that YAML reads as it is written
_LONGEST = 160  # characters of a description taken from the text
_GOAL = re.compile(r"goal|objective|purpose|overview|task|mission", re.IGNORECASE)


def fix_command(names: Sequence[str], labels: Sequence[str], violates: Sequence[str]) -> int:
    """Add front matter with their labels to policies that name none; return 0, or 2 if one cannot be mended."""
    names = expand(names)
    if (labels or violates) and len(names) > 1:
        raise UsageError("--labels and --violates answer for one policy: mend one at a time")
    code = errors.OK
    for name in names:
        try:
            fix(name, labels, violates)
        except UsageError as problem:
            for line in problem.args:
                fail(str(line))
            code = errors.USAGE
    return code


def fix(name: str, labels: Sequence[str] = (), violates: Sequence[str] = ()) -> None:
    """Add front matter with its labels to a policy that names none; raise UsageError if these are not certain."""
    if name in builtin_policies():
        note(f"{name} is built in, and names its labels")
        return
    file = read_policy(name)
    if "labels" in file.front and "violates" in file.front:
        if labels or violates:
            raise UsageError(f"{file.path}: the front matter names its labels already; change them there")
        note(f"{file.path}: the front matter names its labels already")
        return
    if not stat.S_ISREG(file.path.stat().st_mode):
        raise UnreadableError(f"{file.path}: only a regular file can be mended")
    keys = _keys(file, labels, violates)
    data = _inserted(file, {key: value for key, value in keys.items() if key not in file.front})
    _check_same(file, data)
    files.write(file.path.resolve(), data)
    note(f"{file.path}: {_told(keys)}; the front matter says so now")


def from_command(source: str, name: str, labels: Sequence[str], violates: Sequence[str], output: str | None) -> int:
    """Run `safeguard policy new NAME --from FILE`: write a policy with FILE's text, and front matter for it."""
    file = read_policy(source)
    keys = _keys(file, labels, violates) | {"name": name}
    if "description" in file.front:
        keys["description"] = file.front["description"]
    bom = codecs.BOM_UTF8 if file.data.startswith(codecs.BOM_UTF8) else b""
    ending = _line_ending(file)
    data = bom + _front(keys, ending).encode() + _lines_from(file, file.front_lines).removeprefix(bom)
    _check_same(file, data)
    path = Path(output or f"{name}.md")
    _create(path, data)
    note(f"{path} is written: {_told(keys)}; then run: safeguard policy check {path}")
    return errors.OK


def new_command(name: str, labels: Sequence[str], violates: Sequence[str], output: str | None) -> int:
    """Run `safeguard policy new`: write a policy to fill in, as NAME.md here; never overwrite a file."""
    labels = tuple(labels) or ("allowed", "violating")
    violates = violating(labels, tuple(violates) or labels[-1:])
    Policy(name, "checks the name and the labels", labels, violates)
    good = [label for label in labels if label not in violates]
    if not good:
        raise UsageError("every label violates; leave one for what is safe")
    template = resources.files("safeguard_cli.policy").joinpath("template.md").read_text(encoding="utf-8")
    text = template.format(
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        labels=", ".join(labels),
        violates=", ".join(violates),
        bad="` or `".join(violates),
        good="` or `".join(good),
        code=re.sub(r"[^A-Z]", "", name.upper())[:2] or "R",
    )
    path = Path(output or f"{name}.md")
    _create(path, text.encode())
    note(f"{path} is written; fill in every TODO, then run: safeguard policy check {path}")
    return errors.OK


_Keys = dict[str, str | tuple[str, ...]]


def _keys(file: PolicyFile, labels: Sequence[str], violates: Sequence[str]) -> _Keys:
    """Return the keys of the front matter that a text needs, with the labels given, found, or asked for."""
    named = tuple(labels) or tuple(file.front.get("labels", ()))
    found = _asked(file, find_labels(file.text, file.first, labels=named, violates=violates))
    policy = make_policy(file, labels=found.labels, violates=found.violates)
    if set(policy.violates) == set(policy.labels):
        raise file.error("every label violates; leave one for what is safe")
    keys: _Keys = {"name": name_of(file)}
    if description := _description(file):
        keys["description"] = description
    return keys | {"labels": policy.labels, "violates": policy.violates}


def _asked(file: PolicyFile, found: FoundLabels) -> FoundLabels:
    """Return the labels, with what is open answered at the terminal; raise PolicyError if there is none."""
    while not found.sure:
        answer = ask(f"{file.path}, line {found.line or file.first}: {found.question}? ")
        if answer is None:
            why = f"{found.question}? {shell_line(found.answer_with)} says it"
            raise PolicyError(file.path, found.line or None, why)
        items = tuple(item.strip() for item in answer.split(",") if item.strip())
        if found.labels:
            known = violating(found.labels, items)
            if items and set(known) <= set(found.labels):
                return FoundLabels(found.labels, known, found.line)
            note(f"name one or more of {', '.join(found.labels)}, or write >= {found.labels[-1]}")
        elif len(items) > 1:
            found = find_labels(file.text, file.first, labels=items)
        else:
            note("name two labels or more, with commas between them, from harmless to worst")
    return found


def _description(file: PolicyFile) -> str:
    """Return the first sentence of the text's goal, if it says one in a line of its own."""
    for line in read_lines(split_lines(file.text)):
        if line.own and line.headings and _GOAL.search(line.headings[-1]):
            sentence = re.split(r"(?<=[.!?])\s", line.own)[0].strip(" *_`")
            return sentence if len(sentence) <= _LONGEST and sentence.isprintable() else ""
    return ""


def _told(keys: Mapping[str, str | tuple[str, ...]]) -> str:
    bad = keys["violates"]
    return f"labels {', '.join(keys['labels'])}; {', '.join(bad)} violate{'s' * (len(bad) == 1)}"


def _front(keys: Mapping[str, str | tuple[str, ...]], ending: str) -> str:
    return ending.join(["---", *_written(keys), "---", ""])


def _written(keys: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    """Return the lines of keys in YAML."""
    return [
        f"{key}: {_scalar(value) if isinstance(value, str) else '[' + ', '.join(map(_scalar, value)) + ']'}"
        for key, value in keys.items()
    ]


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _line_ending(file: PolicyFile) -> str:
    found = re.search(rb"\r\n|\r|\n", file.data)
    return found[0].decode() if found else "\n"


def _inserted(file: PolicyFile, keys: Mapping[str, str | tuple[str, ...]]) -> bytes:
    """Return the file's bytes with these keys in its front matter, or in a new one above all that there is."""
    ending = _line_ending(file)
    if not file.front_lines:
        bom = codecs.BOM_UTF8 if file.data.startswith(codecs.BOM_UTF8) else b""
        return bom + _front(keys, ending).encode() + file.data.removeprefix(bom)
    opening = next(number for number, line in enumerate(file.lines, 1) if line.strip("\ufeff\u200b \t"))
    rest = _lines_from(file, opening)
    new = "".join(line + ending for line in _written(keys))
    return file.data[: len(file.data) - len(rest)] + new.encode() + rest


def _lines_from(file: PolicyFile, index: int) -> bytes:
    """Return the bytes of the file from the line of this index on."""
    pieces = re.split(rb"(\r\n|\r|\n)", file.data)
    return b"".join(pieces[2 * index :])


def _check_same(file: PolicyFile, data: bytes) -> None:
    """Raise SafeguardError if the model would read another text from `data` than from the file: a promise."""
    if parse_policy(file.path, data).text != file.text:
        raise SafeguardError(f"{file.path}: front matter cannot be added without changing what the model reads")


def _create(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} already exists; nothing was written") from None
    except OSError as error:
        raise SafeguardError(f"{path}: cannot be written: {error.strerror}") from None
