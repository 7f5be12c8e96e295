"""Check that the attention back end of a recipe runs here, before a GPU is used."""

from __future__ import annotations

import subprocess
import sys

import torch

from clm_detour.model.attention import AUTO, choose_backend
from clm_detour.utils.errors import USER_ERROR, UserError

QUESTION = """
import sys
from clm_detour.model.attention import choose_backend
from clm_detour.utils.errors import exit_on_user_error
with exit_on_user_error():
    choose_backend(sys.argv[1])
"""


def check_attention(name: str) -> None:
    """Check that a back end runs on this machine.

    Where there is a GPU another process tries it: this one launches the ranks, and must not open a CUDA
    context. `auto` needs no check, because one back end runs everywhere.

    Raises:
        UserError: If it does not run here.
    """
    if name == AUTO:
        return
    if not torch.cuda.is_available():
        choose_backend(name)
        return
    command = [sys.executable, "-c", QUESTION, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == USER_ERROR:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("Error: "))
