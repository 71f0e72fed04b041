"""One input with its output and the choice of its text, opened and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from safeguard_cli.errors import UsageError
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.conversations import PutTogether, by_conversation
from safeguard_cli.rows.joined import FILE
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selector, Selects, first_choice, make_selector
from safeguard_cli.rows.writable import Used
from safeguard_cli.run.destination import Destination
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.work import EVERY_ROW, Work


@dataclass(frozen=True, slots=True)
class Opened:
    """An open input, where its rows go, and their text; `text_fields` are its fields as the manifest has them."""

    source: Source
    destination: Destination
    selector: Selects
    text_fields: tuple[str, ...]


@contextmanager
def opened(
    settings: Settings, policies: Sequence[Policy], read: Sequence[Used], work: Work = EVERY_ROW
) -> Iterator[Opened]:
    """Open the input and the output of a work on what these settings name; `read` are all files that are read.

    Raise SafeguardError if one of them is not as it must be.
    """
    with ExitStack() as stack:
        held = stack.enter_context(work.hold(settings, read))
        source = stack.enter_context(work.open(settings))
        destination = stack.enter_context(work.destination(settings, source, policies, read, held))
        selector, text_fields = _select(settings, source, destination.last)
        yield Opened(source, destination, stack.enter_context(_in_turns(settings, selector)), text_fields)


def _select(settings: Settings, source: Source, previous: Manifest | None) -> tuple[Selector, tuple[str, ...]]:
    """Return the Selector of a row's text, as before if the run is resumed, and its fields as the manifest has them."""
    recorded = previous.identity.input.text_fields if previous else ()
    before = recorded or (first_choice(source) if previous else ())
    others = [FILE] if settings.joined else []
    selector = make_selector(
        source,
        text_fields=settings.text_fields,
        template=settings.template,
        others=others if settings.id_field is None else (settings.id_field, *others),
        before=before,
    )
    return selector, recorded if selector.chosen == before else selector.chosen


@contextmanager
def _in_turns(settings: Settings, selector: Selector) -> Iterator[Selects]:
    """Yield what selects a row's text: with --group, the selector of turns, once the whole input has been read."""
    if settings.group is None:
        yield PutTogether(selector) if settings.put_together else selector
        return
    if settings.input == "-":
        raise UsageError("--group reads the input twice, and standard input comes once: save it to a file")
    with open_input(replace(settings, shard=(1, 1))) as whole, by_conversation(selector, whole, settings) as turns:
        yield turns
