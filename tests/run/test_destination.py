"""No file that is read is ever written, links are written through, and inputs that change are noticed."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT
from helpers.fake_engine import FakeEngine
from helpers.runs import Bench, ids, row

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.merge import merge
from safeguard_cli.rows.sink import default_output
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.writable import check_output, descriptor, is_stream, used

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")

pytestmark = pytest.mark.usefixtures("own_cache")


# What is read is not written


@pytest.fixture
def everything(bench: Bench) -> dict[str, Path]:
    """A file of each kind that a run reads, by what messages call it."""
    bench.fill(3)
    policy, tokenizer = bench.folder / "rules.md", bench.folder / "tokenizer.json"
    shutil.copy(ROOT / "policies" / "spam.md", policy)
    shutil.copy(bench.model, bench.folder / "m.gguf")
    bench.model = bench.folder / "m.gguf"
    tokenizer.write_text("{}")
    (bench.folder / "safeguard.toml").write_text('model = "m.gguf"\n')
    return {
        "the input": bench.source,
        "the policy": policy,
        "the model": bench.model,
        "the tokenizer": tokenizer,
        "the file of settings": bench.folder / "safeguard.toml",
    }


@pytest.mark.promise(
    "A run never writes to a file that it reads: input, policy, model, tokenizer or settings, by "
    "any name, link or stream."
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_no_file_that_a_run_reads_is_its_output(bench, everything, monkeypatch, suffix, link) -> None:
    monkeypatch.chdir(bench.folder)
    options = {"policies": ("rules.md",), "tokenizer": "tokenizer.json", "overwrite": True}
    for what, path in everything.items():
        for name in ("out", "out.run.json", "out.manifest.json", "out.rows.jsonl"):
            head, _, tail = name.partition(".")
            out = bench.folder / f"{head}.{suffix}"
            taken = bench.folder / f"{out.name}{'.' * bool(tail)}{tail}"
            if tail.startswith("rows") and suffix != "parquet":
                continue
            link(path, taken)
            before = bench.state()
            with pytest.raises(UsageError, match=f"{taken.name}.* is {what} itself"):
                bench(output=out.name, **options)
            assert bench.state() == before
            taken.unlink()


def test_no_part_of_a_model_is_the_output(bench) -> None:
    bench.fill(2)
    for part in (1, 2):
        (bench.folder / f"m-0000{part}-of-00002.gguf").write_bytes(b"GGUF")
    os.link(bench.folder / "m-00002-of-00002.gguf", bench.out)
    bench.model = bench.folder / "m-00001-of-00002.gguf"
    with pytest.raises(UsageError, match="this is the model itself"):
        bench(overwrite=True)
    assert bench.out.read_bytes() == b"GGUF"


def test_an_input_with_the_name_of_a_file_beside_the_output_stays(bench) -> None:
    for name in ("x.jsonl.run.json", "x.jsonl.manifest.json"):
        bench.source, bench.out = bench.folder / name, bench.folder / "x.jsonl"
        bench.source.write_text(row(1, "jsonl"))
        before = bench.state()
        with pytest.raises(UsageError, match=f"{name}, which goes beside it, is the input itself"):
            bench(format="jsonl", overwrite=True)
        assert bench.state() == before


def test_a_folder_is_never_the_output(bench) -> None:
    bench.fill(2)
    (bench.folder / "sub").mkdir()
    (bench.folder / "y.jsonl.manifest.json").mkdir()
    for out in ("", ".", "/", str(bench.folder / "sub"), str(bench.folder / "sub" / "..")):
        with pytest.raises(UsageError, match="this is a folder"):
            bench(output=out, overwrite=True)
    with pytest.raises(UsageError, match=r"y\.jsonl\.manifest\.json, which goes beside it, is a folder"):
        bench(output=str(bench.folder / "y.jsonl"), overwrite=True)
    with pytest.raises(UsageError, match="there is no folder"):
        bench(output=str(bench.folder / "none" / "x.jsonl"))
    (bench.folder / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(UsageError, match="leads to itself"):
        bench(output=str(bench.folder / "loop.jsonl"))


def shell(folder: Path, command: str, **more: str) -> subprocess.CompletedProcess:
    """Run a command line in a shell; `label` stands for a quick labeling command."""
    label = f"{SAFEGUARD} label --policy spam --model demo --effort none -q"
    return subprocess.run(
        ["bash", "-c", command.replace("label ", f"{label} ", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **more},
    )


@pytest.mark.promise(
    "A run never writes to a file that it reads: input, policy, model, tokenizer or settings, by "
    "any name, link or stream."
)
@pytest.mark.parametrize(
    "command",
    [
        "label in.jsonl >> in.jsonl",
        "label - < in.jsonl >> in.jsonl",
        "label - -o in.jsonl --overwrite < in.jsonl",
        "label - -o ./link.jsonl --overwrite < in.jsonl",
        "label hard.jsonl >> in.jsonl",
        "label in.jsonl -o /dev/stdout >> in.jsonl",
        "label in.jsonl -o /dev/fd/5 5>> in.jsonl",
        "label /dev/stdin --format jsonl -o in.jsonl --overwrite < in.jsonl",
        "label /dev/fd/5 --format jsonl -o in.parquet --overwrite 5< in.jsonl",
        "label in.jsonl -o out.jsonl >> in.jsonl",
        "label in.jsonl --policy rules.md >> rules.md",
    ],
)
def test_streams_are_compared_not_names(tmp_path, command) -> None:
    (tmp_path / "in.jsonl").write_text("".join(row(number, "jsonl") for number in range(40)))
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    os.link(tmp_path / "in.jsonl", tmp_path / "hard.jsonl")
    os.link(tmp_path / "in.jsonl", tmp_path / "in.parquet")
    shutil.copy(ROOT / "policies" / "spam.md", tmp_path / "rules.md")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = shell(tmp_path, command)
    assert done.returncode == errors.USAGE
    assert "itself; write to another file" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_input_that_the_shell_has_emptied_is_said(tmp_path) -> None:
    for command in (
        "label in.jsonl > in.jsonl",
        "label - < in.jsonl > in.jsonl",
        "label in.jsonl -o /dev/fd/1 > in.jsonl",
    ):
        (tmp_path / "in.jsonl").write_text(row(1, "jsonl"))
        done = shell(tmp_path, command)
        assert done.returncode == errors.USAGE
        assert "the input itself (which the shell has emptied already)" in done.stderr


def test_no_message_goes_into_what_is_read(tmp_path) -> None:
    for command, said in (
        ("label in.jsonl -o out.jsonl 2>> in.jsonl", "standard error goes into the input itself"),
        ("label in.jsonl 2>&1 >> in.jsonl | cat", "standard output goes into the input itself"),
        ("label in.jsonl >> in.jsonl 2>&1", ""),
    ):
        (tmp_path / "in.jsonl").write_text(row(1, "jsonl"))
        done = shell(tmp_path, f"set -o pipefail; {command}")
        assert done.returncode == errors.USAGE
        assert said in done.stdout and not done.stderr
        assert (tmp_path / "in.jsonl").read_text() == row(1, "jsonl")
        assert not (tmp_path / "out.jsonl").exists()


def test_measuring_into_what_is_measured_is_refused(tmp_path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"text":"win cash","label":"spam"}\n{"text":"see you","label":"ham"}\n' * 3)
    before = golden.read_bytes()
    for command in (
        "eval golden.jsonl --policy spam --model demo >> golden.jsonl",
        "compare golden.jsonl golden.jsonl >> golden.jsonl",
        "show golden.jsonl >> golden.jsonl",
        "report golden.jsonl -o golden.jsonl",
        "stress golden.jsonl --policy spam --model demo -o golden.jsonl --overwrite",
        "stress golden.jsonl --policy spam --model demo >> golden.jsonl",
        "stress golden.jsonl --policy spam --model demo --export variants.csv",
    ):
        done = shell(tmp_path, f"{SAFEGUARD} {command}")
        assert done.returncode == errors.USAGE, (command, done.stderr)
        assert golden.read_bytes() == before


def test_a_report_replaces_a_report_alone(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(row(number, "jsonl") for number in range(1, 5)))
    assert shell(tmp_path, "label in.jsonl -o out.jsonl").returncode == errors.OK
    (tmp_path / "page.html").write_text("<title>mine</title>")
    refused = shell(tmp_path, f"{SAFEGUARD} report out.jsonl -o page.html")
    assert (refused.returncode, (tmp_path / "page.html").read_text()) == (4, "<title>mine</title>")
    (tmp_path / "link.html").symlink_to("new.html")
    for _ in range(2):
        assert shell(tmp_path, f"{SAFEGUARD} report out.jsonl -o link.html").returncode == errors.OK
        assert (tmp_path / "link.html").is_symlink()
        assert "safeguard</title>" in (tmp_path / "new.html").read_text()


def test_open_files_are_known_by_their_descriptor(tmp_path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "link2").symlink_to("link")
    numbers = {"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/7": 7, "/proc/self/fd/63": 63, str(tmp_path / "link2"): 1}
    assert {path: descriptor(Path(path)) for path in numbers} == numbers
    assert descriptor(tmp_path / "file") is descriptor(Path("/dev/null")) is None
    assert is_stream(Path("/dev/null"))
    assert not is_stream(tmp_path) and not is_stream(tmp_path / "none") and not is_stream(tmp_path / ("x" * 300))


def test_what_goes_to_an_open_file_is_appended_where_the_shell_appends(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text(row(1, "jsonl"))
    (tmp_path / "kept").write_text("kept\n")
    for out in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert shell(tmp_path, f"label in.jsonl -o {out} >> kept").returncode == errors.OK
    assert (tmp_path / "kept").read_text().startswith("kept\n{")
    assert len((tmp_path / "kept").read_bytes().splitlines()) == 4
    assert not list(Path("/dev").glob("stdout.*"))
    assert shell(tmp_path, "label in.jsonl -o /dev/fd/5 5< in.jsonl").returncode == errors.USAGE


def test_a_named_pipe_gets_the_format_of_its_name(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text(row(1, "jsonl"))
    os.mkfifo(tmp_path / "pipe.tsv")
    done = shell(tmp_path, "label in.jsonl -o pipe.tsv & cat pipe.tsv; wait $!")
    assert done.returncode == errors.OK
    assert done.stdout.startswith("id\ttext\t_extra\tspam_label\t")


def test_standard_input_by_its_name_has_its_default_output_in_the_working_folder(tmp_path) -> None:
    with (tmp_path / "in.jsonl").open("w+b") as file:
        file.write(row(1, "jsonl").encode())
        file.flush()
        with open_source(f"/dev/fd/{file.fileno()}", format="jsonl") as source:
            assert default_output(source) == Path("stdin.labels.jsonl")


# What is there already


@pytest.mark.promise("Without `--overwrite`, a file that is no output of `safeguard` is never touched.")
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_that_is_no_output_is_refused_and_another_name_advised_first(bench, suffix) -> None:
    bench.fill(3)
    bench.out = bench.folder / f"thesis.{suffix}"
    bench.out.write_text("precious\n")
    before = bench.state()
    with pytest.raises(Refused, match=r"is not an output of safeguard: name another file with -o \(--overwrite"):
        bench()
    assert bench.state() == before


def test_merge_refuses_a_file_that_is_no_output(bench) -> None:
    bench.fill(3)
    bench(shard=(1, 1))
    (bench.folder / "all.jsonl").write_text("precious\n")
    with pytest.raises(Refused, match="not an output of safeguard: name another"):
        merge([bench.out], bench.folder / "all.jsonl", overwrite=False, quiet=True)
    with pytest.raises(UsageError, match="record of a shard itself"):
        merge([bench.out], bench.folder / f"{bench.out.name}.manifest.json", overwrite=True, quiet=True)
    with pytest.raises(UsageError, match="the input itself"):
        merge([bench.out], bench.source, overwrite=True, quiet=True)
    for name in ("all.jsonl.gz", "all", "all.csv"):
        with pytest.raises(UsageError, match=r"as they are named|compressed"):
            merge([bench.out], bench.folder / name, overwrite=True, quiet=True)


# Names


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_long_name_works_to_the_end_or_is_refused_at_the_start(bench, no_fsync, suffix) -> None:
    bench.fill(3)
    refused = []
    for length in range(220, 262):
        bench.out = bench.folder / ("x" * (length - len(suffix) - 1) + f".{suffix}")
        before = bench.state()
        try:
            assert bench() == errors.ROWS_IN_ERROR
        except UsageError as problem:
            refused.append(length)
            assert "shorter" in str(problem)
            assert bench.state() == before
            continue
        assert bench() == bench(retry_errors=True) == errors.ROWS_IN_ERROR
        for path in bench.folder.glob("x*"):
            path.unlink()
    longest = 255 - len(".manifest.json") - len(".rows.jsonl") * (suffix == "parquet")
    assert refused == list(range(longest + 1, 262))
    with pytest.raises(UsageError, match=f"must be {261 - longest} characters shorter"):
        bench()


def test_a_long_path_and_long_names_of_other_letters_are_refused_too(tmp_path) -> None:
    beside = tmp_path / ("é" * 121 + ".jsonl.manifest.json")
    with pytest.raises(UsageError, match="must be 7 bytes shorter"):
        check_output(tmp_path / ("é" * 121 + ".jsonl"), (), (beside,))
    deep = tmp_path
    while len(str(deep)) < 4096:
        deep = deep / ("d" * 200)
    with pytest.raises(UsageError, match="characters shorter"):
        check_output(deep / "x.jsonl")


def test_a_folder_that_takes_no_files_is_noticed_before_the_model_loads(bench, monkeypatch) -> None:
    bench.fill(3)
    bench.killed_after(1)

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("safeguard_cli.rows.writable.draft", refuse)  # root may write to every folder
    before = bench.state()
    with pytest.raises(SafeguardError, match="no file can be made there: Permission denied") as failure:
        bench(lambda *_: pytest.fail("the engine was started"))
    assert failure.value.exit_code == errors.FATAL
    assert bench.state() == before


# Links


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_is_written_through(bench, no_fsync, suffix, dangling) -> None:
    """In a run, an overwrite, a retry, a resumed run and a merge: the link stays, and its records stand beside it."""
    bench.fill(30)
    real = bench.folder / "elsewhere" / f"real.{suffix}"
    real.parent.mkdir()
    bench.out = bench.folder / f"link.{suffix}"
    bench.out.symlink_to(f"elsewhere/real.{suffix}")
    if not dangling:
        real.write_bytes(b"")
        if suffix == "parquet":
            pq.write_table(pa.table({"a": [1]}), real)
    bench(lambda *given: FakeEngine(*given, error=lambda prompt: prompt.row == 4), limit=20, overwrite=True)
    bench(limit=20, retry_errors=True)
    bench()
    bench(overwrite=True)

    def holds(rows: int) -> None:
        assert bench.out.is_symlink()
        assert not real.is_symlink()
        found = pq.read_table(real)["id"].to_pylist() if suffix == "parquet" else ids(real.read_bytes(), suffix)
        assert found == list(range(rows))
        assert [path.name for path in real.parent.iterdir()] == [real.name]
        assert bench.manifest()["rows"] == rows

    holds(30)
    shard = bench.folder / f"shard.{suffix}"
    bench(output=str(shard))
    merge([shard], bench.out, overwrite=True, quiet=True)
    holds(30)
    assert bench() == errors.ROWS_IN_ERROR


def test_a_refusal_leaves_a_dangling_link_as_it_was(bench) -> None:
    bench.fill(3)
    bench.out.symlink_to("nothing.jsonl")
    with pytest.raises(UsageError):
        bench(retry_errors=True)
    assert bench.out.is_symlink()
    assert not bench.out.exists()


# The input changes while it is read


def at_row(number: int, change: Callable[[], object]) -> Callable[..., FakeEngine]:
    """Return an engine that does something when it is asked about a row."""
    turns = iter([change])

    def before(prompt: object) -> None:
        if prompt.row >= number:
            next(turns, lambda: None)()

    return lambda *given: FakeEngine(*given, before=before)


def rewrite(path: Path, data: bytes) -> None:
    """Write in place, as a program that keeps the file does; sleep first, as a file system's clock may be coarse."""
    time.sleep(0.02)
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def replace(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    new.replace(path)


def inputs(bench: Bench, suffix: str, rows: int) -> Callable[..., bytes]:
    """Write an input of this format; return what makes its bytes, for a count of rows, with `edit` in every text."""

    def made(count: int, edit: str = "") -> bytes:
        if suffix == "parquet":
            path = bench.folder / "made"
            pq.write_table(
                pa.table({"id": range(count), "text": [f"{edit}call {n} " * 20 for n in range(count)]}), path
            )
            data = path.read_bytes()
            path.unlink()
            return data
        lines = [
            f'{n},"{edit}call {n}"\n' if "csv" in suffix else f'{{"id":{n},"text":"{edit}call {n}"}}\n'
            for n in range(count)
        ]
        data = ("id,text\n" if "csv" in suffix else "").encode() + "".join(lines).encode()
        return gzip.compress(data) if suffix.endswith("gz") else data

    bench.source = bench.folder / f"in.{suffix}"
    bench.out = bench.folder / f"out.{suffix.removesuffix('.gz')}"
    bench.source.write_bytes(made(rows))
    return made


KINDS = ["jsonl", "csv", "parquet", "jsonl.gz"]


@pytest.mark.promise("A run whose input is changed, cut short or replaced while it reads is not finished (exit 1).")
@pytest.mark.parametrize("rows", [40, 6000])  # less and more than is read at once
@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("write", [rewrite, replace])
def test_an_input_that_is_changed_where_it_was_read_is_not_finished(bench, no_fsync, rows, suffix, write) -> None:
    made = inputs(bench, suffix, rows)
    before = bench.source.read_bytes()
    with pytest.raises(SafeguardError, match=r"while it was read|reading failed") as failure:
        bench(at_row(30, lambda: write(bench.source, made(rows, "x"))))
    assert failure.value.exit_code == errors.FATAL
    journal = bench.out if suffix != "parquet" else bench.folder / "out.parquet.rows.jsonl"
    assert not Path(f"{bench.out}.manifest.json").exists()
    assert len(journal.read_bytes().splitlines()) >= 30
    with pytest.raises(Refused, match="not th"):
        bench()
    write(bench.source, before)
    if write is rewrite and rows > 40 and suffix in ("jsonl", "csv"):  # the run had read some of the new rows
        with pytest.raises(Refused, match="--overwrite starts over"):
            bench()
        return
    assert bench() == errors.OK
    assert bench.manifest()["rows"] == rows


@pytest.mark.promise("A run whose input is changed, cut short or replaced while it reads is not finished (exit 1).")
@pytest.mark.parametrize("rows", [40, 6000])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_an_input_that_is_cut_short_is_not_finished_and_gone_on_with_when_it_is_whole(
    bench, no_fsync, rows, suffix
) -> None:
    inputs(bench, suffix, rows)
    before = bench.source.read_bytes()
    with pytest.raises(SafeguardError, match=r"become shorter|cut short") as failure:
        bench(at_row(30, lambda: os.truncate(bench.source, len(before) * 2 // 3)))
    assert failure.value.exit_code == errors.FATAL
    kept = ids(bench.out.read_bytes(), bench.out.suffix[1:])
    assert len(kept) >= 30 and kept == list(range(len(kept)))
    bench.source.write_bytes(before)
    assert bench() == errors.OK
    assert ids(bench.out.read_bytes(), bench.out.suffix[1:]) == list(range(rows))


@pytest.mark.promise("A run whose input is changed, cut short or replaced while it reads is not finished (exit 1).")
@pytest.mark.parametrize("suffix", KINDS)
def test_an_input_that_is_moved_away_is_not_finished(bench, no_fsync, suffix) -> None:
    inputs(bench, suffix, 40)
    away = bench.folder / "away"
    with pytest.raises(SafeguardError, match="moved or deleted while it was read"):
        bench(at_row(30, lambda: bench.source.rename(away)))
    away.rename(bench.source)
    assert bench() == errors.OK


@pytest.mark.parametrize("suffix", KINDS)
def test_an_input_that_is_touched_or_written_again_with_the_same_rows_is_finished(
    bench, no_fsync, capsys, suffix
) -> None:
    made = inputs(bench, suffix, 40)
    same = made(40)
    for change in (
        lambda: os.utime(bench.source),
        lambda: rewrite(bench.source, same),
        lambda: replace(bench.source, same),
    ):
        assert bench(at_row(30, change), overwrite=True) == errors.OK
        assert bench.manifest()["rows"] == 40
    assert "grown" not in capsys.readouterr().err


@pytest.mark.promise("A run whose input only grows labels the rows that were there, finishes, and reports the growth.")
@pytest.mark.parametrize("rows", [40, 6000])
@pytest.mark.parametrize("suffix", KINDS)
def test_an_input_that_only_grows_is_finished_as_far_as_it_went_and_it_is_said(
    bench, no_fsync, capsys, rows, suffix
) -> None:
    made = inputs(bench, suffix, rows)
    more = made(rows + 7)
    assert bench(at_row(30, lambda: rewrite(bench.source, more))) == errors.OK
    assert bench.manifest()["rows"] == rows
    assert "has grown while it was read" in (said := capsys.readouterr().err) and "--append-input" in said
    with pytest.raises(Refused, match="--append-input"):
        bench()
    assert bench(append_input=True) == errors.OK
    assert bench.manifest()["rows"] == rows + 7


@pytest.mark.parametrize("rows", [40, 6000])
def test_a_line_that_is_being_written_when_the_run_begins_is_read_to_its_end(bench, no_fsync, rows) -> None:
    made = inputs(bench, "jsonl", rows)
    whole = made(rows + 3)
    bench.source.write_bytes(whole[: len(made(rows)) - 5])

    def appended() -> None:
        with bench.source.open("ab") as file:
            file.write(whole[bench.source.stat().st_size :])

    assert bench(at_row(0, appended)) == errors.OK
    assert ids(bench.out.read_bytes()) == list(range(rows))
    assert bench(append_input=True) == errors.OK
    assert ids(bench.out.read_bytes()) == list(range(rows + 3))


def test_rows_beyond_the_limit_may_change(bench, no_fsync) -> None:
    made = inputs(bench, "jsonl", 6000)
    data = made(6000)
    assert (
        bench(at_row(3, lambda: rewrite(bench.source, data[:200_000].replace(b"call 5000", b"CALL"))), limit=20)
        == errors.OK
    )
    assert ids(bench.out.read_bytes()) == list(range(20))


def test_standard_input_that_is_a_file_is_watched_too(bench, monkeypatch) -> None:
    made = inputs(bench, "jsonl", 40)
    source = bench.source
    for change, fails in (
        (lambda: rewrite(source, made(40, "x")), True),
        (lambda: rewrite(source, made(50)), False),
        (lambda: os.truncate(source, 100), True),
    ):
        source.write_bytes(made(40))
        with source.open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            bench.source = Path("-")
            if fails:
                with pytest.raises(SafeguardError, match=r"standard input .*while it was read"):
                    bench(at_row(30, change), overwrite=True)
            else:
                assert bench(at_row(30, change), overwrite=True) == errors.OK
                assert bench.manifest()["rows"] == 40


def test_used_files_are_regular_ones(tmp_path) -> None:
    assert used("x", "/dev/null", str(tmp_path), str(tmp_path / "none"), "a\0b") == []
    (tmp_path / "a").write_text("")
    assert [each.what for each in used("x", tmp_path / "a", str(tmp_path / "a"))] == ["x", "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_only_open_files_of_this_process_are_taken_for_its_own(tmp_path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "a" / "out").symlink_to("/dev/fd/7")
    for path in ("/dev/fd/7", "/proc/self/fd/7", "/proc/thread-self/fd/7", f"/proc/{os.getpid()}/fd/7"):
        assert descriptor(Path(path)) == 7
    assert descriptor(tmp_path / "link" / ".." / "out") == 7
    assert descriptor(Path("/dev/stderr")) == 2
    assert descriptor(Path(f"/proc/{os.getppid()}/fd/7")) is None
    assert descriptor(tmp_path / "out") is None
