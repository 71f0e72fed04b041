"""A run that cannot be resumed is refused, and nothing is touched."""

from __future__ import annotations

import json
import os

import pytest
from helpers import tiny_model
from helpers.fake_engine import FakeEngine
from helpers.runs import ids

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.output.manifest import Refused

pytestmark = pytest.mark.usefixtures("own_cache")


CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "policy": ({"policies": ("hate",), "rename": "spam"}, "policies.spam.sha256"),
    "labels": ({"labels": ("spam", "ham")}, "policies.spam.labels"),
    "effort": ({"effort": "none"}, "answer.effort"),
    "threshold": ({"threshold": 0.5}, "answer.threshold"),
    "columns": ({"rationale": True}, "answer.rationale"),
    "keep": ({"keep": "id"}, "output.keep"),
    "another text": ({"template": "{id} {text}"}, "input.template"),
    "context": ({"context": 4096}, "answer.ctx"),
    "deterministic": ({"deterministic": True}, "deterministic"),
}


@pytest.mark.promise(
    "After a change that can change a label, a run refuses to resume (exit 4), names the change and touches nothing."
)
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", [*CHANGES, "model", "input", "shorter input"])
def test_what_can_change_a_label_refuses_and_touches_nothing(bench, tmp_path, change, finished) -> None:
    data = bench.fill(40)
    if finished:
        bench()
    else:
        bench.killed_after(30)
    options, said = CHANGES.get(change, ({}, ""))
    if change == "model":
        other = tmp_path / "model"
        other.mkdir()
        bench.model, said = tiny_model.write(other / "tiny.gguf", seed=1), "model.sampled_sha256"
    if change == "input":
        bench.source.write_bytes(data.replace(b'"id": 17, ', b'"id": 17,  '))
        said = "input"
    if change == "shorter input":
        bench.source.write_bytes(b"".join(data.splitlines(keepends=True)[:5]))
        said = "input"
    before = bench.state()
    with pytest.raises(Refused, match=said) as refusal:
        bench(**options)
    assert refusal.value.exit_code == 4
    assert "--overwrite starts over" in str(refusal.value)
    assert bench.state() == before
    assert bench(overwrite=True, **options) in (errors.OK, errors.ROWS_IN_ERROR)


@pytest.mark.promise(
    "After a change that can change a label, a run refuses to resume (exit 4), names the change and touches nothing."
)
@pytest.mark.parametrize(
    ("old", "new"), [('{"id":3}', '{"id":3,"a":1}'), ('{"id":3,"a":1}', '{"id":3}'), ("[1]", "[2]"), ("{}", '{"a":1}')]
)
def test_an_input_row_that_was_changed_behind_the_last_save_is_noticed(bench, old, new) -> None:
    data = bench.fill(20)
    lines = data.decode().splitlines()
    lines[3] = old
    bench.source.write_text("\n".join(lines) + "\n")
    bench.killed_after(15)
    assert json.loads(bench.run_json().read_bytes())["rows"] == 0
    lines[3] = new
    bench.source.write_text("\n".join(lines) + "\n")
    with pytest.raises(Refused, match="row 4 of the input"):
        bench()


def test_another_machine_warns_and_refuses_only_when_deterministic(bench, capsys) -> None:
    bench.fill(40)
    bench.killed_after(30)
    assert bench(slots=3) == errors.ROWS_IN_ERROR
    assert "changed since" in capsys.readouterr().err
    bench.killed_after(30, overwrite=True, deterministic=True)
    before = bench.state()
    with pytest.raises(Refused, match=r"threads: 1 → 2"):
        bench(deterministic=True, threads=2)
    assert bench.state() == before


@pytest.mark.promise("Without `--overwrite`, a file that is no output of `safeguard` is never touched.")
def test_an_output_without_its_manifest_is_never_touched(bench) -> None:
    bench.fill(5)
    bench()
    bench.out.with_name(bench.out.name + ".manifest.json").unlink()
    before = bench.state()
    with pytest.raises(Refused, match="not an output of safeguard: name another file with -o"):
        bench()
    assert bench.state() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1}'])
def test_a_manifest_that_cannot_be_understood_refuses(bench, content) -> None:
    bench.fill(5)
    bench.killed_after(3)
    bench.run_json().write_bytes(content)
    before = bench.state()
    with pytest.raises(Refused):
        bench()
    assert bench.state() == before


@pytest.mark.promise("Two runs cannot write the same output.")
def test_a_second_run_on_one_output_is_refused_and_names_the_first(bench) -> None:
    bench.fill(20)
    refusals = []

    def during(_: object) -> None:
        if not refusals:
            with pytest.raises(Refused) as refusal:
                bench()
            refusals.append(str(refusal.value))

    bench(lambda *given: FakeEngine(*given, before=during))
    assert f"is being written by process {os.getpid()} just now" in refusals[0]
    assert ids(bench.out.read_bytes()) == list(range(20))


def test_a_refusal_leaves_no_empty_output(bench) -> None:
    bench.fill(5)
    with pytest.raises(UsageError, match="not a finished output"):
        bench(retry_errors=True)
    assert not bench.out.exists()
