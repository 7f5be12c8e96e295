"""Questions about Composer's clock, for events after a step."""

from __future__ import annotations

from composer.core import State


def tokens_before(state: State) -> int:
    """Return the number of tokens of the phase before the last step."""
    return 0 if state.previous_timestamp is None else state.previous_timestamp.token.value


def passed(every_tokens: int, state: State) -> bool:
    """Return whether the last step reached or passed a multiple of `every_tokens`."""
    return state.timestamp.token.value // every_tokens > tokens_before(state) // every_tokens


def is_last_step(state: State) -> bool:
    """Return whether the last step was the last of the phase."""
    elapsed = state.get_elapsed_duration()
    return elapsed is not None and elapsed.value >= 1.0
