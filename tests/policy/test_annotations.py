"""In a job of GitHub Actions, findings in a policy are shown at their lines."""

from __future__ import annotations

from helpers.command import safeguard, write


def test_findings_in_a_policy_are_annotations_at_its_lines_in_github_actions_and_nowhere_else(tmp_path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    path = write(folder / "a, b%.md", "# Spam", "TODO", "Texts are 0 or 1.")
    on = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tmp_path)}
    done = safeguard("policy", "check", path, cwd=folder, **on)
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("::")]
    assert done.returncode == 5
    assert "::error file=policies/a%2C b%25.md,line=2::TODO: this is not written yet" in told
    assert len(told) == len(done.stdout.splitlines()) > 2
    assert any(line.startswith("::notice file=policies/a%2C b%25.md,line=1::") for line in told)
    elsewhere = safeguard("policy", "check", path, cwd=folder, GITHUB_ACTIONS="")
    assert (b"::" in elsewhere.stderr, elsewhere.stdout) == (False, done.stdout)
    outside = safeguard(
        "policy", "check", path, cwd=folder, GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(tmp_path / "x")
    )
    assert b"::error::TODO: this is not written yet" in outside.stderr
