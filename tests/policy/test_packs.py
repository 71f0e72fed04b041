"""A pack stands for several built-in policies, and those of the Perspective API's attributes run from end to end."""

from __future__ import annotations

import json

import pytest
from helpers.command import rows, safeguard

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.packs import PACKS, expand
from safeguard_cli.policy.policy import builtin_policies
from safeguard_cli.run.keywords import read_policies
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings

SIX = PACKS["perspective"]


def test_a_pack_names_built_in_policies() -> None:
    assert {name for pack in PACKS.values() for name in pack} <= builtin_policies().keys()
    assert expand(["spam", "pack:perspective", "my.md"]) == ("spam", *SIX, "my.md")


def test_an_unknown_pack_is_refused_with_those_that_there_are(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"no pack 'pack:perspectiv'; did you mean pack:perspective\? there are: pack:"
    ):
        expand(["pack:perspectiv"])
    (tmp_path / "pack:perspectiv").write_text("0 or 1")
    assert expand(["pack:perspectiv"]) == ("pack:perspectiv",), "a file of that name is taken"


def test_every_reader_of_policies_takes_a_pack() -> None:
    settings = Settings(policies=("pack:perspective",))
    assert tuple(policy.name for policy in load_policies(settings)) == SIX
    assert tuple(policy.name for policy in read_policies(["pack:perspective"], Settings())) == SIX


@pytest.mark.parametrize("option", [("--labels", "a,b"), ("--violates", "b"), ("--as", "x"), ("--threshold", "0.5")])
def test_what_several_policies_refuse_a_pack_refuses(option: tuple[str, str]) -> None:
    done = safeguard("label", "sample:messages", "-p", "pack:perspective", *option)
    assert done.returncode == 2
    assert f"{option[0]} ".encode() in done.stderr
    assert b"several policies" in done.stderr


def test_a_policy_beside_its_pack_is_named_twice() -> None:
    with pytest.raises(UsageError, match="two policies are named 'insult'"):
        load_policies(Settings(policies=("pack:perspective", "insult")))


def test_together_takes_a_pack() -> None:
    done = safeguard(
        *("label", "sample:messages", "-p", "pack:perspective", "--together", "--model", "demo", "--limit", 1),
        *("--effort", "none"),
    )
    assert done.returncode == 0, done.stderr
    assert set(SIX) <= rows(done.stdout)[0].keys()


def test_a_pack_labels_under_all_its_policies_and_the_demo_model_says_that_it_knows_none() -> None:
    done = safeguard(
        "label", "sample:messages", "-p", "pack:perspective", "--model", "demo", "--effort", "none", "--limit", 2, "-q"
    )
    assert done.returncode == 0
    assert all(set(SIX) <= row.keys() for row in rows(done.stdout))
    assert f"the labels under {' and '.join(SIX)} mean nothing".encode() in done.stderr


@pytest.mark.parametrize("name", SIX)
def test_the_golden_set_of_each_runs_through_eval(name: str) -> None:
    """The figures need not be good: the demo model was not trained on these policies, and says so."""
    done = safeguard("eval", f"sample:golden/{name}", "-p", name, "--model", "demo", "--effort", "none", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["policies"][name]
    assert sum(map(sum, figures["confusion"])) == 40
    assert f"the labels under {name} mean nothing".encode() in done.stderr


def test_check_looks_at_all_policies_of_a_pack_and_show_names_them() -> None:
    done = safeguard("policy", "check", "pack:moderation")
    assert done.returncode == 0
    assert done.stderr.count(b": nothing found") == len(PACKS["moderation"])
    done = safeguard("policy", "show", "pack:moderation")
    assert done.returncode == 2
    assert f"show one of them: {', '.join(PACKS['moderation'])}".encode() in done.stderr
    assert safeguard("policy", "check", "--fix", "pack:perspective").returncode == 0


def test_list_shows_the_packs() -> None:
    shown = safeguard("policy", "list").stdout.decode()
    for name, members in PACKS.items():
        assert f"pack:{name}  {', '.join(members)}\n" in shown
