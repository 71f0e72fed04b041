"""Rows with the same text are decoded once."""

from __future__ import annotations

import functools
import json
import random

import pytest
from helpers.fake_engine import FakeEngine

from safeguard_cli import errors
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run import prepare

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise("Rows with the same text are decoded once and get the same labels.")
@pytest.mark.parametrize("deterministic", [False, True])
def test_rows_of_one_content_are_decoded_once_and_get_the_same_labels(bench, at_once, deterministic) -> None:
    chance = random.Random(1)
    for _ in range(60):
        numbers = chance.choices(range(7), k=chance.randint(1, 60))
        rows = [{"id": i, "text": f"text {number}"} for i, number in enumerate(numbers)]
        bench.source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked: list[int] = []

        def before(prompt: Prompt, asked: list[int] = asked) -> None:
            asked.append(prompt.row)

        engine = functools.partial(FakeEngine, before=before)
        assert bench(engine, overwrite=True, deterministic=deterministic) == errors.OK
        out = [json.loads(line) for line in bench.out.read_bytes().splitlines()]
        assert [row["id"] for row in out] == list(range(len(numbers)))
        drain = prepare.DRAIN * 2 if deterministic else len(numbers)  # bench has two slots
        seen: dict[tuple[int, int], dict] = {}
        for i, (number, made) in enumerate(zip(numbers, out, strict=True)):
            assert seen.setdefault((i // drain, number), made["spam"]) == made["spam"]
        assert len(asked) == len(seen)
        assert bench.manifest()["repeated_rows"] == len(numbers) - len(seen)


def test_contents_are_forgotten_after_so_many(bench, no_fsync, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.run.pipeline.REMEMBERED", 2)
    bench.source.write_text("".join(json.dumps({"text": text}) + "\n" for text in "abacadab"))
    assert bench() == errors.OK
    assert bench.manifest()["repeated_rows"] == 3  # `a` each time: it came again before it was the oldest


def test_sampled_answers_are_not_repeated(bench, no_fsync) -> None:
    bench.source.write_text('{"text": "a"}\n' * 4)
    bench(temperature=1.0)
    assert bench.manifest()["repeated_rows"] == 0
