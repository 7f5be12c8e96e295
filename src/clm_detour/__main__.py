"""Entry point of `clm-detour` and `python -m clm_detour`."""

from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals


def main() -> None:
    """Run the command line. It is imported inside the handlers, so that Ctrl-C works while it is imported."""
    with exit_on_user_error(), requeue_on_signals():
        from clm_detour.cli.main import run_command_line

        run_command_line()


if __name__ == "__main__":
    main()
