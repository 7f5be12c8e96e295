"""The entry point of `clm-detour` and `python -m clm_detour`. It imports the command inside its frame, so Ctrl-C is heeded from the start."""

from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals


def main() -> None:
    """Run the command that the words after the program's name give."""
    with exit_on_user_error(), requeue_on_signals():
        from clm_detour.cli.main import run_words

        run_words()


if __name__ == "__main__":
    main()
