"""The installed command, started as a user starts it, and the files that it reads and writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")


def safeguard(
    *args: object, stdin: bytes = b"", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    command = [SAFEGUARD, *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, cwd=cwd, env={**os.environ, **env})
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def rows(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path
