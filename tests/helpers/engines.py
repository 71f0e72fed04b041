"""The libraries that decode on this machine, for tests that both must pass."""

from __future__ import annotations

import pytest

from safeguard_cli.engine.local.choose import ik_usable
from safeguard_cli.engine.local.plan import IK, IK_VERSION, LLAMA

needs_ik = pytest.mark.skipif(not ik_usable(), reason=f"ik-llama-cpp-python {IK_VERSION} is not installed")
ENGINES = (LLAMA, pytest.param(IK, marks=needs_ik))
