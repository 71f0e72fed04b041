"""The house itself: what is in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT

TRAINING = "safeguard_cli/demo/training/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, unpacked."""
    wheels = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = next(wheels.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_whole_program_with_its_policies_and_no_training(site: Path) -> None:
    found = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    found = {name for name in found if ".dist-info/" not in name}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "safeguard_cli").rglob("*") if path.is_file()}
    ours |= {f"safeguard_cli/{path.relative_to(ROOT)}" for path in (ROOT / "policies").iterdir()}
    assert found == {name for name in ours if "__pycache__" not in name and not name.startswith(TRAINING)}
    assert any(name.startswith(TRAINING) for name in ours), "the training has moved: mend this test"


def test_built_in_policies_are_found_in_a_wheel(site: Path) -> None:
    code = "import safeguard_cli; from safeguard_cli.policy.policy import load_policy\n"
    code += "print(safeguard_cli.__file__, load_policy('spam').labels)"
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"]
    shown = subprocess.run(run, cwd=site.parent, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == f"{site / 'safeguard_cli' / '__init__.py'} ('ham', 'spam')"
