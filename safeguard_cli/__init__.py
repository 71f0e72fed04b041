"""safeguard: label JSONL and CSV against a written policy, on your own machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safeguard_cli.errors import SafeguardError
    from safeguard_cli.rows.verdict import Verdict
    from safeguard_cli.run.labeler import Labeler

__version__ = "0.1.0"
__all__ = ["Labeler", "SafeguardError", "Verdict", "__version__"]

_PLACES = {"Labeler": "run.labeler", "SafeguardError": "errors", "Verdict": "rows.verdict"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the command and the engine's child process do without them."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
