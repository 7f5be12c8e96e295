"""A recipe of one short phase on the bundled sample, and the same phase at the shape of the user's recipe.

All runs of a check read the same prepared rows and start from the same weights, so their ends can be
compared. Every step writes a checkpoint, so that a run can be stopped and resumed anywhere.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.data.sample import write_sample
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import base_config
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.run.verify.settings import Settings

ARM, PHASE = "checked", "mlm"
ROW_TOKENS, MICRO_BATCHES = 128, 3
STEPS = {"cuda": 40, "cpu": 8}  # enough to stop a run in between, though a GPU takes them in a second
SOURCES = ("abstracts", "notes")
ROWS_OF_SHAPE = {"cuda": 8, "cpu": 1}  # at most, for each process: enough to search, and what a CPU can do
DOCUMENTS, VOCABULARY = 400, 800
BASE_VOCABULARY = 50_368  # of ModernBERT
SHAPE_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "local_attention", "global_attn_every_n_layers",
)  # fmt: skip
TRAIN_KEYS = ("precision", "compile", "activation_checkpointing", "parallel", "micro_rows")


def write_recipe(settings: Settings) -> None:
    """Write the recipe with its text and its tokenizer."""
    folder = settings.path
    written = write_sample(folder / "sample", DOCUMENTS)
    files = {name: written[name] for name in SOURCES}
    texts = (text for path in files.values() for text in read_documents(str(path)))
    train_tokenizer(texts, VOCABULARY, folder / "tokenizer")
    tokens = MICRO_BATCHES * settings.processes * ROW_TOKENS  # of a step
    content = {
        "run_dir": str(folder / "none"),
        "data": {
            "dir": str(folder / "data"),
            "sequence_length": ROW_TOKENS,
            "held_out": 0.1,
            "sources": {name: {"path": str(path)} for name, path in files.items()},
            "mixtures": {"all": dict.fromkeys(files, 1.0)},
        },
        "tokenizer": {"path": str(folder / "tokenizer")},
        "model": {
            "config": {
                "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3,
                "num_attention_heads": 2, "local_attention": 128,
            }
        },
        "optimizer": {"clip_norm": 0.5},
        "train": {
            "batch_rows": MICRO_BATCHES * settings.processes,
            "micro_rows": 1,
            "compile": settings.compiles,
            "workers": 1 if settings.device == "cuda" else 0,
            "checkpoint_every": f"{tokens}tok",
            "evaluate_every": f"{tokens * STEPS[settings.device]}tok",
            "ema_half_life": f"{tokens * 4}tok",
        },
        "phases": {
            PHASE: {
                "objective": "mlm",
                "mask_rate": 0.3,
                "mixture": "all",
                "duration": f"{tokens * STEPS[settings.device]}tok",
                "schedule": {"name": "warmup_constant", "peak": 1e-3},
            }
        },
        "arms": {ARM: [PHASE]},
        "evaluate": {"rows": 2, "fill_masks": 0},
    }  # fmt: skip
    recipe_file(settings).write_text(json.dumps(content, indent=1), encoding="utf-8")


def recipe_file(settings: Settings) -> Path:
    """Return the file of the recipe; JSON is YAML."""
    return settings.path / "recipe.yaml"


def overrides(settings: Settings, name: str, *more: str) -> list[str]:
    """Return the changes to the recipe for a run with a folder of its own."""
    return [f"run_dir={settings.path / name}", *more]


def recipe_of(settings: Settings, name: str, *more: str) -> Recipe:
    """Return the recipe of a run."""
    return Recipe(load_config(recipe_file(settings), overrides(settings, name, *more)))


def folder_of(settings: Settings, name: str) -> PhaseFolder:
    """Return the folder of the phase of a run."""
    return PhaseFolder(settings.path / name / "phases" / recipe_of(settings, name).phase(ARM, PHASE).id)


def shape_of(config: Config | None, device: str) -> dict[str, Any]:
    """Return what decides how large a step is: of a recipe, else ModernBERT-base on a GPU, else nothing.

    Raises:
        UserError: If the model that the recipe starts from cannot be read.
    """
    if config is None:
        model: dict[str, Any] = {"vocab_size": BASE_VOCABULARY}
        return {"model": model, "row_tokens": 8192, "train": {}} if device == "cuda" else {}
    if config.model.base is None:
        trained = config.tokenizer.train
        vocabulary = BASE_VOCABULARY if trained is None else max(trained.vocab_size, VOCABULARY)
        model = {"vocab_size": vocabulary, **(config.model.config or {})}
    else:
        base = base_config(config.model.base)
        model = {key: getattr(base, key) for key in SHAPE_KEYS}
    train = {key: getattr(config.train, key) for key in TRAIN_KEYS}
    return {"model": model, "row_tokens": config.data.sequence_length, "train": train,
            "batch_rows": config.train.batch_rows}  # fmt: skip


def shaped_recipe(settings: Settings) -> Recipe:
    """Return the recipe at the shape of the settings, on the rows of the sample."""
    shape: dict[str, Any] = settings.shape
    if not shape:
        return recipe_of(settings, "shape", "train.micro_rows=auto")
    most = ROWS_OF_SHAPE[settings.device]
    rows = min(shape.get("batch_rows", most * settings.processes) // settings.processes, most)
    rows = max(rows, 1) * settings.processes
    train = {"micro_rows": "auto", **shape["train"]}
    if isinstance(train["micro_rows"], int):
        train["micro_rows"] = min(train["micro_rows"], rows // settings.processes)
    small = recipe_of(
        settings, "shape", f"data.dir={settings.path / 'shaped-data'}",
        f"data.sequence_length={shape['row_tokens']}", f"train.batch_rows={rows}",
        f"phases.{PHASE}.duration={rows * int(shape['row_tokens'])}tok",
        *(f"train.{key}={json.dumps(value)}" for key, value in train.items()),
    ).config  # fmt: skip
    return Recipe(replace(small, model=replace(small.model, config=shape["model"])))
