"""Chooses the library that decodes on this machine: llama.cpp, or ik_llama.cpp where it is proved and worth it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from safeguard_cli.engine.local.plan import IK, IK_VERSION
from safeguard_cli.errors import UsageError

SAVED = 0.25  # the least share of a run's time that the faster library is taken to save, when a proof is weighed
TYPICAL_TEXT, TYPICAL_REASONING = 31, 164  # tokens of a row, as in public logs; reasoning is cut at 256


def ik_installed() -> str | None:
    """Return the version of ik-llama-cpp-python, None where it is not installed; nothing of it is loaded."""
    try:
        return version("ik-llama-cpp-python") if find_spec("ik_llama_cpp") else None
    except PackageNotFoundError:
        return None


def check_installed(engine: str) -> None:
    """Raise UsageError where an engine that is asked for by name cannot be had."""
    if engine != IK:
        return
    found = ik_installed()
    if found != IK_VERSION:
        what = f"{found} is installed" if found else "it is not installed"
        raise UsageError(
            f"--engine {IK} needs ik-llama-cpp-python {IK_VERSION}, and {what}:"
            f" pip install ik-llama-cpp-python=={IK_VERSION}"
        )


def ik_usable() -> bool:
    """Return whether the version of ik-llama-cpp-python that this program knows is installed."""
    return ik_installed() == IK_VERSION


def worth_proving(rows: int | None, reasoning: bool, proof_tokens: int) -> bool:
    """Return whether a run of so many rows is long enough to pay for a proof, which both libraries decode.

    Where the number of rows is not known, it is not.
    """
    tokens = (rows or 0) * (TYPICAL_TEXT + (TYPICAL_REASONING if reasoning else 0))
    return tokens * SAVED > 2 * proof_tokens
