"""The one exception for a user's mistake: a sentence that says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

USER_ERROR = 2
INTERRUPTED = 130


class UserError(ValueError):
    """Bad input from a person. Commands print the sentence and leave with exit code 2, without a traceback."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """The outermost frame of every command."""
    try:
        yield
    except UserError as error:
        print(f"Error: {sentence(error)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where it stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """The known word that is most like it, if one is so much alike (difflib's ratio; short words are by chance)."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)


def on_one_line(error: BaseException) -> str:
    """Return an error's message on one line without its last stop, or the error's kind where it has no message."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def sentence(error: UserError) -> str:
    """The message; a loader's worker process wraps it into its traceback, of which it is the last line."""
    text = str(error).strip()
    if text.startswith("Caught UserError"):
        text = text.splitlines()[-1].partition("UserError: ")[2]
    return text
