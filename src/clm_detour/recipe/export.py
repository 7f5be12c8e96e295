"""Write Hugging Face folders of trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_folder, read_json, write_json

ABOUT = "clm_detour.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def write_model(
    network: ModernBertForPretraining,
    tokenizer: str,
    folder: Path,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that `AutoModelForMaskedLM` and `AutoTokenizer` open, completely or not at all.

    Args:
        tokenizer: Folder or hub id of the tokenizer.
        about: How the weights were made, written to `clm_detour.json` in the folder; None: there is no such
            file.

    Raises:
        UserError: If the folder holds something else, which would be lost.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    with atomic_folder(folder) as temporary:
        network.save_pretrained(temporary)
        copy_tokenizer(tokenizer, temporary)
        if about is not None:
            write_json(temporary / ABOUT, about)


def check_replaceable(folder: Path) -> None:
    """Check that a folder is empty, does not exist, or holds an exported model, which may be replaced.

    Raises:
        UserError: If it holds something else.
    """
    if folder.exists() and not (folder / ABOUT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} holds something other than an exported model, which would be lost; name a folder that "
            "does not exist yet."
        )


def export_arm(recipe: Recipe, arm: str, folder: Path, dtype: str = "fp32", ema: bool = False) -> None:
    """Write the model at the end of an arm.

    Args:
        dtype: Type of the weights: fp32, bf16 or fp16.
        ema: Export the moving average of the last phase's weights instead of the weights.

    Raises:
        UserError: If the arm has not finished, the dtype is not known, or no moving average was kept.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}.")
    run = recipe.arm(arm)[-1]
    last = recipe.folder.phase(run.id)
    if not last.finished:
        raise UserError(f"Arm {arm} has not finished ({last.root} has no phase.json); run it first.")
    model = last.ema if ema else last.model
    if not model.exists():
        raise UserError(
            f"Arm {arm} has no moving average of its weights; set train.ema_half_life before training."
        )
    causal = run.objective.causal
    network = ModernBertForPretraining.from_pretrained(model, dtype=DTYPES[dtype], causal=causal)
    write_model(network, str(model), folder, {**read_json(model / ABOUT), "arm": arm, "dtype": dtype})


def about_phase(
    run: PhaseRun, config: Mapping[str, Any], step: int, tokens: int, weights: str
) -> dict[str, Any]:
    """Return the content of `clm_detour.json` for weights of a phase.

    Args:
        config: The recipe's `public_config`.
        weights: `last`, or `ema` for the moving average.
    """
    return {
        "clm_detour": VERSION,
        "phase": run.id,
        "objective": run.phase.objective,
        "weights": weights,
        "step": step,
        "steps": run.steps,
        "tokens": tokens,
        "config": config,
    }
