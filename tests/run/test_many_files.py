"""Several files under one engine: each output is that of its file alone, whatever happens in between."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import safeguard
from helpers.fake_engine import FakeEngine, Steady
from helpers.kills import killed_at, steps_of
from helpers.runs import row

from safeguard_cli import errors
from safeguard_cli.errors import Interrupted, SafeguardError, UsageError
from safeguard_cli.output.manifest import Foreign, Refused
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run import many
from safeguard_cli.run.files import find_pairs, means_several, output_name
from safeguard_cli.run.label import label
from safeguard_cli.run.many import label_many
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")


class Counting(Steady):
    """An engine that notes each loading, and the most rows that it had at once."""

    loaded = 0
    most = 0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        type(self).loaded += 1

    def complete(self, prompts: Any) -> Any:
        under_way = set()

        def counted() -> Any:
            for prompt in prompts:
                if isinstance(prompt, Prompt):
                    under_way.add((prompt.part, prompt.row, prompt.policy, prompt.window))
                    type(self).most = max(self.most, len(under_way))
                yield prompt

        for completion in super().complete(counted()):
            prompt = completion.prompt
            under_way.remove((prompt.part, prompt.row, prompt.policy, prompt.window))
            yield completion


@pytest.fixture
def engine() -> type[Counting]:
    return type("Counting", (Counting,), {})


class Folder:
    """A folder `in` of inputs, a folder `out` of outputs, and the command over them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.inputs, self.out = folder / "in", folder / "out"
        self.inputs.mkdir()

    def add(self, name: str, rows: int = 5, first: int = 0) -> Path:
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = Path(name.removesuffix(".gz")).suffix[1:]
        text = "id,text\n" * (kind == "csv") + "".join(row(n, kind) for n in range(first, first + rows))
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def settings(self, *inputs: object, **options: Any) -> Settings:
        given = {"policies": ("spam",), "slots": 4, "threads": 1, "quiet": True, "model": str(self.model), **options}
        names = tuple(map(str, inputs or (self.inputs,)))
        return Settings(input=names[0], **{"inputs": names, "output": f"{self.out}/", **given})

    def __call__(self, *inputs: object, engine: Callable[..., FakeEngine] = Steady, **options: Any) -> int:
        return label_many(self.settings(*inputs, **options), engine)

    def alone(self, name: str, engine: Callable[..., FakeEngine] = Steady, **options: Any) -> bytes:
        """Return what a run over one file writes."""
        out = self.folder / "alone" / output_name(Path(name), None).name
        out.parent.mkdir(exist_ok=True)
        asked = self.settings(self.inputs / name, output=str(out), overwrite=True, **options)
        label(Settings(**{**vars(asked), "inputs": ()}), engine)
        return out.read_bytes()

    def written(self) -> dict[str, bytes]:
        found = (path for path in self.out.rglob("*") if path.suffix in (".jsonl", ".csv"))
        return {str(path.relative_to(self.out)): path.read_bytes() for path in found}

    def record(self) -> dict[str, dict[str, Any]]:
        found = json.loads((self.out / "set.manifest.json").read_bytes())
        return {file["output"]: file for file in found["files"]}


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Folder:
    return Folder(tmp_path, tiny)


NAMES = ("a.jsonl", "b.csv", "deep/c.jsonl", "deep/er/d.jsonl.gz", "e.csv")
OUTPUTS = {"a.jsonl": 0, "b.csv": 1, "deep/c.jsonl": 2, "deep/er/d.jsonl": 3, "e.csv": 4}


def fill(folder: Folder) -> None:
    for at, name in enumerate(NAMES):
        folder.add(name, rows=3 + at, first=10 * at)


@pytest.mark.promise("Of several files, each gets the output that it gets alone, with one loading of the model.")
@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"policies": ("spam", "hate")}, {"keep": "id"}])
def test_each_output_is_that_of_its_file_alone_with_one_engine(folder, engine, options) -> None:
    fill(folder)
    assert folder(engine=engine, **options) == errors.ROWS_IN_ERROR
    assert engine.loaded == 1
    written = folder.written()
    assert written.keys() == OUTPUTS.keys()
    for output, at in OUTPUTS.items():
        assert written[output] == folder.alone(NAMES[at], **options), output


def test_with_deterministic_a_file_depends_on_no_other_even_where_scores_move_with_the_batch(folder) -> None:
    fill(folder)
    folder(engine=FakeEngine, deterministic=True)
    for output, at in OUTPUTS.items():
        assert folder.written()[output] == folder.alone(NAMES[at], deterministic=True, engine=FakeEngine), output


def test_small_files_keep_every_slot_busy(folder, engine) -> None:
    for at in range(30):
        (folder.inputs / f"{at:02}.jsonl").write_text(json.dumps({"text": f"call me on {at}"}) + "\n")
    assert folder(engine=engine, slots=8) == errors.OK
    assert engine.most >= 8
    assert len(folder.written()) == 30


def test_rows_are_numbered_within_their_file_so_that_sampling_is_that_of_the_file_alone(folder) -> None:
    fill(folder)
    seen: list[tuple[int, int]] = []

    def watching(*given: Any) -> FakeEngine:
        return Steady(*given, before=lambda prompt: seen.append((prompt.part, prompt.row)))

    folder(engine=watching, temperature=0.5)
    assert {row for _, row in seen} <= set(range(7))
    assert len(set(seen)) == len(seen)
    assert {part for part, _ in seen} == set(range(5))


def test_equal_texts_in_several_files_are_decoded_once(folder) -> None:
    for name in ("a", "b", "c"):
        (folder.inputs / f"{name}.jsonl").write_text('{"text": "see you at noon"}\n' * 3)
    seen: list[int] = []
    folder(engine=lambda *given: Steady(*given, before=lambda prompt: seen.append(prompt.row)))
    assert len(seen) == 1
    assert set(folder.written().values()) == {folder.written()["a.jsonl"]}


@pytest.mark.promise("SIGKILL at any point: the same command over several files goes on, and no output differs.")
def test_a_run_killed_at_any_step_is_finished_by_the_same_command(folder) -> None:
    for at in range(3):
        folder.add(f"{at}.jsonl", rows=3, first=at * 10)
    folder.add("3.csv", rows=2, first=40)
    folder()  # the first run also keeps what later ones find
    shutil.rmtree(folder.out)
    steps = steps_of(folder)
    whole = folder.written()
    for nth in range(0, steps, 9):
        shutil.rmtree(folder.out)
        assert killed_at(nth, folder)
        assert folder() == errors.ROWS_IN_ERROR
        assert folder.written() == whole, nth
        assert {file["state"] for file in folder.record().values()} == {"finished"}
        assert not [path for path in folder.out.rglob("*") if ".safeguard-" in path.name or ".run." in path.name]


def test_finished_files_are_neither_read_nor_labelled_again(folder, engine, monkeypatch) -> None:
    fill(folder)
    folder()
    before = {path: path.stat().st_mtime_ns for path in folder.out.rglob("*.*")}
    read: list[str] = []
    opened = many.opened
    monkeypatch.setattr(many, "opened", lambda asked, *rest: read.append(asked.input) or opened(asked, *rest))
    assert folder(engine=engine) == errors.ROWS_IN_ERROR
    assert (engine.loaded, read) == (0, [])
    (folder.out / "set.manifest.json").write_text('{"set": true}')  # damaged: each input is read and compared
    assert folder(engine=engine) == errors.ROWS_IN_ERROR
    assert (engine.loaded, len(read)) == (0, 5)
    outputs = {path: at for path, at in before.items() if "set.manifest" not in path.name}
    assert outputs == {path: path.stat().st_mtime_ns for path in outputs}


def test_files_that_are_added_later_are_labelled_by_the_same_command(folder, engine) -> None:
    fill(folder)
    folder()
    before = folder.written()
    folder.add("deep/new.jsonl", rows=4, first=70)
    assert folder(engine=engine) == errors.ROWS_IN_ERROR
    assert engine.loaded == 1
    assert folder.written() == {**before, "deep/new.jsonl": folder.alone("deep/new.jsonl")}


def test_a_file_that_fails_is_told_and_the_others_are_labelled(folder, capsys) -> None:
    fill(folder)
    whole = gzip.compress(b"".join(b'{"text": "number %d %d"}\n' % (n, n * 7919**3) for n in range(3000)))
    torn = folder.inputs / "torn.jsonl.gz"
    torn.write_bytes(whole[: len(whole) // 2])
    (folder.inputs / "no_text.jsonl").write_text('{"n": 1}\n')
    assert folder() == errors.FATAL
    said = capsys.readouterr().err
    assert "no_text.jsonl: which field holds the text?" in said
    assert "torn.jsonl.gz: reading failed after line" in said
    assert "files not labelled: 2; run the same command" in said
    states = {output: file["state"] for output, file in folder.record().items()}
    assert states == {**dict.fromkeys(OUTPUTS, "finished"), "torn.jsonl": "failed", "no_text.jsonl": "failed"}
    assert 0 < len(folder.written()["torn.jsonl"].splitlines()) < 3000
    torn.write_bytes(whole)
    (folder.inputs / "no_text.jsonl").unlink()
    assert folder() == errors.ROWS_IN_ERROR
    assert len(folder.written()["torn.jsonl"].splitlines()) == 3000


def test_an_output_that_cannot_be_written_fails_alone(folder, capsys) -> None:
    fill(folder)
    (folder.out / "b.csv").mkdir(parents=True)
    assert folder() == errors.USAGE
    assert "b.csv: this is a folder" in capsys.readouterr().err
    states = {output: file["state"] for output, file in folder.record().items()}
    assert states == {**dict.fromkeys(OUTPUTS, "finished"), "b.csv": "failed"}


def test_a_file_that_has_changed_is_refused_and_keeps_its_output(folder, capsys) -> None:
    fill(folder)
    folder()
    before = folder.written()
    folder.add("a.jsonl", rows=3, first=500)
    assert folder() == errors.RESUME_REFUSED
    assert "the input is not the one that it was made from" in capsys.readouterr().err
    assert folder.written() == before


def test_another_policy_into_the_same_folder_is_refused_for_every_file(folder, capsys) -> None:
    fill(folder)
    folder()
    before = folder.written()
    assert folder(policies=("hate",)) == errors.RESUME_REFUSED
    assert capsys.readouterr().err.count("was labelled differently") == 5
    assert folder.written() == before
    assert folder(policies=("hate",), overwrite=True) == errors.ROWS_IN_ERROR


def test_retry_errors_labels_the_error_rows_of_all_files_again(folder) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (folder.inputs / name).write_text("".join(f'{{"text": "{name} {n}"}}\n' for n in range(5)))
    assert folder(engine=lambda *given: Steady(*given, error=lambda prompt: prompt.row == 2)) == errors.ROWS_IN_ERROR
    folder.add("c.jsonl", rows=1, first=1)
    assert folder(retry_errors=True) == errors.OK
    assert folder.written()["a.jsonl"] == folder.alone("a.jsonl")
    assert folder.record()["b.jsonl"]["rows_in_error"] == 0


def test_an_interrupted_run_saves_every_file_and_names_the_command(folder, capsys) -> None:
    fill(folder)
    asked = iter(range(6))

    def stop(_: Prompt) -> None:
        if next(asked, None) is None:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        folder(engine=lambda *given: Steady(*given, before=stop))
    assert "of 5 files are labelled; to go on: " in capsys.readouterr().err
    states = [file["state"] for file in folder.record().values()]
    assert "begun" in states
    assert folder() == errors.ROWS_IN_ERROR
    assert {file["state"] for file in folder.record().values()} == {"finished"}


def test_the_record_has_the_state_and_the_counts_of_each_file(folder) -> None:
    fill(folder)
    folder()
    for output, at in OUTPUTS.items():
        made = json.loads((folder.out / f"{output}.manifest.json").read_bytes())["result"]
        file = folder.record()[output]
        assert (file["state"], file["rows"]) == ("finished", 3 + at)
        assert {name: file[name] for name in ("rows_in_error", "labels", "violating", "exit_code")} == {
            name: made[name] for name in ("rows_in_error", "labels", "violating", "exit_code")
        }


def test_a_record_that_is_not_ours_is_never_touched(folder) -> None:
    fill(folder)
    folder.out.mkdir()
    (folder.out / "set.manifest.json").write_text("precious")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(Foreign):
            folder(**options)
    assert (folder.out / "set.manifest.json").read_text() == "precious"
    assert not folder.written()


@pytest.mark.parametrize("output", ["out/", "all.jsonl"])
def test_how_an_input_is_read_holds_for_every_file(folder, output) -> None:
    for name in ("a.csv", "b.csv"):
        (folder.inputs / name).write_text("A title\nid,text\n1,see you at noon\n")
    assert folder(output=f"{folder.folder}/{output}", skip_rows=1) == errors.OK
    written = b"".join(
        path.read_bytes() for path in (folder.folder / output, *folder.out.glob("*.csv")) if path.is_file()
    )
    assert written.count(b"see you at noon") == 2
    assert b"title" not in written


def test_files_of_every_format_of_text_are_labelled_together(folder) -> None:
    (folder.inputs / "a.txt").write_text("see you at noon\nhello\n")
    (folder.inputs / "b.json").write_text('[{"text": "see you"}, {"text": "hello"}]')
    folder.add("c.jsonl.gz", rows=2, first=1)
    assert folder() == errors.OK
    assert {path.name for path in folder.out.glob("*.json*") if "manifest" not in path.name} == {
        *("a.txt.jsonl", "b.json", "c.jsonl")
    }
    assert [Path(row["_file"]).name for row in joined(folder)] == ["a.txt"] * 2 + ["b.json"] * 2 + ["c.jsonl.gz"] * 2


def names(folder: Folder, *inputs: object, **options: Any) -> list[str]:
    pairs = find_pairs(folder.settings(*inputs, **options))
    return [str(pair.output.relative_to(folder.out)) for pair in pairs]


def test_a_folder_means_its_files_with_known_extensions_and_others_are_told_once(folder, capsys) -> None:
    fill(folder)
    for name in ("x.pdf", "deep/y.docx", ".hidden.jsonl", ".git/z.jsonl", "a.jsonl.manifest.json", "b.csv.run.json"):
        path = folder.inputs / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (folder.folder / "elsewhere").mkdir()
    (folder.folder / "elsewhere" / "f.jsonl").write_text("{}")
    (folder.inputs / "linked").symlink_to(folder.folder / "elsewhere")
    (folder.inputs / "link.jsonl").symlink_to(folder.folder / "elsewhere" / "f.jsonl")
    (folder.inputs / "broken.jsonl").symlink_to(folder.folder / "nothing")
    os.mkfifo(folder.inputs / "pipe.jsonl")
    assert sorted(names(folder)) == sorted([*OUTPUTS, "link.jsonl"])
    said = capsys.readouterr().err
    assert said.count("left out") == 1
    assert "x.pdf" in said
    assert "y.docx" in said


def test_outputs_below_the_input_folder_are_no_inputs_of_the_next_run(folder) -> None:
    fill(folder)
    folder.out = folder.inputs / "labels"
    assert folder() == errors.ROWS_IN_ERROR
    assert sorted(names(folder)) == sorted(OUTPUTS)
    assert sorted(names(folder, f"{folder.inputs}/**/*.*")) == sorted(OUTPUTS)
    assert folder() == errors.ROWS_IN_ERROR
    assert folder(output=f"{folder.inputs}/all.jsonl") == errors.ROWS_IN_ERROR
    assert folder(output=f"{folder.inputs}/all.jsonl") == errors.ROWS_IN_ERROR


def test_outputs_beside_packed_inputs_are_no_inputs_of_the_next_run(folder, engine) -> None:
    folder.add("a.jsonl.gz")
    folder.out = folder.inputs
    folder()
    assert names(folder) == ["a.jsonl"]
    folder(engine=engine)
    assert engine.loaded == 0


def test_folders_below_an_input_are_kept_and_a_file_counts_once(folder) -> None:
    fill(folder)
    one = folder.inputs / "a.jsonl"
    assert names(
        folder, one, folder.inputs / "deep", f"{folder.inputs}/*.csv", one, f"{folder.inputs}/../in/a.jsonl"
    ) == [*("a.jsonl", "c.jsonl", "er/d.jsonl", "b.csv", "e.csv")]


def test_two_files_never_get_one_output(folder) -> None:
    fill(folder)
    folder.add("a.jsonl.gz")
    with pytest.raises(UsageError, match=r"a\.jsonl and .*a\.jsonl\.gz would both be written"):
        names(folder)
    with pytest.raises(UsageError, match="would be overwritten"):
        names(folder, folder.inputs / "deep", output=str(folder.inputs / "deep"))


@pytest.mark.parametrize(
    ("name", "format", "output"),
    [
        ("a.jsonl", None, "a.jsonl"),
        ("a.JSONL.GZ", None, "a.JSONL"),
        ("a.b.csv", None, "a.b.csv"),
        ("a.log", "jsonl", "a.log.jsonl"),
        ("a.log.gz", "csv", "a.log.csv"),
        ("a", "jsonl", "a"),
        ("in.parquet", None, "in.parquet"),
    ],
)
def test_an_output_has_the_name_of_its_input(name, format, output) -> None:
    assert str(output_name(Path(name), format)) == output


def test_a_command_without_files_is_called_wrongly(folder) -> None:
    (folder.inputs / "x.pdf").write_text("")
    for inputs, said in (
        ([folder.inputs], r"no file to label in this folder; known extensions are .*; there are: .*x\.pdf"),
        ([folder.inputs / "*.jsonl"], "no file matches"),
        ([folder.inputs / "no.jsonl", "-"], "No such file"),
        (["-", folder.inputs], "standard input is one input"),
    ):
        with pytest.raises(UsageError, match=said):
            folder(*inputs)
    assert not folder.out.exists()
    fill(folder)
    for options, said in (({"output": None}, "need -o"), ({"limit": 3}, "--limit"), ({"shard": (1, 2)}, "--shard")):
        with pytest.raises(UsageError, match=said):
            folder(**options)


def test_what_means_several_files(folder, monkeypatch) -> None:
    fill(folder)
    monkeypatch.chdir(folder.inputs)
    (folder.inputs / "odd[1].jsonl").write_text("{}")
    for inputs, output, several in (
        (["a.jsonl"], None, False),
        (["a.jsonl"], "out.jsonl", False),
        (["odd[1].jsonl"], "out.jsonl", False),
        (["none.jsonl"], None, False),
        (["-"], "deep", False),
        (["a.jsonl"], "deep", True),
        (["a.jsonl"], "new/", True),
        (["*.jsonl"], "out.jsonl", True),
        (["deep"], None, True),
        (["a.jsonl", "b.csv"], None, True),
    ):
        assert means_several(inputs, output) is several, (inputs, output)


def joined(folder: Folder, *inputs: object, name: str = "all.jsonl", **options: Any) -> list[dict[str, Any]]:
    code = folder(*inputs, output=str(folder.folder / name), **options)
    assert code in (errors.OK, errors.ROWS_IN_ERROR)
    return [json.loads(line) for line in (folder.folder / name).read_bytes().splitlines()]


def test_one_output_has_all_rows_in_order_and_each_tells_its_file(folder, monkeypatch) -> None:
    fill(folder)
    monkeypatch.chdir(folder.inputs)
    (folder.inputs / "f.jsonl").write_text('{"text": "1.10", "n": 1.10, "n": 2}\n{"text": " "}\nbroken\n')
    rows = joined(folder, "f.jsonl", "b.csv", "deep")
    assert [row["_file"] for row in rows if "_file" in row] == [
        *["f.jsonl"] * 2,
        *["b.csv"] * 4,
        *["deep/c.jsonl"] * 5,
        *["deep/er/d.jsonl.gz"] * 6,
    ]
    lines = (folder.folder / "all.jsonl").read_bytes().splitlines()
    assert lines[0].startswith(b'{"text": "1.10", "n": 1.10, "n": 2,"_file":"f.jsonl","spam":{')
    assert rows[2]["spam"]["error"]["message"].startswith("f.jsonl, line 3: ")
    made = json.loads((folder.folder / "all.jsonl.manifest.json").read_bytes())["result"]
    assert made["blank"] == 1
    listed = json.loads((folder.folder / "all.jsonl.files.json").read_bytes())["files"]
    assert [(file["output"], file["rows"], file["state"]) for file in listed] == [
        ("f.jsonl", 3, "finished"),
        ("b.csv", 4, "finished"),
        ("deep/c.jsonl", 5, "finished"),
        ("deep/er/d.jsonl.gz", 6, "finished"),
    ]


def test_a_csv_of_several_has_a_column_and_refuses_files_of_other_columns(folder) -> None:
    for name in ("a.csv", "b.csv"):
        folder.add(name)
    joined_csv = folder.folder / "all.csv"
    assert folder(output=str(joined_csv)) == errors.ROWS_IN_ERROR
    with joined_csv.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["_file", "id", "text", "spam_label"]
    assert [Path(cells[0]).name for cells in rows[1:]] == ["a.csv"] * 5 + ["b.csv"] * 5
    (folder.inputs / "c.csv").write_text("text,more\nhello,1\n")
    with pytest.raises(UsageError, match="not all the same columns"):
        folder(output=str(folder.folder / "other.csv"))
    rows = joined(folder)
    assert rows[-1]["more"] == "1"


def test_one_output_killed_at_any_step_is_finished_by_the_same_command(folder) -> None:
    for at in range(3):
        folder.add(f"{at}.jsonl", rows=3, first=at * 10)
    out = folder.folder / "all.jsonl"

    def work() -> int:
        return folder(output=str(out))

    work()  # the first run also keeps what later ones find
    for path in folder.folder.glob("all*"):
        path.unlink()
    steps = steps_of(work)
    whole = out.read_bytes()
    for nth in range(0, steps, 5):
        for path in folder.folder.glob("all*"):
            path.unlink()
        assert killed_at(nth, work)
        assert work() == errors.ROWS_IN_ERROR
        assert out.read_bytes() == whole, nth


def test_one_output_takes_up_files_that_are_added_wherever_they_sort(folder) -> None:
    fill(folder)
    before = joined(folder)
    folder.add("0.jsonl", rows=2, first=80)
    after = joined(folder)
    assert after[: len(before)] == before
    assert [Path(row["_file"]).name for row in after[len(before) :]] == ["0.jsonl"] * 2


def test_one_output_refuses_a_file_that_is_gone_or_changed(folder) -> None:
    fill(folder)
    joined(folder)
    out = folder.folder / "all.jsonl"
    before = out.read_bytes()
    (folder.inputs / "b.csv").rename(folder.folder / "b.csv")
    with pytest.raises(Refused, match=r"b\.csv, which this command does not find"):
        folder(output=str(out))
    (folder.folder / "b.csv").rename(folder.inputs / "b.csv")
    folder.add("b.csv", rows=4, first=300)
    with pytest.raises(Refused, match=r"b\.csv has changed"):
        folder(output=str(out))
    assert out.read_bytes() == before


def test_one_output_leaves_out_a_file_that_cannot_be_read_and_takes_it_later(folder, capsys) -> None:
    fill(folder)
    torn = folder.add("torn.jsonl.gz", rows=50)
    data = torn.read_bytes()
    torn.write_bytes(data[: len(data) // 2])
    out = folder.folder / "all.jsonl"
    assert folder(output=str(out)) == errors.FATAL
    assert "torn.jsonl.gz" in capsys.readouterr().err
    torn.write_bytes(data)
    rows = joined(folder)
    assert sum("torn" in row["_file"] for row in rows) == 50


def test_a_file_that_has_the_field_already_is_refused(folder) -> None:
    (folder.inputs / "a.jsonl").write_text('{"text": "x y", "_file": "mine"}\n')
    folder.add("b.jsonl")
    with pytest.raises(UsageError, match="has a field '_file' already"):
        folder(output=str(folder.folder / "all.jsonl"))


def test_none_that_can_be_read_is_a_failure(folder) -> None:
    (folder.inputs / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n')[:-9])
    with pytest.raises(SafeguardError, match="none of the files can be read"):
        folder(output=str(folder.folder / "all.jsonl"))


def test_the_command_labels_a_folder_and_says_so(tmp_path, tiny) -> None:
    made = Folder(tmp_path, tiny)
    made.add("a.jsonl", rows=2)
    made.add("b.csv", rows=2)
    how = ("--policy", "spam", "--model", tiny, "--effort", "none", "--slots", 2, "--threads", 1)
    done = safeguard("label", "in", "-o", "out/", *how, cwd=tmp_path)
    assert done.returncode == errors.ROWS_IN_ERROR, done.stderr
    assert b"text: text, in 2 files\n2 of 2 files are labelled; see out/set.manifest.json" in done.stderr
    again = safeguard("label", "in", "-o", "out/", *how, cwd=tmp_path)
    assert b"2 of 2 files are labelled, 2 of them before" in again.stderr
    refused = safeguard("label", "in/a.jsonl", "in/b.csv", *how, cwd=tmp_path)
    assert refused.returncode == errors.USAGE
    assert b"several inputs need -o" in refused.stderr
    for command in ("eval", "report"):
        asked = safeguard(command, "in", "--policy", "spam", cwd=tmp_path)
        assert asked.returncode == errors.USAGE
        assert b"this is a folder, and this command takes one file" in asked.stderr
