"""On real messages: what `audit --find` finds early, and that samples of a full labelling tell its share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safeguard_cli import errors
from safeguard_cli.audit.audit import audit
from safeguard_cli.audit.draw import hashes
from safeguard_cli.audit.options import Audited
from safeguard_cli.measure.statistics import hypergeometric_interval
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings


def settings(messages: Path, out: Path) -> Settings:
    given = {"policies": ("spam",), "model": "demo", "effort": "none", "text_fields": ("text",), "quiet": True}
    return Settings(input=str(messages), output=str(out), **given)


@pytest.fixture(scope="module")
def messages(data: Path) -> Path:
    """3,494 messages of the SMS Spam Collection; skips where the file is not at hand."""
    path = data / "sms_spam_train.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return path


@pytest.fixture(scope="module")
def flagged(messages: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bool]:
    """Whether the demo model flags each message."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert label(settings(messages, out)) == errors.OK
    return [json.loads(line)["spam"]["violates"] for line in out.read_bytes().splitlines()]


@pytest.mark.promise("`audit --find`: nine tenths of the spam in a quarter of the rows of real messages.")
def test_nine_tenths_are_found_within_a_quarter_of_the_rows(messages, flagged, tmp_path, capsys) -> None:
    rows, out = len(flagged) // 4, tmp_path / "out.csv"
    audit(settings(messages, out), Audited(rows=rows, find=True, json=True, output=str(out)))
    found = json.loads(capsys.readouterr().out)["find"]
    assert found["labelled"] == rows
    assert found["found"] >= 0.9 * sum(flagged)
    assert found["most"] >= sum(flagged)
    assert found["auroc"] > 0.95


@pytest.mark.promise(
    "An audit's exact interval holds the share that a full labelling gives, in 91 of 100 samples at least."
)
def test_samples_of_a_full_labelling_tell_its_share(flagged) -> None:
    share, holds = sum(flagged) / len(flagged), 0
    for seed in range(100):
        rows = hashes(seed, 0, len(flagged)).argsort()[:400]
        holds += share in hypergeometric_interval(sum(flagged[row] for row in rows), 400, len(flagged))
    assert holds >= 91
