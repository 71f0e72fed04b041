"""The shape of a manifest: each object with its members, what they must be, and what they are read as.

An object is a Part: the JSON as it stands in the file, read by attribute. Members that are not declared cannot be read,
but are kept, so that a manifest of another version is written again with all its members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, get_args, overload

from safeguard_cli.model.checks import (
    Check,
    Misshapen,
    by_name,
    each,
    either,
    filled,
    flag,
    integer,
    maybe,
    number,
    one_of,
    sha256,
    table,
    text,
)
from safeguard_cli.rows.formats import Written

# The limits of llama.cpp: beyond them, it ends the process.
MOST_SLOTS, MOST_THREADS, MOST_BATCH, MOST_CELLS = 256, 512, 1 << 16, 1 << 26
MOST_PROCESS = (1 << 31) - 1

_count = integer()
_small = integer(most=(1 << 31) - 1)
_names = each(text)

Value = TypeVar("Value")
OnePart = TypeVar("OnePart", bound="Part")
_REQUIRED: Any = object()


class Part:
    """A JSON object on record, `record`, with its members declared as Members of a subclass."""

    __slots__ = ("record",)

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    @classmethod
    def members(cls) -> dict[str, Member[Any]]:
        """Return the declared members by name, a base class's first."""
        classes = reversed(cls.__mro__)
        return {name: one for each in classes for name, one in vars(each).items() if isinstance(one, Member)}

    @classmethod
    def check(cls, value: Any, where: str) -> None:
        """Raise Misshapen if `value`, found at `where`, is not such an object."""
        members = cls.members().items()
        needed = {name: one.check for name, one in members if one.default is _REQUIRED}
        table(needed, {name: one.check for name, one in members if name not in needed})(value, where)

    def changed(self: OnePart, **members: Any) -> OnePart:
        """Return a copy with other values for some members."""
        return type(self)({**self.record, **members})


class Member(Generic[Value]):
    """A member of a Part: the check of its JSON and what is made of it; one with a default may be missing."""

    def __init__(self, check: Check, make: Callable[[Any], Value] | None = None, default: Value = _REQUIRED) -> None:
        self.check, self.make, self.default = check, make, default

    def __set_name__(self, owner: type[Part], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, part: None, owner: type[Part]) -> Member[Value]: ...

    @overload
    def __get__(self, part: Part, owner: type[Part]) -> Value: ...

    def __get__(self, part: Part | None, owner: type[Part]) -> Member[Value] | Value:
        if part is None:
            return self
        if self.name not in part.record and self.default is not _REQUIRED:
            return self.default
        value = part.record[self.name]
        found: Value = value if self.make is None else self.make(value)
        return found


class Changing(Member[Value]):
    """A member that a run changes as it goes."""

    def __set__(self, part: Part, value: Value) -> None:
        part.record[self.name] = value.record if isinstance(value, Part) else value


def _part(kind: type[OnePart]) -> Member[OnePart]:
    return Member(kind.check, kind)


class PolicyOnRecord(Part):
    """A policy under which rows were labelled."""

    sha256 = Member[str](sha256)
    labels = Member[tuple[str, ...]](each(filled, 1), tuple)
    violates = Member[tuple[str, ...]](_names, tuple)


class ModelOnRecord(Part):
    """What the model is: a file's size and the hash of samples of it, or the servers' name for theirs (`served`)."""

    served = Member[str | None](text, default=None)
    bytes = Member[int](_count)
    sampled_sha256 = Member[str](sha256)

    @classmethod
    def check(cls, value: Any, where: str) -> None:
        """Raise Misshapen if `value` is neither."""
        either(table({"served": text}), super().check)(value, where)


class TurnsOnRecord(Part):
    """How the turns of conversations were put together."""

    group = Member[str](text)
    order = Member[str | None](maybe(text))
    role = Member[str | None](maybe(text))
    per = Member[str](one_of("turn", "conversation"))


class InputOnRecord(Part):
    """How the rows were read."""

    format = Member[str](filled)
    encoding = Member[str](filled)
    text_fields = Member[tuple[str, ...]](_names, tuple)
    template = Member[str | None](maybe(text))
    turns = Member[TurnsOnRecord | None](
        maybe(TurnsOnRecord.check), lambda found: TurnsOnRecord(found) if found else None, None
    )
    max_row_bytes = Member[int](integer(1))
    sheet = Member[str | None](text, default=None)
    skip_rows = Member[int](_count, default=0)
    shard = Member[tuple[int, int]](maybe(each(integer(1, 1 << 31), 2)), lambda found: tuple(found or (1, 1)))


class AnswerOnRecord(Part):
    """What was asked of the model; further members are on record for people and for `changes`."""

    effort = Member[str](text)
    ctx = Member[int](_small)
    long = Member[str](text)
    most_reasoning = Member[int](_count, default=0)
    together = Member[bool](flag, default=False)
    calibration = Member[str | None](sha256, default=None)  # the hash of its file


class OutputOnRecord(Part):
    """How the rows were written."""

    format = Member[Written](one_of(*get_args(Written)))
    columns = Member[tuple[str, ...]](_names, tuple)
    keep = Member[list[str] | None](maybe(_names))
    only = Member[str | None](maybe(text))
    csv_safe = Member[bool](flag)
    layout = Member[str | None](maybe(text), default=None)


def _policies(found: Mapping[str, Any]) -> dict[str, PolicyOnRecord]:
    return {name: PolicyOnRecord(policy) for name, policy in found.items()}


class SampleOnRecord(Part):
    """Which rows of a file were asked about, and in which order, so that another person can draw the same ones.

    `rows` are those of the file, or of its shard; `bytes` and `sha256` are the whole file's.
    """

    draw = Member[str](filled)
    seed = Member[int](_count)
    rows = Member[int](_count)
    bytes = Member[int](_count)
    sha256 = Member[str](sha256)


class Identity(Part):
    """All that can change a label; a run is resumed only if nothing of it differs."""

    policies = Member[dict[str, PolicyOnRecord]](by_name(PolicyOnRecord.check, 1), _policies)
    model = _part(ModelOnRecord)
    prompt_layout = Member[str](text)
    input = _part(InputOnRecord)
    answer = _part(AnswerOnRecord)
    output = _part(OutputOnRecord)
    deterministic = Member[int | None](maybe(integer(1, 1 << 31)))
    reuse = Member[list[str] | None](maybe(each(sha256)), default=None)  # outputs that a deterministic run copies from
    sample = Member[SampleOnRecord | None](
        maybe(SampleOnRecord.check), lambda found: found and SampleOnRecord(found), None
    )


class Footing(Part):
    """What of the machine can only move a score's last digits.

    A further session keeps it, unless its settings say otherwise.
    """

    versions = Member[dict[str, str]](by_name(text))
    slots = Member[int | None](integer(1, MOST_SLOTS), default=None)
    cells = Member[int | None](integer(1, MOST_CELLS), default=None)
    batch = Member[int | None](integer(1, MOST_BATCH), default=None)
    threads = Member[int | None](integer(1, MOST_THREADS), default=None)
    extra_buffers = Member[bool | None](flag, default=None)
    engine = Member[dict[str, Any] | None](maybe(table({"name": one_of("ik")})), default=None)  # none: llama.cpp
    servers = Member[dict[str, str] | None](by_name(text), default=None)


class Tallies(Part):
    """What a run counts; an older version counted neither blank rows nor those that the budget cut."""

    rows = Member[int](_count)
    rows_in_error = Member[int](_count)
    errors = Member[dict[str, int]](by_name(_count))
    labels = Member[dict[str, dict[str, int]]](by_name(by_name(_count)))
    violating = Member[dict[str, int]](by_name(_count))
    blank = Member[int](_count, default=0)
    cut = Member[int](_count, default=0)


class Result(Tallies):
    """The result of a finished run."""

    finished = Member[str](text)
    exit_code = Member[int](one_of(0, 3, 5))
    input_exhausted = Member[bool](flag)
    engine_deaths = Member[int](_count)
    command = Member[tuple[str, ...]](_names, tuple)
    input = Member[str](text)
    input_format = Member[str | None](maybe(text), default=None)
    model = Member[str](text)
    model_sha256 = Member[str | None](maybe(text))
    output_sha256 = Member[str](sha256)
    rows_sha256 = Member[str | None](sha256, default=None)  # of the JSONL that an output made at the end comes from
    untrained = Member[tuple[str, ...]](_names, tuple, default=())
    estimate = Member[dict[str, Any] | None](maybe(table({})), default=None)  # of an audit: audit/estimate.py

    @property
    def tallies(self) -> Tallies:
        """Return the counts alone."""
        names = Tallies.members()
        return Tallies({name: count for name, count in self.record.items() if name in names})


class ReusedOnRecord(Part):
    """An output of another run, and how many rows were given verdicts of it."""

    output = Member[str](text)
    sha256 = Member[str](sha256)
    rows = Member[int](_count)


class Done(Part):
    """How far a run is: members of the manifest itself, which change as rows are written.

    `rows`, `output_bytes` and `input_sha256` (a hash over the rows' bytes) describe what was written when the manifest
    was last saved. So does `counts`, which is there if the output itself cannot give the counts (`--only`). Seconds and
    tokens are sums over all sessions. `repeated_rows` had an earlier row's text and got its Verdicts. `policy_tokens`
    were decoded because no kept state had them. `cut_rows` had their reasoning ended by the budget; the count is for
    outputs whose rows do not tell. `planned` is the number of rows that was set before an audit began, 0 for none.
    `reused` are the outputs that --reuse named, if it did, in all sessions. `policy_texts` are the policies', by name.
    """

    rows = Changing[int](_count)
    output_bytes = Changing[int](_count)
    input_sha256 = Changing[str](either(one_of(""), sha256))
    seconds = Changing[float](number())
    repeated_rows = Changing[int](_count)
    policy_tokens = Changing[int](_count)
    prompt_tokens = Changing[int](_count)
    generated_tokens = Changing[int](_count)
    cut_rows = Changing[int](_count, default=0)  # version 0.1.0 did not count them
    counts = Changing[Tallies | None](maybe(Tallies.check), lambda found: None if found is None else Tallies(found))
    planned = Changing[int | None](_count, default=None)
    reused = Changing[list[dict[str, Any]] | None](each(ReusedOnRecord.check), default=None)
    policy_texts = Changing[dict[str, str] | None](by_name(text), default=None)

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        begun: dict[str, Any] = {name: 0 for name, one in self.members().items() if one.default is not None}
        super().__init__({**begun, "input_sha256": "", "seconds": 0.0, "counts": None, **(record or {})})


_around = table(
    {
        "decides": Identity.check,
        "machine": Footing.check,
        "started": text,
        "process": integer(1, MOST_PROCESS),
        "result": maybe(Result.check),
    }
)


def check_manifest(fields: dict[str, Any], members: Iterable[str]) -> None:
    """Raise Misshapen, naming the member, if one is not what it should be; `members` are all of a manifest's."""
    _around(fields, "")
    Done.check(fields, "")
    if unknown := sorted(fields.keys() - members):
        raise Misshapen(f"{unknown[0]} is not a member of a manifest")
    policies = fields["decides"]["policies"]
    for name, policy in policies.items():
        if not {*policy["violates"]} <= {*policy["labels"]}:
            raise Misshapen(f"decides.policies.{name}.violates should be some of its labels")
    shard = fields["decides"]["input"]["shard"]
    if shard and not (len(shard) == 2 and shard[0] <= shard[1]):
        raise Misshapen("decides.input.shard should be a part's number and the number of parts")
    for member in ("counts", "result"):
        for tally in ("labels", "violating"):
            if unknown := sorted((fields.get(member) or {}).get(tally, {}).keys() - policies.keys()):
                raise Misshapen(f"{member}.{tally} has {unknown[0]!r}, which is not a policy of the run")
