"""`--reuse`: verdicts of earlier runs are copied to rows with the same text, and only the others are labelled."""

from __future__ import annotations

import csv
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from helpers.fake_engine import FakeEngine, Steady, failing
from helpers.fault_server import FaultServer
from helpers.runs import Bench
from helpers.server_runs import fill, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli import errors
from safeguard_cli.audit.audit import audit
from safeguard_cli.audit.options import Audited
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.merge import merge
from safeguard_cli.output.show import show
from safeguard_cli.prompt.contract import Completion, Prompt
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache", "no_fsync")


def write(bench: Bench, name: str, texts: Sequence[object], suffix: str = "jsonl") -> None:
    """Make rows with these texts the bench's input, and give the output a name of its own."""
    bench.source, bench.out = bench.folder / f"{name}.{suffix}", bench.folder / f"{name}.out.{suffix}"
    with bench.source.open("w", newline="") as file:
        if suffix == "csv":
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
        else:
            file.writelines(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))


def counting(asked: list[int], engine: type[FakeEngine] = FakeEngine) -> Callable[..., FakeEngine]:
    """Return an engine that notes the row of every prompt."""
    return partial(engine, before=lambda prompt: asked.append(prompt.row))


def never(*_: object) -> FakeEngine:
    raise AssertionError("the engine was started")


def verdicts(path: Path) -> list[dict]:
    return [json.loads(line)["spam"] for line in path.read_bytes().splitlines()]


@pytest.fixture
def old(bench) -> Path:
    """Return the output of an earlier run over ten texts."""
    write(bench, "old", [f"text {i}" for i in range(10)])
    assert bench() == errors.OK
    return bench.out


@pytest.mark.promise(
    "With `--reuse`, a row whose text was labelled before is not labelled again, wherever it stands now."
)
@given(
    before=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    now=st.lists(st.integers(0, 14), max_size=25),
    formats=st.tuples(st.sampled_from(["jsonl", "csv"]), st.sampled_from(["jsonl", "csv"])),
    blank=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_resorted_and_edited_file_is_labelled_as_anew_and_only_its_new_texts_are_asked(
    bench, at_once, before, now, formats, blank
) -> None:
    texts = {
        number: ("=1+{}", 'say "{}"', "two\n{}", "é😀 {}", "'- {}")[number % 5].format(number) for number in range(15)
    }
    write(bench, "old", [texts[number] for number in before] + [""] * blank, formats[0])
    bench(Steady, overwrite=True)
    donor = bench.out
    write(bench, "new", [texts[number] for number in now] + [""] * blank, formats[1])
    asked: list[int] = []
    bench(counting(asked, Steady), overwrite=True, reuse=(str(donor),))
    assert {now[row] for row in asked} == set(now) - set(before)
    assert len(asked) == len(set(now) - set(before))
    assert bench.out.read_bytes() == bench.whole(Steady)
    assert [each["rows"] for each in bench.manifest()["reused"]] == [sum(number in before for number in now)]


def test_the_verdicts_are_those_of_the_earlier_run_though_scores_move_with_the_batch(bench, old) -> None:
    write(bench, "new", [f"text {i}" for i in (7, 12, 3, 3, 0)])
    asked: list[int] = []
    assert bench(counting(asked), reuse=(str(old),)) == errors.OK
    before, now = verdicts(old), verdicts(bench.out)
    assert asked == [1]
    assert [now[at] for at in (0, 2, 3, 4)] == [before[i] for i in (7, 3, 3, 0)]


def test_the_earlier_of_several_outputs_goes_first_and_each_is_counted(bench, old) -> None:
    write(bench, "other", ["text 9", "text 10", "text 11"])
    bench(Steady)
    other = bench.out
    write(bench, "new", [f"text {i}" for i in (9, 10, 11, 12)])
    asked: list[int] = []
    assert bench(counting(asked), reuse=(str(old), str(other))) == errors.OK
    assert asked == [3]
    assert verdicts(bench.out)[:3] == [verdicts(old)[9], *verdicts(other)[1:]]
    assert [(Path(each["output"]).name, each["rows"]) for each in bench.manifest()["reused"]] == [
        ("old.out.jsonl", 1),
        ("other.out.jsonl", 2),
    ]


def test_it_is_said_how_many_rows_were_copied_and_show_has_it_on_record(bench, old, capsys) -> None:
    write(bench, "new", ["text 1", "text 99"])
    bench(quiet=False, reuse=(str(old),))
    told = capsys.readouterr().err
    assert "old.out.jsonl: 10 verdicts to copy" in told
    assert "1 row has verdicts of" in told
    show(bench.out, as_json=False)
    assert "reused 1 rows have verdicts of" in re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("made", "asked", "sentence"),
    [
        ({"effort": "low"}, {"effort": "medium"}, "old.out.jsonl was made with --effort low, this run asks for medium"),
        ({"effort": "auto"}, {"effort": "auto", "sure": 0.9}, "made with --sure 0.95, this run asks for 0.9"),
        ({}, {"rationale": True}, "made without --rationale, this run asks for it"),
        ({"rationale": True}, {}, "made with --rationale, this run goes without it"),
        ({}, {"reasoning": True}, "made without --reasoning, this run asks for it"),
        ({}, {"context": 4096}, "made with --ctx 8192, this run asks for 4096"),
        ({}, {"long": "error"}, "made with --long split, this run asks for error"),
        ({}, {"max_windows": 3}, "made with --max-windows 16, this run asks for 3"),
        ({"temperature": 0.5}, {}, "made with --temperature 0.5, this run asks for 0.0"),
        ({}, {"policy_only_prompt": True}, "made without --policy-only-prompt, this run asks for it"),
        ({"max_reasoning": 99}, {"max_reasoning": 64}, "made with --max-reasoning 99, this run asks for 64"),
        ({}, {"violates": ("ham", "spam")}, "made with other violating labels of spam: spam; now they are ham, spam"),
        ({}, {"labels": ("spam", "ham")}, "made with another text or other labels of the policy spam"),
        ({}, {"policies": ("hate",)}, "has no verdicts under the policy hate, but under spam"),
    ],
)
def test_an_output_of_another_run_is_refused_with_what_is_different(bench, tmp_path, made, asked, sentence) -> None:
    write(bench, "old", ["a", "b"])
    bench(**made)
    donor = bench.out
    write(bench, "new", ["b", "a"])
    with pytest.raises(UsageError, match="no verdict can be copied") as refused:
        bench(never, reuse=(str(donor),), **asked)
    assert sentence in str(refused.value)
    assert len(refused.value.args) == 2
    assert not bench.out.exists()


def test_another_model_is_refused_by_name(bench, old, tmp_path) -> None:
    write(bench, "new", ["text 1"])
    with pytest.raises(UsageError, match=r"was made with the model tiny\.gguf, this run asks demo"):
        bench(never, reuse=(str(old),), model="demo")


def test_all_differences_are_named_at_once(bench, old) -> None:
    write(bench, "new", ["text 1"])
    with pytest.raises(UsageError) as refused:
        bench(never, reuse=(str(old),), effort="high", rationale=True, policies=("hate",))
    assert len(refused.value.args) == 4


def test_reasoning_that_was_written_is_left_out_where_it_is_not_asked_for_and_copied_where_it_is(bench) -> None:
    for suffix in ("jsonl", "csv"):
        write(bench, f"old{suffix}", ["a", "b"], suffix)
        bench(reasoning=True)
        donor = bench.out
        write(bench, f"new{suffix}", ["b", "a"])
        bench(never, reuse=(str(donor),))
        assert all("reasoning" not in verdict for verdict in verdicts(bench.out))
        bench(never, reuse=(str(donor),), reasoning=True, overwrite=True)
        assert [verdict["reasoning"] for verdict in verdicts(bench.out)] == ["", ""]


def test_a_new_policy_is_asked_about_alone_and_a_renamed_one_is_the_same(bench, old, capsys) -> None:
    write(bench, "new", ["text 4", "text 99"])
    asked: list[tuple[int, int]] = []
    engine = partial(FakeEngine, before=lambda prompt: asked.append((prompt.row, prompt.policy)))
    bench(engine, policies=("hate", "spam"), reuse=(str(old),))
    assert sorted(asked) == [(0, 0), (1, 0), (1, 1)]
    rows = [json.loads(line) for line in bench.out.read_bytes().splitlines()]
    assert [[*row] for row in rows] == [["id", "text", "hate", "spam"]] * 2
    assert rows[0]["spam"] == verdicts(old)[4]
    assert "has no verdicts under the policy hate" in capsys.readouterr().err
    write(bench, "renamed", ["text 4"])
    bench(never, rename="junk", reuse=(str(old),))
    assert json.loads(bench.out.read_bytes())["junk"] == verdicts(old)[4]


class Both(FakeEngine):
    """An engine that answers for two policies of two labels in one prompt."""

    def answer(self, prompt: Prompt, history: int) -> Completion:
        return Completion(prompt, (0.25, 0.75, 0.6, 0.4))


def test_policies_asked_together_are_copied_together(bench) -> None:
    write(bench, "old", ["a", "b"])
    bench(Both, policies=("spam", "hate"), together=True)
    donor = bench.out
    write(bench, "new", ["b", "c"])
    asked: list[int] = []
    bench(counting(asked, Both), policies=("spam", "hate"), together=True, reuse=(str(donor),))
    assert asked == [1]
    for policies, sentence in (
        (("hate", "spam"), "made with --together for spam, hate, this run is for hate, spam"),
        (("spam",), "made with --together, this run goes without it"),
    ):
        with pytest.raises(UsageError, match=sentence):
            bench(never, policies=policies, together=True, reuse=(str(donor),), overwrite=True)


@pytest.mark.promise(
    "A changed `--threshold` alone is applied to the scores that are there: `--reuse` needs no model then."
)
def test_a_threshold_is_set_anew_without_a_model_and_gives_what_a_run_with_it_gives(
    bench, monkeypatch, tmp_path
) -> None:
    for old, new in ((None, 0.3), (0.3, 0.8), (0.8, None)):
        write(bench, "old", [f"text {i}" for i in range(30)])
        bench(Steady, overwrite=True, threshold=old)
        donor = bench.out
        write(bench, "new", [f"text {i}" for i in random.Random(1).sample(range(30), 30)] + [""])
        whole = bench.whole(Steady, threshold=new)
        bench(never, overwrite=True, threshold=new, reuse=(str(donor),))
        assert bench.out.read_bytes() == whole
        with no_model(bench, tmp_path):
            bench(never, overwrite=True, threshold=new, reuse=(str(donor),))
        assert bench.out.read_bytes() == whole
        made = json.loads(donor.with_name("old.out.jsonl.manifest.json").read_bytes())
        assert bench.manifest()["decides"]["model"] == made["decides"]["model"]
        assert bench.manifest()["result"]["model"].endswith("tiny.gguf")


@contextmanager
def no_model(bench: Bench, folder: Path) -> Iterator[None]:
    """Name no model, where the default one is not there."""
    model, bench.model = bench.model, None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "no models"))
        patch.delenv("SAFEGUARD_MODEL", raising=False)
        patch.chdir(folder)
        yield
    bench.model = model


def test_without_a_model_rows_that_need_one_are_counted_before_anything_is_written(
    bench, old, monkeypatch, tmp_path
) -> None:
    write(bench, "new", ["text 1", "text 77", "text 78", ""])
    with no_model(bench, tmp_path), pytest.raises(SafeguardError) as refused:
        bench(never, reuse=(str(old),))
    assert refused.value.args[0] == "2 of 4 rows have no verdict to copy, and need a model:"
    assert refused.value.args[1].startswith("no model")
    assert not bench.out.exists()


def test_a_model_that_is_named_must_be_there(bench, old) -> None:
    write(bench, "new", ["text 1"])
    with pytest.raises(SafeguardError, match=r"no model 'other\.gguf'"):
        bench(never, reuse=(str(old),), model="other.gguf")


def test_error_rows_are_labelled_again(bench) -> None:
    write(bench, "old", ["a", "b", "c"])
    bench(failing(1))
    donor = bench.out
    write(bench, "new", ["c", "b", "a"])
    asked: list[int] = []
    assert bench(counting(asked), reuse=(str(donor),)) == errors.OK
    assert asked == [1]


class Cut(Steady):
    """An engine whose reasoning about odd rows has no end."""

    def answer(self, prompt: Prompt, history: int) -> Completion:
        made = super().answer(prompt, history)
        return Completion(prompt, made.scores, ended=prompt.row % 2 == 0)


def test_rows_whose_reasoning_was_cut_are_labelled_again_and_with_more_room_only_they(bench) -> None:
    write(bench, "old", ["a", "b", "c", "d"])
    bench(Cut)
    donor = bench.out
    write(bench, "new", ["d", "c", "b", "a"])
    for more in ({}, {"max_reasoning": 999}):
        asked: list[int] = []
        bench(counting(asked), reuse=(str(donor),), overwrite=True, **more)
        assert asked == [0, 2]


def test_a_csv_does_not_tell_which_rows_were_cut(bench, capsys) -> None:
    write(bench, "old", ["a", "b"], "csv")
    bench(Cut)
    donor = bench.out
    write(bench, "new", ["b", "a"])
    bench(never, reuse=(str(donor),))
    assert (
        "the reasoning about 1 of its rows was cut, and a CSV does not tell which: they are copied too"
        in capsys.readouterr().err
    )
    with pytest.raises(UsageError, match="and a CSV does not tell which rows that cut"):
        bench(never, reuse=(str(donor),), max_reasoning=999, overwrite=True)


def test_windows_of_a_long_text_are_copied_as_one_verdict(bench) -> None:
    long = "word " * 9000
    write(bench, "old", [long, "short"])
    bench(Steady)
    assert verdicts(bench.out)[0]["windows"] > 1
    donor = bench.out
    write(bench, "new", ["short", long])
    bench(never, reuse=(str(donor),))
    assert verdicts(bench.out) == verdicts(donor)[::-1]


def test_an_unfinished_output_gives_its_whole_rows(bench) -> None:
    for suffix in ("jsonl", "csv"):
        write(bench, "old", [f"text {i}" for i in range(40)], suffix)
        bench.killed_after(20, overwrite=True)
        donor, data = bench.out, bench.out.read_bytes()
        done = data.count(b"\n") - (suffix == "csv")
        assert 0 < done < 40
        write(bench, "new", [f"text {i}" for i in range(40)], suffix)
        for torn in (b"", data.splitlines()[2][:-9]):
            donor.write_bytes(data + torn)
            asked: list[int] = []
            bench(counting(asked), reuse=(str(donor),), overwrite=True)
            assert asked == [*range(done, 40)]


def test_an_unfinished_output_of_parquet_gives_the_rows_of_its_journal(bench, old) -> None:
    pytest.importorskip("pyarrow")
    write(bench, "old", [f"text {i}" for i in range(40)])
    bench.out = bench.folder / "old.parquet"
    bench.killed_after(20)
    donor = bench.out
    assert not donor.exists()
    write(bench, "new", [f"text {i}" for i in range(40)])
    asked: list[int] = []
    bench(counting(asked), reuse=(str(donor),))
    assert 0 < len(asked) < 40
    bench.out = donor
    write(bench, "old", [f"text {i}" for i in range(40)])
    bench.out = donor
    bench()
    write(bench, "newer", [f"text {i}" for i in range(40)])
    bench(never, reuse=(str(donor),))
    assert len(verdicts(bench.out)) == 40


def test_shards_and_what_they_were_merged_of_give_their_rows(bench) -> None:
    write(bench, "old", [f"text {i}" for i in range(11)])
    shards = []
    for k in (1, 2):
        bench.out = bench.folder / f"part.{k}.jsonl"
        bench(Steady, shard=(k, 2))
        shards.append(bench.out)
    write(bench, "new", [f"text {i}" for i in range(11)])
    asked: list[int] = []
    bench(counting(asked, Steady), reuse=(str(shards[0]),))
    assert asked == [*range(1, 11, 2)]
    merged = bench.folder / "merged.jsonl"
    merge(shards, merged, overwrite=False, quiet=True)
    bench(never, reuse=(str(merged),), overwrite=True)


def test_merged_shards_add_up_what_they_copied(bench, old) -> None:
    write(bench, "new", [f"text {i}" for i in range(12)])
    shards = []
    for k in (1, 2):
        bench.out = bench.folder / f"part.{k}.jsonl"
        bench(Steady, shard=(k, 2), reuse=(str(old),))
        shards.append(bench.out)
    bench.out = bench.folder / "merged.jsonl"
    merge(shards, bench.out, overwrite=False, quiet=True)
    assert [each["rows"] for each in bench.manifest()["reused"]] == [10]


def test_the_text_is_taken_by_the_fields_that_were_labelled_then(bench) -> None:
    bench.source.write_text('{"title": "Win", "body": "now and here"}\n{"title": "Hi", "body": "there you are"}\n')
    bench(Steady, template="{title}\\n{body}")
    donor = bench.out
    write(bench, "new", ["Hi\nthere you are", "other"])
    asked: list[int] = []
    bench(counting(asked, Steady), reuse=(str(donor),))
    assert asked == [1]
    bench.source = bench.folder / "in.jsonl"
    bench.out = bench.folder / "fields.jsonl"
    bench(Steady, text_fields=("title", "body"))
    donor = bench.out
    write(bench, "newer", ["Hi\n\nthere you are"])
    bench(never, reuse=(str(donor),))


def test_a_spreadsheets_guard_is_no_part_of_the_text(bench) -> None:
    write(bench, "old", ["=SUM(A1)", "plain"], "csv")
    bench(csv_safe=True)
    donor = bench.out
    write(bench, "new", ["=SUM(A1)"])
    bench(never, reuse=(str(donor),))


def test_only_verdicts_are_copied(bench) -> None:
    bench.source.write_text('{"text": "a b c d", "_sample": {"seed": 0}, "more": 1}\n')
    bench()
    donor = bench.out
    write(bench, "new", ["a b c d"])
    bench(never, reuse=(str(donor),))
    assert [*json.loads(bench.out.read_bytes())] == ["id", "text", "spam"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda out: out.unlink(), "there is no such file"),
        (lambda out: out.with_name(f"{out.name}.manifest.json").unlink(), "neither .manifest.json nor .run.json"),
        (lambda out: out.with_name(f"{out.name}.manifest.json").write_text("{"), "the record beside it is damaged"),
        (lambda out: out.write_bytes(out.read_bytes().replace(b"text 1", b"text 2")), "changed after its run"),
        (lambda out: (out.unlink(), out.mkdir()), "this is a folder"),
        (lambda out: (out.unlink(), os.mkfifo(out)), "copied from a file"),
    ],
)
def test_what_is_no_output_as_its_run_left_it_is_refused(bench, old, spoil, sentence) -> None:
    write(bench, "new", ["text 1"])
    spoil(old)
    with pytest.raises(UsageError, match=sentence):
        bench(never, reuse=(str(old),))
    assert not bench.out.exists()


@pytest.mark.parametrize("keep", ["none", "id"])
def test_an_output_without_the_labelled_text_is_refused(bench, keep) -> None:
    write(bench, "old", ["a", "b"])
    bench(keep=keep)
    donor = bench.out
    write(bench, "new", ["a"])
    with pytest.raises(UsageError, match=r"written without the text that was labelled \(text\)"):
        bench(never, reuse=(str(donor),))


def test_the_output_is_never_one_that_is_reused(bench, old) -> None:
    write(bench, "new", ["text 1"])
    bench.out = old
    before = bench.state()
    with pytest.raises(UsageError, match="this is the reused output itself"):
        bench(never, reuse=(str(old),), overwrite=True)
    assert bench.state() == before


@pytest.mark.promise("A run with `--reuse` that is killed and resumed copies and counts what one never stopped does.")
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_run_killed_on_the_way_is_continued_and_its_count_is_exact(bench, suffix) -> None:
    chance = random.Random(3)
    write(bench, "old", [f"text {i}" for i in range(0, 60, 2)], suffix)
    bench(Steady)
    donor = bench.out
    write(bench, "new", [f"text {i}" for i in chance.choices(range(60), k=80)] + [""], suffix)
    whole = bench.whole(Steady, reuse=(str(donor),))
    copied = json.loads((bench.folder / f"whole.{suffix}.manifest.json").read_bytes())["reused"]
    for prompts in (0, 1, 7, 20):
        bench.killed_after(prompts, kind=Steady, overwrite=True, reuse=(str(donor),))
        if prompts == 7:
            bench.killed_after(3, kind=Steady, reuse=(str(donor),))
        assert bench(Steady, reuse=(str(donor),)) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole
        assert bench.manifest()["reused"] == copied


def test_a_deterministic_run_killed_and_continued_is_the_same_and_bound_to_the_files_it_copies_from(bench) -> None:
    write(bench, "old", [f"text {i}" for i in range(0, 90, 3)])
    bench()
    donor = bench.out
    write(bench, "new", [f"text {i}" for i in range(90)])
    given = {"deterministic": True, "reuse": (str(donor),)}
    whole = bench.whole(FakeEngine, **given)
    for prompts in (0, 5, 30, 50):
        bench.killed_after(prompts, **given, overwrite=True)
        assert bench(**given) == errors.OK
        assert bench.out.read_bytes() == whole
    bench.killed_after(30, **given, overwrite=True)
    before = bench.state()
    with pytest.raises(Refused, match="reuse: ") as refused:
        bench(deterministic=True)
    assert refused.value.exit_code == errors.RESUME_REFUSED
    assert bench.state() == before


def test_a_run_that_is_not_deterministic_may_begin_and_leave_off_to_reuse(bench, old) -> None:
    write(bench, "new", [f"text {i}" for i in range(20)])
    bench.killed_after(3)
    asked: list[int] = []
    assert bench(counting(asked), reuse=(str(old),)) == errors.OK
    assert all(row >= 10 for row in asked)
    with bench.source.open("a") as file:
        file.write('{"id": 20, "text": "text 3"}\n{"id": 21, "text": "text 20"}\n')
    asked.clear()
    assert bench(counting(asked), append_input=True, reuse=(str(old),)) == errors.OK
    assert asked == [21]


def test_retry_errors_takes_from_another_output_what_it_has(bench, old) -> None:
    write(bench, "new", [f"text {i}" for i in (5, 20, 6, 21)])
    bench(failing(0, 1))
    before = verdicts(bench.out)
    asked: list[int] = []
    assert bench(counting(asked), retry_errors=True, reuse=(str(old),)) == errors.OK
    assert asked == [1]
    assert verdicts(bench.out)[0] == verdicts(old)[5]
    assert verdicts(bench.out)[2:] == before[2:]


def test_what_a_server_labelled_is_copied_where_the_same_model_is_served_and_needs_no_server_for_a_threshold(
    bench, tmp_path
) -> None:
    source = fill(tmp_path, 5)
    donor, out = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    with FaultServer() as server:
        run(source, donor, server.address, model=str(bench.model))
        asked = len(server.requests)
        write(bench, "edited", [f"row {i} says hello" for i in (4, 2)])
        _, rows = run(bench.source, out, server.address, model=str(bench.model), reuse=(str(donor),))
        assert len(server.requests) - asked == asked - 5, "only what is asked of every server"
    assert [row["spam"] for row in rows] == [verdicts(donor)[i] for i in (4, 2)]
    with FaultServer(models=("org/other",)) as other, pytest.raises(UsageError, match="made with the model"):
        run(source, out, other.address, model=str(bench.model), reuse=(str(donor),))
    with no_model(bench, tmp_path):
        bench(never, reuse=(str(donor),), threshold=0.5, effort="none")
    assert bench.manifest()["decides"]["model"]["served"] == "tiny"


def test_an_audits_rows_are_not_labelled_again_and_an_audit_takes_what_is_labelled(bench, capsys) -> None:
    pytest.importorskip("scipy")
    write(bench, "new", [f"text {i}" for i in range(20)])
    given = {"policies": ("spam",), "model": str(bench.model), "slots": 2, "threads": 1, "quiet": True}
    drawn = bench.folder / "drawn.jsonl"
    audit(Settings(str(bench.source), **given), Audited(rows=6, output=str(drawn)), Steady)
    asked: list[int] = []
    bench(counting(asked, Steady), reuse=(str(drawn),))
    assert len(asked) == 14
    assert b"_sample" in drawn.read_bytes()
    assert b"_sample" not in bench.out.read_bytes()
    more = Audited(rows=9, output=str(bench.folder / "more.jsonl"))
    audit(Settings(str(bench.source), **given, reuse=(str(bench.out),)), more, never)
    assert len(verdicts(bench.folder / "more.jsonl")) == 9


def test_turns_of_conversations_are_not_copied(bench) -> None:
    bench.source.write_text("".join(f'{{"thread": {i % 2}, "text": "turn {i}"}}\n' for i in range(4)))
    bench(group="thread")
    donor = bench.out
    write(bench, "new", ["turn 1"])
    with pytest.raises(UsageError, match="turns of conversations"):
        bench(never, reuse=(str(donor),))


def test_a_dry_run_counts_what_would_be_copied(bench, old, capsys) -> None:
    write(bench, "new", ["text 1", "text 2", "text 99", ""])
    bench(never, dry_run=True, reuse=(str(old),))
    assert "rows            1 to label, 2 with verdicts to copy, 1 no_text" in capsys.readouterr().out


def test_what_is_piped_in_is_copied_too_and_needs_the_model_only_when_a_row_does(
    bench, old, monkeypatch, tmp_path
) -> None:
    write(bench, "new", ["text 1", "text 2", "text 99"])
    with bench.source.open("rb") as piped, no_model(bench, tmp_path):
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": piped, "fileno": piped.fileno})())
        bench.source = Path("-")
        with pytest.raises(SafeguardError, match="a row has no verdict to copy, and needs a model"):
            bench(never, reuse=(str(old),), format="jsonl")
    assert verdicts(bench.out) == verdicts(old)[1:3]
