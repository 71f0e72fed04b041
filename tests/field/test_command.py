"""The installed command in the folders and with the file names that people have."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from safeguard_cli.model.find import find_model

COMMAND = Path(sys.executable).with_name("safeguard")
LABEL = "safeguard label in.jsonl --policy spam --effort none"
BENCH = "safeguard bench --policy spam --effort none --slots 1 --threads 1 --batch 512 --seconds 0.1 --rows 2 -q"
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"id":1,"text":"see you at noon"}\n{"id":2,"text":"WIN a prize \u2192 \u00e9"}\n'
    )


def ids(path: Path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        (f"{LABEL} --model my.gguf -o out.jsonl", {}),
        (f"mkdir sub; {LABEL} --model ./sub/../my.gguf -o out.jsonl", {}),
        (f"{LABEL} -o out.jsonl", {"SAFEGUARD_MODEL": "my.gguf"}),
        (f"echo 'model = \"my.gguf\"' > safeguard.toml; {LABEL} -o out.jsonl", {}),
        (f"ln -s my.gguf link.gguf; {LABEL} --model link.gguf -o out.jsonl", {}),
        (f"mkdir -p a/b && mv my.gguf a && ln -s a/b link; {LABEL} --model link/../my.gguf -o out.jsonl", {}),
        (f"{LABEL} --model demo -o out.jsonl", {"XDG_CACHE_HOME": "cache"}),
        (f"{BENCH} --model my.gguf && cp in.jsonl out.jsonl", {}),
        ("safeguard eval gold.jsonl --policy spam --model my.gguf --effort none --json && cp in.jsonl out.jsonl", {}),
    ],
)
def test_a_model_is_found_by_a_relative_path(line, variables, shell: Shell, tmp_path) -> None:
    shutil.copy(find_model("demo"), tmp_path / "my.gguf")
    (tmp_path / "gold.jsonl").write_text(
        '{"text":"see you at noon","label":"ham"}\n{"text":"WIN a prize","label":"spam"}\n'
    )
    ended = shell(line, **variables)
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / "out.jsonl") == [1, 2]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_a_run_needs_no_stream_that_it_does_not_use(closed, shell: Shell, tmp_path) -> None:
    ended = shell(f"{LABEL} --model demo -o out.jsonl {closed}")
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / "out.jsonl") == [1, 2]


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (f"{LABEL} --model demo >&-", 2, b"standard output is closed"),
        ("safeguard label - --policy spam --model demo <&-", 2, b"standard input is closed"),
        (f"{LABEL} --model demo >/dev/full", 1, b"standard output"),
        ("safeguard policy list >/dev/full", 1, b"standard output cannot be written: No space left"),
        ("safeguard policy list >&-", 2, b"standard output is closed"),
        ("safeguard policy show spam >/dev/full", 1, b"standard output cannot be written: No space left"),
        ("safeguard --help >/dev/full", 1, b"standard output cannot be written: No space left"),
        ("safeguard --version >&-", 2, b"standard output is closed"),
        (f"{LABEL} --model demo --dry-run >/dev/full", 1, b"standard output cannot be written: No space left"),
        ("safeguard label missing.jsonl --policy spam 2>&-", 2, b""),
        ("safeguard label --no-such-option 2>/dev/full", 2, b""),
    ],
)
def test_a_stream_that_is_needed_and_gone_is_a_sentence(line, code, sentence, shell: Shell) -> None:
    ended = shell(line)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert b"internal error" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "line",
    [
        f"{LABEL} --model demo -o out.jsonl --progress plain && safeguard show out.jsonl",
        f"{LABEL} --model demo --dry-run",
        "safeguard eval gold\u00e9.jsonl --policy spam --model demo --effort none",
        "safeguard label --help && safeguard policy list && safeguard models",
    ],
)
def test_a_narrow_encoding_is_no_failure(encoding, line, shell: Shell, tmp_path) -> None:
    gold = '{"text":"see you \u2192","label":"ham"}\n{"text":"WIN \u00e9","label":"spam"}\n'
    (tmp_path / "gold\u00e9.jsonl").write_text(gold)
    ended = shell(line, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert b"Error" not in ended.stderr


def test_json_is_utf8_whatever_the_encoding_of_the_terminal(shell: Shell, tmp_path) -> None:
    (tmp_path / "gold.jsonl").write_text('{"text":"\u2192 see you","label":"spam"}\n{"text":"WIN","label":"spam"}\n')
    ended = shell("safeguard eval gold.jsonl --policy spam --model demo --effort none --json", PYTHONIOENCODING="ascii")
    assert json.loads(ended.stdout)["rows"] == 2


def test_names_that_are_no_utf8(shell: Shell, tmp_path) -> None:
    for line in (
        b"mv in.jsonl i\xe9.jsonl; safeguard label i\xe9.jsonl --policy spam --model demo --effort none -o o\xe9.jsonl",
        b"safeguard label i\xe9.jsonl --policy spam --model demo --effort none -o o\xe9.jsonl",
        b"safeguard show o\xe9.jsonl --json | python3 -m json.tool",
        b"safeguard compare o\xe9.jsonl o\xe9.jsonl --json",
        b"safeguard report o\xe9.jsonl -o r\xe9.html",
    ):
        ended = shell(line)
        assert ended.returncode == 0, (line, ended.stderr)
    assert ended.stderr == b"wrote r\\udce9.html; it opens in any browser, without a network\n"


def test_a_file_named_like_standard_input_is_a_file(shell: Shell, tmp_path) -> None:
    ended = shell(
        "mv in.jsonl ./-; safeguard label ./- --format jsonl --policy spam --model demo -o out.jsonl </dev/null"
    )
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / "out.jsonl") == [1, 2]
    assert b"2, 2 labelled" in ended.stderr


def test_a_deleted_working_folder(shell: Shell, tmp_path) -> None:
    command = f"safeguard label {tmp_path}/in.jsonl --policy spam --model demo --effort none -o {tmp_path}/out.jsonl"
    ended = shell(f"mkdir gone && cd gone && rmdir ../gone && {command}")
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / "out.jsonl") == [1, 2]
    assert shell("mkdir gone && cd gone && rmdir ../gone && safeguard label in.jsonl --policy spam").returncode == 2
    ended = shell(f"mkdir gone && cd gone && rmdir ../gone && {LABEL} --model demo -o out.jsonl")
    assert ended.returncode == 1
    assert ended.stderr == b"error: the working folder was deleted: start in another one, or give whole paths\n"


def test_shards_of_an_input_behind_a_linked_folder_are_merged_and_checked(shell: Shell, tmp_path) -> None:
    one = "--policy spam --effort none --model demo -q --shard"
    ended = shell(
        "mkdir -p a/b && mv in.jsonl a && ln -s a/b link && "
        f"for n in 1 2; do safeguard label link/../in.jsonl {one} $n/2 -o part.$n.jsonl; done;"
        "safeguard merge part.?.jsonl -o out.jsonl"
    )
    assert ended.returncode == 0, ended.stderr
    assert b"cannot be checked" not in ended.stderr
    assert ids(tmp_path / "out.jsonl") == [1, 2]


def test_the_command_that_goes_on_can_be_copied_whatever_the_names(shell: Shell, tmp_path) -> None:
    long_input(tmp_path)
    out = "a\nb \u200d\x1b[1m'\\o.jsonl"
    (tmp_path / "out.jsonl").symlink_to(out)
    (tmp_path / "name").write_text(out)
    command = 'safeguard label in.jsonl --policy spam --model demo --effort none -o "$(cat name)"'
    ended = shell(f"{command} & p=$!; {WAIT}; kill -TERM $p; wait $p")
    assert ended.returncode == 143, ended.stderr
    ended = shell(ended.stderr.decode().rpartition("to go on: ")[2])
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / out) == list(range(300))


def test_a_file_name_makes_no_line_of_an_error(shell: Shell) -> None:
    ended = shell("safeguard label $'x\\nerror: all is lost.jsonl' --policy spam")
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: x\\nerror: all is lost.jsonl: ")
    assert ended.stderr.count(b"\n") == 1


def test_ctrl_c_while_the_command_is_imported_shows_no_traceback(shell: Shell, tmp_path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    ended = shell(f"trap - INT; {sys.executable} -m safeguard_cli; echo $?")
    assert (ended.stdout, ended.stderr) == (b"130\n", b"")


def long_input(tmp_path: Path) -> None:
    rows = (json.dumps({"id": n, "text": f"the meeting about part {n} is at noon"}) for n in range(300))
    (tmp_path / "in.jsonl").write_text("\n".join(rows))


WAIT = "for i in $(seq 400); do [ -s out.jsonl ] && break; sleep 0.02; done"


def test_a_hangup_ends_a_run_like_a_termination(shell: Shell, tmp_path) -> None:
    long_input(tmp_path)
    command = "safeguard label in.jsonl --policy spam --model demo -o out.jsonl"
    ended = shell(f"{command} & p=$!; {WAIT}; kill -HUP $p; wait $p")
    assert ended.returncode == 143, ended.stderr
    done = ids(tmp_path / "out.jsonl")
    assert done == list(range(len(done)))
    assert 0 < len(done) < 300
    assert b"to go on: safeguard label" in ended.stderr


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_that_was_ignored_stays_ignored(name, shell: Shell, tmp_path) -> None:
    long_input(tmp_path)
    command = f"(trap '' {name}; exec safeguard label in.jsonl --policy spam --model demo --effort none -o out.jsonl)"
    ended = shell(f"{command} & p=$!; {WAIT}; kill -{name} $p; wait $p")
    assert ended.returncode == 0, ended.stderr
    assert ids(tmp_path / "out.jsonl") == list(range(300))


@pytest.mark.parametrize("kind", ["rich", "plain"])
def test_a_full_terminal_that_nobody_reads_keeps_no_run_waiting(kind, tmp_path) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 64)
    os.set_blocking(theirs, True)
    command = ["label", "in.jsonl", "--policy", "spam", "--model", "demo", "--effort", "none", "-o", "out.jsonl"]
    ended = subprocess.run(
        [COMMAND, *command, "--progress", kind], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60
    )
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 0
    assert ids(tmp_path / "out.jsonl") == [1, 2]
