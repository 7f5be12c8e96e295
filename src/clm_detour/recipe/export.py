"""Hugging Face folders out of trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clm_detour.config.schema import Config
from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.phases import PhaseRun, plan_arm
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_folder, read_json, write_json
from clm_detour.utils.hub import is_hub_id

ABOUT = "clm_detour.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def tokenizer_path(config: Config) -> str:
    """The tokenizer's folder or hub id: the one named, or the one that the run has trained.

    Raises:
        UserError: it has yet to.
    """
    if config.tokenizer.path is not None:
        return config.tokenizer.path
    folder = RunFolder.of(config).tokenizer
    if not (folder / "tokenizer.json").exists():
        raise UserError(
            f"{folder} has no tokenizer yet; run clm-detour prepare first, which trains it and prepares the data."
        )
    return str(folder)


def write_model(
    network: ModernBertForPretraining,
    tokenizer: str,
    folder: Path,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that `AutoModelForMaskedLM` and `AutoTokenizer` open, whole or not at all.

    Args:
        about: how the weights came to be; stands in `clm_detour.json`, which is not there without.

    Raises:
        UserError: something else than such a model is there, which would be lost.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    with atomic_folder(folder) as temporary:
        network.save_pretrained(temporary)
        copy_tokenizer(tokenizer, temporary)
        if about is not None:
            write_json(temporary / ABOUT, about)


def check_replaceable(folder: Path) -> None:
    """Check that a model can be written to `folder` without losing anything but an exported model.

    Raises:
        UserError: it holds something else.
    """
    if folder.exists() and not (folder / ABOUT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} holds something else than an exported model, which would be lost; name a folder that is not there yet."
        )


def about_phase(config: Config, run: PhaseRun, step: int, tokens: int, weights: str) -> dict[str, Any]:
    """Phase, objective, how far it had come and the whole recipe, for `clm_detour.json`.

    The model may be handed on, so of paths from the machine's root only the last name is kept.

    Args:
        weights: `last`, or `ema` for their moving average.
    """
    return {
        "clm_detour": VERSION,
        "phase": run.id,
        "objective": run.phase.objective,
        "weights": weights,
        "step": step,
        "steps": run.steps,
        "tokens": tokens,
        "config": without_folders(asdict(config)),
    }


def without_folders(value: Any) -> Any:
    """`value` with the last name only of each absolute path in it."""
    if isinstance(value, dict):
        return {key: without_folders(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_folders(child) for child in value]
    if isinstance(value, str) and value.startswith(("/", "~/", "file:/")):
        return Path(value).name
    return value


def export_arm(config: Config, arm: str, folder: Path, dtype: str = "fp32", ema: bool = False) -> None:
    """Write the model at the end of `arm`.

    Args:
        ema: the moving average of the last phase's weights instead of the weights.

    Raises:
        UserError: the arm has not finished, `dtype` is none of fp32, bf16, fp16, or no average was kept.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}.")
    run = plan_arm(config, arm)[-1]
    last = RunFolder.of(config).phase(run.id)
    if not last.finished:
        raise UserError(f"Arm {arm} has not finished ({last.root} has no phase.json); run it first.")
    model = last.ema if ema else last.model
    if not model.exists():
        raise UserError(
            f"Arm {arm} has no moving average of its weights; set train.ema_half_life before training."
        )
    causal = run.phase.objective == "clm"
    network = ModernBertForPretraining.from_pretrained(model, dtype=DTYPES[dtype], causal=causal)
    write_model(network, str(model), folder, {**read_json(model / ABOUT), "arm": arm, "dtype": dtype})


def hub_names(config: Config) -> list[str]:
    """Return those of a recipe's base model and data sets that are opened from the hub, in the folder that the process runs in."""
    datasets = [source.path for source in config.data.sources.values() if source.format == "hub"]
    named = [*([config.model.base] if config.model.base else []), *datasets]
    return [name for name in dict.fromkeys(named) if is_hub_id(name)]
