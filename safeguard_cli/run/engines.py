"""Which engine a run is given, and what it is prepared with: on this machine, on servers, or passed by a caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from safeguard_cli.address import key
from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.reports import Listen
from safeguard_cli.policy.policy import Policy
from safeguard_cli.run.prepare import Prepared, engine_spec
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn

EngineMaker = Callable[..., Engine]  # of an EngineSpec, a log and, if somebody listens, a Listen
Preparer = Callable[[Settings, tuple[Policy, ...], Mapping[str, object], int | None], Prepared]


def start_engine(
    settings: Settings, prepared: Prepared, make_engine: EngineMaker, report: Listen | None = None
) -> Engine:
    """Return the engine, on this machine or on servers; it starts when it is entered.

    `report`, if given, is called with what the engine does.
    """
    if prepared.remote is None:
        return make_engine(engine_spec(settings, prepared), note, *([report] if report else []))
    from safeguard_cli.engine.servers.chat import Chat
    from safeguard_cli.engine.servers.engine import ServerEngine, ServerSpec

    harmony, rules = prepared.labeling.harmony, prepared.labeling.rules
    spec = ServerSpec(
        prepared.remote.servers,
        rules.prefixes,
        prepared.options,
        len(harmony.tokenizer.tokens),
        harmony.marker_ids,
        key(),
        settings.slots,
    )
    chat = None
    if settings.server_api == "chat":
        chat = Chat(harmony, rules.policies, rules.effort, prepared.options).decide
    return ServerEngine(spec, chat, warn, report)
