"""The command line of this machine and its models, `safeguard pull`, `models`, `clean` and `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, with_parts
from safeguard_cli.run.settings import Debugging

app = typer.Typer()

models_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@app.command(
    epilog=(
        EXAMPLES + "safeguard pull\n\n"
        "safeguard pull gpt-oss-safeguard-120b\n\n"
        "safeguard pull hf:ggml-org/gpt-oss-20b-GGUF\n\n"
        "safeguard pull hf://datasets/OWNER/NAME/data/train.csv"
    )
)
@with_parts
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name that `safeguard models` lists, hf:OWNER/REPO[:FILE or quantization], or a file of data,"
            " hf://datasets/OWNER/NAME/FILE.",
        ),
    ] = "gpt-oss-safeguard-20b",
    *,
    debugging: Debugging,
) -> None:
    """Fetch a model or a file of data into the Hugging Face cache, resuming where it was cut off.

    What arrives is checked. Data is then an INPUT under the same name.

    Only pull, --server and --ray use the network.

    HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    """
    from safeguard_cli.model.catalog import pull_data, pull_model

    def work() -> int:
        if name.startswith("hf://"):
            return pull_data(name)
        from safeguard_cli.run.prepare import open_usable

        return pull_model(name, open_usable)

    guard.run(work, debugging.debug)


@app.command()
@with_parts
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    *,
    debugging: Debugging,
) -> None:
    """Remove what is kept between runs, such as states of policies; models stay where they are."""

    def run() -> int:
        from safeguard_cli.machine.clean import clean

        return clean(dry_run)

    guard.run(run, debugging.debug)


@app.command(epilog="[bold]Exit codes[/bold]  0 fine, 5 works with warnings, 1 broken")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine this machine (CPU, memory, disk, GPUs, llama.cpp's build, models) and say what to do about problems."""
    from safeguard_cli.machine.doctor import doctor as run

    guard.run(lambda: run(as_json))


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the models on this machine and those that `safeguard pull` can fetch."""
    if context.invoked_subcommand is None:
        from safeguard_cli.model.catalog import list_models

        guard.run(list_models)


@models_app.command("rm", epilog=EXAMPLES + "safeguard models rm gpt-oss-safeguard-20b")
def models_rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `safeguard models` lists.")],
) -> None:
    """Remove a model that was pulled; nothing outside the Hugging Face cache is touched."""
    from safeguard_cli.model.catalog import remove_model

    guard.run(lambda: remove_model(name))
