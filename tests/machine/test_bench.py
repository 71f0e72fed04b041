"""`safeguard bench`: its figures agree with each other, it chooses the best setting, and it can end early."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import SAFEGUARD, rows, safeguard
from helpers.engines import needs_ik
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.machine.bench import numbers
from safeguard_cli.machine.speed import Figure, Round, Setting, best, rounds, sweep, tokens_per_row

QUICK = ("--threads", "1", "--batch", "512", "--seconds", "0.3", "--max-reasoning", "8")


def figure(slots: int, rate: float, threads: int = 1, batch: int = 512) -> Figure:
    """Return a figure of `rate` tokens/s with rows of 10 tokens."""
    return Figure(Setting(slots, threads, batch), (Round(100, 1000 / rate, 1000),), 2.0, 3.0, 1 << 20, 4.0)


@pytest.fixture(scope="module")
def found(tiny: Path) -> dict:
    """Measure the tiny model once on the shipped samples."""
    done = safeguard(
        *("bench", ROOT / "samples/messages.jsonl", "--policy", "spam", "--model", tiny, *QUICK),
        *("--slots", "1,4", "--batch", "512,64", "--rows", "5000", "--json", "--engine", "llama.cpp"),
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_rates_are_rows_and_tokens_over_time(found: dict) -> None:
    assert [(one["slots"], one["batch"]) for one in found["settings"][:2]] == [(1, 512), (4, 512)]
    for one in found["settings"]:
        assert one["rows_per_second"] == pytest.approx(one["rows"] / one["seconds"])
        assert one["rows"] % one["slots"] == 0
        assert min(one["rounds"]) <= one["seconds"] <= max(one["rounds"])
        bound = found["engines"][one["engine"]]["prompt_tokens_per_second"]
        assert one["bound_share"] == pytest.approx(one["tokens_per_second"] / bound)
        assert 0 < one["bound_share"] < 1.5
        assert 0 < one["generated_per_row"] <= 8
        assert one["memory_bytes"] > 20e6
        assert one["load_seconds"] > 0 < one["first_row_seconds"]


@needs_ik
def test_both_engines_take_turns_and_the_faster_one_is_named(tiny: Path) -> None:
    call = ("bench", "-p", "spam", "--model", tiny, *QUICK[:-2], "--slots", "1,4", "--effort", "none")
    result = json.loads((done := safeguard(*call, "--json")).stdout)
    assert done.returncode == 0, done.stderr.decode()
    tried = [(one["engine"], one["slots"]) for one in result["settings"]]
    assert tried == [("llama.cpp", 1), ("ik", 1), ("llama.cpp", 4), ("ik", 4)]
    for name, engine in result["engines"].items():
        assert engine["best"]["engine"] == name
        assert engine["prompt_tokens_per_second"] > 0 < engine["generation_tokens_per_second"]
    faster = max(result["engines"].values(), key=lambda engine: engine["best"]["tokens_per_second"])["best"]
    assert result["best"]["tokens_per_second"] >= 0.97 * faster["tokens_per_second"]
    assert result["best"]["options"].startswith(f"--engine {result['best']['engine']} --slots ")


@needs_ik
def test_people_see_each_engine_in_a_row_of_its_own_and_which_is_faster(tiny: Path) -> None:
    done = safeguard("bench", "-p", "spam", "--model", tiny, *QUICK[:-2], "--slots", "2", "--effort", "none")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(("llama.cpp ", "ik "))][:2] == [
        ["llama.cpp", "2"],
        ["ik", "2"],
    ]
    assert "times as fast as" in text
    assert "best: --engine " in text


@needs_ik
def test_an_engine_that_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("IK_LLAMA_CPP_LIB_PATH", str(tmp_path / "gone.so"))
    done = safeguard("bench", "-p", "spam", "--model", tiny, *QUICK[:-2], "--slots", "2", "--effort", "none")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "ik: not measured: " in text
    assert "gone.so" in text
    assert "best: --engine llama.cpp --slots 2" in text


def test_the_batch_sizes_are_tried_with_the_best_slots(found: dict) -> None:
    first = found["settings"][:2]
    assert len(found["settings"]) == 3
    assert found["settings"][2]["batch"] == 64
    assert found["settings"][2]["slots"] in {one["slots"] for one in first}
    assert found["best"] in [{**one, "options": found["best"]["options"]} for one in found["settings"]]


def test_the_best_options_are_options_of_label(found: dict, tiny: Path) -> None:
    done = safeguard(
        *("label", ROOT / "samples/messages.jsonl", "--policy", "spam", "--model", tiny, "--max-reasoning", 4, "-q"),
        *(*found["best"]["options"].split(), "--limit", "3"),
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(rows(done.stdout)) == 3


def test_the_estimate_is_for_the_rows_that_were_asked_for_at_the_best_rate(found: dict) -> None:
    chosen, estimate = found["best"], found["estimate"]
    assert estimate["rows"] == 5000
    steady = 4999 * estimate["tokens_per_row"] / chosen["tokens_per_second"]
    assert estimate["seconds"] == pytest.approx(steady + chosen["load_seconds"] + chosen["first_row_seconds"])


def test_a_file_is_measured_with_its_own_contents(found: dict, tiny: Path) -> None:
    dry = safeguard("label", ROOT / "samples/messages.jsonl", "-p", "spam", "--model", tiny, "--dry-run").stdout
    assert f"{found['content']['median_tokens']} median" in dry.decode()


def test_without_an_input_contents_are_made_and_the_table_is_plain_in_a_pipe(tiny: Path) -> None:
    done = safeguard(
        *("bench", "-p", "spam", "--model", tiny, *QUICK[:-2], "--slots", "2", "--content", "33", "--effort", "none")
    )
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "random texts of 33 tokens" in text
    assert "--slots 2 --threads 1 --batch 512" in next(line for line in text.splitlines() if line.startswith("best: "))
    assert "1,000 such rows" in text
    assert "\x1b" not in text


def test_slots_that_would_take_too_long_are_left_out_and_said(tiny: Path) -> None:
    done = safeguard(
        *("bench", "-p", "spam", "--model", tiny, *QUICK[:4], "--max-reasoning", "250", "--slots", "1,64"),
        *("--seconds", "0.1", "--json", "--engine", "llama.cpp"),
    )
    result = json.loads(done.stdout)
    assert [one["slots"] for one in result["settings"]] == [1]
    assert [one["slots"] for one in result["left_out"]] == [64]
    assert "--seconds" in result["left_out"][0]["reason"]


def test_ctrl_c_shows_what_is_measured_so_far(tiny: Path, tmp_path: Path) -> None:
    command = [SAFEGUARD, "bench", "-p", "spam", "--model", str(tiny), *QUICK, "--slots", "1,2,3,4,5,6,7,8"]
    command += ["--engine", "llama.cpp"]
    with (tmp_path / "out").open("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
        assert process.stderr
        while b"--slots 1 " not in (line := process.stderr.readline()):
            assert line, "it ended before anything was measured"
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert process.wait(20) == 130
        assert time.monotonic() - begin < 5
        process.stderr.close()
        out.seek(0)
        said = out.read()
    assert "interrupted" in said
    assert "best: --engine llama.cpp --slots 1" in said or "best: --engine llama.cpp --slots 2" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "-p", "spam"], "pipe"),
        (["no-such-file.jsonl", "-p", "spam"], "no-such-file.jsonl"),
        (["EMPTY", "-p", "spam"], "row"),
        (["-p", "spam", "--content", "100000"], "--content 100000"),
        (["-p", "spam", "--slots", "1,x"], "--slots 1,x"),
        (["-p", "spam", "--slots", "65"], "--slots 65"),
        (["-p", "no-such-policy"], "no-such-policy"),
        (["-p", "spam", "--ctx", "64"], "--ctx"),
    ],
)
def test_a_wrong_call_is_a_sentence_before_anything_is_measured(
    arguments: Sequence[str], said: str, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "EMPTY").with_suffix(".jsonl").write_text("")
    given = [str(tmp_path / "EMPTY.jsonl") if one == "EMPTY" else one for one in arguments]
    done = safeguard("bench", *given, "--model", tiny)
    assert done.returncode in (1, 2), done.stderr.decode()
    assert said in done.stderr.decode()
    assert not done.stdout


def test_a_file_name_cannot_write_to_the_terminal(tiny: Path, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[31mb.jsonl"
    evil.write_text('{"text": "hello"}\n')
    done = safeguard("bench", evil, "-p", "spam", "--model", tiny, *QUICK[:-2], "--slots", "1", "--effort", "none")
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b[31m" not in done.stdout + done.stderr
    assert b"\\x1b[31m" in done.stdout


def test_a_small_batch_changes_no_label(tiny: Path) -> None:
    call = ("label", ROOT / "samples/messages.jsonl", "-p", "spam", "--model", tiny, "--effort", "none", "-q")
    whole, parts = (
        [row["spam"]["p_violates"] for row in rows(safeguard(*call, "--threads", 1, "--batch", n).stdout)]
        for n in (512, 64)
    )
    assert len(whole) > 10
    assert parts == pytest.approx(whole, abs=0.15)  # with quantized weights rounding moves the tiny model that far


@given(
    waits=st.lists(st.floats(0.001, 10), min_size=1, max_size=300),
    slots=st.integers(1, 16),
)
def test_rounds_are_equal_whole_waves_without_the_first(waits: list[float], slots: int) -> None:
    marks, now = [(0.0, 0)], 0.0
    for number, wait in enumerate(waits, 1):
        now += wait
        marks.append((now, 7 * number))
    if len(waits) < slots:
        return
    parts = rounds(marks, slots)
    assert 1 <= len(parts) <= 5
    assert len({part.rows for part in parts}) == 1
    assert parts[0].rows % slots == 0
    assert all(part.tokens == 7 * part.rows for part in parts)
    first = slots if len(waits) >= 2 * slots else 0
    counted = sum(part.rows for part in parts)
    assert len(waits) - first - counted < 5 * slots
    assert sum(part.seconds for part in parts) == pytest.approx(marks[first + counted][0] - marks[first][0])


def test_the_best_is_the_fastest_and_of_equals_the_smallest() -> None:
    assert best([figure(1, 10), figure(4, 40), figure(8, 60), figure(16, 50)]).setting.slots == 8
    assert best([figure(4, 98.5), figure(8, 100)]).setting.slots == 4
    assert best([figure(4, 96), figure(8, 100)]).setting.slots == 8
    assert best([figure(8, 100, threads=4), figure(8, 99, threads=2)]).setting.threads == 2


def test_what_rows_take_is_the_start_and_then_the_rate() -> None:
    measured = figure(4, 50)  # rows of 10 tokens: 5 rows/s
    assert tokens_per_row([measured]) == 10
    assert measured.rows_per_second == pytest.approx(5)
    assert measured.seconds_for(0, 10) == 2
    assert measured.seconds_for(1, 10) == 5
    assert measured.seconds_for(101, 10) == pytest.approx(2 + 3 + 20)


def test_a_sweep_tries_threads_and_batches_with_the_best_slots() -> None:
    tried = []
    speeds = {1: 10.0, 8: 30.0, 16: 20.0}

    def attempt(setting: Setting) -> Figure | None:
        tried.append(setting)
        if setting.slots == 32:
            return None
        rate = speeds[setting.slots] * (2 if setting.threads == 2 else 1) / (1 if setting.batch == 512 else 2)
        return figure(setting.slots, rate, setting.threads, setting.batch)

    sweep((1, 8, 16, 32), (4, 2), (512, 256), attempt)
    assert tried == [
        *(Setting(n, 4, 512) for n in (1, 8, 16, 32)),
        Setting(8, 2, 512),
        Setting(8, 2, 256),
    ]


def test_engines_take_turns_and_the_better_one_is_tried_on() -> None:
    tried = []

    def attempt(setting: Setting) -> Figure | None:
        tried.append(setting)
        rate = 10.0 * setting.slots * (2 if setting.engine == "b" else 1)
        return replace(figure(setting.slots, rate), setting=setting)

    sweep((1, 4), (2, 1), (512, 64), attempt, ("a", "b"))
    assert tried == [
        *(Setting(slots, 2, 512, engine) for slots in (1, 4) for engine in "ab"),
        Setting(4, 1, 512, "b"),
        Setting(4, 1, 64, "b"),  # as fast with one thread, which leaves the other free
    ]
    assert tried[1].options == "--engine b --slots 1 --threads 2 --batch 512"
    assert Setting(1, 2, 512).options == "--slots 1 --threads 2 --batch 512"


@pytest.mark.parametrize("text", ["", "0", "65", "1;2", "a", "1,,2", "-1"])
def test_lists_of_numbers_are_checked(text: str) -> None:
    if not text:
        assert numbers("--slots", text, 1, 64) == ()
        return
    with pytest.raises(UsageError, match="--slots"):
        numbers("--slots", text, 1, 64)
    assert numbers("--slots", "8, 1,8", 1, 64) == (8, 1)
