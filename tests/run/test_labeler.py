"""The Labeler for Python programs: verdicts as the command writes them, and an engine that ends when it should."""

from __future__ import annotations

import asyncio
import csv
import doctest
import gc
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import hypothesis
import psutil
import pyarrow
import pytest
from helpers import ROOT
from helpers.fake_engine import FakeEngine, Steady, failing
from helpers.llama_server import llama_server
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import safeguard_cli
from safeguard_cli import Labeler, SafeguardError, Verdict
from safeguard_cli.errors import EngineError, UsageError
from safeguard_cli.policy.policy import Policy, load_policy
from safeguard_cli.run import labeler as module
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")

TEXTS = [
    "Buy cheap pills now! http://pills.example",
    "see you at noon",
    "",
    None,
    "a" * 40,
    17,
    "Buy cheap pills now! http://pills.example",
]
TEXTS += ["two\nlines é😀", [{"role": "user", "content": "cheap pills"}], True, {"a": 1}, "see you at noon "]


def engines() -> list[psutil.Process]:
    """Return the engine processes that this process started."""
    return [child for child in psutil.Process().children() if is_engine(child)]


def is_engine(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False


@pytest.fixture
def fake(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the test engine in place of the model, and return the model's name for a Labeler."""
    monkeypatch.setattr("safeguard_cli.run.calls.LocalEngine", Steady)
    return str(tiny)


@pytest.fixture(scope="module")
def shared() -> Iterator[Labeler]:
    with Labeler("spam", model="demo", effort="none", slots=2) as labeler:
        yield labeler


def written(folder: Path, texts: list, suffix: str = "jsonl", **settings) -> list[dict]:
    """Return what the command writes for the same texts."""
    source, out = folder / "in.jsonl", folder / f"out.{suffix}"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {"policies": ("spam",), "quiet": True, "overwrite": True, **settings}
    label(Settings(input=str(source), output=str(out), text_fields=("text",), **settings))
    if suffix == "csv":
        return list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
    return [json.loads(line) for line in out.read_text().splitlines()]


# Verdicts


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "demo", "effort": "none"},
        {"model": "demo"},
        {"model": "tiny", "effort": "medium", "max_reasoning": 20, "rationale": True, "reasoning": True},
        {"model": "tiny", "max_reasoning": 4, "temperature": 0.7, "seed": 3, "threshold": 0.2},
        {"model": "tiny", "max_reasoning": 4, "labels": ("safe", "unsafe"), "violates": ("unsafe",), "rename": "own"},
    ],
)
def test_verdicts_equal_those_that_the_command_writes(settings, tmp_path, tiny) -> None:
    settings = {**settings, "slots": 1, "threads": 1, "repack": False}
    settings["model"] = str(tiny) if settings["model"] == "tiny" else settings["model"]
    name = settings.get("rename", "spam")
    with Labeler("spam", **settings) as labeler:
        found = labeler.label(TEXTS)
    assert [verdict.as_dict() for verdict in found] == [row[name] for row in written(tmp_path, TEXTS, **settings)]
    assert {verdict.error.code for verdict in found if verdict.error} == {"no_text", "not_text"}
    assert found[3].error.blank and not found[5].error.blank


@pytest.mark.parametrize("together", [False, True])
def test_several_policies_give_a_dict_for_each_text(together, tmp_path) -> None:
    settings = {"model": "demo", "effort": "none", "slots": 1, "together": together, "threads": 1}
    with Labeler("spam", load_policy("hate"), **settings) as labeler:
        found = labeler.label(TEXTS)
    rows = written(tmp_path, TEXTS, policies=("spam", "hate"), **settings)
    assert [list(verdicts) for verdicts in found] == [["spam", "hate"]] * len(TEXTS)
    for name in ("spam", "hate"):
        assert [verdicts[name].as_dict() for verdicts in found] == [row[name] for row in rows]


def test_long_texts_are_cut_into_windows_as_the_command_does(tmp_path, tiny) -> None:
    texts = ["word " * 900, "short"]
    for long in ("split", "truncate", "error"):
        settings = {"model": str(tiny), "effort": "none", "context": 2048, "slots": 1, "threads": 1, "long": long}
        with Labeler("spam", **settings) as labeler:
            found = labeler.label(texts)
        rows = written(tmp_path, texts, **settings)
        assert [verdict.as_dict() for verdict in found] == [row["spam"] for row in rows]
    assert found[0].error.code == "too_long"


def test_a_policy_object_is_used_as_it_is_or_with_other_labels(fake) -> None:
    policy = Policy("own", "Say safe or unsafe.", ("safe", "unsafe"), ("unsafe",))
    assert Labeler(policy, model=fake).policies == (policy,)
    other = Labeler(policy, model=fake, rename="mine", labels="unsafe, safe").policies[0]
    assert (other.name, other.labels, other.violates) == ("mine", ("unsafe", "safe"), ("unsafe",))
    with pytest.raises(UsageError, match="'x', not one of safe, unsafe"):
        Labeler(policy, violates=["x"])


def test_equal_texts_are_decoded_once_unless_sampled(tiny, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("safeguard_cli.run.calls.LocalEngine", lambda *given: FakeEngine(*given, before=asked.append))
    with Labeler("spam", model=str(tiny)) as labeler:
        found = labeler.label(["a", "b"] * 5000)
        assert len(asked) == 2 and found[0] is found[9998] and found[0] != found[1]
        assert len(list(labeler.stream(["a"] * 50))) == 50 and len(asked) == 3
    with Labeler("spam", model=str(tiny), temperature=0.5) as labeler:
        labeler.label(["a"] * 5)
    assert len(asked) == 8


def test_a_text_on_which_the_engine_fails_gets_an_error_and_no_other_does(tiny, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.run.calls.LocalEngine", failing(1))
    with Labeler("spam", model=str(tiny)) as labeler:
        found = labeler.label(["a", "b", "c"])
    assert [verdict.error and verdict.error.code for verdict in found] == [None, "engine", None]


# Calls


def test_the_model_is_loaded_once_and_every_call_after_that_is_right(shared) -> None:
    first = shared.label(TEXTS[:2])
    (child,) = engines()
    assert shared.label(TEXTS[:2]) == first and shared.label([]) == []
    assert shared.label(iter(TEXTS[1:2])) == first[1:]
    assert engines() == [child] and [verdict.label for verdict in first] == ["spam", "ham"]


def test_a_stream_takes_no_more_than_the_engine_needs_and_gives_verdicts_in_order(shared) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for taken in count(1):
            yield TEXTS[taken % 2]

    stream = shared.stream(endless())
    assert taken == 0
    for number, verdict in enumerate(islice(stream, 300), 1):
        assert verdict.label == ("ham", "spam")[number % 2 == 0]
        assert taken - number <= 8 * 2
    stream.close()
    assert shared.label(TEXTS[:1])[0].label == "spam"


def test_a_stream_of_nothing_but_errors_is_bounded_too(shared) -> None:
    assert [verdict.error.code for verdict in islice(shared.stream(None for _ in count()), 100)] == ["no_text"] * 100


@pytest.mark.parametrize("after", [0, 1, 7, 30])
def test_a_stream_that_is_left_early_spoils_nothing(fake, after) -> None:
    with Labeler("spam", model=fake, slots=3) as labeler:
        expected = labeler.label([f"text {number}" for number in range(50)])
        stream = labeler.stream(f"other {number}" for number in count())
        list(islice(stream, after))
        del stream
        assert labeler.label([f"text {number}" for number in range(50)]) == expected


def test_an_iterator_that_fails_is_told_of_and_the_next_call_works(shared) -> None:
    def broken() -> Iterator[str]:
        yield from ("see you", "at noon")
        raise ZeroDivisionError("of the caller")

    (child,) = engines()
    for consume in (shared.label, lambda texts: list(shared.stream(texts))):
        with pytest.raises(ZeroDivisionError, match="of the caller"):
            consume(broken())
    assert shared.label(TEXTS[:2])[0].label == "spam" and engines() == [child]


def test_a_call_inside_of_another_is_refused_and_neither_is_spoiled(shared) -> None:
    refusals = []

    def asking() -> Iterator[str]:
        for text in TEXTS[:2]:
            with pytest.raises(UsageError, match="busy with another call") as refused:
                shared.label(["inner"])
            refusals.append(refused)
            yield text

    assert [verdict.label for verdict in shared.stream(asking())] == ["spam", "ham"] and len(refusals) == 2
    stream = shared.stream(TEXTS[:2])
    next(stream)
    for other in (lambda: shared.label(["a"]), lambda: next(shared.stream(["a"])), shared.__enter__):
        with pytest.raises(UsageError, match="close its stream"):
            other()
    assert next(stream).label == "ham" and list(stream) == []
    assert shared.label(TEXTS[:1])[0].label == "spam"


def test_calls_of_other_threads_wait_for_each_other(shared) -> None:
    found: dict[int, list] = {}

    def work(number: int) -> None:
        found[number] = shared.label([f"thread {number}, text {i}" for i in range(20)])

    expected = [shared.label([f"thread {n}, text {i}" for i in range(20)]) for n in range(4)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[v.label for v in found[n]] for n in range(4)] == [[v.label for v in row] for row in expected]
    assert len(engines()) == 1


def test_it_is_made_used_and_closed_in_a_thread_and_under_a_running_loop() -> None:
    def work() -> list[str]:
        with Labeler("spam", model="demo", effort="none") as labeler:
            return [verdict.label for verdict in labeler.label(TEXTS[:2])]

    async def loop() -> tuple:
        return work(), await asyncio.to_thread(work)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert asyncio.run(loop()) == (["spam", "ham"], ["spam", "ham"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_it_outlives_the_thread_that_loaded_it(tiny) -> None:
    before = engines()
    labeler = Labeler("spam", model=str(tiny), effort="none")
    thread = threading.Thread(target=labeler.label, args=(["a"],))
    thread.start()
    thread.join()
    (child,) = set(engines()) - set(before)
    assert labeler.label(["a"])[0].label and labeler._machine._engine.deaths == 0 and not gone(child)
    labeler.close()


VALUES = ["a", "b b", "c" * 30, "", None, 3, "d"]
CALLS = st.tuples(st.sampled_from(["label", "stream", "leave", "fail"]), st.lists(st.sampled_from(VALUES), max_size=40))


@pytest.mark.parametrize("compete", [False, True])
@given(st.lists(CALLS, max_size=6), st.integers(1, 3))
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_calls_one_after_another_give_each_text_its_verdicts(at_once, fake, compete, calls, slots) -> None:
    with pytest.MonkeyPatch.context() as patch, Labeler("spam", "hate", model=fake, slots=slots) as labeler:
        patch.setattr("safeguard_cli.run.prepare.Prepared.prefixes_compete", compete)
        known = {value: shown(found) for value, found in zip(VALUES, labeler.label(VALUES), strict=True)}
        for way, values in calls:
            expected = [known[value] for value in values]
            if way == "label":
                assert [shown(found) for found in labeler.label(values)] == expected
            elif way == "fail":
                with pytest.raises(ZeroDivisionError):
                    labeler.label(
                        value if number < 30 else 1 // 0 for number, value in enumerate([*values, *VALUES * 6])
                    )
            else:
                most = len(values) // 2 if way == "leave" else len(values)
                assert [shown(found) for found in islice(labeler.stream(values), most)] == expected[:most]


def shown(verdicts: dict[str, Verdict]) -> list:
    """Return Verdicts without the line number that an error's message has."""
    return [(v.label, dict(v.scores), v.error and v.error.code) for v in verdicts.values()]


# The engine's process


def gone(child: psutil.Process) -> bool:
    return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_engine_starts_at_the_first_call_and_is_gone_after_close(tiny) -> None:
    before = engines()
    labeler = Labeler("spam", model=str(tiny), effort="none")
    assert engines() == before
    assert labeler.label(["a"])[0].label
    (child,) = set(engines()) - set(before)
    labeler.close()
    labeler.close()
    assert gone(child)
    for use in (lambda: labeler.label(["a"]), lambda: next(labeler.stream(["a", "b"])), labeler.__enter__):
        with pytest.raises(UsageError, match="closed: make another one"):
            use()


def test_an_open_stream_does_not_keep_the_engine(tiny) -> None:
    before = engines()
    with Labeler("spam", model=str(tiny), effort="none") as labeler:
        stream = labeler.stream(f"text {number}" for number in count())
        next(stream)
        (child,) = set(engines()) - set(before)
    assert gone(child)
    with pytest.raises(UsageError, match="closed"):
        list(stream)


def test_a_labeler_that_is_collected_takes_its_engine_along(tiny) -> None:
    before = engines()
    labeler = Labeler("spam", model=str(tiny), effort="none")
    stream = labeler.stream(f"text {number}" for number in count())
    next(stream)
    (child,) = set(engines()) - set(before)
    del labeler
    assert not gone(child)
    del stream
    gc.collect()
    assert gone(child)


def test_an_engine_that_dies_between_calls_is_replaced(tiny) -> None:
    before = engines()
    with Labeler("spam", model=str(tiny), effort="none", slots=1, threads=1) as labeler:
        expected = labeler.label(["a", "b"])
        (child,) = set(engines()) - set(before)
        child.kill()
        assert labeler.label(["a", "b"]) == expected


def test_an_engine_that_fails_for_good_says_so_and_the_next_call_starts_another(tiny, monkeypatch) -> None:
    def fails(prompt: object) -> None:
        raise EngineError("it cannot work")

    made = []

    def make(*given: object) -> FakeEngine:
        made.append(FakeEngine(*given, before=fails if not made else lambda _: None))
        return made[-1]

    monkeypatch.setattr("safeguard_cli.run.calls.LocalEngine", make)
    with Labeler("spam", model=str(tiny)) as labeler:
        with pytest.raises(EngineError, match="it cannot work"):
            labeler.label(["a"])
        assert labeler.label(["a"])[0].label and len(made) == 2


def script(code: str, folder: Path, **kwargs) -> subprocess.Popen[str]:
    """Write a Python script as users write them, without `if __name__`, to be started from its folder."""
    (folder / "script.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "script.py"], cwd=folder, env=env, **pipes, **kwargs)


ENGINES = f"""
import psutil
{inspect.getsource(is_engine)}
def engines():
    return [child.pid for child in psutil.Process().children() if is_engine(child)]
"""


def test_a_script_that_does_not_ask_for_its_name_works_and_leaves_no_process(tmp_path) -> None:
    code = f"""{ENGINES}
from safeguard_cli import Labeler
labeler = Labeler("spam", model="demo", effort="none")
print(labeler.label(["Buy cheap pills now! http://pills.example"])[0].label, *engines())
"""
    out, err = script(code, tmp_path).communicate(timeout=120)
    word, child = out.split()
    assert (word, err) == ("spam", "") and not psutil.pid_exists(int(child))


@pytest.mark.parametrize("way", ["label", "stream"])
def test_ctrl_c_ends_the_engine_and_the_next_call_is_right(way, tmp_path, tiny) -> None:
    code = f"""{ENGINES}
from itertools import count
from safeguard_cli import Labeler

labeler = Labeler("spam", model={str(tiny)!r}, max_reasoning=200, slots=2, threads=1)
first = labeler.label(["a", "b"])
was = engines()
print("at work", flush=True)
try:
    if {way!r} == "label":
        labeler.label(["x " * (number % 300) + str(number) for number in range(100_000)])
    else:
        for verdict in labeler.stream(f"text {{number}}" for number in count()):
            pass
except KeyboardInterrupt:
    print(len(was), engines(), labeler.label(["a", "b"]) == first, len(engines()), flush=True)
labeler.close()
print(engines())
"""
    child = script(code, tmp_path)
    assert child.stdout.readline() == "at work\n"
    time.sleep(0.7)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert (out, err) == ("1 [] True 1\n[]\n", "")


def test_ctrl_c_while_the_model_is_loaded_leaves_no_process(tmp_path) -> None:
    code = f"""{ENGINES}
import threading, os, signal, time
from safeguard_cli import Labeler
labeler = Labeler("spam", model="demo", effort="none")

def stop():
    while not engines():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop).start()
try:
    labeler.label(["a"])
except KeyboardInterrupt:
    print(engines(), labeler.label(["Buy cheap pills now! http://pills.example"])[0].label)
"""
    out, err = script(code, tmp_path).communicate(timeout=120)
    assert (out, err) == ("[] spam\n", "")


def test_another_process_cannot_use_it_and_does_not_end_it(shared) -> None:
    shared.label(["a"])
    child = os.fork()
    if not child:
        try:
            shared.label(["a"])
        except UsageError as error:
            shared._machine.end()
            os._exit(0 if "belongs to the process that made it" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shared.label(TEXTS[:1])[0].label == "spam"


def test_a_worker_that_may_start_no_process_is_told_so(tiny, monkeypatch) -> None:
    monkeypatch.setitem(__import__("multiprocessing").current_process()._config, "daemon", True)
    with pytest.raises(UsageError, match=r"ProcessPoolExecutor"):
        Labeler("spam", model=str(tiny)).label(["a"])


# Servers


def test_servers_take_the_engines_place_and_the_next_call_after_an_interrupt_is_right(tiny, tmp_path, capfd) -> None:
    texts = [f"row {number}" for number in range(12)]
    with llama_server(tiny) as url:
        settings = {"servers": (url,), "model": str(tiny), "effort": "none", "slots": 1}
        rows = [row["spam"] for row in written(tmp_path, texts, **settings)]
        capfd.readouterr()
        with Labeler("spam", **{**settings, "servers": [url, "http://127.0.0.1:9"]}) as labeler:
            for _ in range(2):
                found = labeler.label(texts)
                assert [verdict.label for verdict in found] == [row["label"] for row in rows]
                assert [verdict.p_violates for verdict in found] == pytest.approx(
                    [row["p_violates"] for row in rows], abs=1e-3
                )
                with pytest.raises(KeyboardInterrupt):
                    labeler.label(interrupted())
    assert capfd.readouterr() == ("", "")


def interrupted() -> Iterator[str]:
    yield from map(str, range(9))
    raise KeyboardInterrupt


# Messages


def test_nothing_is_printed_but_with_verbose(tmp_path, tiny, capfd) -> None:
    policy = tmp_path / "own.md"
    policy.write_text("---\nlabels: [aa, bb]\nviolates: [bb]\n---\nNever names its labels.")
    for model in (str(tiny), "demo"):
        with Labeler(policy, model=model, effort="none") as labeler:
            labeler.label(["a", None])
            assert "never mentions its label 'aa'" in labeler.warnings[0]
    assert "the labels under own mean nothing" in labeler.warnings[-1]
    assert capfd.readouterr() == ("", "")
    with Labeler(policy, model=str(tiny), effort="none", verbose=True) as labeler:
        labeler.label(["a"])
    said = capfd.readouterr()
    assert said.out == "" and "never mentions its label 'aa'" in said.err and "slots" in said.err


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import safeguard_cli, sys; print(sorted(n for n in sys.modules if n.startswith('safeguard_cli.')))"
    code += "; print({'numpy', 'rich', 'orjson', 'llama_cpp'} & set(sys.modules), *dir(safeguard_cli))"
    code += "; from safeguard_cli import Labeler; print('llama_cpp' in sys.modules, 'pyarrow' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout == "[]\nset() Labeler SafeguardError Verdict __version__\nFalse False\n"


def test_what_the_package_exports() -> None:
    assert (safeguard_cli.Labeler, safeguard_cli.Verdict) == (Labeler, Verdict)
    assert issubclass(UsageError, SafeguardError)
    with pytest.raises(AttributeError, match="no attribute 'Labeller'"):
        _ = safeguard_cli.Labeller


def test_the_examples_of_the_docstrings_are_right() -> None:
    failed, tried = doctest.testmod(module)
    assert (failed, tried >= 8) == (0, True)


def test_the_examples_of_the_page_are_right() -> None:
    page = (ROOT / "safeguard_cli" / "run" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "run/README.md", "exec"), names)
    assert len(blocks) == 3 and len(page.splitlines()) <= 200


@pytest.mark.parametrize("texts", ["one text", b"bytes", {"a": 1}, 7, None])
def test_what_is_no_list_of_texts_is_refused(texts, fake) -> None:
    with Labeler("spam", model=fake) as labeler:
        for call in (labeler.label, labeler.stream):
            with pytest.raises(UsageError, match=r"label\(\[text\]\)"):
                call(texts)


# Tables


TABLE = pyarrow.table({"text": ["see you at noon", None, "word " * 3000, TEXTS[0]]})


@pytest.mark.parametrize("long", ["split", "truncate"])
def test_a_table_gets_the_columns_and_values_of_a_csv_output(long, tmp_path) -> None:
    settings = {
        "model": "demo",
        "effort": "none",
        "slots": 1,
        "threads": 1,
        "long": long,
        "rationale": True,
        "repack": False,
    }
    with Labeler("spam", "hate", **settings) as labeler:
        found = labeler.frame(TABLE)
    rows = written(tmp_path, TABLE["text"].to_pylist(), "csv", policies=("spam", "hate"), **settings)
    assert found.schema.names[1:] == list(rows[0])[-(found.num_columns - 1) :]
    for ours, theirs in zip(found.to_pylist(), rows, strict=True):
        for name, value in list(ours.items())[1:]:
            if isinstance(value, float):
                assert value == float(theirs[name])
            elif value is False and name.endswith("truncated"):
                assert theirs[name] == ""
            else:
                shown = value if isinstance(value, str) or value is None else json.dumps(value)
                assert (shown or "") == theirs[name], name


class Stream:
    """A stand-in for another package's frame: it gives Arrow's stream, once."""

    def __init__(self, table: pyarrow.Table) -> None:
        self.reader = table.to_reader()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader.__arrow_c_stream__(requested_schema)


def test_what_gives_arrows_stream_comes_back_as_a_table_with_its_rows(shared) -> None:
    rows = pyarrow.table({"id": [7, 8, 9], "body": [TEXTS[0], None, TEXTS[1]]})
    found = shared.frame(Stream(rows), text="body")
    assert found.select(["id", "body"]).equals(rows)
    assert found["spam_label"].to_pylist() == ["spam", None, "ham"]
    assert found["spam_error"].to_pylist()[1] == "no_text: line 2: the field 'body' is missing, null or blank"
    assert shared.frame(rows.slice(0, 0), "body").schema == found.schema


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        (pyarrow.table({"Body": ["a"]}), "body", "did you mean 'Body'"),
        (pyarrow.table({"text": ["a"], "spam_label": ["b"]}), "text", "already has 'spam_label'.*rename=NAME"),
        ([{"text": "a"}], "text", "this is not a table"),
    ],
)
def test_a_table_that_cannot_be_labelled_is_refused_before_anything_is_loaded(table, text, said, tiny) -> None:
    before = engines()
    with pytest.raises(UsageError, match=said):
        Labeler("spam", model=str(tiny)).frame(table, text=text)
    assert engines() == before


def test_a_table_given_as_a_list_of_texts_is_told_where_it_goes(fake) -> None:
    with pytest.raises(UsageError, match=r"frame\(table, text=COLUMN\)"):
        Labeler("spam", model=fake).label(TABLE)
