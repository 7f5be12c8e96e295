"""The one exception for a user's mistake: a sentence that says what is wrong and what to do about it."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input from a person. The command line prints the sentence and leaves with exit code 2, without a traceback."""
