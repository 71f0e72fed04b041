"""`safeguard audit`: how much of a file violates, from rows drawn at random."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeguard_cli import errors
from safeguard_cli.audit import find
from safeguard_cli.audit.destination import default_output, journal_of
from safeguard_cli.audit.estimate import check_installed, estimate, read_audit
from safeguard_cli.audit.find import Find
from safeguard_cli.audit.options import ROWS, Audited
from safeguard_cli.audit.reviewed import by_people, read_people, record
from safeguard_cli.audit.sample import Sample, Stop
from safeguard_cli.audit.shown import shown
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure.reviewed import ReviewedFile
from safeguard_cli.output.manifest import find_manifest
from safeguard_cli.run.engines import EngineMaker
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import print_json, show


def audit(settings: Settings, wanted: Audited, make_engine: EngineMaker = LocalEngine) -> int:
    """Run `safeguard audit` and return the exit code; raise SafeguardError with a sentence for the user."""
    check_installed()
    if wanted.find:
        find.check_installed()
    if settings.input == "-" or (Path(settings.input).exists() and not Path(settings.input).is_file()):
        raise UsageError("an audit draws its rows from a file, which it reads more than once: save the input to one")
    golden = read_people(Path(wanted.reviewed)) if wanted.reviewed is not None else None
    out = Path(wanted.output) if wanted.output is not None else default_output(settings)
    stop = _stop(wanted, out, settings)
    seed = wanted.seed if settings.sampled_at > 0 else settings.seed
    settings = replace(settings, output=str(out), limit=None if settings.retry_errors else stop.rows, seed=seed)
    sample = (Find if wanted.find else Sample)(wanted.seed, stop, wanted.by)
    try:
        code = label(settings, make_engine, work=sample)
    except errors.Interrupted:
        journal = journal_of(out, settings)
        with suppress(SafeguardError, OSError):  # nothing is labelled yet
            _show(journal if journal.exists() else out, sample, settings, wanted, golden)
        raise
    finally:
        sample.close()
    if not settings.dry_run:
        _show(out, sample, settings, wanted, golden)
    return code


def _stop(wanted: Audited, out: Path, settings: Settings) -> Stop:
    """Return what ends the audit: the rows that are there already, if they are enough for --for or --within."""
    if wanted.lasting is None and wanted.within is None and not wanted.find:
        return Stop(wanted.rows or ROWS)
    stop = Stop(wanted.rows, wanted.lasting, wanted.within)
    done = None if settings.overwrite or not out.is_file() else find_manifest(out)
    if done is None or done.result is None or done.result.estimate is None:
        return stop
    policies = done.result.estimate.get("policies", {}).values()
    late = wanted.lasting is not None and done.progress.seconds >= wanted.lasting
    known = wanted.within is not None and all(_known(policy["violates"], wanted.within) for policy in policies)
    shown = wanted.find and wanted.rows is None and wanted.lasting is None and find.is_enough(done.result.estimate)
    return Stop(done.progress.rows) if late or known or shown else stop


def _known(violates: dict[str, Any], within: float) -> bool:
    share = violates["share"]
    return share is not None and max(violates["high"] - share, share - violates["low"]) <= within


def _show(path: Path, sample: Sample, settings: Settings, wanted: Audited, golden: ReviewedFile | None) -> None:
    """Print the figures of the rows in a file of the audit."""
    labels = sample.settle(read_audit(path))
    found = sample.told(estimate(labels, sample.by))
    people = by_people(golden, labels, found) if golden is not None else {}
    if wanted.json:
        about = {"input": settings.input, "output": str(path), "model": labels.model, "effort": labels.effort}
        more = {**sample.further(labels), "by_people": record(people), "doubts": list(labels.doubts)}
        print_json({**about, **found.record(), **more})
    else:
        show(*shown(found, labels, settings.input, people), *sample.shown(labels))
