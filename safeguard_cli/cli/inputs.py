"""What an INPUT on the command line means: a path, `-`, a sample, or data that was pulled from the hub."""

from __future__ import annotations


def input_path(text: str) -> str:
    """Return the path that an INPUT means: of a sample, of a pulled `hf://datasets/…`, and anything else as it is.

    Raise UsageError if there is no such sample, or if the data was not pulled.
    """
    if text.startswith("hf://"):
        from safeguard_cli.model.catalog import pulled_data

        return str(pulled_data(text))
    from safeguard_cli.rows.samples import input_path

    return input_path(text)
