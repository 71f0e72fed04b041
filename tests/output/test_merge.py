"""Merged outputs of an input's shards have the same rows, in the same order, as one run over the whole input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_engine import Steady
from helpers.runs import Bench, ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.merge import merge
from safeguard_cli.rows.source import count_rows, open_source
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache", "no_fsync")


lines = st.sampled_from(
    [b'{"id":1,"text":"a"}\n', b"\n", b"{\n", b'"\n', b'x,"y\nz",\n', b"1,2\n", b'a,"b\n', b"\xff\n", b'"q""\n",2\r\n']
)


@pytest.mark.promise("The shards of an input hold each of its rows once.")
@settings(max_examples=300)
@given(st.lists(lines, max_size=12).map(b"".join), st.integers(1, 5), st.sampled_from(["jsonl", "csv"]))
def test_shards_have_each_row_of_any_input_once(tmp_path_factory, data, parts, suffix) -> None:
    path = tmp_path_factory.getbasetemp() / f"shards.{suffix}"
    head = b"id,text\n" if suffix == "csv" else b'{"id":0,"text":"a"}\n'  # one that begins otherwise may be refused
    path.write_bytes(head + data)
    with open_source(path) as source:
        whole = list(source)
    found = []
    for part in range(1, parts + 1):
        with open_source(path, shard=(part, parts)) as source:
            source.first()
            mine = list(source)
        assert mine == whole[part - 1 :: parts]
        assert len(mine) == count_rows(path, shard=(part, parts))
        found += mine
    assert sorted(found, key=lambda record: record.index) == whole


def shards_of(bench: Bench, parts: int, **options: object) -> list[Path]:
    out = bench.out
    made = []
    for part in range(1, parts + 1):
        bench.out = out.with_name(f"part{part}{out.suffix}")
        bench(Steady, shard=(part, parts), overwrite=True, **options)
        made.append(bench.out)
    bench.out = out
    return made


@pytest.mark.promise("Merged shards equal the unsharded output byte for byte, where scores do not move with the batch.")
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 30),
    st.integers(1, 4),
    st.sampled_from([("jsonl", "jsonl"), ("csv", "csv"), ("jsonl", "csv"), ("csv", "jsonl")]),
    st.randoms(),
)
def test_merged_shards_are_byte_for_byte_the_whole(bench, at_once, rows, parts, formats, chance) -> None:
    bench.fill(rows, formats[0])
    bench.out = bench.folder / f"out.{formats[1]}"
    bench(Steady, overwrite=True)
    whole = bench.out.read_bytes()
    expected = bench.manifest()
    made = shards_of(bench, parts)
    chance.shuffle(made)
    code = merge(made, bench.out, overwrite=True, quiet=True)
    assert bench.out.read_bytes() == whole
    manifest = bench.manifest()
    for key in ("rows", "labels", "errors", "violating", "rows_in_error", "output_sha256", "exit_code"):
        assert manifest["result"][key] == expected["result"][key], key
    assert (manifest["decides"], manifest["input_sha256"]) == (expected["decides"], expected["input_sha256"])
    assert bench(Steady) == code  # the merged output counts as the finished output of the whole input


def test_parquet_shards_are_merged(bench) -> None:
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    made = pa.table({"id": range(200), "text": [f"call {at}" if at % 7 else None for at in range(200)]})
    pq.write_table(made, bench.source, row_group_size=61)
    bench(Steady)
    whole = pq.read_table(bench.out)
    bench.out.unlink()
    merge(shards_of(bench, 3), bench.out, overwrite=True, quiet=True)
    assert pq.read_table(bench.out).equals(whole)
    assert bench.manifest()["input_sha256"]


@pytest.mark.parametrize("format", ["jsonl", "ndjson", "csv", "tsv"])
def test_shards_of_an_input_whose_name_does_not_say_its_format_are_merged(bench, capsys, monkeypatch, format) -> None:
    """Also in another folder than they were labelled in; the merged output can be resumed."""
    data = bench.fill(20, "jsonl" if "js" in format else "csv").decode()
    if format == "tsv":
        data = "id\ttext\n" + "".join(f"{number}\tcall, me {number}\n" for number in range(20))
    bench.source = bench.folder / "data.txt"
    bench.source.write_text(data, newline="")
    bench.out = bench.folder / "out.jsonl"
    monkeypatch.chdir(bench.folder)
    source, bench.source = bench.source, Path(bench.source.name)
    made = shards_of(bench, 2, format=format)
    monkeypatch.chdir("/")
    code = merge(made, bench.out, overwrite=False, quiet=True)
    assert "cannot be checked" not in capsys.readouterr().err
    assert [int(number) for number in ids_of(bench.out)] == list(range(20))
    bench.source = source
    assert bench(format=format) == code
    with source.open("a") as file:
        file.write('{"id":20,"text":"new"}\n' if "js" in format else "20\tnew\n" if format == "tsv" else "20,new\n")
    assert bench(format=format, append_input=True) == code
    assert len(ids_of(bench.out)) == 21


def test_an_input_whose_name_is_not_utf8_is_found_again(bench) -> None:
    bench.fill(10)
    bench.source = bench.source.rename(bench.folder / os.fsdecode(b"in\xe9.jsonl"))
    assert merge(shards_of(bench, 2), bench.out, overwrite=False, quiet=True) == bench() == 3
    assert bench.manifest()["input_sha256"]


def ids_of(path: Path) -> list[object]:
    return [json.loads(line).get("id", 0) for line in path.read_bytes().splitlines()]


def test_shards_of_standard_input_are_merged_and_the_right_reason_is_said(bench, capsys, monkeypatch) -> None:
    bench.fill(10)
    made = []
    for part in (1, 2):
        made.append(bench.folder / f"part{part}.jsonl")
        with bench.source.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            label(
                Settings(
                    "-",
                    ("spam",),
                    model=str(bench.model),
                    quiet=True,
                    slots=2,
                    threads=1,
                    output=str(made[-1]),
                    shard=(part, 2),
                ),
                Steady,
            )
    assert merge(made, bench.out, overwrite=False, quiet=True) == 3
    assert "nor resumed: the rows were read from standard input" in capsys.readouterr().err


def test_a_shard_that_was_killed_is_continued_and_only_as_itself(bench) -> None:
    bench.fill(90)
    bench.killed_after(12, shard=(2, 3))
    with pytest.raises(Refused, match=r"input\.shard"):
        bench(shard=(1, 3))
    assert bench(shard=(2, 3)) == 3
    assert ids(bench.out.read_bytes()) == list(range(1, 90, 3))


def test_what_does_not_make_a_whole_is_refused_and_nothing_written(bench, capsys) -> None:
    bench.fill(20)
    made = shards_of(bench, 3)
    out = bench.folder / "merged.jsonl"

    def refused(outputs: list[Path], match: str, target: Path = out) -> None:
        with pytest.raises(UsageError, match=match):
            merge(outputs, target, overwrite=False, quiet=True)
        assert not out.exists()

    refused(made[:2], "missing: shard 3/3")
    refused([*made, made[0]], "both shard 1/3")
    refused([*made[:2], bench.source], "not a finished output")
    refused(made, "named", target=bench.folder / "merged.csv")
    refused(made, "this is a shard itself", target=made[1])
    bench.out = bench.folder / "whole.jsonl"
    bench()
    refused([bench.out, *made], "labelled differently")
    bench.out = made[2]
    bench(shard=(3, 3), overwrite=True, effort="none")
    refused(made, "effort")
    bench(Steady, shard=(3, 3), overwrite=True, limit=2)
    refused(made, "--limit")
    bench(Steady, shard=(3, 3), overwrite=True, only="violates")
    refused(made[2:], "--only")
    bench(Steady, shard=(3, 3), overwrite=True)
    made[0].write_bytes(made[0].read_bytes().replace(b"spam", b"SPAM", 1))
    refused(made, "changed after")
    made = shards_of(bench, 3)
    bench.source.write_text(json.dumps({"text": "x"}) + "\n")
    refused(made, "it has changed")
    bench.source.unlink()
    assert merge(made, out, overwrite=False, quiet=True) == 3
    assert "cannot be checked" in capsys.readouterr().err
    assert ids(out.read_bytes()) == list(range(20))


def test_an_input_whose_name_on_record_no_file_can_have_is_reported_and_the_rows_are_merged(bench, capsys) -> None:
    bench.fill(6)
    shards = [bench.folder / f"part{part}.jsonl" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))
    record = shards[0].with_name("part1.jsonl.manifest.json")
    made = json.loads(record.read_bytes())
    for name in ("x" * 5000, "", "\0", "a/b/c"):
        made["result"]["input"] = name
        record.write_text(json.dumps(made))
        out = bench.folder / "merged.jsonl"
        merge(shards, out, overwrite=True, quiet=True)
        assert len(out.read_bytes().splitlines()) == 6
        assert "cannot be checked against its input" in " ".join(capsys.readouterr().err.split())


def test_a_shard_that_is_gone_is_refused_in_a_sentence(bench) -> None:
    bench.fill(6)
    shards = [bench.folder / f"part{part}.jsonl" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))
    shards[1].unlink()
    with pytest.raises(UsageError, match="was changed after it was finished"):
        merge(shards, bench.folder / "merged.jsonl", overwrite=False, quiet=True)
