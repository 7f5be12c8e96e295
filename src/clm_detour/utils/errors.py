"""The one exception for a user's mistake: a sentence that says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from clm_detour.utils.interrupt import INTERRUPTED, heed_interrupts, interrupted, say_interrupted

USER_ERROR = 2


class UserError(ValueError):
    """Bad input from a person. Commands print the sentence and leave with exit code 2, without a traceback."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Be the outermost frame of every command: leave with a sentence and `USER_ERROR` or `INTERRUPTED`, and no traceback.

    Whatever is raised after Ctrl-C comes of it: a library may turn a KeyboardInterrupt into an error of its own.
    """
    try:
        with heed_interrupts():
            yield
    except (Exception, KeyboardInterrupt) as error:
        if interrupted() or isinstance(error, KeyboardInterrupt):
            say_interrupted()
            sys.exit(INTERRUPTED)
        if not isinstance(error, UserError):
            raise
        with suppress(OSError):  # nobody may read it
            print(f"Error: {sentence(error)}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except SystemExit as leave:
        if interrupted() or leave.code == INTERRUPTED:  # click and typer make one of a KeyboardInterrupt
            say_interrupted()
            sys.exit(INTERRUPTED)
        raise


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """The known word that is most like it, if one is so much alike (difflib's ratio; short words are by chance)."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)


def on_one_line(error: BaseException) -> str:
    """Return an error's message on one line without its last stop, or the error's kind where it has no message."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def sentence(error: UserError) -> str:
    """Return the message. A loader's worker process puts it at the end of its traceback, as the message of another error."""
    text = str(error).strip()
    if text.startswith("Caught UserError"):
        text = text.rpartition(f"\n{UserError.__module__}.UserError: ")[2]
    return text
