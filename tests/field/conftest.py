"""Fixtures of the field tests: the installed command, started in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("safeguard")
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a function that runs a line of shell in an empty folder, with the installed command on the PATH."""

    def run(line: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}", "COLUMNS": "80", **variables}
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False
        )

    return run
