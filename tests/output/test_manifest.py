"""The manifest says how the labels came about."""

from __future__ import annotations

import hashlib
import json

import pytest
from helpers.fake_engine import failing

from safeguard_cli.errors import UsageError
from safeguard_cli.output.show import show

pytestmark = pytest.mark.usefixtures("own_cache")


def test_the_manifest_says_how_the_labels_came_about_and_show_prints_it(bench, capsys) -> None:
    bench.fill(30)
    bench(failing(4))
    manifest, result = bench.manifest(), bench.manifest()["result"]
    assert result["rows"] == manifest["rows"] == 30
    assert result["errors"] == {"no_text": 3, "engine": 1}
    assert result["rows_in_error"] == 4
    assert sum(result["labels"]["spam"].values()) == 26
    assert result["output_sha256"] == hashlib.sha256(bench.out.read_bytes()).hexdigest()
    assert result["model_sha256"] == hashlib.sha256(bench.model.read_bytes()).hexdigest()
    assert manifest["prompt_tokens"] > 30
    assert {"python", "llama-cpp-python", "tokenizers"} <= set(manifest["machine"]["versions"])
    assert show(bench.out, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == manifest
    assert show(bench.out, as_json=False) == 0
    shown = capsys.readouterr().out
    for part in ("finished 20", "30, 4 in error", "ham ", result["model_sha256"], "effort low", "slots 2"):
        assert part in shown


def test_show_tells_of_a_run_that_is_not_finished_and_of_none(bench, capsys) -> None:
    bench.fill(9)
    bench.out = bench.folder / "out\x1b[1m.jsonl"
    bench.killed_after(5)
    assert show(bench.out, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "unfinished" in shown
    assert "\x1b" not in shown
    with pytest.raises(UsageError, match="nothing is on record"):
        show(bench.source, as_json=False)
