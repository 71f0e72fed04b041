"""`safeguard show`: print what is on record about an output, finished or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from safeguard_cli import errors, terminal
from safeguard_cli.errors import UsageError
from safeguard_cli.output.labelled import LabeledFile, holds_verdicts, read_labels, untrained_text
from safeguard_cli.output.manifest import Manifest, journal_path, load, manifest_path, run_path
from safeguard_cli.output.manifest_shape import ModelOnRecord, Result
from safeguard_cli.terminal import print_json, safe


def show(output: Path, *, as_json: bool) -> int:
    """Print the manifest of an output on standard output, for people or as JSON."""
    finished = manifest_path(output)
    path = finished if finished.exists() else run_path(output)
    if not path.exists() and run_path(journal_path(output)).exists():
        path = run_path(journal_path(output))
    manifest = load(path)
    if manifest is None:
        if not output.is_file() or not holds_verdicts(output):
            raise UsageError(f"{output}: nothing is on record: neither .manifest.json nor .run.json is beside it")
        return _show_rows(read_labels(output), as_json)
    if as_json:
        print_json(orjson.loads(path.read_bytes()))
        return errors.OK
    _print(_lines(output, manifest))
    return errors.OK


def _print(lines: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(safe(name), Text(safe(value)))
    terminal.show(table)


def _show_rows(labels: LabeledFile, as_json: bool) -> int:
    """Count the rows of an output that has no manifest beside it."""
    verdicts = {one.name: [row.verdicts[one.name] for row in labels.rows] for one in labels.answers}
    counts = {name: Counter(verdict.label for verdict in found) for name, found in verdicts.items()}
    violating = {name: sum(bool(verdict.violates) for verdict in found) for name, found in verdicts.items()}
    failed = sum(any(verdict.error for verdict in row.verdicts.values()) for row in labels.rows)
    if as_json:
        tallies = {one.name: {label: counts[one.name][label] for label in one.labels} for one in labels.answers}
        found = {"rows": len(labels.rows), "rows_in_error": failed, "labels": tallies, "violating": violating}
        print_json({"manifest": None, "counted": found})
        return errors.OK
    lines = [
        ("output", str(labels.path)),
        ("state", "nothing is on record beside it: the counts are those of its rows"),
        ("rows", f"{len(labels.rows):,}, {failed:,} in error"),
    ]
    for one in labels.answers:
        tally = ", ".join(f"{label} {counts[one.name][label]:,}" for label in one.labels)
        lines.append((f"policy {one.name}", f"{tally}; {violating[one.name]:,} violate"))
    _print(lines)
    return errors.OK


def _lines(output: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    identity, done, result = manifest.identity, manifest.progress, manifest.result
    yield "output", str(output)
    state = f"finished {result.finished}" if result else "unfinished: run the same command to resume it"
    yield "state", f"{state}; begun {manifest.started}"
    if result and (not output.exists() or output.stat().st_size != done.output_bytes):
        yield "", "the file was changed since, or moved away: what follows describes the run"
    yield "rows", f"{done.rows:,}" + (_errors(result) if result else " or more")
    for name, policy in identity.policies.items():
        yield f"policy {name}", _labels(result, name, policy.labels) if result else ", ".join(policy.labels)
        yield "", f"sha256 {policy.sha256}"
    yield from _model(identity.model, result)
    if result:
        yield "input", result.input
        yield "command", " ".join(result.command)
        if result.cut:
            yield "cut", cut_text(result.cut, identity.answer.most_reasoning)
        for name in result.untrained:
            yield "labels", untrained_text(name)
    yield "input sha256", done.input_sha256
    if result:
        yield "output sha256", result.output_sha256
    yield "time", f"{done.seconds:,.1f} s; {done.rows / max(done.seconds, 1e-9):,.1f} rows/s"
    yield "tokens", f"{done.prompt_tokens:,} read, {done.generated_tokens:,} written"
    if manifest.machine.servers is None:
        decoded = f"{done.policy_tokens:,} tokens" if done.policy_tokens else "kept by an earlier run, none"
        yield "policies", f"{decoded} decoded"
    if done.repeated_rows:
        yield "repeated", f"{done.repeated_rows:,} rows had the text of an earlier one, and got its labels"
    for each in done.reused or ():
        yield "reused", f"{each['rows']:,} rows have verdicts of {each['output']} (sha256 {each['sha256']})"
    for part, name in ((identity.answer, "answering"), (identity.input, "reading"), (identity.output, "writing")):
        yield name, _pairs(part.record)
    drained = identity.deterministic
    yield "deterministic", f"slots drained every {drained:,} rows" if drained else "no"
    yield "machine", _pairs({name: value for name, value in manifest.machine.record.items() if name != "versions"})
    yield "versions", _pairs(manifest.machine.versions)


def _labels(result: Result, name: str, labels: Iterable[str]) -> str:
    counts = result.labels.get(name, {})
    tally = ", ".join(f"{label} {counts.get(label, 0):,}" for label in labels)
    return f"{tally}; {result.violating.get(name, 0):,} violate"


def _model(model: ModelOnRecord, result: Result | None) -> Iterator[tuple[str, str]]:
    if model.served is not None:
        yield "model", f"on servers: {_pairs(model.record)}"
        return
    yield "model", f"{result.model if result else ''} {model.bytes:,} bytes".strip()
    yield "", f"sha256 {result.model_sha256}" if result else f"sampled sha256 {model.sampled_sha256}"


def _errors(result: Result) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in result.errors.items())
    blank = f", {result.blank:,} blank" if result.blank else ""
    return f", {result.rows_in_error:,} in error" + (f" ({codes})" if codes else "") + blank


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items() if value not in (None, [], False, ""))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def cut_text(rows: int, budget: int) -> str:
    """Return a sentence on how many rows the budget cut."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}: the reasoning was cut by the budget of {budget:,} tokens"
