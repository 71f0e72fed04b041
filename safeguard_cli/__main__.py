"""The entry point of the command, which imports next to nothing: the engine's child process imports it again."""

import signal


def main() -> None:
    """Run the command; Ctrl-C just ends it until the command can handle it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from safeguard_cli.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
