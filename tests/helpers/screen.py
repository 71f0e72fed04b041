"""The output of a command at a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")


def lines_at(width: int, *args: object, cwd: Path, **env: str) -> list[str]:
    """Return the lines on standard output, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, width, 0, 0))
    plain = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [SAFEGUARD, *map(str, args)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, cwd=cwd, env={**plain, "TERM": "xterm", **env}
    ):
        os.close(theirs)
        data = b""
        with suppress(OSError):  # the terminal's other end is closed
            while piece := os.read(ours, 1 << 16):
                data += piece
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).replace("\r\n", "\n").splitlines()
