"""One row out for every row in, in order, whatever the rows are."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from helpers.fake_engine import FakeEngine, failing

from safeguard_cli import errors
from safeguard_cli.rows.verdict import ErrorCode

pytestmark = pytest.mark.usefixtures("own_cache")


def bad_lines(chance: random.Random) -> Iterator[bytes]:
    yield from (b"\n", b" \n", b"{\n", b"[1]\n", b'"text"\n', b"null\n", b'{"text":\n', b'{"id":1,"text":NaN}\n')
    yield from (b'{"text":"\xff"}\n', b'{"text":"\\ud800"}\n', b'{"text":1}\n', b'{"text":{}}\n', b"{}\r\n", b'"\n')
    yield from (b'a,"b\n', b'a,"b""\n', b'x,y,z,"\n', b'"a""b",c\n', b'"two\nlines",x\n', b"\xfe\xfe,x\n")
    yield from (b",\n", b"\0\n", b"'=1,+2\n")
    yield bytes(chance.choices(b'{}[]",:\\x\xc3\xa9\x00 \n', k=chance.randrange(30))) + b"\n"
    yield b'{"id":1,"text":"' + b"word " * chance.randrange(100) + b'"}\n'
    yield b'{"text":"x","text":null}\n'
    yield b'{"text":"' + b"y" * 3000 + b'"}\n'


@pytest.mark.promise("Every row that goes in comes out once and in order, whatever the rows are.")
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_of_a_thousand_random_files_every_row_comes_out_once_and_in_order(bench, at_once, suffix) -> None:
    """The reader and its own tests decide what an input's rows are: here each row comes out in its place."""
    from safeguard_cli.rows.source import open_source

    chance = random.Random(11)
    bench.source, bench.out = bench.folder / f"in.{suffix}", bench.folder / f"out.{suffix}"
    for _ in range(1000):
        lines = list(bad_lines(chance))
        good = [b'{"id":%d,"text":"hello"}\n', b"%d,hello\n"][suffix == "csv"]
        some = [good % n if chance.random() < 0.5 else chance.choice(lines) for n in range(chance.randrange(12))]
        data = (b"id,text\n" if suffix == "csv" else b"") + b"".join(some)
        bench.source.write_bytes(data[: len(data) - chance.randrange(2)] if some else data)
        with open_source(bench.source, max_row_bytes=2000) as source:
            records = list(source)
        options = {"max_row_bytes": 2000, "context": 2200, "max_windows": 2, "max_reasoning": 4}
        for path in bench.folder.glob("out.*"):
            path.unlink()
        code = bench(text_fields=("text",) if suffix == "csv" else (), **options)
        lines_out = bench.out.read_bytes()
        assert lines_out.endswith(b"\n") or not records
        if suffix == "csv":
            with open_source(bench.out) as out:
                written = list(out)
            assert all(record.error is None for record in written)
            seen = [(record.cells[0], record.cells[-1]) for record in written]
            expected = [record.cells[0] if record.fields is not None else None for record in records]
            assert all(e is None or e == cell for e, (cell, _) in zip(expected, seen, strict=True))
            in_error = [error for record, (_, error) in zip(records, seen, strict=True) if not record.blank]
            assert code == (3 if any(in_error) else 0)
        else:
            written = [json.loads(line) for line in lines_out.splitlines()]
            for record, after in zip(records, written, strict=True):
                if record.fields is None:
                    assert after["_line"] == record.line
                else:
                    assert after.get("id") == record.fields.get("id")
                assert ("error" in after["spam"]) == (after["spam"]["label"] is None)
            in_error = [
                "error" in row["spam"] for record, row in zip(records, written, strict=True) if not record.blank
            ]
            assert code == (3 if any(in_error) else 0)


@pytest.mark.promise("Each error code is reached by a test, and there are no others.")
def test_every_code_of_the_closed_list_is_reached(bench, monkeypatch) -> None:
    from safeguard_cli.prompt.harmony import ControlTokenError, Harmony

    lines = [
        *(
            b'{"text":',
            b"[1]",
            b'{"text":"\xff"}',
            b'{"id":1,"text":null}',
            b'{"text":1}',
            b'{"text":"' + b"x" * 20_000 + b'"}',
        ),
        *(b'{"text":"' + b"word " * 2000 + b'"}', b'{"text":"control"}', b'{"text":"fails"}', b'{"text":"fine"}'),
    ]
    bench.source.write_bytes(b"\n".join(lines) + b"\n")
    real = Harmony.text_ids

    def forged(self: Harmony, text: str) -> list[int]:
        if text == "control":
            raise ControlTokenError
        return real(self, text)

    monkeypatch.setattr(Harmony, "text_ids", forged)
    options = {"max_row_bytes": 15_000, "context": 2500, "max_windows": 2}
    assert bench(failing(8), **options) == errors.ROWS_IN_ERROR
    found = [json.loads(line)["spam"].get("error", {}).get("code") for line in bench.out.read_bytes().splitlines()]
    assert found[-1] is None
    codes = set(get_args(ErrorCode)) - {"server"}  # that one in tests/engine/servers/test_server.py
    assert sorted(found[:-1]) == sorted(codes)
    assert sum(bench.manifest()["result"]["errors"].values()) == len(codes)


@pytest.mark.promise("Memory does not grow with the input.")
def test_memory_does_not_grow_with_the_input(bench) -> None:
    """The million rows of the promise take minutes: with fewer rows, too, growing memory would show."""
    rows = 60_000
    line = '{"id":%d,"text":"see you at noon tomorrow, call me on %d"}\n'
    bench.source.write_text("".join(line % (i, i * 7919 % 100_003) for i in range(rows)))
    page = resource.getpagesize()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    seen = []

    def before(prompt: object) -> None:
        if prompt.row % 2000 == 0:
            seen.append(resident())

    assert bench(lambda *given: FakeEngine(*given, before=before), slots=16) == errors.OK
    assert max(seen) - seen[1] < 60e6
