"""Runs over rows that are turns of conversations (--group)."""

from __future__ import annotations

import functools
import json
import random

import pytest
from helpers.command import rows, safeguard, write
from helpers.fake_engine import FakeEngine

from safeguard_cli import errors
from safeguard_cli.prompt.contract import Prompt

pytestmark = pytest.mark.usefixtures("own_cache")

TURNS = {"group": "talk", "order": "turn"}


def talks(count: int = 50, most: int = 30) -> list[dict]:
    """Return the turns of conversations, those of all mixed; each text names its conversation and its turn."""
    chance = random.Random(5)
    lengths = [most if number == 0 else chance.randint(1, most) for number in range(count)]
    found = [
        {"talk": f"t{number}", "turn": turn, "role": "user" if turn % 2 else "bot", "text": f"says {number}.{turn}."}
        for number, length in enumerate(lengths)
        for turn in range(1, length + 1)
    ]
    chance.shuffle(found)
    return found


def fill(bench, found: list[dict]) -> None:
    bench.source.write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.mark.promise("Each turn of a conversation is labelled with just the turns before it, also in a resumed run.")
def test_turns_keep_their_context_and_order_when_a_run_is_killed_and_resumed(bench, harmony) -> None:
    found = talks()
    fill(bench, found)
    whole = bench.whole(deterministic=True, **TURNS)
    seen: dict[int, str] = {}

    def before(prompt: Prompt) -> None:
        text = harmony.tokenizer.decode_bytes(prompt.ids[: -len(harmony.suffix)]).decode()
        assert seen.setdefault(prompt.row, text) == text

    for prompts in (37, 300):
        bench.killed_after(prompts, deterministic=True, **TURNS)
        assert len(bench.out.read_bytes().splitlines()) < len(found)
    assert bench(functools.partial(FakeEngine, before=before), deterministic=True, **TURNS) == errors.OK
    assert bench.out.read_bytes() == whole
    assert [{name: row[name] for name in found[0]} for row in rows(whole)] == found
    assert len(seen) > 100, "the last session labelled rows"
    for number, text in seen.items():
        row = found[number]
        talk = row["talk"][1:]
        assert [word for word in text.split() if word[0].isdigit()] == [
            f"{talk}.{turn}." for turn in range(1, row["turn"] + 1)
        ]


def test_all_rows_of_a_conversation_have_its_label_and_it_is_labelled_once(bench) -> None:
    found = talks(9)
    fill(bench, found)
    asked: list[int] = []
    engine = functools.partial(FakeEngine, before=lambda prompt: asked.append(prompt.row))
    assert bench(engine, verdict_per="conversation", **TURNS) == errors.OK
    assert len(asked) == 9
    assert len({(row["talk"], json.dumps(row["spam"])) for row in rows(bench.out.read_bytes())}) == 9


def test_turns_of_other_shards_are_context(bench) -> None:
    fill(bench, talks(6))
    whole = rows(bench.whole(**TURNS))
    for part in (1, 2, 3):
        bench.out = bench.folder / f"out.{part}.jsonl"
        bench(shard=(part, 3), **TURNS)
        labelled = rows(bench.out.read_bytes())
        assert [row["text"] for row in labelled] == [row["text"] for row in whole[part - 1 :: 3]]


def test_a_run_is_not_resumed_with_other_turns(bench) -> None:
    fill(bench, talks(4))
    bench.killed_after(5, **TURNS)
    with pytest.raises(errors.SafeguardError, match=r"turns.order: turn → nothing|turns.order"):
        bench(group="talk")


def test_turns_that_do_not_fit_are_left_out_and_reported(tmp_path) -> None:
    lines = [json.dumps({"talk": 1, "text": f"{'see you at lunch, ' * 9}{n}"}) for n in range(8)]
    source = write(tmp_path / "a.jsonl", *lines)
    run = ("--policy", "spam", "--model", "demo", "--effort", "none", "--group", "talk", "--ctx", "1100")
    done = safeguard("label", source, *run, "-o", tmp_path / "o.csv")
    assert done.returncode == errors.OK
    assert b"turns before the one that is labelled were left out in " in done.stderr
    assert b"spam_turns_left_out" in (tmp_path / "o.csv").read_bytes()
    done = safeguard("label", source, *run, "-o", tmp_path / "o.jsonl")
    left = [row["spam"].get("turns_left_out", 0) for row in rows((tmp_path / "o.jsonl").read_bytes())]
    assert left == sorted(left)
    assert left[0] == 0 < left[-1] < 8
    assert safeguard("show", tmp_path / "o.csv").returncode == errors.OK
    assert safeguard("label", source, *run, "-o", tmp_path / "o.csv").returncode == errors.OK, "it is finished"


def test_a_golden_set_of_turns_is_measured_with_the_turns_before_them(tmp_path) -> None:
    lines = [{"talk": n // 4, "turn": n % 4, "text": f"see you at lunch {n}"} for n in range(24)]
    golden = [{**line, **({"label": "ham"} if n % 2 else {})} for n, line in enumerate(lines)]
    source = write(tmp_path / "golden.jsonl", *map(json.dumps, golden))
    run = ("--policy", "spam", "--model", "demo", "--effort", "none", "--group", "talk", "--order", "turn")
    done = safeguard("eval", source, *run, "--json")
    assert done.returncode == errors.OK, done.stderr
    assert json.loads(done.stdout)["rows"] == 12
    labelled = safeguard("label", source, *run, "-o", tmp_path / "out.jsonl")
    assert labelled.returncode == errors.OK
    of_output = safeguard("eval", tmp_path / "out.jsonl", "--json")
    one, other = (json.loads(each.stdout)["policies"]["spam"] for each in (done, of_output))
    assert one["confusion"] == other["confusion"]
    assert one["figures"]["brier"]["value"] == pytest.approx(other["figures"]["brier"]["value"], abs=1e-4)


def test_what_has_no_effect_or_cannot_be_done_is_refused(tmp_path) -> None:
    source = write(tmp_path / "a.jsonl", '{"talk":1,"text":"see you"}')
    run = ("--policy", "spam", "--model", "demo")
    for command, told in (
        (("label", source, *run, "--order", "turn"), b"--order has no effect without --group"),
        (("label", source, *run, "--verdict-per", "conversation"), b"--verdict-per has no effect without --group"),
        (("label", "-", *run, "--group", "talk"), b"standard input comes once: save it to a file"),
        (("label", source, *run, "--ray", "-o", tmp_path, "--group", "talk"), b"--group is for one file"),
    ):
        done = safeguard(*command, stdin=b'{"talk":1,"text":"see you"}\n')
        assert done.returncode == errors.USAGE
        assert told in done.stderr
