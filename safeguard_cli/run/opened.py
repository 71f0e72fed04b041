"""One input with its output and the choice of its text, opened and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from safeguard_cli.output.manifest import Manifest
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.joined import FILE
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selector, first_choice, make_selector
from safeguard_cli.rows.writable import Used
from safeguard_cli.run.destination import Destination, hold_parquet, open_destination
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.settings import Settings


@dataclass(frozen=True, slots=True)
class Opened:
    """An open input, where its rows go, and their text; `text_fields` are its fields as the manifest has them."""

    source: Source
    destination: Destination
    selector: Selector
    text_fields: tuple[str, ...]


@contextmanager
def opened(settings: Settings, policies: Sequence[Policy], read: Sequence[Used]) -> Iterator[Opened]:
    """Open the input and the output that these settings name; `read` are all files that the command reads.

    Raise SafeguardError if one of them is not as it must be.
    """
    with ExitStack() as stack:
        parquet = stack.enter_context(hold_parquet(settings, read))
        source = stack.enter_context(open_input(settings))
        destination = stack.enter_context(open_destination(settings, source, policies, read, parquet))
        yield Opened(source, destination, *_select(settings, source, destination.last))


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
