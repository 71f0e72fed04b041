"""Which session a run has, and that `label` runs straight through it."""

from __future__ import annotations

import inspect
import io
import json
from contextlib import contextmanager

import pytest
from helpers.fake_engine import FakeEngine

from safeguard_cli import errors
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.errors import SafeguardError
from safeguard_cli.rows.sink import open_sink, verdict_columns
from safeguard_cli.rows.text import make_selector
from safeguard_cli.run import label as run
from safeguard_cli.run import sessions
from safeguard_cli.run.destination import File, MadeFile, Scratch, Stream
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.engines import start_engine
from safeguard_cli.run.pipeline import Part, Pipeline
from safeguard_cli.run.prepare import load_policies, open_input, prepare
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache", "no_fsync")


@pytest.fixture
def seen(monkeypatch) -> list[tuple[str, str]]:
    """Collect the kinds of session and destination of all runs, in order."""
    found: list[tuple[str, str]] = []

    @contextmanager
    def open_session(job, destination):
        with sessions.open_session(job, destination) as session:
            found.append((type(session).__name__, type(destination).__name__))
            yield session

    monkeypatch.setattr(run, "open_session", open_session)
    return found


def test_label_is_at_most_30_lines() -> None:
    assert len(inspect.getsource(run.label).splitlines()) <= 30


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_each_state_of_an_output_has_its_session(bench, seen, suffix) -> None:
    bench.fill(20)
    bench.out = bench.folder / f"out.{suffix}"
    file = MadeFile.__name__ if suffix == "parquet" else File.__name__
    for options, kind in (
        ({"limit": 5}, "New"),
        ({"limit": 5}, "Finished"),
        ({"limit": 9}, "Continued"),
        ({"retry_errors": True}, "Retried"),
        ({}, "Continued"),
        ({}, "Finished"),
        ({"append_input": True}, "Continued"),
        ({"overwrite": True}, "New"),
    ):
        bench(**options)
        assert seen.pop() == (kind, file), options
    assert bench.manifest()["result"]["rows"] == 20


def test_a_pipe_and_a_scratch_file_have_theirs(bench, seen, capfdbinary) -> None:
    bench.fill(3)
    assert bench(output="-") == errors.ROWS_IN_ERROR
    assert [json.loads(line)["id"] for line in capfdbinary.readouterr().out.splitlines()] == [0, 1, 2]
    assert seen == [("Piped", Stream.__name__)]
    bench(scratch=True)
    assert seen[1:] == [("New", Scratch.__name__)]


def test_a_journal_made_again_stays_when_rows_were_labelled_and_goes_when_none_were(bench, monkeypatch) -> None:
    """For a resumed Parquet output: before its session begins nothing may be left, afterwards everything must be."""
    bench.fill(20)
    bench.out = bench.folder / "out.parquet"
    journal = bench.folder / "out.parquet.rows.jsonl"
    bench(limit=5)
    whole = bench.out.read_bytes()

    def broken(*given: object) -> FakeEngine:
        raise SafeguardError("no engine")

    with pytest.raises(SafeguardError, match="no engine"):
        bench(broken)
    assert [path.name for path in bench.folder.glob("out.*")] == ["out.parquet", "out.parquet.manifest.json"]
    assert bench.out.read_bytes() == whole

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("safeguard_cli.run.to_parquet.write_parquet", full)
        with pytest.raises(SafeguardError, match="run the same command to resume from there"):
            bench()
    assert len(journal.read_bytes().splitlines()) == 20
    assert bench.out.read_bytes() == whole
    assert bench(broken) == errors.ROWS_IN_ERROR  # there is nothing left to label
    assert not journal.exists()
    assert bench.manifest()["rows"] == 20


def test_a_pipeline_needs_no_session_to_label_rows_in_memory(tiny, tmp_path) -> None:
    """With the real engine, the pipeline writes the same bytes as `label`, and no other file."""
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"id": n, "text": f"free prize {n % 3}" if n else None}) + "\n" for n in range(6))
    )
    out = tmp_path / "out.jsonl"
    settings = Settings(
        str(source), ("spam",), output=str(out), model=str(tiny), effort="none", slots=2, threads=1, quiet=True
    )
    assert run.label(settings) == errors.ROWS_IN_ERROR
    policies = load_policies(settings)
    columns, written = verdict_columns(windows=True, truncated=False, rationale=False, reasoning=False), io.BytesIO()
    with open_input(settings) as rows:
        prepared = prepare(settings, policies, {})
        selector = make_selector(rows, text_fields=("text",), template=None)
        progress = make_progress("none", policies, quiet=True)
        pipeline = Pipeline(settings, prepared, progress)
        sink = open_sink(written, source=rows, format="jsonl", names=["spam"], columns=columns)
        with progress, start_engine(settings, prepared, LocalEngine) as engine, sink:
            part = Part(iter(rows), selector, progress, sink)
            pipeline.label([part], engine)
    assert written.getvalue() == out.read_bytes()
    assert (part.session.written, progress.written.rows_in_error) == (6, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.manifest.json"}
