"""The exception for a mistake of the user, whose message says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from clm_detour.utils.interrupt import INTERRUPTED, handle_interrupts, interrupted, print_interrupted

USER_ERROR = 2


class UserError(ValueError):
    """A mistake of the user. Commands print its message and end with exit code 2, without a traceback."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process at a UserError or Ctrl-C with one sentence and an exit code, and no traceback.

    Every command runs in this block. An error that is raised after Ctrl-C is taken for its result, because a
    library may turn a KeyboardInterrupt into an error of its own.
    """
    try:
        with handle_interrupts():
            yield
    except (Exception, KeyboardInterrupt) as error:
        if interrupted() or isinstance(error, KeyboardInterrupt):
            print_interrupted()
            sys.exit(INTERRUPTED)
        if not isinstance(error, UserError):
            raise
        with suppress(OSError):  # the output may be closed
            print(f"Error: {sentence(error)}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except SystemExit as leave:
        if interrupted() or leave.code == INTERRUPTED:  # click and typer make one of a KeyboardInterrupt
            print_interrupted()
            sys.exit(INTERRUPTED)
        raise


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """Return the most similar known word, or None if no similarity (difflib's ratio) reaches `likeness`."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)


def on_one_line(error: BaseException) -> str:
    """Return an error's message on one line without its last stop, or its type if it has no message."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def sentence(error: UserError) -> str:
    """Return the message of an error. A data loader puts the one of a worker at the end of a traceback."""
    text = str(error).strip()
    if text.startswith("Caught UserError"):
        text = text.rpartition(f"\n{UserError.__module__}.UserError: ")[2]
    return text
