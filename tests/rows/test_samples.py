"""An input `sample:NAME` is a file that comes with the program, wherever the command is started."""

from __future__ import annotations

import csv
import json
import os
import pty
from collections import Counter
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import rows
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.policy import builtin_policies
from safeguard_cli.rows.samples import input_path, samples
from safeguard_cli.rows.sink import default_output
from safeguard_cli.rows.source import count_rows, open_source
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings


def test_there_are_messages_and_a_golden_set_for_each_policy() -> None:
    assert list(samples()) == ["messages", *(f"golden/{name}" for name in builtin_policies())]
    assert all(path.is_file() for path in samples().values())


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("sample:messages", "messages.jsonl"),
        ("sample:messages.jsonl", "messages.jsonl"),
        ("sample:golden/spam", "golden/spam.jsonl"),
        ("sample:golden/self-harm.jsonl", "golden/self-harm.jsonl"),
    ],
)
def test_a_sample_is_read_wherever_the_command_is_started(text: str, file: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = input_path(text)
    assert Path(path) == ROOT / "samples" / file
    assert count_rows(Path(path)) == len((ROOT / "samples" / file).read_bytes().splitlines())
    with open_source(path) as source:
        assert default_output(source) == Path(f"{Path(file).stem}.labels.jsonl"), "in the working folder"


@pytest.mark.parametrize("text", ["-", "data.jsonl", "/data/*.jsonl", "", "samples/messages.jsonl", "Sample:messages"])
def test_all_else_is_a_path_as_it_is(text: str) -> None:
    assert input_path(text) == text


def test_a_file_that_is_really_called_so_is_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sample:messages").write_text('{"text":"mine"}\n')
    assert input_path("sample:messages") == "sample:messages"


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("sample:mesages", "sample:messages"),
        ("sample:spam", "sample:golden/spam"),
        ("sample:golden/spma", "sample:golden/spam"),
        ("sample:", None),
        ("sample:../messages", "sample:messages"),
        ("sample:golden/../../policies/spam.md", None),
        ("sample:messages.labels", "sample:messages"),
    ],
)
def test_an_unknown_sample_is_refused_with_those_that_there_are(text: str, near: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        input_path(text)
    hint = f"did you mean {near}? " if near else ""
    listed = ", ".join(f"sample:{name}" for name in samples())
    assert str(caught.value) == f"no sample {text!r}; {hint}there are: {listed}"


@given(st.text(max_size=40) | st.text("mesag/.\x1b\n\0\ud800", max_size=6000))
def test_any_name_is_a_sample_or_refused_with_one_short_sentence(name: str) -> None:
    try:
        assert Path(input_path(f"sample:{name}")) in samples().values()
    except UsageError as refused:
        (sentence,) = refused.args
        assert len(sentence) < 4000
        assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in sentence)


def test_a_run_on_a_sample_writes_in_the_working_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "samples").rglob("*")}
    settings = Settings(
        input=input_path("sample:messages"), policies=("spam",), model="demo", effort="none", limit=3, quiet=True
    )
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        assert label(settings) == 0
    os.close(parent)
    written = rows((tmp_path / "messages.labels.jsonl").read_bytes())
    given = rows((ROOT / "samples/messages.jsonl").read_bytes())
    assert [row["text"] for row in written] == [row["text"] for row in given[:3]]
    assert all(row["spam"]["label"] in ("ham", "spam") for row in written)
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "samples").rglob("*")} == before


def test_samples_are_the_same_rows_in_both_formats() -> None:
    rows = [json.loads(line) for line in (ROOT / "samples" / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    with (ROOT / "samples" / "messages.csv").open(encoding="utf-8", newline="") as file:
        assert [{**row, "id": int(row["id"])} for row in csv.DictReader(file)] == rows
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["text"] for row in rows}) == len(rows) >= 60


def test_half_of_the_samples_are_spam() -> None:
    rows = [json.loads(line) for line in (ROOT / "samples" / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = Counter(row["label"] for row in rows)
    assert counts["spam"] == counts["ham"] == len(rows) / 2
