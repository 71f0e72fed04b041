"""Writes the tables of options into their page: python tests/tools/options_table.py safeguard_cli/cli/README.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from safeguard_cli.cli import conflicts
from safeguard_cli.cli.app import app
from safeguard_cli.cli.conflicts import Rule

COMMANDS = ("label", "eval", "compare", "stress", "bench", "report")
RULES = {
    "label": conflicts.LABEL,
    "eval": conflicts.MEASURE,
    "compare": conflicts.MEASURE,
    "stress": conflicts.STRESS,
    "bench": conflicts.BENCH,
    "report": conflicts.COMMON,
}
# What a call of `label` holds in each mode, by parameter.
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
    """The options of a command, by parameter as they are spelled."""
    found = (each for each in command.params if each.param_type_name == "option")
    return {each.name: max(each.opts, key=len) for each in found if each.name not in ("help", "help_all")}


def by_command() -> str:
    """Which command takes which option."""
    taken = {name: set(options(command).values()) for name, command in commands().items()}
    every = list(dict.fromkeys(option for command in commands().values() for option in options(command).values()))
    lines = ["| option | " + " | ".join(COMMANDS) + " |", "|---|" + "---|" * len(COMMANDS)]
    lines += [
        f"| `{option}` | " + " | ".join("yes" * (option in taken[c]) for c in COMMANDS) + " |" for option in every
    ]
    return "\n".join(lines)


def by_mode() -> str:
    """Which options of `label` are refused in which mode."""
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
    """Whether `--together`, which needs several policies, is refused for another reason than that there is one."""
    several = {"together": True, "policies": ["a", "b"], **values}
    return any(rule.option == "together" and rule.idle(several) for rule in conflicts.OF_THE_RUN)


def _refuses(rule: Rule, values: dict[str, Any]) -> bool:
    """Whether a rule refuses its option in a mode, and where it has an effect otherwise."""
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


def written(page: str) -> str:
    """A page with its tables as they are now."""
    for name, table in {"options": by_command(), "modes": by_mode()}.items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.S
        )
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text()))
