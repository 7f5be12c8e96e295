"""Training on MosaicML Composer, which no other package imports. This module and `launch` work without it."""

import importlib.util

from clm_detour.utils.errors import UserError


def require_composer() -> None:
    """Check that Composer, which all training needs, is installed.

    Raises:
        UserError: If it is not. The message has the command that installs it.
    """
    if importlib.util.find_spec("composer") is None:
        raise UserError(
            "Training needs MosaicML Composer, which is not installed; run pip install 'clm-detour[train]'."
        )
