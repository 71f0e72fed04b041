"""Which library computes: llama.cpp or ik_llama.cpp. A process loads one of them: in one process their symbols mix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safeguard_cli.engine.local.model import Look, Model
from safeguard_cli.engine.local.plan import IK, ContextSize, Loading

_LOADED: list[str] = []


def load(
    path: Path,
    size: ContextSize,
    loading: Loading,
    loaded: Callable[[float], None] | None = None,
    look: Look | None = None,
) -> Model:
    """Load a model with the engine that `loading` names; see Model."""
    _only(loading.engine)
    if loading.engine == IK:
        from safeguard_cli.engine.local.ik import IkModel

        return IkModel(path, size, loading, loaded, look)
    from safeguard_cli.engine.local.llama import LlamaModel

    return LlamaModel(path, size, loading, loaded, look)


def build_identity(engine: str) -> tuple[str, str]:
    """Return what scores depend on beside model and settings: the package's version, the build's CPU features."""
    _only(engine)
    if engine == IK:
        from safeguard_cli.engine.local import ik

        return ik.build_identity()
    from safeguard_cli.engine.local import build

    return build.build_identity()


def _only(engine: str) -> None:
    if not _LOADED:
        _LOADED.append(engine)
    assert [engine] == _LOADED, f"this process has loaded {_LOADED[0]}"
