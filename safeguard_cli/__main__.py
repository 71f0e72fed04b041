"""The entry point of the command, which imports next to nothing itself: the engine's child imports it once more."""

import signal


def main() -> None:
    """Run the command; until it can handle Ctrl-C itself, that just ends it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from safeguard_cli.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
