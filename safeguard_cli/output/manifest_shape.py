"""What stands in a manifest: each object with its members, what they must be like, and what they are read as.

An object is a Part: the JSON as it stands in the file, read by attribute. Members that are not declared are nobody's to
rely on, and stay as they are, so that a manifest of another version is written again with all that is in it.
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
from safeguard_cli.rows.sink import Written

# What llama.cpp can be given; beyond it, it ends the process.
MOST_SLOTS, MOST_THREADS, MOST_BATCH, MOST_CELLS = 256, 512, 1 << 16, 1 << 26
MOST_PROCESS = (1 << 31) - 1

_count = integer()
_small = integer(most=(1 << 31) - 1)
_names = each(text)

Value = TypeVar("Value")
OnePart = TypeVar("OnePart", bound="Part")
_REQUIRED: Any = object()


class Part:
    """A JSON object on record. Its members are declared as a subclass's Members; `record` is the object itself."""

    __slots__ = ("record",)

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    @classmethod
    def members(cls) -> dict[str, Member[Any]]:
        """The declared members by name, a base class's first."""
        classes = reversed(cls.__mro__)
        return {name: one for each in classes for name, one in vars(each).items() if isinstance(one, Member)}

    @classmethod
    def check(cls, value: Any, where: str) -> None:
        """Raise Misshapen where `value`, found at `where`, is no such object."""
        members = cls.members().items()
        needed = {name: one.check for name, one in members if one.default is _REQUIRED}
        table(needed, {name: one.check for name, one in members if name not in needed})(value, where)

    def changed(self: OnePart, **members: Any) -> OnePart:
        """Return the same with other values of some members."""
        return type(self)({**self.record, **members})


class Member(Generic[Value]):
    """A member of a Part: what it must be like, and what is made of its JSON. One with a default may be missing."""

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
    """A policy that rows were labelled under."""

    sha256 = Member[str](sha256)
    labels = Member[tuple[str, ...]](each(filled, 1), tuple)
    violates = Member[tuple[str, ...]](_names, tuple)


class ModelOnRecord(Part):
    """What the model is: a file's size and the hash of samples of it, or what servers call theirs (`served`)."""

    served = Member[str | None](text, default=None)
    bytes = Member[int](_count)
    sampled_sha256 = Member[str](sha256)

    @classmethod
    def check(cls, value: Any, where: str) -> None:
        """Raise Misshapen where `value` is neither."""
        either(table({"served": text}), super().check)(value, where)


class InputOnRecord(Part):
    """How the rows were read."""

    format = Member[str](filled)
    encoding = Member[str](filled)
    text_fields = Member[tuple[str, ...]](_names, tuple)
    template = Member[str | None](maybe(text))
    max_row_bytes = Member[int](integer(1))
    shard = Member[tuple[int, int]](maybe(each(integer(1, 1 << 31), 2)), lambda found: tuple(found or (1, 1)))


class AnswerOnRecord(Part):
    """What was asked of the model; other members are on record for people and for `changes`."""

    effort = Member[str](text)
    ctx = Member[int](_small)
    long = Member[str](text)
    most_reasoning = Member[int](_count, default=0)
    together = Member[bool](flag, default=False)


class OutputOnRecord(Part):
    """How the rows were written."""

    format = Member[Written](one_of(*get_args(Written)))
    columns = Member[tuple[str, ...]](_names, tuple)
    keep = Member[list[str] | None](maybe(_names))
    only = Member[str | None](maybe(text))
    csv_safe = Member[bool](flag)


def _policies(found: Mapping[str, Any]) -> dict[str, PolicyOnRecord]:
    return {name: PolicyOnRecord(policy) for name, policy in found.items()}


class Identity(Part):
    """All that can change a label; a run is continued only where nothing of it differs."""

    policies = Member[dict[str, PolicyOnRecord]](by_name(PolicyOnRecord.check, 1), _policies)
    model = _part(ModelOnRecord)
    prompt_layout = Member[str](text)
    input = _part(InputOnRecord)
    answer = _part(AnswerOnRecord)
    output = _part(OutputOnRecord)
    deterministic = Member[int | None](maybe(integer(1, 1 << 31)))


class Footing(Part):
    """What of the machine can only move a score's last digits; a further session keeps it where nothing else is asked
    for."""

    versions = Member[dict[str, str]](by_name(text))
    slots = Member[int | None](integer(1, MOST_SLOTS), default=None)
    cells = Member[int | None](integer(1, MOST_CELLS), default=None)
    batch = Member[int | None](integer(1, MOST_BATCH), default=None)
    threads = Member[int | None](integer(1, MOST_THREADS), default=None)
    extra_buffers = Member[bool | None](flag, default=None)
    servers = Member[dict[str, str] | None](by_name(text), default=None)


class Tallies(Part):
    """What a run counts. An older version counted neither blank rows nor those that the budget cut."""

    rows = Member[int](_count)
    rows_in_error = Member[int](_count)
    errors = Member[dict[str, int]](by_name(_count))
    labels = Member[dict[str, dict[str, int]]](by_name(by_name(_count)))
    violating = Member[dict[str, int]](by_name(_count))
    blank = Member[int](_count, default=0)
    cut = Member[int](_count, default=0)


class Result(Tallies):
    """What a finished run came to."""

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
    rows_sha256 = Member[str | None](sha256, default=None)  # of the JSONL that a Parquet output was made from
    untrained = Member[tuple[str, ...]](_names, tuple, default=())

    @property
    def tallies(self) -> Tallies:
        """The counts alone."""
        names = Tallies.members()
        return Tallies({name: count for name, count in self.record.items() if name in names})


class Done(Part):
    """How far a run is: members of the manifest itself, which change as rows are written.

    `rows`, `output_bytes` and `input_sha256` (a hash over the rows' bytes) are of what was written when the manifest
    was last saved, `counts` too where the output itself cannot tell them (`--only`). Seconds and tokens are of all
    sessions together; `repeated_rows` had an earlier row's content and got its Verdicts, `policy_tokens` were decoded
    because no kept state had them, `cut_rows` are those whose reasoning the budget ended, for outputs whose rows do not
    say so.
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

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        begun: dict[str, Any] = dict.fromkeys(self.members(), 0)
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
    """Raise Misshapen, saying which member is not what it should be; `members` are all that a manifest can have."""
    _around(fields, "")
    Done.check(fields, "")
    if unknown := sorted(fields.keys() - members):
        raise Misshapen(f"{unknown[0]} is no member of a manifest")
    policies = fields["decides"]["policies"]
    for name, policy in policies.items():
        if not {*policy["violates"]} <= {*policy["labels"]}:
            raise Misshapen(f"decides.policies.{name}.violates should be some of its labels")
    shard = fields["decides"]["input"]["shard"]
    if shard and not (len(shard) == 2 and shard[0] <= shard[1]):
        raise Misshapen("decides.input.shard should be a part and how many there are")
    for member in ("counts", "result"):
        for tally in ("labels", "violating"):
            if unknown := sorted((fields.get(member) or {}).get(tally, {}).keys() - policies.keys()):
                raise Misshapen(f"{member}.{tally} has {unknown[0]!r}, which is no policy of the run")
