"""Writes the tables generated from the code into the pages: python tests/tools/pages.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from safeguard_cli.cli import conflicts
from safeguard_cli.cli.app import app
from safeguard_cli.cli.conflicts import Rule
from safeguard_cli.model.names import KNOWN
from safeguard_cli.policy.policy import builtin_policies, load_policy
from safeguard_cli.rows.source import FORMATS
from safeguard_cli.rows.verdict import WHEN

ROOT = Path(__file__).parents[2]

COMMANDS = ("label", "audit", "eval", "compare", "stress", "bench", "report", "review")
RULES = {
    "label": conflicts.LABEL,
    "audit": conflicts.AUDIT,
    "eval": conflicts.MEASURE,
    "compare": conflicts.MEASURE,
    "stress": conflicts.STRESS,
    "bench": conflicts.BENCH,
    "report": conflicts.COMMON,
    "review": conflicts.REVIEW,
}
# The parameters of a call of `label` in each mode.
MODES: dict[str, dict[str, Any]] = {
    "several policies": {"policies": ["a", "b"]},
    "`--effort none`": {"effort": "none"},
    "`--effort auto`": {"effort": "auto"},
    "`--together`": {"together": True, "policies": ["a", "b"]},
    "`--server`": {"servers": ["http://h"]},
    "`--server --server-api chat`": {"servers": ["http://h"], "server_api": "chat"},
    "`--ray`": {"ray": True},
    "Parquet in": {"input": "in.parquet"},
    "standard input": {"input": "-"},
    "Parquet out": {"output": "out.parquet"},
    "to a pipe": {"output": "-"},
    "`--dry-run`": {"dry_run": True},
    "`--quiet`": {"quiet": True},
}


def commands() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {name: found[name] for name in COMMANDS}


def options(command: Any) -> dict[str, str]:
    """Return the spelling of a command's options, by parameter."""
    found = (each for each in command.params if each.param_type_name == "option")
    return {each.name: max(each.opts, key=len) for each in found if each.name not in ("help", "help_all")}


def by_command() -> str:
    """Return the table of all options: what each does, and which commands take it."""
    lines = ["| option | what it does | commands |", "|---|---|---|"]
    found: dict[tuple[str, str], list[str]] = {}
    for name, command in commands().items():
        for parameter in command.params:
            if parameter.name in options(command):
                spelled = ", ".join(f"`{each}`" for each in sorted(parameter.opts, key=len, reverse=True))
                found.setdefault((spelled, _meaning(parameter)), []).append(name)
    for (spelled, meaning), names in found.items():
        lines.append(f"| {spelled} | {meaning} | {'all' if len(names) == len(COMMANDS) else ', '.join(names)} |")
    return "\n".join(lines)


def _meaning(parameter: Any) -> str:
    default = parameter.default
    shown = isinstance(default, (str, int, float)) and not isinstance(default, bool)
    text = parameter.help + (f" Default: `{default}`." if shown and "efault" not in parameter.help else "")
    return str(text).replace("|", "\\|")


def errors() -> str:
    """Return the table of the error codes of rows."""
    return "\n".join(["| code | when |", "|---|---|", *(f"| `{code}` | {when} |" for code, when in WHEN.items())])


def formats() -> str:
    """Return the table of input formats by name."""
    kinds = {"jsonl": "JSON lines: an object in each line", "csv": "CSV: a header, then rows"}
    lines = ["| `--format` or extension | what it is |", "|---|---|"]
    for name, (kind, delimiter) in FORMATS.items():
        what = "Parquet" if name == "parquet" else "TSV: CSV with tabs" if delimiter else kinds[kind]
        lines.append(f"| `{name}`{', also `.' + name + '.gz`' if name != 'parquet' else ''} | {what} |")
    return "\n".join(lines)


def policies() -> str:
    """Return the table of the shipped policies."""
    lines = ["| policy | what it is about | labels, those that violate in bold |", "|---|---|---|"]
    for policy in map(load_policy, builtin_policies()):
        labels = ", ".join(f"**{each}**" if each in policy.violates else each for each in policy.labels)
        lines.append(f"| `{policy.name}` | {policy.description} | {labels} |")
    return "\n".join(lines)


def models() -> str:
    """Return the table of the models with a short name."""
    lines = ["| name | size | licence | where it comes from |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {known.gigabytes:g} GB | {known.licence} | `{known.repo}` |" for name, known in KNOWN.items()
    ]
    return "\n".join(lines)


def promises() -> str:
    """Return the table of promises to users, with the tests that prove them: those with the mark `promise`."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        for text in _marks(node.value for node in tree.body if _is_pytestmark(node)):
            found.setdefault(text, []).append(f"`{path.relative_to(ROOT)}`")
        for node in tree.body:
            for text in _marks(getattr(node, "decorator_list", ())):
                found.setdefault(text, []).append(f"`{node.name}`")  # type: ignore[attr-defined]
    return "\n".join(
        ["| promise | proved by |", "|---|---|", *(f"| {text} | {', '.join(found[text])} |" for text in found)]
    )


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "pytestmark"


def _marks(nodes: Iterable[Any]) -> Iterator[str]:
    """Yield the texts of the marks `promise` among decorators, or in a module's list of marks."""
    for node in nodes:
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "promise":
                yield str(ast.literal_eval(call.args[0]))


def by_mode() -> str:
    """Return the table of the options of `label` that are refused in each mode."""
    spelled = options(commands()["label"])
    rules = (*conflicts.LABEL, *conflicts.OF_THE_RUN)
    lines = ["| with | is refused |", "|---|---|"]
    for mode, values in MODES.items():
        found = {rule.option for rule in rules if rule.option not in values and _refuses(rule, values)}
        found |= {"together"} if rule_of_together(values) else set()
        lines.append(
            f"| {mode} | {', '.join(f'`{spelled[name]}`' for name in spelled if name in found) or 'nothing'} |"
        )
    return "\n".join(lines)


def rule_of_together(values: dict[str, Any]) -> bool:
    """Whether `--together`, which needs several policies, is refused for another reason than there being only one."""
    several = {"together": True, "policies": ["a", "b"], **values}
    return any(rule.option == "together" and rule.idle(several) for rule in conflicts.OF_THE_RUN)


def _refuses(rule: Rule, values: dict[str, Any]) -> bool:
    """Whether a rule refuses its option in a mode but not outside it."""
    usual = {"long": "split", "policies": ["a"], "input": "in.jsonl", "output": "out.jsonl", "temperature": 1.0}
    usual |= {"effort": "low" if rule.option != "sure" else "auto", "server_api": "completion", "ray": False}
    if rule.option in ("server_api", "server_model", "tokenizer"):
        usual["servers"] = ["http://h"]
    if rule.option == "ray_address":
        usual["ray"] = True
    usual[rule.option] = {"policies": ["a"], "temperature": 1.0, "effort": "auto"}.get(rule.option, "x")
    if rule.option == "max_reasoning" and "effort" not in values:
        usual["effort"] = "low"
    return rule.idle(usual | values) and not rule.idle(usual)


TABLES = {
    "options": by_command,
    "modes": by_mode,
    "errors": errors,
    "formats": formats,
    "promises": promises,
    "policies": policies,
    "models": models,
}


def pages() -> list[Path]:
    """Return all pages of the manual."""
    folders = (ROOT / "samples", ROOT / "safeguard_cli")
    return [ROOT / "README.md", *(page for folder in folders for page in sorted(folder.rglob("[A-Z]*.md")))]


def written(page: str) -> str:
    """Return a page with its tables as they are now."""
    for name, table in TABLES.items():
        if f"<!-- {name} -->" in page:
            new = table()
            page = re.sub(
                rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, new=new: f"{m[1]}{new}\n{m[2]}", page, flags=re.S
            )
    return page


if __name__ == "__main__":
    for path in pages():
        if path.is_file() and (new := written(path.read_text())) != path.read_text():
            path.write_text(new)
            print(path.relative_to(ROOT))
