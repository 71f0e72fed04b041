"""`--reuse OUT`: copy the verdicts of earlier runs to rows that have the same text.

A verdict is copied only where this run would ask the same model the same question: the same policy, model, prompt and
settings. What only reads the answer may differ: `violates` is set anew by this run's threshold. Verdicts in error, and
those whose reasoning the budget cut, are not copied.

The verdicts wait in a database without a name in the temporary folder: memory stays bounded, whatever their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.find import NoModel
from safeguard_cli.output.labelled import ends_in_a_line_end
from safeguard_cli.output.readback import BadPart, verdict_as_written, verdict_of, verdict_of_cells_as_written
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.labeling import Rules
from safeguard_cli.rows.formats import FORMATS, extension
from safeguard_cli.rows.layouts import unguard
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import Source, open_source
from safeguard_cli.rows.text import Selector, Selects, first_choice, make_selector, text_key
from safeguard_cli.rows.verdict import COLUMNS, RowError, Verdict
from safeguard_cli.run.donors import Donor, model_on_record, only_model, usable_policies
from safeguard_cli.run.prepare import Prepared, prepare
from safeguard_cli.run.progress import PREPARING, Progress
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn

CACHE_KIB = 64 << 10  # of the database's pages in memory
TOLD_ROWS = 1000  # rows between two reports of how far the reading is

_READERS = {"jsonl": verdict_as_written, "csv": verdict_of_cells_as_written, "parquet": verdict_of}


@dataclass(frozen=True, slots=True)
class Copied:
    """The Verdicts that are known of a text, by policy name, and the numbers of the donors that gave them."""

    verdicts: Mapping[str, Verdict]
    donors: Collection[int]


class Reuse:
    """The Verdicts of earlier runs by the text that they are about, as this run's rules read them.

    `missing` says why no model can be asked about other texts, None if one can.
    """

    def __init__(
        self, donors: Sequence[Donor], rules: Rules, database: sqlite3.Connection, missing: NoModel | None
    ) -> None:
        self.donors, self._rules, self._database, self.missing = donors, rules, database, missing
        self.verdicts = 0
        self.counted = [donor.on_record() for donor in donors]  # rows that were given verdicts of each
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("CREATE TABLE verdicts (id INTEGER PRIMARY KEY, donor INTEGER, parts TEXT)")
        database.execute(
            "CREATE TABLE texts (text BLOB, policy INTEGER, verdict INTEGER, PRIMARY KEY (text, policy)) WITHOUT ROWID"
        )
        database.execute("BEGIN")

    @property
    def hashes(self) -> list[str]:
        """Return the hashes of the donors' files."""
        return [donor.sha256 for donor in self.donors]

    def take_up(self, before: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
        """Return what a manifest holds of reused outputs, which `count` changes; earlier sessions counted `before`."""
        known = {(each["output"], each["sha256"]): dict(each) for each in before or ()}
        self.counted = [known.setdefault((new["output"], new["sha256"]), new) for new in self.counted]
        return [*known.values()]

    def count(self, copied: Copied | None) -> None:
        """Count a row that is written, with the verdicts that were copied to it."""
        for donor in copied.donors if copied else ():
            self.counted[donor]["rows"] += 1

    def read(self, number: int, names: Mapping[int, str], told: Callable[[float], None]) -> None:
        """Take in what the donor of this number says; `names` are its policies by the numbers of this run's.

        `told` is called with the share of the file that is read.
        """
        donor = self.donors[number]
        format = None if extension(donor.rows) in FORMATS else donor.format
        with open_source(donor.rows, format=format) as source:
            selector = _selector(donor, source)
            for count, record in enumerate(_whole_rows(donor, source)):
                if source.total_bytes and not count % TOLD_ROWS:
                    told(source.bytes_read / source.total_bytes)
                if not isinstance(text := _text(donor, selector, record), str):
                    continue
                found = {policy: _parts(donor, record, name) for policy, name in names.items()}
                if not self._rules.together or all(found.values()):
                    self._keep(text_key(text), number, found)

    def _keep(self, key: bytes, donor: int, found: Mapping[int, Mapping[str, Any] | None]) -> None:
        """Keep a text's verdicts; where there is one already, that of the earlier donor and row stays."""
        execute = self._database.execute
        for policy, parts in found.items():
            if not parts:
                continue
            new = execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", (key, policy, self.verdicts + 1)).rowcount
            if new:
                self.verdicts += 1
                execute(
                    "INSERT INTO verdicts VALUES (?, ?, ?)", (self.verdicts, donor, orjson.dumps(parts, default=str))
                )

    def of(self, text: str) -> Copied | None:
        """Return what is known of a text, None if nothing is."""
        found = self._database.execute(
            "SELECT policy, donor, parts FROM texts JOIN verdicts ON id = verdict WHERE text = ? ORDER BY policy",
            (text_key(text),),
        ).fetchall()
        verdicts, donors = {}, set()
        for number, donor, parts in found:
            policy = self._rules.policies[number]
            if verdict := self._verdict(policy, orjson.loads(parts), self.donors[donor].format):
                verdicts[policy.name] = verdict
                donors.add(donor)
        if not verdicts or (self._rules.together and len(verdicts) < len(self._rules.policies)):
            return None
        return Copied(verdicts, sorted(donors))

    def covers(self, text: str) -> bool:
        """Return whether nothing has to be asked about a text."""
        copied = self.of(text)
        return copied is not None and len(copied.verdicts) == len(self._rules.policies)

    def _verdict(self, policy: Policy, parts: Mapping[str, Any], format: str) -> Verdict | None:
        """Return a verdict as this run would write it, None if it is not one that a run writes."""
        try:
            verdict = _READERS[format](parts, policy.labels)
        except BadPart:
            return None
        if verdict.label is None or verdict.p_violates is None or verdict.scores.keys() != {*policy.labels}:
            return None
        rules = self._rules
        return replace(
            verdict,
            violates=rules.violated(policy, verdict.label, verdict.p_violates),
            p_calibrated=rules.calibrated(policy, verdict.p_violates),
            scores={label: verdict.scores[label] for label in policy.labels},
            votes=verdict.votes and {label: verdict.votes.get(label, 0) for label in policy.labels},
            reasoning=(verdict.reasoning or "") if rules.reasoning else None,
            rationale=(verdict.rationale or "") if rules.rationale else None,
        )


@contextmanager
def open_reuse(
    settings: Settings,
    donors: Sequence[Donor],
    prepared: Prepared,
    wanted: Mapping[str, Any],
    progress: Progress,
    missing: NoModel | None = None,
) -> Iterator[Reuse | None]:
    """Read the donors' verdicts; yield None if there is no donor.

    `wanted` is what this run asks for, see identity.asked; `missing` says that no model can be asked. Raise UsageError
    if a donor has nothing that can be copied.
    """
    if not donors:
        yield None
        return
    policies = prepared.labeling.rules.policies
    model = asked_model(prepared)
    names = [usable_policies(donor, wanted, policies, model) for donor in donors]
    with _told_of_disk(), closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as database:
        reuse = Reuse(donors, prepared.labeling.rules, database, missing)
        for number, donor in enumerate(donors):
            before = reuse.verdicts
            reuse.read(number, names[number], partial(progress.does, f"reading {donor.path}"))
            if not settings.quiet:
                found = reuse.verdicts - before
                note(f"{donor.path}: {found:,} {'verdict' if found == 1 else 'verdicts'} to copy")
            if donor.format == "csv" and donor.cut:
                warn(
                    f"{donor.path}: the reasoning about {donor.cut:,} of its rows was cut, and a CSV does not tell"
                    " which: they are copied too"
                )
        progress.does(PREPARING)
        yield reuse


@contextmanager
def _told_of_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as problem:
        raise SafeguardError(
            f"the verdicts of --reuse cannot be kept in the temporary folder: {problem}; TMPDIR names another one"
        ) from problem


def prepare_copies(settings: Settings, policies: tuple[Policy, ...], donors: Sequence[Donor]) -> Prepared:
    """Return what a run needs that copies all verdicts, where the model is missing: no model is loaded."""
    return prepare(settings, policies, {}, copied=only_model(donors))


def check_all_covered(reuse: Reuse, records: Iterable[Record], selector: Selects, missing: SafeguardError) -> None:
    """Raise SafeguardError if a row needs a model, which is `missing`."""
    rows = lacking = 0
    for record in records:
        text = record.error or selector.select(record)
        rows += 1
        lacking += isinstance(text, str) and not reuse.covers(text)
    if lacking:
        raise SafeguardError(f"{lacking:,} of {rows:,} rows have no verdict to copy, and need a model:", *missing.args)


def reused_text(rows: int, output: str) -> str:
    """Return a sentence on how many rows were given verdicts of an output."""
    return f"{rows:,} {'row has' if rows == 1 else 'rows have'} verdicts of {output}"


def asked_model(prepared: Prepared) -> str:
    """Return the name of the model that a run asks."""
    if prepared.copied:
        return model_on_record(prepared.copied)
    if prepared.remote:
        return f"{prepared.remote.model.get('served')} on a server"
    return prepared.header.path.name


def _selector(donor: Donor, source: Source) -> Selector:
    """Return what takes the labelled text from a donor's rows; raise UsageError if they do not hold it."""
    made = donor.manifest.identity
    try:
        before = made.input.text_fields or (() if made.input.template else first_choice(source))
        return make_selector(source, text_fields=before, template=made.input.template, others=[*made.policies])
    except UsageError:
        named = ", ".join(made.input.text_fields) or "the template's fields"
        raise UsageError(
            f"--reuse {donor.path}: its rows were written without the text that was labelled ({named}), so nobody can"
            " tell which rows they are"
        ) from None


def _whole_rows(donor: Donor, source: Source) -> Iterator[Record]:
    """Yield a donor's rows, without a last one that its run has not written to the end."""
    torn = not donor.manifest.finished and not ends_in_a_line_end(donor.rows)
    last: Record | None = None
    for record in source:
        if last is not None:
            yield last
        last = record
    if last is not None and not torn:
        yield last


def _text(donor: Donor, selector: Selector, record: Record) -> str | RowError:
    """Return the text that was labelled in a donor's row, as it stood in the input."""
    if donor.manifest.identity.output.csv_safe and record.fields:
        own = {name: unguard(cell) if isinstance(cell, str) else cell for name, cell in record.fields.items()}
        record = replace(record, fields=own)
    return selector.select(record)


def _parts(donor: Donor, record: Record, name: str) -> Mapping[str, Any] | None:
    """Return the parts of a row's verdict, None if it has none that can be copied."""
    fields = record.fields or {}
    if donor.format == "csv":
        parts: Any = {column: fields[f"{name}_{column}"] for column in COLUMNS if fields.get(f"{name}_{column}")}
    else:
        parts = fields.get(name)
    if not isinstance(parts, Mapping) or parts.get("error") or parts.get("cut") or parts.get("label") is None:
        return None
    return parts
