"""`safeguard review` as people use it: from an output to a golden file, on several days, by several people."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from helpers.command import safeguard
from helpers.outputs import manifest, output, verdict
from helpers.reviews import COMMAND, answer, labelled, lines

from safeguard_cli.measure.reviewed import read_reviewed
from safeguard_cli.output.labelled import read_labels

LABELS = {"1": "ham", "2": "spam"}


def test_fifty_rows_become_a_golden_set_that_eval_measures(tmp_path) -> None:
    """The figures equal those worked by hand: the person says spam for every third row, and so does the model."""
    out, golden = labelled(tmp_path / "out.jsonl", 60), tmp_path / "golden.jsonl"
    first = answer(out, golden, "2 1 1 q", "--rows", "50")
    assert "golden.jsonl: 3 of 50 rows labelled; the same command goes on" in first.stderr
    done = answer(out, golden, " ".join(["2", "1", "1"] * 15 + ["2", "s"]), "--rows", "50")
    assert "golden.jsonl: 49 of 50 rows labelled, 1 skipped" in done.stderr
    found = lines(golden)
    assert len(found) == len({each["_row"] for each in found}) == 50
    assert {each["picked"]["how"] for each in found} == {"random"}
    assert {each["picked"]["probability"] for each in found} == {50 / 60}
    assert all(each["blind"] for each in found if each["label"])
    assert [each["labels"].get("anna") for each in found] == [each["label"] for each in found]
    agreed = sum(each["label"] == each["proposed"]["label"] for each in found)
    by_hand = sum((at % 3 == 0) == (each["_row"] % 3 == 0) for at, each in enumerate(found) if each["label"])
    assert agreed == by_hand > 0


def test_more_rows_go_on_where_fewer_stopped(tmp_path) -> None:
    out, golden = labelled(tmp_path / "out.jsonl", 20), tmp_path / "g.csv"
    answer(out, golden, "1 1 1 1", "--rows", "4")
    before = [row.row for row in read_reviewed(golden).rows]
    answer(out, golden, "2 2", "--rows", "6")
    after = read_reviewed(golden).rows
    assert [row.row for row in after][:4] == before
    assert {row.picked.probability for row in after} == {0.3}
    answer(out, golden, "q", "--rows", "2")
    assert {row.picked.probability for row in read_reviewed(golden).rows} == {0.3}


def test_a_row_picked_for_its_score_that_a_sample_holds_too_counts_as_random(tmp_path) -> None:
    out, golden = labelled(tmp_path / "out.jsonl", 10), tmp_path / "g.jsonl"
    done = answer(out, golden, "1 " * 5, "--rows", "5", "--pick", "unsure")
    assert "4 nearest to the threshold and 1 at random" in done.stderr
    hows = {each["_row"]: each["picked"]["how"] for each in lines(golden)}
    assert sorted(hows.values()) == ["random", "unsure", "unsure", "unsure", "unsure"]
    answer(out, golden, "1 " * 10, "--rows", "10")
    found = lines(golden)
    assert len(found) == 10
    assert {(each["picked"]["how"], each["picked"]["probability"]) for each in found} == {("random", 1.0)}


@pytest.mark.parametrize("given", range(4))
def test_a_kill_after_any_answer_loses_none(given, tmp_path) -> None:
    out, golden = labelled(tmp_path / "out.jsonl", 5), tmp_path / "g.jsonl"
    command = [*COMMAND, str(out), "-o", str(golden), "--as", "anna", "--plain"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, cwd=tmp_path) as process:
        assert process.stdin and process.stdout
        shown = ""
        for number in range(given + 1):
            while f"row {number + 1} of 5" not in shown or not shown.endswith("> "):
                shown += process.stdout.read(1)
            if number < given:
                process.stdin.write("2\n")
                process.stdin.flush()
        process.kill()
    rows = read_reviewed(golden).rows if golden.exists() else ()
    assert [row.label for row in rows] == ["spam"] * given
    answer(out, golden, "1 " * (5 - given))
    assert [each["label"] for each in lines(golden)] == ["spam"] * given + ["ham"] * (5 - given)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, width: int = 80, height: int = 24) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env={**env, "TERM": "xterm-256color"}
        )
        os.close(theirs)
        self._screen, self.shown = ours, ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < end and self.process.poll() is None, self.shown[-2000:]
            if select.select([self._screen], [], [], 0.1)[0]:
                data = os.read(self._screen, 1 << 16).decode(errors="replace")
                self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data)

    def press(self, keys: str) -> None:
        self.shown = ""
        os.write(self._screen, keys.encode())

    def end(self) -> int:
        while self.process.poll() is None:
            if select.select([self._screen], [], [], 0.1)[0]:
                try:
                    os.read(self._screen, 1 << 16)
                except OSError:
                    break
        code = self.process.wait(60)
        os.close(self._screen)
        return code


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, None], ids=str)
def test_the_app_in_a_terminal_keeps_every_answer_however_it_ends(stop, tmp_path) -> None:
    pytest.importorskip("textual")
    out, golden = labelled(tmp_path / "out.jsonl", 5), tmp_path / "g.jsonl"
    terminal = Terminal([*COMMAND, str(out), "-o", str(golden), "--as", "anna"], tmp_path)
    terminal.wait_for("row 1 of 5")
    terminal.press("2")
    terminal.wait_for("1 labelled")
    second = answer(out, golden, "1", code=4)
    assert f"open in another session of `safeguard review` (process {terminal.process.pid})" in second.stderr
    if stop is None:
        terminal.press("q")
    else:
        terminal.process.send_signal(stop)
    assert terminal.end() == {signal.SIGKILL: -9, signal.SIGTERM: 143, None: 0}[stop]
    assert [each["label"] for each in lines(golden)] == ["spam"]
    answer(out, golden, "1 " * 4)
    assert [each["label"] for each in lines(golden)] == ["spam"] + ["ham"] * 4


def test_without_textual_the_way_out_is_named(tmp_path) -> None:
    out = labelled(tmp_path / "out.jsonl", 3)
    hidden = "import sys; sys.modules['textual'] = None; from safeguard_cli.cli.app import main; main()"
    command = [COMMAND[0], "-c", hidden, "review", str(out), "-o", "g.jsonl", "--as", "anna"]
    terminal = Terminal(command, tmp_path, width=200)
    terminal.wait_for("--plain")
    assert "pip install" in terminal.shown and "[review]" in terminal.shown
    assert terminal.end() == 1
    assert not (tmp_path / "g.jsonl").exists()


def test_each_person_has_a_file_and_disputes_are_settled_with_both_answers_shown(tmp_path) -> None:
    out = labelled(tmp_path / "out.jsonl", 4)
    answer(out, tmp_path / "anna.jsonl", "1 1 2 s")
    answer(out, tmp_path / "ben.csv", "1 2 2 1", person="ben")
    refused = answer(out, tmp_path / "anna.jsonl", "1", person="ben", code=2)
    assert "has the answers of 'anna': --as ben needs a golden file of its own" in refused.stderr
    golden = tmp_path / "golden.jsonl"
    more = ("--pick", "disputed", "ben.csv", "--policy", "spam")
    done = answer(tmp_path / "anna.jsonl", golden, "n ok", *more, person="carol")
    assert "1 row in dispute; the golden file gets 3 that are not as they are" in done.stderr
    assert "anna: ham" in done.stdout and "ben: spam" in done.stdout
    done = answer(tmp_path / "anna.jsonl", golden, "2", *more, person="carol")
    found = {each["_row"]: each for each in lines(golden)}
    assert len(found) == 4
    disputed = next(each for each in found.values() if each.get("settled_by"))
    assert (disputed["label"], disputed["labels"]) == ("spam", {"anna": "ham", "ben": "spam"})
    assert disputed["picked"]["how"] == "random", "how it was first picked"
    assert sum("settled_by" in each for each in found.values()) == 1
    assert all(each["label"] for each in found.values()), "what one skipped has the other's label"
    refused = answer(tmp_path / "anna.jsonl", golden, "2", *more, person="dora", code=2)
    assert "has the answers of 'carol'" in refused.stderr


def test_reviews_of_different_outputs_are_not_put_together(tmp_path) -> None:
    for name, person in (("a", "anna"), ("b", "ben")):
        out = output(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}", "spam": verdict("ham", 0.1)} for n in (1, 2)])
        answer(out, tmp_path / f"{person}.jsonl", "1 2" if name == "a" else "2 1", person=person)
    done = answer(tmp_path / "anna.jsonl", tmp_path / "g.jsonl", "", "ben.jsonl", "--pick", "disputed", code=2)
    assert "these are not reviews of one output" in done.stderr
    done = answer(tmp_path / "b.jsonl", tmp_path / "anna.jsonl", "1", code=2)
    assert "is this the golden file of another output?" in done.stderr


def test_rows_on_which_two_outputs_differ(tmp_path) -> None:
    low = labelled(tmp_path / "low.jsonl", 6)
    rows = [{"id": n, "text": f"text {n}", "spam": verdict("ham", 0.1)} for n in range(1, 7)]
    output(tmp_path / "high.jsonl", rows)
    done = answer(low, tmp_path / "g.jsonl", "1 2", "--pick", "disagree", "--with", "high.jsonl")
    assert "2 rows, of 2 that differ" in done.stderr
    assert "low.jsonl: spam" in done.stdout and "high.jsonl: ham" in done.stdout
    found = lines(tmp_path / "g.jsonl")
    assert {each["_row"] for each in found} == {3, 6}
    assert {each["picked"]["probability"] for each in found} == {None}
    assert not any(each["blind"] for each in found)
    done = answer(low, tmp_path / "n.jsonl", "1", "--pick", "disagree", "--with", "low.jsonl", code=2)
    assert "the labels differ nowhere" in done.stderr
    done = answer(low, tmp_path / "n.jsonl", "1", "--pick", "disagree", code=2)
    assert "--pick disagree needs two opinions" in done.stderr


def test_two_policies_of_one_output_and_the_name_of_one(tmp_path) -> None:
    rows = [
        {"text": "a b", "x": verdict("ham", 0.1), "y": verdict("spam", 0.9)},
        {"text": "c d", "x": verdict("ham", 0.2), "y": verdict("ham", 0.2)},
    ]
    out = output(tmp_path / "out.jsonl", rows)
    done = answer(out, tmp_path / "g.jsonl", "1", code=2)
    assert "holds verdicts of several policies: name one with --policy (x, y)" in done.stderr
    answer(out, tmp_path / "x.jsonl", "1 1", "--policy", "x")
    assert {each["proposed"]["policy"] for each in lines(tmp_path / "x.jsonl")} == {"x"}
    done = answer(out, tmp_path / "d.jsonl", "2", "--pick", "disagree", "--policy", "y", "--policy", "x")
    assert [(each["_row"], each["proposed"]["policy"]) for each in lines(tmp_path / "d.jsonl")] == [(1, "y")]
    done = answer(out, tmp_path / "h.jsonl", "1", "--policy", "hate", code=2)
    assert "holds verdicts under x, y, not hate" in done.stderr


def test_rows_that_the_model_got_wrong(tmp_path) -> None:
    rows = [{"text": f"text {n}", "right": "S" if n > 2 else "H", "spam": verdict("ham", 0.1)} for n in range(1, 6)]
    out = output(tmp_path / "out.jsonl", rows)
    wrong = ("--pick", "wrong", "--gold-field", "right", "--map", "S=spam;H=ham")
    done = answer(out, tmp_path / "g.jsonl", "2 2 1", *wrong)
    assert "gold: spam" in done.stdout and "3 rows, of 3 that are wrong" in done.stderr
    assert {each["_row"] for each in lines(tmp_path / "g.jsonl")} == {3, 4, 5}
    done = answer(out, tmp_path / "h.jsonl", "2", "--pick", "wrong", code=2)
    assert "has no field with the right label: name it with --gold-field" in done.stderr


def test_a_label_in_the_row_is_not_shown_before_the_persons(tmp_path) -> None:
    out = labelled(tmp_path / "out.jsonl", 3, label="ham", gold_label="GOLD", topic="weather")
    done = answer(out, tmp_path / "g.jsonl", "1 b")
    before, after = done.stdout.split("row 1: you said")[0], done.stdout.rpartition("row 1 of 3")[2]
    assert "topic: weather" in before and "GOLD" not in before and "label:" not in before
    assert "gold_label: GOLD" in after
    assert "label as label_before" in done.stderr
    assert lines(tmp_path / "g.jsonl")[0]["label_before"] == "ham"


def test_rows_in_error_are_reviewed_and_rows_without_a_text_are_counted(tmp_path) -> None:
    failed = {"label": None, "error": {"code": "engine", "message": "no numbers"}}
    blank = {"label": None, "error": {"code": "no_text", "message": "blank"}}
    rows = [
        {"id": 1, "text": "a text", "spam": failed},
        {"id": 2, "text": "", "spam": blank},
        {"_line": 3, "_raw": "{", "spam": {"label": None, "error": {"code": "bad_json", "message": "no"}}},
        {"id": 4, "text": "more text", "spam": verdict("ham", 0.4)},
    ]
    out = output(tmp_path / "out.jsonl", rows)
    done = answer(out, tmp_path / "g.jsonl", "2 2")
    assert "left out: 2 rows without a text" in done.stderr
    found = {each["_row"]: each["proposed"]["label"] for each in lines(tmp_path / "g.jsonl")}
    assert found == {1: None, 4: "ham"}
    assert "the model: no label  (no numbers)" in done.stdout


def test_the_random_rows_of_an_audit_keep_their_probability(tmp_path) -> None:
    rows = []
    for n in range(1, 9):
        drawn = {"rank": n, "probability": 0.01} if n < 7 else {"picked": "find"}
        rows.append({"text": f"text {n}", "_sample": {"seed": 0, "row": n * 100, **drawn}, "spam": verdict("ham", 0.1)})
    out = output(tmp_path / "out.jsonl", rows)
    answer(out, tmp_path / "g.csv", "1 2 1", "--rows", "3")
    found = read_reviewed(tmp_path / "g.csv").rows
    assert len(found) == 3 and all(row.row < 7 for row in found)
    assert {(row.picked.probability, row.picked.of) for row in found} == {(0.5, 6)}
    assert {json.loads(row.fields["_sample"])["probability"] for row in found} == {0.01}
    output(
        out,
        [
            {
                "text": "new",
                "_sample": {"seed": 0, "row": 50, "rank": 7, "probability": 0.02},
                "spam": verdict("ham", 0.1),
            },
            *rows,
        ],
    )
    answer(out, tmp_path / "g.csv", "q", "--rows", "3")
    again = read_reviewed(tmp_path / "g.csv").rows
    assert {row.key for row in again} == {row.key for row in found}
    assert {row.row for row in again} <= {row.row + 1 for row in found} | {row.row for row in found}


def test_a_csv_that_pandas_saved_again_goes_on(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    out, golden = labelled(tmp_path / "out.jsonl", 6), tmp_path / "g.csv"
    answer(out, golden, "1 s 2")
    pandas.read_csv(golden).to_csv(golden, index=False)
    answer(out, golden, "1 1 1 2")
    found = read_reviewed(golden, labels=("ham", "spam"))
    assert [row.label for row in found.rows] == ["ham", None, "spam", "ham", "ham", "spam"]
    assert golden.read_bytes().startswith(b"\xef\xbb\xbf")
    assert (found.outdated, found.torn) == (0, False)


def test_the_line_mode_helps_and_refuses(tmp_path) -> None:
    out = labelled(tmp_path / "out.jsonl", 2)
    done = answer(out, tmp_path / "g.jsonl", "? nonsense r v p f b u spam", "--veil", "--policy", "spam")
    assert "'nonsense' is no label and no command" in done.stdout
    assert "SP1  Prize bait" in done.stdout
    assert "(veiled: v shows the text)" in done.stdout
    assert "nothing to take back" in done.stdout
    assert [each["label"] for each in lines(tmp_path / "g.jsonl")] == ["spam"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--with", "x.jsonl"), "--with has no effect without --pick disagree"),
        (("--gold-field", "x"), "--gold-field has no effect without --pick wrong"),
        (("--id-field", "x"), "--id-field has no effect without --with"),
        (("--pick", "disputed", "--seed", "3"), "--seed has no effect with --pick disputed"),
        (("--as", " "), "--as is empty"),
        (("--as", "a\nb"), "--as 'a\\nb': give a name"),
        (("other.jsonl",), "no such file"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(more, said, tmp_path) -> None:
    done = answer(labelled(tmp_path / "out.jsonl", 2), tmp_path / "g.jsonl", "1", *more, code=2)
    assert said in done.stderr
    assert not (tmp_path / "g.jsonl").exists()


def test_an_output_without_its_texts_is_refused(tmp_path) -> None:
    out = output(tmp_path / "out.jsonl", [{"id": n, "spam": verdict("ham", 0.1)} for n in (1, 2)])
    assert "does not hold the texts" in answer(out, tmp_path / "g.jsonl", "1", code=2).stderr
    assert read_labels(out).texts() is None


def test_where_nothing_is_in_dispute_the_golden_set_is_what_all_say(tmp_path) -> None:
    out = labelled(tmp_path / "out.jsonl", 3, label="ham")
    answer(out, tmp_path / "anna.jsonl", "1 1 2")
    answer(out, tmp_path / "ben.jsonl", "1 s 2", person="ben")
    done = answer(tmp_path / "anna.jsonl", tmp_path / "g.csv", "", "ben.jsonl", "--pick", "disputed", person="carol")
    assert "0 rows in dispute; the golden file gets 3 that are not as they are" in done.stderr
    found = read_reviewed(tmp_path / "g.csv").rows
    assert [(row.label, dict(row.labels)) for row in found] == [
        ("ham", {"anna": "ham", "ben": "ham"}),
        ("ham", {"anna": "ham"}),
        ("spam", {"anna": "spam", "ben": "spam"}),
    ]
    assert {row.fields["label_before"] for row in found} == {"ham"}, "not moved twice"


def test_a_turn_is_shown_with_the_turns_before_it(tmp_path) -> None:
    turns = [(7, 2, "ben", "second"), (8, 1, "cy", "another talk"), (7, 1, "anna", "first"), (7, 10, "anna", "third")]
    rows = [
        {"talk": talk, "turn": turn, "role": role, "text": text, "spam": verdict("ham", 0.1)}
        for talk, turn, role, text in turns
    ]
    out = output(tmp_path / "out.jsonl", rows)
    manifest(out, text_fields=["text"], turns={"group": "talk", "order": "turn", "role": "role", "per": "turn"})
    shown = answer(out, tmp_path / "g.jsonl", "1 1 1 1").stdout.split("labelled")
    third = next(each for each in shown if "\nthird" in each)
    assert third.index("anna: first") < third.index("ben: second") < third.index("The turn to label:")
    assert "another talk" not in third
    assert "Earlier turns" not in next(each for each in shown if "\nanother talk" in each)


def test_from_an_audit_over_two_people_to_agreement_and_a_corrected_share(tmp_path) -> None:
    """Every figure is counted here again from the golden files' lines."""
    out, golden = tmp_path / "a.jsonl", tmp_path / "golden.jsonl"
    audit = ["audit", "sample:messages", "-p", "spam", "--model", "demo", "--effort", "none", "--rows", "50"]
    assert safeguard(*audit, "-o", out, cwd=tmp_path).returncode == 0
    answer(out, tmp_path / "anna.jsonl", "2 1 1 1 2 " * 10, "--rows", "50")
    answer(out, tmp_path / "ben.jsonl", "2 1 2 1 2", "--rows", "5", person="ben")
    anna, ben = (
        {each["_row"]: each["label"] for each in lines(tmp_path / f"{name}.jsonl")} for name in ("anna", "ben")
    )
    found = json.loads(safeguard("agree", "anna.jsonl", "ben.jsonl", "--json", cwd=tmp_path).stdout)
    assert found["raw_agreement"]["value"] == sum(anna[row] == ben[row] for row in ben) / 5 == 0.8
    answer(tmp_path / "anna.jsonl", golden, "2", "ben.jsonl", "--pick", "disputed", person="carol")
    settled = {each["_row"]: each["label"] for each in lines(golden)}
    assert len(settled) == 50
    measured = safeguard("eval", golden, "-p", "spam", "--model", "demo", "--effort", "none", "--json", cwd=tmp_path)
    result = json.loads(measured.stdout)["policies"]["spam"]
    said = {each["_row"]: each["proposed"]["label"] for each in lines(golden)}
    assert result["rows"] == 50
    assert result["figures"]["accuracy"]["value"] == sum(said[row] == settled[row] for row in settled) / 50
    shown = safeguard(*audit, "-o", out, "--reviewed", golden, cwd=tmp_path)
    assert b"people's judgement" in shown.stdout, shown.stderr
    assert f"{sum(label == 'spam' for label in settled.values())} of 50 reviewed rows violate".encode() in shown.stdout
